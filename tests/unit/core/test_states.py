"""The tables of states, and the page that is drawn from them."""

from __future__ import annotations

from pathlib import Path
from typing import get_args

import pytest

from engine.core.contracts import RunStatus, TaskStatus
from engine.core.states import (
    RUN_ENDS,
    RUN_TRANSITIONS,
    TASK_ENDS,
    TASK_TRANSITIONS,
    ForbiddenTransition,
    check_run,
    check_task,
    reference_page,
)


def test_the_page_is_the_one_that_the_tables_give() -> None:
    page = Path(__file__).parents[3] / "docs/reference/states.md"
    assert page.read_text() == reference_page(), "python -m engine.core.states > docs/reference/states.md"


def test_nothing_leaves_an_end_and_every_other_state_can_be_left() -> None:
    assert not {step.source for step in TASK_TRANSITIONS} & TASK_ENDS
    assert not {step.source for step in RUN_TRANSITIONS} & RUN_ENDS
    assert {step.target for step in TASK_TRANSITIONS} - TASK_ENDS <= {
        step.source for step in TASK_TRANSITIONS
    }
    assert {step.target for step in RUN_TRANSITIONS} - RUN_ENDS <= {step.source for step in RUN_TRANSITIONS}


def test_the_tables_use_the_states_of_the_contract_once_each() -> None:
    for table, states in ((TASK_TRANSITIONS, TaskStatus), (RUN_TRANSITIONS, RunStatus)):
        steps = [(step.source, step.target) for step in table]
        assert len(steps) == len(set(steps))
        assert {state for step in steps for state in step} <= set(get_args(states))


def test_a_step_outside_of_the_tables_is_refused() -> None:
    check_task("PENDING", "RUNNING")
    check_run("RUNNING", "WAITING")
    with pytest.raises(ForbiddenTransition):
        check_task("COMPLETED", "RUNNING")
    with pytest.raises(ForbiddenTransition):
        check_run("FAILED", "RUNNING")
