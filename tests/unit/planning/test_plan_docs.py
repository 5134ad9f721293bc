"""The pages about plans say what the program says."""

from __future__ import annotations

from pathlib import Path

from engine.planning.reference import reference_page
from tests.unit.planning.edits import GOLDEN

DOCS = Path(__file__).parents[3] / "docs"


def test_the_reference_is_what_the_table_says() -> None:
    page = (DOCS / "reference/plan.md").read_text("utf-8")
    assert page == reference_page(), "run: make schemas"


def test_the_example_of_the_guide_is_a_real_plan() -> None:
    guide = (DOCS / "how-to/plan-a-change.md").read_text("utf-8")
    assert (GOLDEN / "approval_bypassed.txt").read_text("utf-8") in guide
