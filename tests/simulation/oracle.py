"""The rules of order, skips, verdicts and unwinding once more, worked out the slow way from how a run ended.

Knows the compiled form and the language, and nothing of the brain.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from engine.core.contracts import FinishRun

DONE = ("COMPLETED", "FAILED", "SKIPPED", "CANCELLED")
PHASES = ("tasks", "on_failure", "finally")


@dataclass(frozen=True)
class Facts:
    """What happened to the run from outside; `undone` are the compensations of the run itself, as they were started.

    `ended` is how a task of type `end` said that the run ends, "" if none did. `rerun`: items may be taken over.
    """

    cancels: int
    targets: tuple[str, ...]
    undone: list[str]
    ended: str
    rerun: bool


def judge(compiled: dict[str, Any], snapshot: dict[str, Any], finish: FinishRun, facts: Facts) -> None:
    """Raise AssertionError if the ends of the tasks do not follow from each other, or the verdict not from them."""
    _Judge(compiled, snapshot, finish, facts).judge()


class _Judge:
    def __init__(
        self, compiled: dict[str, Any], snapshot: dict[str, Any], finish: FinishRun, facts: Facts
    ) -> None:
        self.compiled = compiled
        self.snapshot = snapshot
        self.ends: dict[str, dict[str, Any]] = {task["id"]: task for task in snapshot["tasks"]}
        self.finish = finish
        self.facts = facts
        ended = [task for task in _all(compiled["tasks"]) if task["type"] == "end"]
        self.may_have_ended = bool(ended)
        self.disturbed = (
            bool(facts.cancels) or finish.status in ("TIMED_OUT", "CANCELLED") or self.may_have_ended
        )

    def judge(self) -> None:
        assert self.snapshot["status"] == self.finish.status
        assert all(task["status"] in DONE for task in self.ends.values())
        if self.finish.error is not None and self.finish.error.type in ("BUSY",) and not self._began():
            return  # it never left the queue
        if self.finish.status == "CANCELLED" and not self._began():
            return
        for phase in PHASES:
            whole = phase == "on_failure" and self._skipped_whole(phase)
            if not whole:
                self._frame(self.compiled[phase], "", self.disturbed, phase)
        self._verdict()
        self._targets()
        self._unwinding()

    def _began(self) -> bool:
        return any(task["status"] != "SKIPPED" for task in self.ends.values())

    def _skipped_whole(self, phase: str) -> bool:
        return all(self.ends[task["id"]]["status"] == "SKIPPED" for task in self.compiled[phase])

    # --- one block under way ---

    def _frame(self, tasks: list[dict[str, Any]], prefix: str, disturbed: bool, phase: str) -> None:
        by_id = {task["id"]: task for task in tasks}
        for task in tasks:
            self._task(task, by_id, prefix, disturbed, phase)
            end = self.ends[prefix + task["id"]]
            inside = disturbed or end["status"] == "CANCELLED" or _type(end) == "TIMEOUT"
            taken_over = "reused_from" in end  # as a whole: there is nothing inside of it
            if task["type"] in ("group", "map", "loop") and end["status"] != "SKIPPED" and not taken_over:
                getattr(self, f"_{task['type']}")(task, prefix + task["id"], end, inside, phase)

    def _task(
        self, task: dict[str, Any], by_id: dict[str, Any], prefix: str, disturbed: bool, phase: str
    ) -> None:
        address = prefix + task["id"]
        end = self.ends[address]
        if end["skip_reason"] == "untargeted":
            return
        ran = end["started_at"] is not None or end["status"] == "FAILED" or end["skip_reason"] == "condition"
        wanted = self._wanted(task, by_id, prefix)
        if end["skip_reason"] == "upstream":
            assert not wanted, f"{address} was skipped although its dependencies allow it"
        elif ran:
            assert wanted, f"{address} ran although its dependencies do not allow it"
        if end["skip_reason"] == "ended" and not disturbed:
            early = self.compiled["on_task_failure"] != "finish" and task["run_on"] not in (
                "failure",
                "always",
            )
            early = (
                early or self.compiled["on_task_failure"] == "cancel"
            )  # it may stand in what was cancelled
            assert early or phase != "tasks", f"{address} was skipped although the run took new tasks"
        if end["started_at"] is not None:
            for before in task["depends_on"]:
                at = self.ends[prefix + before]["finished_at"]
                assert at is not None
                assert at <= end["started_at"], f"{address} was started before {before} ended"

    def _wanted(self, task: dict[str, Any], by_id: dict[str, Any], prefix: str) -> bool:
        before = task["depends_on"]
        match task["run_on"]:
            case "success":
                return all(self._satisfies(by_id[other], prefix) for other in before)
            case "any_success":
                return not before or any(
                    self.ends[prefix + other]["status"] == "COMPLETED" for other in before
                )
            case "failure":
                return any(self._from_failure(by_id[other], by_id, prefix) for other in before)
            case _:
                return True

    def _satisfies(self, task: dict[str, Any], prefix: str) -> bool:
        end = self.ends[prefix + task["id"]]
        tolerated = end["status"] == "FAILED" and task["continue_on_failure"]
        return bool(end["status"] == "COMPLETED" or tolerated or end["skip_reason"] == "condition")

    def _from_failure(self, task: dict[str, Any], by_id: dict[str, Any], prefix: str) -> bool:
        """FAILED, or skipped because an ancestor FAILED (and that one's failure was not what `success` lets pass)."""
        end = self.ends[prefix + task["id"]]
        if end["status"] == "FAILED":
            return True
        if end["skip_reason"] != "upstream":
            return False
        blocking = task["depends_on"]
        if task["run_on"] == "success":
            blocking = [other for other in blocking if not self._satisfies(by_id[other], prefix)]
        return any(self._from_failure(by_id[other], by_id, prefix) for other in blocking)

    def _failed_inside(self, tasks: list[dict[str, Any]], prefix: str) -> list[str]:
        return [
            prefix + task["id"]
            for task in tasks
            if self.ends[prefix + task["id"]]["status"] == "FAILED" and not task["continue_on_failure"]
        ]

    # --- composites ---

    def _group(
        self, task: dict[str, Any], address: str, end: dict[str, Any], disturbed: bool, phase: str
    ) -> None:
        prefix = f"{address}."
        if prefix + task["tasks"][0]["id"] not in self.ends:
            assert end["status"] in ("FAILED", "CANCELLED")  # it never got its slot
            return
        self._frame(task["tasks"], prefix, disturbed, phase)
        failed = self._failed_inside(task["tasks"], prefix)
        if end["status"] == "COMPLETED":
            assert not failed
        elif end["status"] == "FAILED" and _type(end) not in ("TIMEOUT", "OUTPUTS"):
            assert failed
            assert end["error"]["task"].startswith(prefix)

    def _map(
        self, task: dict[str, Any], address: str, end: dict[str, Any], disturbed: bool, phase: str
    ) -> None:
        if "items" not in end:
            assert _type(end) == "EXPRESSION"
            return
        told = end["items"]
        frames = self._frames(task, address)
        if frames:
            failed = [index for index in frames if self._failed_inside(task["tasks"], f"{address}[{index}].")]
            for index in frames:
                self._frame(task["tasks"], f"{address}[{index}].", True, phase)
            assert told["failed"] >= len(failed)
            if end["status"] == "COMPLETED":
                assert told["total"] == told["completed"] + told["failed"]
                assert len(frames) == told["total"] or (self.facts.rerun and len(frames) < told["total"])
                if end["outputs"] is not None:  # inside of something that is over, nobody keeps them
                    null = {index for index, result in enumerate(end["outputs"]) if result is None}
                    assert set(failed) <= null
                    assert len(null) >= told["failed"]
        tolerated = task.get("tolerated_failures") or {}
        allowed = max(tolerated.get("count") or 0, told["total"] * (tolerated.get("percent") or 0) // 100)
        if end["status"] == "COMPLETED":
            assert told["failed"] <= allowed
        elif end["status"] == "FAILED" and _type(end) != "TIMEOUT":
            assert told["failed"] > allowed
            assert _type(end) == "ITEMS_FAILED"

    def _loop(
        self, task: dict[str, Any], address: str, end: dict[str, Any], disturbed: bool, phase: str
    ) -> None:
        frames = self._frames(task, address)
        assert frames == list(range(len(frames)))
        assert len(frames) <= task["max_iterations"]
        for index in frames:
            prefix = f"{address}[{index}]."
            last = index == frames[-1]
            self._frame(task["tasks"], prefix, disturbed if last else False, phase)
            assert last or not self._failed_inside(task["tasks"], prefix)
        failed = bool(frames) and bool(self._failed_inside(task["tasks"], f"{address}[{frames[-1]}]."))
        if end["status"] == "COMPLETED":
            assert not failed
            assert end["outputs"] is None or end["outputs"]["iterations"] == len(frames)
        elif _type(end) == "LOOP_EXHAUSTED" and end["error"]["task"] == address:
            assert not failed
            assert len(frames) == task["max_iterations"]
        elif end["status"] == "FAILED" and _type(end) not in ("TIMEOUT", "EXPRESSION"):
            assert failed

    def _frames(self, task: dict[str, Any], address: str) -> list[int]:
        first = task["tasks"][0]["id"]
        return [index for index in range(10) if f"{address}[{index}].{first}" in self.ends]

    # --- the run ---

    def _verdict(self) -> None:
        finish = self.finish
        failed = {phase: self._failed_inside(self.compiled[phase], "") for phase in PHASES}
        match finish.status:
            case "COMPLETED":
                assert not failed["tasks"] or self._was_ended("COMPLETED")
                assert not failed["finally"]
                assert finish.error is None
            case "FAILED":
                assert finish.error is not None
                special = finish.error.type in ("OUTPUTS", "CleanupTimedOut", "ENDED", "EXPRESSION")
                assert failed["tasks"] or failed["finally"] or special
                if failed["tasks"] and finish.error.type != "ENDED" and not self._was_ended("COMPLETED"):
                    assert finish.error.task.split(".")[0].split("[")[0] in failed["tasks"]
            case "TIMED_OUT":
                assert finish.error is not None
                assert finish.error.type == "RunTimedOut"
            case "CANCELLED":
                assert self.facts.cancels
        if finish.status in ("COMPLETED", "CANCELLED") and not self.facts.cancels:
            assert self._skipped_whole("on_failure") or failed["finally"]
        if not self.facts.cancels:
            for task in self.compiled["finally"]:
                assert self.ends[task["id"]]["skip_reason"] != "ended" or finish.error is not None

    def _was_ended(self, status: str) -> bool:
        """Whether a task of type `end` had the last word. One in a slice is not in the run's own list."""
        kinds = {task["status"] for task in _all(self.compiled["tasks"]) if task["type"] == "end"}
        assert not self.facts.ended or self.facts.ended in kinds
        return self.facts.ended == status

    def _targets(self) -> None:
        by_id = {task["id"]: task for task in self.compiled["tasks"]}
        wanted: set[str] = set()
        left = list(self.facts.targets)
        while left:
            name = left.pop()
            if name not in wanted:
                wanted.add(name)
                left += by_id[name]["depends_on"]
        for name in by_id:
            untargeted = bool(self.facts.targets) and name not in wanted
            assert (self.ends[name]["skip_reason"] == "untargeted") == untargeted

    # --- unwinding ---

    def _unwinding(self) -> None:
        clean = self.facts.cancels < 2
        unwound = self.finish.status != "COMPLETED" and not self._failed_late()
        sequence = list(self._undoable(self.compiled["tasks"], ""))
        for address, took_effect in sequence:
            done = bool(self.ends[address].get("compensation"))
            if not unwound:
                assert not done, f"{address} was undone although nothing failed"
            elif clean:
                assert done == took_effect, f"{address}: undone {done}, took effect {took_effect}"
            else:
                assert took_effect or not done
        for task in _all(self.compiled["on_failure"] + self.compiled["finally"]):
            for address, end in self.ends.items():
                if address.rpartition(".")[2] == task["id"]:
                    assert not end.get("compensation") or "[" in address, "the clean-up was undone"
        times = [
            self.ends[name]["finished_at"]
            for name in (undo.removesuffix("~undo") for undo in self.facts.undone)
            if name in dict(sequence)
        ]
        assert times == sorted(times, reverse=True), "undone in another order than in reverse"

    def _failed_late(self) -> bool:
        """The verdict of the tasks was COMPLETED, and the clean-up changed it."""
        tasks_failed = self._failed_inside(self.compiled["tasks"], "") or self.finish.status == "TIMED_OUT"
        error = self.finish.error
        if tasks_failed and not self._was_ended("COMPLETED"):
            return False
        if error is not None and error.type in ("OUTPUTS", "ENDED") and not self._in_cleanup(error.task):
            return False
        if self.finish.status == "CANCELLED":
            return bool(error and "during its clean-up" in error.message)
        return True

    def _in_cleanup(self, address: str) -> bool:
        name = address.split(".")[0].split("[")[0]
        return any(task["id"] == name for task in self.compiled["finally"])

    def _undoable(self, tasks: list[dict[str, Any]], prefix: str) -> Iterator[tuple[str, bool]]:
        """The tasks of the run's own sequence that have a compensation, and whether they took effect."""
        for task in tasks:
            address = prefix + task["id"]
            if address not in self.ends:
                continue
            end = self.ends[address]
            if "compensate" in task:
                acted = end["status"] == "COMPLETED" or (
                    end["status"] == "FAILED" and _type(end) == "OUTPUTS"
                )
                begun = task["compensate"]["on"] == "started" and end["attempts"] > 0
                yield address, (acted or begun) and not end.get("cached_from")
            if task["type"] == "group":
                yield from self._undoable(task["tasks"], f"{address}.")
            elif task["type"] == "loop":
                for index in self._frames(task, address):
                    yield from self._undoable(task["tasks"], f"{address}[{index}].")


def _type(end: dict[str, Any]) -> str:
    return str(end["error"]["type"]) if end["error"] else ""


def _all(tasks: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    for task in tasks:
        yield task
        yield from _all(task.get("tasks") or [])
