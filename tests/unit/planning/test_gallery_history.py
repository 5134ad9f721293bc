"""What every case of the gallery leads to, recorded as a run is, and replayed: it must lead to the same again.

As the language and the gallery grow, so does what this holds.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from engine.core.plan import PHASES
from engine.dsl.activity_types import ActivityTypes
from engine.planning.history import replay
from engine.planning.plans import Replayed
from engine.planning.recorded import RecordedCancel, RecordedRun, RecordedSignal, RecordedTask, RecordedVote
from engine.testing.cases import Case, CaseFile
from engine.testing.discovery import Library, find
from engine.testing.family import Family
from engine.testing.stage import Stage

ROOT = Path(__file__).parents[3]
TYPES = ActivityTypes.default()


def _cases() -> list[tuple[CaseFile, Case]]:
    library = Library(TYPES)
    folders = [str(ROOT / "workflows")]
    files = [library.load(found) for found in find(folders, library) if isinstance(found, str)]
    assert all(not file.problems for file in files), [str(p) for file in files for p in file.problems]
    return [(file, case) for file in files for case in file.cases if not case.ignored]


CASES = _cases()


def _record(file: CaseFile, case: Case) -> RecordedRun:
    """Play a case, and keep what a run's last step, the workers and the API would have written."""
    assert file.compiled is not None
    family = Family(Stage(file.compiled, TYPES, file.children), case)
    trace = family.play()
    tasks = tuple(
        RecordedTask(
            task["id"], task["status"], task["attempts"], task["started_at"], task["finished_at"], task["outputs"],
            task["error"], bool(task.get("cached_from")), task.get("compensation") or "",
        )
        for task in family.runs[0].snapshot()["tasks"]
    )  # fmt: skip
    votes = {
        address: tuple(RecordedVote(v.by, v.decision, v.after, v.comment, v.form) for v in case.approvals.of(address) or ())
        for address in trace.tasks
    }  # fmt: skip
    return RecordedRun(
        id=case.name,
        commit_sha="c" * 40,
        status=trace.status,
        inputs=case.inputs,
        started_by=case.started_by,
        started_at=case.started_at,
        tasks=tasks,
        votes={address: said for address, said in votes.items() if said},
        signals=tuple(
            RecordedSignal(s.name, s.after, s.payload, s.task, s.correlation, s.by) for s in case.signals
        ),
        cancel=RecordedCancel(case.cancel.by, case.cancel.after, case.cancel.reason) if case.cancel else None,
        commit_author=case.commit_author,
        trigger=case.trigger,
        targets=case.targets,
    )


@pytest.mark.parametrize(
    ("file", "case"), CASES, ids=[f"{file.workflow}: {case.name}" for file, case in CASES]
)
def test_a_recorded_run_leads_to_what_is_recorded(file: CaseFile, case: Case) -> None:
    run = _record(file, case)
    assert file.compiled is not None
    assert replay(run, file.compiled, file.compiled, TYPES) is None


def _conditioned(tasks: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [task | {"when": False} for task in tasks]


@pytest.mark.parametrize(
    ("file", "case"), CASES, ids=[f"{file.workflow}: {case.name}" for file, case in CASES]
)
def test_a_task_that_is_switched_off_is_where_the_paths_part(file: CaseFile, case: Case) -> None:
    run = _record(file, case)
    assert file.compiled is not None
    top = {task["id"] for task in file.compiled["tasks"]}
    ran = [task.task for task in run.tasks if task.task in top and task.status not in ("SKIPPED", "PENDING")]
    assert ran
    new = file.compiled | {"tasks": _conditioned(file.compiled["tasks"])}
    found = replay(replace(run), file.compiled, new, TYPES)
    assert isinstance(found, Replayed)
    assert found.task in {path.partition("[")[0].partition(".")[0] for path in _top(file)} | {""}


def _top(file: CaseFile) -> list[str]:
    assert file.compiled is not None
    return [task["id"] for phase in PHASES for task in file.compiled[phase]]
