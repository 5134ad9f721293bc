"""Slots of concurrency groups: first in, first out, over all who ask; never a deadlock; nothing left behind."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any

import pytest_asyncio

from engine.storage import slots
from engine.storage.database import Database
from engine.storage.slots import SlotRequest, Standing
from tests.support.registered import Registered, register
from tests.support.runs import add_run, rows


@dataclass
class Groups:
    """A database with runs that ask for slots."""

    database: Database
    version: Registered

    async def run(self, id: str, **fields: Any) -> str:
        return await add_run(self.database, self.version, id, **fields)

    async def ask(
        self, run: str, group: str = "g", task: str = "", limit: int = 1, on_conflict: Any = "queue"
    ) -> Standing:
        request = SlotRequest(run, task, group, limit, on_conflict, holder=f"workflow of {run}")
        async with self.database.begin() as connection:
            return await slots.acquire(connection, request, actor="worker")

    async def give_back(self, run: str, task: str | None = None) -> list[str]:
        async with self.database.begin() as connection:
            return await slots.give_back(connection, run, task)

    async def holders(self, group: str = "g") -> list[str]:
        async with self.database.read() as connection:
            return [
                row["execution_id"] for row in await slots.of_group(connection, group) if row["held_since"]
            ]

    async def told(self) -> list[dict[str, Any]]:
        found = await rows(self.database, "SELECT execution_id, kind, body FROM outbox ORDER BY id")
        return [{"run": row["execution_id"], "kind": row["kind"], **row["body"]} for row in found]


@pytest_asyncio.fixture(loop_scope="session")
async def groups(database: Database) -> Groups:
    made = Groups(database, await register(database))
    for name in ("a", "b", "c", "d"):
        await made.run(name)
    return made


async def test_room_is_given_at_once_and_then_there_is_a_queue(groups: Groups) -> None:
    assert [await groups.ask(run, limit=2) for run in "abcd"] == ["HELD", "HELD", "WAITING", "WAITING"]
    assert await groups.holders() == ["a", "b"]


async def test_the_first_in_is_the_first_out(groups: Groups) -> None:
    for run in "abcd":
        await groups.ask(run)
    order = []
    for _ in range(4):
        (holder,) = await groups.holders()
        order.append(holder)
        await groups.give_back(holder)
    assert order == ["a", "b", "c", "d"]
    assert await groups.holders() == []


async def test_who_is_served_is_told_where_it_waits(groups: Groups) -> None:
    await groups.ask("a")
    await groups.ask("b", task="t")
    assert await groups.give_back("a") == ["b"]
    assert await groups.told() == [
        {"run": "b", "kind": "slot", "to": "workflow of b", "task": "t", "granted": True}
    ]


async def test_the_same_request_again_finds_what_it_has(groups: Groups) -> None:
    assert [await groups.ask("a"), await groups.ask("a")] == ["HELD", "HELD"]
    assert [await groups.ask("b"), await groups.ask("b")] == ["WAITING", "WAITING"]
    await groups.give_back("a")
    assert await groups.ask("b") == "HELD"
    assert len(await rows(groups.database, "SELECT * FROM slots")) == 1


async def test_who_comes_later_does_not_pass_who_waits(groups: Groups) -> None:
    await groups.ask("a", limit=1)
    await groups.ask("b", limit=1)
    assert await groups.ask("c", limit=5) == "WAITING"


async def test_many_who_ask_and_give_back_at_once_never_are_more_than_the_limit(groups: Groups) -> None:
    names = [await groups.run(f"r{n}") for n in range(20)]
    await asyncio.gather(*(groups.ask(name, limit=3) for name in names))
    served = 0
    while held := await groups.holders():
        assert len(held) <= 3
        served += len(held)
        await asyncio.gather(*(groups.give_back(name) for name in held))
    assert served == 20


async def test_a_place_in_the_queue_can_be_given_back(groups: Groups) -> None:
    for run in "abc":
        await groups.ask(run)
    await groups.give_back("b")
    await groups.give_back("a")
    assert await groups.holders() == ["c"]


async def test_skip_leaves_no_place_behind(groups: Groups) -> None:
    await groups.ask("a")
    assert await groups.ask("b", on_conflict="skip") == "SKIPPED"
    assert await groups.give_back("a") == []


async def test_cancel_running_asks_those_before_to_end_once_and_waits(groups: Groups) -> None:
    await groups.ask("a")
    await groups.ask("b")
    for _ in range(2):
        assert await groups.ask("c", on_conflict="cancel_running") == "WAITING"
    assert sorted((word["run"], word["kind"]) for word in await groups.told()) == [
        ("a", "cancel"),
        ("b", "cancel"),
    ]
    audit = await rows(
        groups.database, "SELECT execution_id, action FROM audit ORDER BY execution_id, action"
    )
    assert [(row["execution_id"], row["action"]) for row in audit] == [
        ("a", "execution.cancel_requested"),
        ("b", "execution.cancel_requested"),
        ("b", "execution.queued"),
        ("c", "execution.queued"),
    ]
    await groups.give_back("b")
    await groups.give_back("a")
    assert await groups.holders() == ["c"]


async def test_a_run_that_is_over_gets_nothing(groups: Groups) -> None:
    await groups.run("ended", status="FAILED")
    assert [await groups.ask("ended"), await groups.ask("unknown")] == ["OVER", "OVER"]


async def test_what_happens_under_a_slot_re_enters_its_group(groups: Groups) -> None:
    await groups.ask("a")
    await groups.run("child", parent=("a", "call"), root="a")
    assert await groups.ask("a", task="t") == "HELD"
    assert await groups.ask("child") == "HELD"
    assert await groups.ask("child", task="t") == "HELD"
    assert await groups.ask("b") == "WAITING"
    await groups.give_back("child")
    assert await groups.holders() == ["a"]


async def test_two_tasks_of_one_run_do_not_share_a_slot(groups: Groups) -> None:
    assert await groups.ask("a", task="t1") == "HELD"
    assert await groups.ask("a", task="t2") == "WAITING"
    assert await groups.ask("a", task="t1.inner") == "HELD"
    await groups.give_back("a", "t1")
    assert [row["task"] for row in await rows(groups.database, "SELECT task FROM slots")] == ["t2"]


async def test_the_newer_one_of_two_that_would_wait_for_each_other_is_refused(groups: Groups) -> None:
    await groups.ask("a", "x")
    await groups.ask("b", "y")
    assert await groups.ask("a", "y", task="t") == "WAITING"
    assert await groups.ask("b", "x", task="t") == "DEADLOCK"
    await groups.give_back("b")
    assert await groups.holders("y") == ["a"]


async def test_a_ring_over_children_is_found_too(groups: Groups) -> None:
    await groups.ask("a", "x")
    await groups.ask("b", "y")
    await groups.run("child", parent=("a", "call"), root="a")
    await groups.run("grandchild", parent=("child", "call"), root="a")
    assert await groups.ask("grandchild", "y") == "WAITING"
    await groups.run("other", parent=("b", "call"), root="b")
    assert await groups.ask("other", "x", task="t") == "DEADLOCK"


async def test_two_requests_that_close_a_ring_at_once_are_not_both_let_in(groups: Groups) -> None:
    for round in range(5):
        x, y = f"x{round}", f"y{round}"
        await groups.ask("a", x, task=f"g{round}")
        await groups.ask("b", y, task=f"g{round}")
        both = await asyncio.gather(
            groups.ask("a", y, task=f"g{round}.t"), groups.ask("b", x, task=f"g{round}.t")
        )
        assert sorted(both) == ["DEADLOCK", "WAITING"]


async def test_slots_of_runs_that_are_over_are_found(groups: Groups) -> None:
    await groups.ask("a")
    await groups.ask("b")
    await rows(groups.database, "UPDATE workflow_executions SET status = 'FAILED' WHERE id = 'a'")
    async with groups.database.read() as connection:
        assert await slots.left_behind(connection) == ["a"]
