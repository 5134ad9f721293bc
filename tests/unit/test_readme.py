"""What README and docs say is true: their links lead somewhere, their examples print what they show."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from engine.dsl.activity_types import ActivityTypes
from engine.dsl.checking import check

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
PAGES = sorted([ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").rglob("*.md")])
_LINK = re.compile(r"\]\(([^)#\s]+)(?:#[^)]*)?\)")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_of_a_page_leads_to_a_file(page: Path) -> None:
    links = [link for link in _LINK.findall(page.read_text()) if "://" not in link]
    assert [link for link in links if not (page.parent / link).exists()] == []


def blocks(language: str) -> list[str]:
    """The fenced blocks of the README in one language."""
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


def test_the_first_example_of_the_readme_is_a_valid_definition() -> None:
    assert check(blocks("yaml")[0].encode(), "release.yaml", ActivityTypes.default()).problems == []


def test_the_readme_shows_what_validate_prints(tmp_path: Path) -> None:
    (tmp_path / "workflows").mkdir()
    (tmp_path / "workflows" / "release.yaml").write_text(blocks("yaml")[1])
    pinflow = Path(sys.executable).parent / "pinflow"
    done = subprocess.run([pinflow, "validate"], cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    shown = next(block for block in blocks("console") if "pinflow validate" in block)
    assert shown == f"$ pinflow validate\n{done.stdout}"
