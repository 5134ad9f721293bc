"""What a run waits for from outside: signals, slots of concurrency groups, pauses; secrets and caches on their way out."""

from __future__ import annotations

import dataclasses
import hashlib
import hmac
from typing import Any

import pytest

from engine.core.contracts import (
    MOST_SIGNALS,
    AcquireSlot,
    Command,
    PauseRequested,
    ReleaseSlot,
    ResumeRequested,
    RunStart,
    SignalReceived,
    SlotGranted,
    SlotRefused,
    TaskError,
)
from tests.support.definitions import definition, group, loop, many, start, task
from tests.support.driver import Run


def over(run: Run) -> Any:
    finish = run.finish()
    assert finish is not None, run.brain.snapshot()
    return finish


def signal(run: Run, name: str, payload: Any = None, **more: Any) -> list[Command]:
    number = len(run.history) + len(str(payload)) + hash(more.get("id", "")) % 7
    return run.tell(
        SignalReceived(more.pop("id", f"{name}-{number}-{payload}"), name, payload, run.clock, **more)
    )


# --- signals ---


def waits(name: str, *after: str, **fields: Any) -> dict[str, Any]:
    return task(name, *after, **{"type": "signal", "signal": "go", "timeout": None} | fields)


def test_a_signal_completes_the_task_that_waits_for_it() -> None:
    run = Run(definition(waits("s"), outputs="${{ tasks.s.outputs }}"))
    (waiting,) = run.brain.snapshot()["waiting"]
    assert (waiting["kind"], waiting["signal"]) == ("signal", "go")
    signal(run, "go", {"n": 1})
    assert over(run).outputs == {"n": 1}


def test_outputs_of_a_signal_map_its_payload() -> None:
    run = Run(definition(waits("s", outputs={"x": "${{ result.n }}"}), outputs="${{ tasks.s.outputs }}"))
    signal(run, "go", {"n": 1})
    assert over(run).outputs == {"x": 1}


def test_a_signal_that_comes_early_is_kept_and_feeds_one_task() -> None:
    run = Run(definition(task("a"), waits("s", "a"), waits("t", "a")))
    signal(run, "go", 1)
    run.complete("a")
    assert run.statuses() == {"a": "COMPLETED", "s": "COMPLETED", "t": "WAITING"}
    signal(run, "go", 2)
    assert over(run).status == "COMPLETED"
    assert (run.task("s")["outputs"], run.task("t")["outputs"]) == (1, 2)


def test_every_signal_that_a_run_may_be_sent_is_kept() -> None:
    run = Run(definition(task("a"), waits("s", "a")))
    for number in range(MOST_SIGNALS + 1):
        signal(run, "go", number, id=str(number))
    state = run.brain.to_json()
    assert [each["payload"] for each in state["signals"]] == list(range(MOST_SIGNALS))
    assert len(state["heard"]) == MOST_SIGNALS


def test_signals_feed_those_that_wait_longest_first() -> None:
    run = Run(definition(waits("late", "a"), task("a"), waits("early")))
    run.clock += 5
    run.complete("a")
    signal(run, "go", 1)
    assert run.statuses()["early"] == "COMPLETED"


def test_a_repeated_signal_and_one_that_nobody_could_want_change_nothing() -> None:
    run = Run(definition(waits("s"), waits("t")))
    signal(run, "go", 1, id="one")
    before = run.brain.to_json()
    assert signal(run, "go", 1, id="one") == []
    assert signal(run, "unheard", 1, id="two") == []
    assert signal(run, "go", 1, id="three", task="s") == []
    for number, address in enumerate(("nothing[", "s[²].x", f"s[{'9' * 5_000}].x", "", ".", "s.s")):
        assert signal(run, "unheard", 1, id=f"four{number}", task=address) == []
    assert run.brain.to_json() == before


def test_a_correlated_task_takes_only_its_own_signal() -> None:
    run = Run(definition(waits("s", correlation="order-${{ inputs.n }}"), inputs=NUMBER), given(n=7))
    signal(run, "go", 1, correlation="order-8")
    assert run.task("s")["status"] == "WAITING"
    signal(run, "go", 2, correlation="order-7")
    assert run.task("s")["outputs"] == 2


NUMBER = {"type": "object", "properties": {"n": {"type": "integer"}}}


def given(**inputs: Any) -> RunStart:
    return start(**inputs)


def test_a_callback_reaches_its_own_task_even_before_it_waits() -> None:
    called = dataclasses.replace(start(), callback={"base": "https://x.test", "key": "k"})
    config = {"url": "${{ tasks.s.callback_url }}"}
    run = Run(definition(task("a", config=config), waits("s", "a"), waits("t", "a")), called)
    token = hmac.new(b"k", b"s", hashlib.sha256).hexdigest()
    assert run.command("a").call.config == {"url": f"https://x.test/callbacks/run-1/s?token={token}"}
    signal(run, "callback", "called", task="s")
    run.complete("a")
    assert run.statuses() == {"a": "COMPLETED", "s": "COMPLETED", "t": "WAITING"}
    assert run.brain.snapshot()["waiting"][0]["callback_url"].startswith(
        "https://x.test/callbacks/run-1/t?token="
    )


