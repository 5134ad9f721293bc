"""How tasks stand: many in one statement, forward only, and a last word."""

from __future__ import annotations

from typing import Any

from engine.storage import task_states
from engine.storage.database import Database
from tests.support.registered import register
from tests.support.runs import add_run, rows


def task(id: str, status: str, **fields: Any) -> dict[str, Any]:
    return {"id": id, "status": status, "skip_reason": None, "attempts": 1, **fields}


async def note(database: Database, run: str, *tasks: dict[str, Any], **options: Any) -> None:
    async with database.begin() as connection:
        await task_states.note(connection, run, task_states.as_json(tasks), **options)


async def stored(database: Database) -> dict[str, str]:
    return {
        row["task"]: row["status"] for row in await rows(database, "SELECT task, status FROM task_states")
    }


async def test_a_task_moves_forward_only(database: Database) -> None:
    run = await add_run(database, await register(database))
    await note(database, run, task("a", "RUNNING"), task("b", "COMPLETED"))
    await note(database, run, task("a", "COMPLETED"), task("b", "RUNNING"))
    assert await stored(database) == {"a": "COMPLETED", "b": "COMPLETED"}


async def test_what_an_undo_adds_is_noted_although_the_task_was_over(database: Database) -> None:
    run = await add_run(database, await register(database))
    await note(database, run, task("a", "COMPLETED"))
    await note(database, run, task("a", "COMPLETED", compensation="DONE", child_id=""))
    (row,) = await rows(database, "SELECT more FROM task_states")
    assert row["more"] == {"compensation": "DONE"}


async def test_a_run_that_is_over_keeps_its_last_word(database: Database) -> None:
    run = await add_run(database, await register(database), status="FAILED")
    await note(database, run, task("a", "RUNNING"))
    assert await stored(database) == {}
    await note(database, run, task("a", "COMPLETED"), ended=True)
    assert await stored(database) == {"a": "COMPLETED"}


async def test_thousands_of_tasks_go_in_batches(database: Database) -> None:
    run = await add_run(database, await register(database))
    await note(database, run, *(task(f"m[{n}].t", "COMPLETED", outputs={"n": n}) for n in range(3500)))
    assert len(await stored(database)) == 3500
