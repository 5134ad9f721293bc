"""Where a proposal may put its one file, whatever a caller writes."""

from __future__ import annotations

import random
import unicodedata

import pytest

from engine.services.proposals import may_stand_at

_PARTS = [
    "a", "flows", "release.yaml", "x.yml", ".yaml", ".git", ".GIT", ".Git ", "git~1", "GIT~1", "..", ".", "", "~", "functions",
    "FUNCTIONS", ".github", "x.test.yaml", "\0", "\n", "\r", "\u200c", "\u2024\u2024", "\uff0e", "\\", "C:", "-x", "--", "$(x)",
    "*", "?", ":(top)", "%2e%2e", "\u0130", "a" * 101, "con", " ", "\t", "@{", "^", ".gitattributes", ".gitmodules", "hooks",
]  # fmt: skip


@pytest.mark.parametrize(
    "path", ["release.yaml", "team/release.yml", "a/b/c/d/e/f/g/h/x.yaml", "functions.yaml"]
)
def test_plain_paths_of_definitions_are_taken(path: str) -> None:
    assert may_stand_at(path)


def test_of_hostile_paths_none_leaves_the_folder_or_is_anything_but_a_definition() -> None:
    chance = random.Random(5)
    taken = 0
    for _ in range(20_000):
        glue = chance.choice(["/", "/", "/", "//", "\\", ""])
        path = glue.join(chance.choices(_PARTS, k=chance.randrange(1, 6))) + chance.choice(
            ["", "", ".yaml", ".yml"]
        )
        if not may_stand_at(path):
            continue
        taken += 1
        parts = path.split("/")
        assert path.isascii()
        assert unicodedata.normalize("NFKC", path) == path
        assert all(part and part[0] not in ".-" and "~" not in part for part in parts)
        assert not {"..", ".git"} & {part.casefold() for part in parts}
        assert path.endswith((".yaml", ".yml"))
        assert len(parts) == 1 or parts[0].casefold() != "functions"
        assert len(path) <= 900
    assert taken > 100