def test_a_signal_that_does_not_come_in_time_fails_its_task() -> None:
    run = Run(definition(waits("s", timeout=60.0)))
    run.fire("timeout:s")
    assert over(run).error.type == "TIMEOUT"


def test_early_signals_survive_a_restart() -> None:
    run = Run(definition(task("a"), waits("s", "a"), waits("t", "a")))
    signal(run, "go", 1, id="one")
    run.restore()
    assert signal(run, "go", 1, id="one") == []
    run.complete("a")
    assert run.task("s")["outputs"] == 1
    run.restore()
    signal(run, "go", 2)
    assert over(run).status == "COMPLETED"


# --- concurrency ---


def grant(run: Run, name: str = "") -> list[Command]:
    return run.tell(SlotGranted(name, run.clock))


def refuse(run: Run, name: str = "") -> list[Command]:
    return run.tell(SlotRefused(name, TaskError("BUSY", "no room"), run.clock))


RUN_GROUP = {"group": "release-${{ inputs.n }}", "limit": 1, "on_conflict": "queue"}


def test_a_run_waits_for_its_group_and_its_time_begins_after_that() -> None:
    compiled = definition(task("a"), concurrency=RUN_GROUP, inputs=NUMBER, timeout=60.0)
    run = Run(compiled, given(n=1))
    assert run.commands == [AcquireSlot("", "release-1", 1, "queue")]
    assert run.brain.snapshot()["status"] == "QUEUED"
    run.clock += 100
    grant(run)
    assert run.timers() == {"run": 60.0}
    assert run.started() == ["a"]
    assert run.brain.snapshot()["started_at"] == run.clock
    assert grant(run) == []
    run.complete("a")
    assert not [c for c in run.history if isinstance(c, ReleaseSlot)]
    assert over(run).status == "COMPLETED"


def test_a_run_that_is_refused_or_cancelled_in_the_queue_cleans_nothing_up() -> None:
    compiled = definition(task("a"), concurrency=RUN_GROUP, inputs=NUMBER, finally_=[task("unlock")])
    run = Run(compiled, given(n=1))
    refuse(run)
    assert over(run).status == "CANCELLED"
    assert over(run).error.type == "BUSY"
    run = Run(compiled, given(n=1))
    run.cancel()
    assert over(run).status == "CANCELLED"
    assert run.statuses() == {"a": "SKIPPED:ended", "unlock": "SKIPPED:ended"}


def test_a_queued_run_asks_again_after_a_restart() -> None:
    run = Run(definition(task("a"), concurrency=RUN_GROUP, inputs=NUMBER), given(n=1))
    assert run.restore() == [AcquireSlot("", "release-1", 1, "queue")]
    grant(run)
    assert run.started() == ["a"]


def test_a_run_enters_the_group_of_its_ancestors_again() -> None:
    inner = dataclasses.replace(given(n=1), groups=("release-1",))
    run = Run(definition(task("a"), concurrency=RUN_GROUP, inputs=NUMBER), inner)
    assert run.started() == ["a"]


def limited(name: str, *after: str, **fields: Any) -> dict[str, Any]:
    return task(name, *after, concurrency={"group": "db", "limit": 2}, **fields)


def test_a_task_takes_a_slot_of_its_group_and_gives_it_back() -> None:
    run = Run(definition(limited("a"), task("b", "a")))
    assert run.commands == [AcquireSlot("a", "db", 2, "queue")]
    (waiting,) = run.brain.snapshot()["waiting"]
    assert (waiting["kind"], waiting["group"]) == ("slot", "db")
    grant(run, "a")
    assert run.started() == ["a"]
    assert grant(run, "a") == []
    run.complete("a")
    assert ReleaseSlot("a", "db") in run.commands


def test_a_task_in_the_queue_holds_no_place_of_the_run() -> None:
    run = Run(definition(limited("a"), task("b"), max_concurrency=1))
    assert run.started() == ["b"]
    grant(run, "a")
    assert run.started() == []
    run.complete("b")
    assert run.started() == ["a"]


def test_a_task_that_is_refused_fails() -> None:
    run = Run(definition(limited("a")))
    refuse(run, "a")
    assert over(run).error.type == "BUSY"
    assert not [c for c in run.history if isinstance(c, ReleaseSlot)]


def test_a_cancelled_task_leaves_the_queue() -> None:
    run = Run(definition(limited("a")))
    run.cancel()
    assert ReleaseSlot("a", "db") in run.commands
    assert over(run).status == "CANCELLED"


