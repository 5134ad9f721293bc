"""Maps: a frame for each item, some of them at a time."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from engine.core import reuse, slices, unwinding
from engine.core.composites import CompositeKind, block_result, retire
from engine.core.contracts import Json, SliceEnded, TaskError
from engine.core.error_types import EXPRESSION, ITEMS_FAILED, MAP_TOO_LARGE, OUTPUTS
from engine.core.frames import Frame, Task
from engine.core.states import TASK_ENDS
from engine.core.task_plan import MapPlan
from engine.core.values import UNFORESEEN, listed
from engine.core.work import MapWork

if TYPE_CHECKING:
    from engine.core.course import Course

WHOLE_ITEMS: Final = 1_000
"""Items of a map that is never cut; more do not fit into one history."""
MESSAGE: Final = 500
"""Characters of an item's error that `failures` keep."""


class MapKind(CompositeKind):
    """Its tasks, for each item."""

    def launch(self, course: Course, task: Task) -> None:
        """Work out the items; open the first, or cut the map into slices."""
        part = slices.own_part(course, task)
        if part is not None:
            tolerated = len(part.items) if part.tolerated is None else part.tolerated
            self._begin(course, task, MapWork(part.items, first=part.offset, tolerated=tolerated))
            return
        if reuse.whole_taken_over(course, task):
            return
        plan = plan_of(task)
        try:
            items = listed(plan.items.render(course.names(task)), "items")
        except UNFORESEEN as error:
            course.fail(task, TaskError(EXPRESSION, f"items: {error}", task.address))
            return
        if plan.whole and len(items) > WHOLE_ITEMS:
            message = f"{len(items)} items, and a map with a signal in it takes {WHOLE_ITEMS} at most"
            course.fail(task, TaskError(MAP_TOO_LARGE, message, task.address))
            return
        work = MapWork(items, tolerated=plan.tolerated(len(items)))
        if not plan.whole and slices.must_cut(len(items), plan.weight):
            slices.plan_cut(task, work)
        self._begin(course, task, work)

    def _begin(self, course: Course, task: Task, work: MapWork) -> None:
        work.items = list(work.items)
        work.total = len(work.items)
        work.results = [None] * work.total
        work.at_once = plan_of(task).max_concurrency or 0
        task.work = work
        self.enter(course, task)
        self.go_on(course, task)

    def go_on(self, course: Course, task: Task) -> None:
        """Open what may be opened; end if nothing is left."""
        work: MapWork = task.work
        if not self._closed(course, task):
            if work.size:
                slices.feed(task)
            else:
                self._open_more(course, task)
        if work.open == 0 and (work.opened == len(work.items) or self._closed(course, task)):
            self._finish(course, task)

    def fired(self, course: Course, task: Task) -> None:
        """A pause is over, or the moment to take breath."""
        self.go_on(course, task)

    def stop(self, course: Course, task: Task) -> None:
        """End what is inside, and the task with the last of it."""
        course.floor.stop_timer(task)
        self._end_all(course, task)
        work: MapWork = task.work
        if work.open == 0:
            self._finish(course, task)

    def reissue(self, course: Course, task: Task) -> None:
        """Slices are workflows of their own."""
        slices.reissue(course, task)

    def frame_ended(self, course: Course, task: Task, frame: Frame) -> None:
        """All tasks of an item have ended."""
        self._judge(course, task, frame)
        if frame.error is not None and unwinding.begin(course, frame):
            return  # a failed item unwinds itself at once
        self.item_over(course, task, frame)

    def frame_unwound(self, course: Course, task: Task, frame: Frame) -> None:
        """A failed item has undone what it did."""
        self.item_over(course, task, frame)

    def item_over(self, course: Course, task: Task, frame: Frame) -> None:
        """Nothing is left to be done for an item."""
        work: MapWork = task.work
        if frame.error is not None:
            work.failed += 1
            work.failures.append({"index": frame.index, "error": brief(frame.error)})
        elif frame.stopping:
            work.cancelled += 1
        else:
            work.completed += 1
        retire(course, frame)
        self.item_counted(course, task)

    def item_counted(self, course: Course, task: Task) -> None:
        """An item or a slice is over: if that was one failure too many, the policy of the run says what of the rest."""
        work: MapWork = task.work
        if work.failed > work.tolerated and not task.stopping:
            policy = course.policy(task.frame)
            if policy == "cancel":
                self._end_all(course, task)
            elif policy == "drain" and slices.own_part(course, task) is not None:
                self._end_unbegun(course, task)
        self.go_on(course, task)

    def _end_unbegun(self, course: Course, task: Task) -> None:
        """Leave out the items of a slice that only wait for a place: a slice has far fewer places than items."""
        for frame in list(task.frames.values()):
            if not frame.over and all(inner.status == "PENDING" for inner in frame.tasks):
                course.cut(frame)

    def _end_all(self, course: Course, task: Task) -> None:
        """Ask all that is under way to end, but let failed items finish their unwinding."""
        if task.work.size:
            slices.stop(course, task)
            return
        for frame in [frame for frame in task.frames.values() if not frame.over]:
            if frame.unwinding is None:
                course.cut(frame)

    def _judge(self, course: Course, task: Task, frame: Frame) -> None:
        """The result of an item that has come to its end."""
        if frame.error is not None or frame.stopping:
            return
        plan, work = plan_of(task), task.work
        try:
            result = (
                block_result(frame) if plan.results is None else plan.results.render(course.values.of(frame))
            )
        except UNFORESEEN as error:
            frame.error = TaskError(OUTPUTS, f"results: {error}", f"{task.address}[{frame.index}]")
        else:
            work.results[frame.index - work.first] = result

    def _open_more(self, course: Course, task: Task) -> None:
        plan, work = plan_of(task), task.work
        while work.opened < len(work.items) and not (work.at_once and work.open >= work.at_once):
            if course.run.paused:
                course.floor.held[task.address] = task
                return
            if task.timer:
                return
            if course.breathless:
                work.yields += 1
                course.floor.start_timer(f"more:{work.yields}:{task.address}", 0.0, task)
                return
            index, item = work.first + work.opened, work.items[work.opened]
            work.items[work.opened] = None  # from now on its frame has it
            work.opened += 1
            carried = reuse.item_taken_over(course, task, index, item)
            if carried is not None:
                work.results[index - work.first] = carried.outputs
                work.completed += 1
                continue
            course.open(task, index, {plan.name: item, f"{plan.name}_index": index})

    def _closed(self, course: Course, task: Task) -> bool:
        """Whether no more items are begun."""
        work: MapWork = task.work
        return task.stopping or (work.failed > work.tolerated and course.policy(task.frame) != "finish")

    def _finish(self, course: Course, task: Task) -> None:
        work: MapWork = task.work
        results, work.results, work.items = work.results, [], []
        work.failures.sort(key=_index)
        if slices.own_part(course, task) is not None:
            task.outputs = results
            whole = work.completed + work.failed == work.total
            course.floor.end(task, "COMPLETED" if whole and not task.stopping else "CANCELLED")
        elif task.stopping:
            task.outputs = results  # nobody in the run reads them; a rerun may take over what is there
            course.cancelled(task)
        elif work.failed > work.tolerated:
            task.outputs = results
            course.fail(task, _too_many(task, work))
        else:
            task.acted = True
            course.complete(task, results)


