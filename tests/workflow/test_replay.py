"""Runs that began on an earlier engine go on on this one: every kept history replays."""

from __future__ import annotations

from pathlib import Path

import pytest
from temporalio.client import WorkflowHistory
from temporalio.worker import Replayer
from temporalio.workflow import NondeterminismError

from engine.core import workflow
from engine.core.contracts import Command, Event
from engine.core.state_machine import Brain
from engine.core.workflow import WorkflowEngineWorkflow
from tests.workflow.house_scenarios import KEPT_NAMES, short_histories
from tests.workflow.kept_payloads import FILE, converter
from tests.workflow.record_histories import HISTORIES
from tests.workflow.scenarios import SCENARIOS

KEPT = sorted(path for path in HISTORIES.glob("*/*.json") if path.name != FILE)


async def replay(path: Path) -> Exception | None:
    history = WorkflowHistory.from_json(path.stem, path.read_text())
    replayer = Replayer(workflows=[WorkflowEngineWorkflow], data_converter=converter(path.parent))
    result = await replayer.replay_workflow(history, raise_on_replay_failure=False)
    return result.replay_failure


@pytest.mark.parametrize("path", KEPT, ids=lambda path: f"{path.parent.name}-{path.stem}")
async def test_a_kept_history_replays(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if path.stem == "adopting":  # it was recorded so
        short_histories(monkeypatch)
    assert await replay(path) is None


def test_every_scenario_has_a_history() -> None:
    assert {path.stem for path in KEPT} == KEPT_NAMES | set(SCENARIOS), (
        "python -m tests.workflow.record_histories"
    )


@pytest.mark.parametrize("scenario", ["parallel", "failing", "local_fan_out", "everything", "cut_map"])
async def test_a_changed_order_of_commands_fails_the_replay(
    scenario: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Reversed(Brain):
        def apply(self, event: Event) -> list[Command]:
            return super().apply(event)[::-1]

    monkeypatch.setattr(workflow, "Brain", Reversed)
    (path,) = [path for path in KEPT if path.stem == scenario][-1:]
    assert isinstance(await replay(path), NondeterminismError)