def test_a_task_inside_of_a_group_with_the_slot_enters_again() -> None:
    inside = group("g", tasks=[limited("a")], concurrency={"group": "db", "limit": 1})
    run = Run(definition(inside))
    assert run.commands == [AcquireSlot("g", "db", 1, "queue")]
    grant(run, "g")
    assert run.started() == ["g.a"]
    run.complete("g.a")
    assert ReleaseSlot("g", "db") in run.history


def test_slots_are_asked_for_again_after_a_restart() -> None:
    run = Run(definition(limited("a"), limited("b")))
    grant(run, "b")
    run.restore()
    assert AcquireSlot("a", "db", 2, "queue") in run.commands
    assert run.started() == ["b"]


# --- pause ---


def pause(run: Run, id: str = "p") -> list[Command]:
    return run.tell(PauseRequested("bob", "", run.clock, id))


def go_on(run: Run, id: str = "r") -> list[Command]:
    return run.tell(ResumeRequested("bob", run.clock, id))


def test_a_paused_run_starts_nothing_new_while_what_runs_goes_on() -> None:
    run = Run(definition(task("a"), task("s", "a", type="set", values={"n": 1}), task("b", "s")))
    pause(run)
    assert run.brain.snapshot()["status"] == "PAUSED"
    run.complete("a")
    assert run.commands == []
    assert run.statuses()["s"] == "PENDING"
    assert pause(run, "p") == []
    go_on(run)
    assert run.started() == ["b"]
    assert go_on(run, "r") == []
    assert pause(run, "p") == []
    run.complete("b")
    assert over(run).status == "COMPLETED"


def test_a_word_that_changed_nothing_when_it_came_changes_nothing_later() -> None:
    run = Run(definition(task("a")))
    go_on(run, "early")
    pause(run)
    assert go_on(run, "early") == []
    assert run.brain.snapshot()["status"] == "PAUSED"


def test_a_pause_holds_items_and_iterations_back() -> None:
    again = loop("l", tasks=[task("x")], until="${{ iteration == 1 }}")
    run = Run(definition(many("m", items=[1, 2], tasks=[task("a")], max_concurrency=1), again))
    pause(run)
    run.complete("m[0].a")
    run.complete("l[0].x")
    assert run.started() == []
    run.restore()
    assert run.started() == []
    go_on(run)
    assert run.started() == ["m[1].a", "l[1].x"]


def test_clocks_and_decisions_go_on_in_a_pause() -> None:
    run = Run(definition(task("w", type="wait", duration=60.0), task("a", "w")))
    pause(run)
    run.fire("wait:w")
    assert run.statuses() == {"w": "COMPLETED", "a": "PENDING"}


def test_a_cancel_ends_a_pause() -> None:
    run = Run(definition(task("a"), task("b", "a"), finally_=[task("unlock")]))
    pause(run)
    run.complete("a")
    run.cancel()
    assert run.started() == ["unlock"]
    run.complete("unlock")
    assert over(run).status == "CANCELLED"


def test_a_pause_lasts_over_a_restart_and_changes_nothing_of_what_comes_after() -> None:
    compiled = definition(task("a"), task("b"), task("c", "a"), max_concurrency=1)
    run = Run(compiled)
    pause(run)
    run.complete("a")
    run.restore()
    assert run.started() == []
    go_on(run)
    assert run.started() == ["b"]


# --- secrets and caches ---


def test_secrets_go_beside_the_config_with_the_text_around_them() -> None:
    texts = [
        {"path": ["headers", "authorization"], "parts": ["Bearer ", {"$secret": "TOKEN"}]},
        {"path": ["url"], "parts": ["https://${{ inputs.n }}@x.test/", {"$secret": "PATH"}]},
    ]
    compiled = definition(
        task("a", config={"headers": {"authorization": None}}, secrets=texts), inputs=NUMBER
    )
    run = Run(compiled, given(n=5))
    assert run.command("a").call.secrets == [
        {"path": ["headers", "authorization"], "parts": ["Bearer ", {"secret": "TOKEN"}]},
        {"path": ["url"], "parts": ["https://5@x.test/", {"secret": "PATH"}]},
    ]


def test_the_key_of_a_cache_tells_workflow_task_and_meaning_apart() -> None:
    def key(**fields: Any) -> str:
        made = task("a", cache={"key": "${{ inputs.n }}", "max_age": 60.0}) | fields
        run = Run(definition(made, inputs=NUMBER), given(n=5))
        cache = run.command("a").call.cache
        assert cache["max_age"] == 60.0
        found: str = cache["key"]
        return found

    first = key()
    assert first.startswith("under-test/a/")
    assert first.endswith("/5")
    assert key(name="a label") == first
    assert key(config={"x": 1}) != first
    assert "3" * 64 in key(activity_type="python_function")


@pytest.mark.parametrize("raw", [None, "${{ null }}"])
def test_a_cache_without_a_text_for_its_key_fails_the_task(raw: Any) -> None:
    run = Run(definition(task("a", cache={"key": raw, "max_age": None})))
    assert over(run).error.type == "EXPRESSION"