MAP: Final = MapKind()


def slice_ended(course: Course, task: Task, event: SliceEnded) -> None:
    """A slice of the map is over, or one that undoes a part of it."""
    if task.work is None:
        return
    if task.status in TASK_ENDS:
        if slices.undone(course, task, event):
            unwinding.item_over(course, task)
    elif slices.ended(course, task, event):
        if course.policy(task.frame) == "drain" and task.work.failed > task.work.tolerated:
            slices.drain(course, task)
        MAP.item_counted(course, task)
        if event.ended is not None:
            course.end_run(event.ended)


def plan_of(task: Task) -> MapPlan:
    """What the definition says of a map."""
    plan: Json = task.plan.special
    assert isinstance(plan, MapPlan)
    return plan


def brief(error: TaskError) -> Json:
    """An item's error as `failures` keep it: there may be thousands."""
    return {"type": error.type, "message": error.message[:MESSAGE], "task": error.task}


def _index(failure: Json) -> int:
    index: int = failure["index"]
    return index


def _too_many(task: Task, work: MapWork) -> TaskError:
    first = work.failures[0]
    message = f"{work.failed} of {work.total} items failed"
    if work.tolerated:
        message += f", and {work.tolerated} may"
    message += f"; item {first['index']}: {first['error']['type']}: {first['error']['message']}"
    return TaskError(ITEMS_FAILED, message, task.address, {"failures": work.failures[:10]})
