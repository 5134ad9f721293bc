"""The same cases offline and on a real Temporal server in skipped time: traces are compared task by task.

Each task ends in the same way and after as many attempts, the run ends as it does offline, with the same outputs, after
the same time, and what has an order has the same one.
"""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
from temporalio.client import Client

from engine.storage.database import Database
from engine.testing.addresses import Tasks
from engine.testing.cases import Case, CaseFile
from engine.testing.discovery import Library
from engine.testing.driver import Driver
from engine.testing.traces import Trace
from tests.support.casefiles import HTTP, TYPES, read_cases
from tests.workflow import skipped_time
from tests.workflow.skipped_time import Played, Theatre, at_this_moment, instant

GALLERY = Path(__file__).parents[2] / "workflows"
REAL = 20.0
REAL_PER_TASK = 1.0
"""Seconds that may really pass on the server beside those that are skipped, in all and for each task: more than a busy
machine takes, and less than the pauses, waits and deadlines that are compared."""

ORDER = f"""
name: w
on_task_failure: drain
tasks:
  - {{id: a, {HTTP}, timeout: 1s, retry: {{max_attempts: 3, when: "${{{{ attempt < 2 }}}}"}}, continue_on_failure: true}}
  - {{id: b, depends_on: [a], {HTTP}, timeout: 1s, success_when: "${{{{ result.status == 200 }}}}"}}
  - {{id: never, depends_on: [a], when: "${{{{ tasks.a.status == 'COMPLETED' }}}}", type: set, values: {{}}}}
  - {{id: after_never, depends_on: [never], type: wait, duration: 2h}}
  - {{id: rescue, depends_on: [b], run_on: failure, {HTTP}}}
  - {{id: c, depends_on: [b, after_never], {HTTP}}}
finally: [{{id: unlock, {HTTP}}}, {{id: told, depends_on: [unlock], type: set, values: {{s: "${{{{ run.status }}}}"}}}}]
"""
ORDER_TESTS = """
workflow: w
cases:
  - name: all is well
    mocks: {a: {result: {status: 200}}, b: {result: {status: 200}}, c: {result: 1}, unlock: {result: 1}}
    expect: {status: COMPLETED}
  - name: a tolerated failure, then one that counts
    mocks: {a: {error: {type: X}}, b: {result: {status: 500}}, rescue: {result: 1}, unlock: {error: {type: Y}}}
    expect: {status: FAILED, path: [a, b]}
  - name: outputs of an attempt that cannot be judged
    mocks: {a: {error: {type: DENIED}}, b: {result: {}}, rescue: {error: {type: Z}}, unlock: {result: 1}}
    expect: {status: FAILED}
"""


def gallery() -> list[CaseFile]:
    library = Library(TYPES)
    return [library.load(str(path)) for path in sorted(GALLERY.glob("*.test.yaml"))]


def offline(case_file: CaseFile, case: Case) -> Trace:
    """What `pinflow test` makes of the case."""
    assert case_file.compiled is not None
    return Driver(case_file.compiled, TYPES, case_file.children).play(case)


def answered_whole(case_file: CaseFile, case: Case) -> bool:
    """Whether a child is mocked as a whole: on the server it would run."""
    assert case_file.compiled is not None
    tasks = Tasks(case_file.compiled, case_file.children.get)
    return any((tasks.find(name) or {}).get("type") == "workflow" for name in case.mocks)


FILES = [*gallery(), read_cases(ORDER, ORDER_TESTS)]
ALL = [(each, instant(case)) for each in FILES for case in each.cases]
TIMED = {
    case.name
    for each in FILES
    for case in each.cases
    if any(answer.after for mock in case.mocks.values() for answer in mock.answers)
}
"""Cases whose order comes from how long activities take, which here take no time."""
NO_RUN = {case.name for _, case in ALL if case.ignored}
ABOUT_ACTIVITIES = {case.name for each, case in ALL if offline(each, case).missing}
WITHOUT_A_CHILD = {case.name for each, case in ALL if answered_whole(each, case)}
CASES = [
    pytest.param(each, case, id=f"{each.workflow}: {case.name}")
    for each, case in ALL
    if case.name not in NO_RUN | ABOUT_ACTIVITIES | WITHOUT_A_CHILD
]


def test_what_cannot_be_compared_is_little() -> None:
    assert {"a push elsewhere starts nothing"} == NO_RUN
    assert {"cancelled in the middle, what was booked is given back"} == ABOUT_ACTIVITIES
    assert {
        "a child may be answered whole",
        "a later region that is never healthy has taken itself back",
    } == WITHOUT_A_CHILD
    assert len(CASES) > 80


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def shelf(postgres: object) -> AsyncIterator[Database]:
    """Where payloads stand."""
    from tests.support.postgres import TestPostgres

    assert isinstance(postgres, TestPostgres)
    url = await postgres.fresh_database()
    database = Database(url)
    yield database
    await database.aclose()
    await postgres.drop_database(url.rpartition("/")[2])


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def skipping(shelf: Database) -> AsyncIterator[Client]:
    async with skipped_time.server(shelf, str(Path(sys.executable).parent / "temporal")) as client:
        yield client


@pytest.mark.parametrize(("case_file", "case"), CASES)
async def test_offline_as_on_temporal(
    skipping: Client, shelf: Database, case_file: CaseFile, case: Case
) -> None:
    case = at_this_moment(case)
    told = offline(case_file, case)
    online = await Theatre(skipping, shelf, case_file, case).play(told.words)
    _same_tasks(told, online)
    error = online.record["error"]
    assert (told.status, told.error and told.error["type"]) == (
        online.record["status"],
        error and error["type"],
    )
    if isinstance(told.outputs, dict):
        assert told.outputs == online.record["outputs"]
    # Elsewhere, and between children, the order of what runs in parallel is chance.
    if case.expect.path is not None and not case_file.children and case.name not in TIMED:
        known = [name for name in told.path if name in online.tasks]
        assert known == sorted(known, key=lambda name: online.tasks[name]["order"])
    if not case_file.children:  # each workflow has a clock of its own, and only its own time is skipped
        assert -REAL < online.took - told.took < REAL + REAL_PER_TASK * len(online.tasks)


def _same_tasks(told: Trace, online: Played) -> None:
    assert {
        name: (end.status, end.skip_reason, end.attempts, end.compensation)
        for name, end in told.tasks.items()
    } == {
        name: (end["status"], end["skip_reason"] or "", end["attempts"], end.get("compensation") or "")
        for name, end in online.tasks.items()
    }
