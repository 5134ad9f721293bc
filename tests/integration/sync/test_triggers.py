"""Rows of triggers follow what is merged, in the transaction of the revision."""

from __future__ import annotations

import pytest
from sqlalchemy import text

from engine import faults
from tests.support.syncing import Syncing

PATH = "workflows/report.yaml"


def report(*crons: str, note: str = "", function: bool = False) -> str:
    """A definition with a schedule for each cron, t0, t1 and so on."""
    triggers = "\n".join(
        f'  - {{id: t{number}, type: schedule, cron: "{cron}", inputs: {{day: "${{{{ trigger.id }}}}"}}}}'
        for number, cron in enumerate(crons)
    )
    task = (
        '{id: a, activity_type: python_function, config: {function: "f:g"}}'
        if function
        else "{id: a, type: set, values: {b: 1}}"
    )
    return (
        f"name: report\ndescription: '{note}'\n"
        "inputs: {type: object, properties: {day: {type: string}}}\n"
        + (f"triggers:\n{triggers}\n" if triggers else "")
        + f"tasks:\n  - {task}\n"
    )


async def rows(syncing: Syncing) -> list[tuple[str, str, int]]:
    """(id, cron, revision that changed it) of the live triggers."""
    async with syncing.database.read() as connection:
        found = await connection.execute(text("SELECT id, spec, seq FROM triggers WHERE live ORDER BY id"))
        return [(row.id, row.spec["cron"][0], row.seq) for row in found]


async def told(syncing: Syncing) -> list[str]:
    """What the audit says of triggers."""
    return [action for action, _, _ in await syncing.audit() if action.startswith("trigger.")]


async def test_triggers_come_change_and_go_with_the_commit(syncing: Syncing) -> None:
    syncing.repository.commit({PATH: report("0 6 * * *", "0 7 * * *")})
    await syncing.sync()
    assert await rows(syncing) == [("t0", "0 6 * * *", 1), ("t1", "0 7 * * *", 1)]
    syncing.repository.commit({PATH: report("0 6 * * *", "0 8 * * *")})
    await syncing.sync()
    assert await rows(syncing) == [("t0", "0 6 * * *", 1), ("t1", "0 8 * * *", 2)]
    syncing.repository.commit({PATH: report("0 6 * * *")})
    await syncing.sync()
    assert await rows(syncing) == [("t0", "0 6 * * *", 1)]
    syncing.repository.commit({PATH: None, "workflows/other.yaml": report().replace("report", "other")})
    await syncing.sync()
    assert await rows(syncing) == []
    assert await told(syncing) == [*["trigger.set"] * 3, *["trigger.removed"] * 2]


async def test_a_new_text_with_the_same_times_changes_no_trigger(syncing: Syncing) -> None:
    syncing.repository.commit({PATH: report("0 6 * * *")})
    await syncing.sync()
    syncing.repository.commit({PATH: report("0 6 * * *", note="${{ inputs.day }}".replace("$", "$$"))})
    await syncing.sync()
    assert await rows(syncing) == [("t0", "0 6 * * *", 1)]


async def test_a_rejected_commit_changes_no_trigger(syncing: Syncing) -> None:
    syncing.repository.commit({PATH: report("0 6 * * *")})
    await syncing.sync()
    sha = syncing.repository.commit({PATH: report("61 6 * * *")})
    await syncing.sync()
    assert [code for _, _, code in await syncing.problems(sha)] == ["TRIGGER"]
    assert await rows(syncing) == [("t0", "0 6 * * *", 1)]


async def test_a_commit_that_puts_the_old_text_back_puts_its_triggers_back(syncing: Syncing) -> None:
    for crons in (("0 6 * * *", "0 7 * * *"), (), ("0 6 * * *", "0 7 * * *")):
        syncing.repository.commit({PATH: report(*crons)})
        await syncing.sync()
    assert await rows(syncing) == [("t0", "0 6 * * *", 3), ("t1", "0 7 * * *", 3)]


async def test_new_functions_alone_leave_the_triggers(syncing: Syncing) -> None:
    code = "workflows/functions/f.py"
    syncing.repository.commit({PATH: report("0 6 * * *", function=True), code: "def g(): return 1\n"})
    await syncing.sync()
    syncing.repository.commit({code: "def g(): return 2\n"})
    await syncing.sync()
    assert len(await syncing.revisions()) == 2
    assert await rows(syncing) == [("t0", "0 6 * * *", 1)]


async def test_triggers_and_their_revision_are_all_or_nothing(
    syncing: Syncing, monkeypatch: pytest.MonkeyPatch
) -> None:
    syncing.repository.commit({PATH: report("0 6 * * *")})
    monkeypatch.setenv("PINFLOW_FAULTS", "publish.before_commit=error")
    with pytest.raises(faults.InjectedFault):
        await syncing.sync()
    assert await rows(syncing) == []
    monkeypatch.delenv("PINFLOW_FAULTS")
    await syncing.sync()
    assert await rows(syncing) == [("t0", "0 6 * * *", 1)]
