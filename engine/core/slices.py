"""Large maps, cut: slices of their items, each run by a workflow of its own, so that no history grows too long.

A slice is told its items and the values of all that its tasks read from outside, and gives back results, failures and
what is needed to undo it. It takes its share of the places in the run for as long as it runs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from engine.core.contracts import (
    CancelSlice,
    Carried,
    DrainSlice,
    RunStart,
    Slice,
    SliceEnded,
    StartSlice,
    TaskError,
)
from engine.core.error_types import SLICE_LOST
from engine.core.frames import Task
from engine.core.run_state import error_to_json
from engine.core.slots import groups_around
from engine.core.states import TASK_ENDS
from engine.core.task_plan import MapPlan
from engine.core.work import MapWork, Part

if TYPE_CHECKING:
    from engine.core.course import Course

SLICE_EVENTS: Final = 4_000
"""Events of a history that the items of one slice may fill."""
SLICE_ITEMS: Final = 500
"""Items of one slice at most, and of a map that is not cut."""
SLICES: Final = 5
"""Slices of one map at a time, at most."""
LEAST_SHARE: Final = 20
"""Places that a slice should have at least before more slices run beside it."""


def own_part(course: Course, task: Task) -> Slice | None:
    """Of the map that a slice is a part of: the slice that this run is."""
    start = course.run.start
    part = None if start is None else start.slice
    return part if part is not None and task.frame.owner is None and task.address == part.task else None


def must_cut(items: int, weight: int) -> bool:
    """Whether so many items are too many for one history."""
    return items > SLICE_ITEMS or items * weight > SLICE_EVENTS


def plan_cut(task: Task, work: MapWork) -> None:
    """Decide how large the slices are, and what share of the run each has."""
    plan = task.plan.special
    assert isinstance(plan, MapPlan)
    work.size = max(1, min(SLICE_EVENTS // plan.weight, SLICE_ITEMS))
    limit = task.gate.least
    width = limit
    beside = SLICES
    if plan.max_concurrency:
        beside = plan.max_concurrency // work.size
        assert task.plan.body is not None
        width = plan.max_concurrency * len(task.plan.body)
    beside = max(1, min(beside, SLICES, limit // LEAST_SHARE))
    # One share more than there are slices: what runs beside the map must get on too.
    work.share = max(1, min(limit // (beside + 1), width))
    work.beside = beside


def feed(task: Task) -> None:
    """Let the next slices wait for their turn."""
    work: MapWork = task.work
    while work.opened < len(work.items) and len(work.parts) < work.beside:
        count = min(work.size, len(work.items) - work.opened)
        part = work.parts[work.opened] = Part(task, work.opened, count, work.share)
        work.opened += count
        part.gate.push(part)


def launch(course: Course, part: Part) -> None:
    """It is a slice's turn."""
    work: MapWork = part.task.work
    if part.task.status not in TASK_ENDS:
        part.tolerated = max(work.tolerated - work.failed, 0)
    course.floor.family += 1
    course.floor.commands.append(_start(course, part))


def ended(course: Course, task: Task, event: SliceEnded) -> bool:
    """Take what a slice has done; False if no such slice is under way."""
    work: MapWork | None = task.work
    part = None if work is None else work.parts.get(event.offset)
    if work is None or part is None or not part.holds:
        return False
    _close(course, work, part)
    _count(work, part, event)
    if event.undo is not None:
        work.undo[part.offset] = event.undo
    return True


def stop(course: Course, task: Task) -> None:
    """Ask the slices of a map to end, and forget those that have not begun."""
    work: MapWork = task.work
    for part in list(work.parts.values()):
        if part.holds:
            part.stopping = True
            _cancel(course, part)
        else:
            part.gate.drop(part)
            del work.parts[part.offset]
            work.cancelled += part.count


def drain(course: Course, task: Task) -> None:
    """Too many items failed, and those under way may end: no slice begins any more. Each is told once."""
    work: MapWork = task.work
    for part in work.parts.values():
        if part.holds and not part.drained:
            part.drained = True
            course.floor.commands.append(DrainSlice(task.address, part.offset))


def stop_again(course: Course) -> None:
    """A second cancel: hand it on to every slice under way."""
    for task in sorted(course.floor.open.values(), key=lambda task: task.key):
        if task.plan.kind == "map" and task.work is not None:
            for part in task.work.parts.values():
                if part.holds:
                    course.floor.commands.append(CancelSlice(task.address, part.offset))


