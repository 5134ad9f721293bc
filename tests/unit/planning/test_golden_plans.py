"""A plan for each kind of change and risk, as it reads in every format."""

from __future__ import annotations

import pytest

from engine.planning.plans import DefinitionChange, Plan, from_json
from engine.planning.reports import FORMATS
from engine.planning.risks import RULES
from tests.unit.planning.edits import GOLDEN, SUFFIXES, plans

PLANS = plans()


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("name", PLANS)
def test_a_plan_reads_as_it_is_kept(name: str, form: str) -> None:
    kept = (GOLDEN / f"{name}.{SUFFIXES[form]}").read_text(encoding="utf-8")
    assert FORMATS[form](PLANS[name]) == kept, "if this is meant: python -m tests.unit.planning.edits"


def test_no_golden_file_is_left_over() -> None:
    assert {file.stem for file in GOLDEN.iterdir()} == set(PLANS)


def test_each_class_of_risk_has_a_golden_plan() -> None:
    found = {change.code for plan in PLANS.values() for each in plan.definitions for change in each.changes}
    assert found == {rule.code for rule in RULES}


def test_each_change_of_a_definition_has_a_golden_plan() -> None:
    found = {each.change for plan in PLANS.values() for each in plan.definitions}
    assert found == set(DefinitionChange.__args__)  # type: ignore[attr-defined]


@pytest.mark.parametrize("plan", PLANS.values(), ids=PLANS)
def test_a_plan_survives_its_json(plan: Plan) -> None:
    assert from_json(plan.to_json()) == plan
