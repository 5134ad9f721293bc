"""The public words of sync, and their page."""

from __future__ import annotations

import re
from pathlib import Path

from engine.sync import conditions, git_said, problems

ROOT = Path(__file__).parents[3]


def test_the_page_is_what_the_tables_say() -> None:
    page = (ROOT / "docs/reference/conditions.md").read_text("utf-8")
    assert page == conditions.reference_page(), (
        "run: python -m engine.sync.conditions > docs/reference/conditions.md"
    )


def test_every_reason_belongs_to_a_condition_and_says_what_to_do() -> None:
    assert {reason.condition for reason in conditions.REASONS.values()} == set(conditions.CONDITIONS)
    assert all(reason.meaning and reason.action for reason in conditions.REASONS.values())


def test_every_reason_that_an_error_gives_is_listed() -> None:
    assert {reason for reason, _ in git_said.REASONS_SAID} <= set(conditions.REASONS)
    sources = "".join(file.read_text("utf-8") for file in (ROOT / "engine/sync").glob("*.py"))
    used = set(re.findall(r"(?:reason=|error\(|Standing\([^)]*)conditions\.([A-Z_]+)\b", sources))
    used -= {"REASONS", "CONDITIONS", "HELD_BY", "CONFIRMABLE"}
    assert {getattr(conditions, name) for name in used} <= {*conditions.REASONS, *conditions.CONDITIONS}


def test_every_reason_is_reached_by_a_test_that_syncs() -> None:
    tests = (ROOT / "tests/integration").rglob("test_*.py")
    said = "".join(file.read_text("utf-8") for file in tests)
    assert not {name for name in conditions.REASONS if f'"{name}"' not in said}


def test_what_a_remote_says_is_not_taken_for_what_happened_here() -> None:
    assert (
        git_said.why("fatal: write error: No space left on device\nfatal: early EOF") == conditions.DISK_FULL
    )
    assert git_said.why("remote: No space left on device\nfatal: early EOF") == conditions.NETWORK
    assert (
        git_said.why("error: index-pack died of signal 25\nfatal: index-pack failed") == conditions.TOO_LARGE
    )


def test_what_holds_a_commit_has_a_reason_of_the_condition_held() -> None:
    held = {reason.name for reason in conditions.REASONS.values() if reason.condition == conditions.HELD}
    assert set(conditions.HELD_BY.values()) == held
    assert set(conditions.HELD_BY) > conditions.CONFIRMABLE


def test_every_code_of_a_problem_has_a_meaning() -> None:
    codes = {value for name, value in vars(problems).items() if name.isupper() and isinstance(value, str)}
    assert codes == set(problems.MEANINGS)