def reissue(course: Course, task: Task) -> None:
    """Start again what a restored state says is under way: a slice is known by its offset, and started once."""
    work: MapWork | None = task.work
    for part in work.parts.values() if work is not None else ():
        if part.holds:
            course.floor.commands.append(_start(course, part))
            if part.drained:
                course.floor.commands.append(DrainSlice(task.address, part.offset))
            if part.stopping:
                _cancel(course, part)


def _cancel(course: Course, part: Part) -> None:
    """Once, for its work to end; one that undoes is clean-up and nothing else, which a second cancel leaves out."""
    undoing = part.task.status in TASK_ENDS
    course.floor.commands += [CancelSlice(part.task.address, part.offset)] * (2 if undoing else 1)


# --- undoing ------------------------------------------------------------------------------------------------------


def feed_undo(task: Task) -> bool:
    """Let the slices that undo a map wait for their turn; whether there are any."""
    work: MapWork = task.work
    for offset in work.undo:
        if offset not in work.parts:
            part = work.parts[offset] = Part(task, offset, 0, work.share)
            part.gate.push(part)
    return bool(work.parts)


def undone(course: Course, task: Task, event: SliceEnded) -> bool:
    """A slice that undoes a part of the map is over; False if there is none such."""
    work: MapWork = task.work
    part = work.parts.get(event.offset)
    if part is None or not part.holds or event.results:
        return False  # one that undoes has no results: this is the end of the slice that did the work, told again
    _close(course, work, part)
    work.undo.pop(event.offset, None)
    if event.status != "COMPLETED" or event.failures:
        work.undo_failed += 1
    return True


def _start(course: Course, part: Part) -> StartSlice:
    start = course.run.start
    assert start is not None
    task, work = part.task, part.task.work
    plan = task.plan.special
    assert isinstance(plan, MapPlan)
    undoing = task.status in TASK_ENDS
    inside = Slice(
        task=task.address,
        offset=part.offset,
        items=[] if undoing else work.items[part.offset : part.offset + part.count],
        bindings=course.values.bindings(_outside(plan.reads), task.frame),
        limit=part.weight,
        undo=work.undo[part.offset] if undoing else None,
        tolerated=part.tolerated,
    )
    own = RunStart(
        execution_id=start.execution_id,
        pin=start.pin,
        inputs={},
        started_by=start.started_by,
        started_at=start.started_at,
        parent=start.parent,
        carried=_carried(start, part),
        callback=start.callback,
        groups=tuple(sorted(groups_around(course, task.frame) | ({task.group} if task.group else set()))),
        slice=inside,
    )
    last = part.offset + part.count - 1
    what = "undo from" if undoing else f"items {part.offset} to {last} of"
    return StartSlice(task.address, own, f"{what} {task.plan.name}")


def _carried(start: RunStart, part: Part) -> dict[str, Carried]:
    """What an earlier run has of a slice's own items."""
    prefix = f"{part.task.address}["
    own = range(part.offset, part.offset + part.count)
    return {
        address: kept
        for address, kept in start.carried.items()
        if address.startswith(prefix) and int(address[len(prefix) :].partition("]")[0]) in own
    }


def _outside(reads: tuple[str, ...]) -> list[str]:
    """What a slice cannot know by itself."""
    return [ref for ref in reads if ref.partition(".")[0] not in ("env", "task")]


def _close(course: Course, work: MapWork, part: Part) -> None:
    del work.parts[part.offset]
    part.gate.free(part)
    course.floor.family -= 1


def _count(work: MapWork, part: Part, event: SliceEnded) -> None:
    if event.status == "FAILED":
        error = event.error or TaskError(SLICE_LOST, "it ended without a word", part.task.address)
        work.failures.append({"index": part.offset, "error": error_to_json(error)})
        work.failed += part.count
    else:
        begin = part.offset
        work.results[begin : begin + len(event.results)] = event.results
        work.failures += event.failures
        failed = len(event.failures)
        done = part.count - failed
        if event.status == "CANCELLED":
            done = min(done, sum(result is not None for result in event.results))
        work.failed += failed
        work.completed += done
        work.cancelled += part.count - failed - done
    for index in range(part.offset, part.offset + part.count):
        work.items[index] = None
