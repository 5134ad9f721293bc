"""Plan against history: what recorded runs did, put through another definition by the brain. Nothing is called.

A recorded run is played by the offline driver, with what was recorded as the answers: first under its own definition,
which must lead to what was recorded, then under the new one.  Where the new one asks for something of which nothing
is recorded, the paths part there.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any, Final

from engine.core.contracts import Json
from engine.core.plan import HUMAN_APPROVAL, PHASES
from engine.dsl.activity_types import ActivityTypes
from engine.dsl.digests import task_digest
from engine.dsl.json_schemas import compile_schema
from engine.planning.plans import NOT_THERE, NotReplayed, Replayed
from engine.planning.recorded import RecordedRun, RecordedTask
from engine.testing.addresses import UNDO, ByAddress, path_of
from engine.testing.cases import NEVER_RETRIED, Answer, Cancel, Case, Expectation, Failure, Mock, Signal, Vote
from engine.testing.driver import Driver
from engine.testing.traces import TaskEnd, Trace

_JUDGED: Final = ("activity", "workflow", "signal")
"""Types of tasks whose `outputs` are made of a result that is not kept."""
_AROUND: Final = (
    "id", "name", "depends_on", "when", "run_on", "continue_on_failure", "default_outputs",
)  # fmt: skip
"""What is said of a composite task from the outside."""
_ONE_STEP: Final[dict[str, Json]] = {
    "type": "activity", "activity_type": "one_step", "config": {}, "retry": None, "timeout": None, "total_timeout": None,
    "success_when": None, "execution": "auto", "task_queue": "", "outputs": None, "values": None, "duration": None,
    "until": None,
}  # fmt: skip
"""What stands in its place, in the compiled form."""
_SAY_NAMES: Final = frozenset({"required", "additionalProperties", "dependentRequired"})
"""Keywords of which an error says names of inputs, and none of their values."""
_LONG: Final = 1e9
"""Seconds, for an activity that was cancelled before it could answer."""


def replay(
    run: RecordedRun, old: dict[str, Any], new: dict[str, Any], types: ActivityTypes
) -> Replayed | NotReplayed | None:
    """Where a run's path would part from what was recorded; None if it would not.

    `old` is the compiled form that it ran, `new` the one to be judged.
    """
    if not run.status:
        return NotReplayed(run.id, "how it ended is not recorded")
    if refused := _refused(run, new):
        return Replayed(run.id, run.commit_sha, "", "started", f"refused: {refused}", run.status)
    played_old, played_new, unknown, whole = _comparable(old, new)
    before = _play(run, played_old, frozenset(), types)
    if differs := _first_difference(_recorded(run, played_old), before, played_old):
        return NotReplayed(run.id, _unexplained(differs))
    after = _play(run, played_new, unknown, types)
    for missing in after.missing:
        if path_of(missing.task) in unknown:
            return NotReplayed(run.id, f"what {missing.task} gave before its `outputs` were made is not kept")
    return _compared(run, before, after, played_new) or _fed_otherwise(run, before, after, new, whole)


def _play(run: RecordedRun, form: dict[str, Any], unknown: frozenset[str], types: ActivityTypes) -> Trace:
    children = {call["workflow"]: _whole(call["workflow"]) for call in form.get("calls") or ()}
    return Driver(form, types, children).play(_case(run, form, unknown))


def _whole(name: str) -> dict[str, Any]:
    """A child of which only its outcome is recorded."""
    return {"name": name, "inputs": None, "calls": [], **{phase: [] for phase in PHASES}}


def _refused(run: RecordedRun, new: dict[str, Any]) -> str:
    """Why the start would be refused with the recorded inputs, "" if it would not.

    In words of the new schema: what the inputs hold is nothing for the comment of a pull request.
    """
    schema = new["inputs"] or {"type": "object", "additionalProperties": False}
    for error in compile_schema(schema).iter_errors(run.inputs):
        where = "/".join(["inputs", *map(str, error.instance_path)])
        keyword, asked = _asked(schema, list(error.schema_path))
        if keyword in _SAY_NAMES:
            return f"{where}: " + str(error.message).split("\n", 1)[0][:200]
        return f"{where}: does not fit {keyword} {asked}".rstrip()
    return ""


def _asked(schema: Any, path: list[str | int]) -> tuple[str, str]:
    """The keyword that a path in a schema ends at, and what stands there."""
    for part in path:
        try:
            schema = schema[part]
        except (KeyError, IndexError, TypeError):  # it went through a reference
            return str(path[-1]), ""
    return str(path[-1]) if path else "", json.dumps(schema, ensure_ascii=False)[:100]


# --- what was recorded, as the answers of a test ----------------------------------------------------------------------


def _case(run: RecordedRun, form: dict[str, Any], unknown: frozenset[str]) -> Case:
    kinds = dict(_tasks(form))
    # Of a child nothing but its outcome is played: one without a record is asked for, and missing.
    mocks = ByAddress(
        {path: Mock((), repeats=False) for path, task in kinds.items() if task["type"] == "workflow"}
    )
    for each in run.tasks:
        path = path_of(each.task)
        if path not in unknown and _was_called(each, kinds.get(path)):
            mocks[each.task] = _mock(run, each)
        if each.compensation:
            undone = (
                Answer()
                if each.compensation == "DONE"
                else Answer(error=Failure("UNKNOWN", "the undo failed"))
            )
            mocks[each.task + UNDO] = Mock((undone,), repeats=True)
    votes = ByAddress(
        {
            task: tuple(Vote(v.by, v.decision, v.after, (), None, v.comment, v.form) for v in said)
            for task, said in run.votes.items()
        }
    )
    signals = tuple(Signal(s.after, s.name, s.task, s.correlation, s.payload, s.by, ()) for s in run.signals)
    return Case(
        name=run.id, line=0, place=(), inputs=run.inputs, mocks=mocks, approvals=votes, expect=Expectation("", {}, {}),
        started_at=run.started_at, started_by=run.started_by, commit_author=run.commit_author, signals=signals,
        trigger=run.trigger, targets=run.targets,
        cancel=Cancel(run.cancel.after, run.cancel.by, run.cancel.reason) if run.cancel else None,
    )  # fmt: skip


def _was_called(task: RecordedTask, compiled: dict[str, Any] | None) -> bool:
    if compiled is None or task.status in ("SKIPPED", "PENDING"):
        return False
    if task.task.endswith(UNDO):
        return True
    return _answers(compiled)


def _mock(run: RecordedRun, task: RecordedTask) -> Mock:
    if task.cached and task.status == "COMPLETED":
        return Mock((Answer(result=task.outputs, cached=True),), repeats=False)
    made = [answer for each in run.attempts.get(task.task, ()) if (answer := _answer(task, each)) is not None]
    if task.status == "CANCELLED":
        made.append(Answer(after=_LONG))
    elif task.status == "COMPLETED" and (not made or made[-1].error is not None):
        made.append(_last(task, 0.0 if made else _took(task)))
    elif task.status == "FAILED":
        # Rows of attempts can be lost with their worker; how many there were, and the last error, are not.
        lost = max(task.attempts - len(made), 0 if made else 1)
        made += [_last(task, _took(task) / max(task.attempts, 1))] * lost
    return Mock(tuple(made), repeats=False)


def _took(task: RecordedTask) -> float:
    return max((task.finished_at or 0.0) - (task.started_at or 0.0), 0.0)


def _answer(task: RecordedTask, attempt: Any) -> Answer | None:
    if attempt.status == "COMPLETED" and task.status == "COMPLETED":
        return Answer(result=task.outputs, after=attempt.seconds)
    if attempt.status == "CANCELLED" or not isinstance(attempt.error, dict):
        return None
    return Answer(error=_failure(attempt.error), after=attempt.seconds)


def _last(task: RecordedTask, took: float) -> Answer:
    if task.status == "FAILED" and isinstance(task.error, dict):
        return Answer(error=_failure(task.error), after=took)
    return Answer(result=task.outputs, after=took)


def _failure(error: dict[str, Json]) -> Failure:
    kind = str(error.get("type") or "")
    return Failure(kind, str(error.get("message") or ""), error.get("details"), kind not in NEVER_RETRIED)


# --- what can be compared ---------------------------------------------------------------------------------------------


def _comparable(
    old: dict[str, Any], new: dict[str, Any]
) -> tuple[dict[str, Any], dict[str, Any], frozenset[str], frozenset[str]]:
    """Both forms as far as their difference can be told from what is recorded.

    `outputs` and `success_when` are left out where they are the same: their verdict is what is recorded.  A map, loop or
    group that is written the same is one step with its recorded outcome: what finished items gave is not kept.
    And, by path, the tasks of which the raw result would be needed and is not kept, and those that are one step.
    """
    before, after = dict(_tasks(old)), dict(_tasks(new))
    whole = {path for path in before if path in after and _same_inside(old, before[path], new, after[path])}
    same: set[str] = set()
    unknown: set[str] = set()
    for path, task in after.items():
        was = before.get(path)
        if was is None or task["type"] not in _JUDGED or was["type"] != task["type"]:
            continue
        if all(
            _meant(old, was.get(key)) == _meant(new, task.get(key)) for key in ("outputs", "success_when")
        ):
            same.add(path)
        elif was.get("outputs") is not None:
            unknown.add(path)
    gone = {path for path, task in before.items() if path not in after and task["type"] in _JUDGED}
    forms = _settled(old, same | gone | unknown, whole), _settled(new, same, whole)
    return *forms, frozenset(unknown), frozenset(whole)


def _same_inside(old: dict[str, Any], was: dict[str, Any], new: dict[str, Any], task: dict[str, Any]) -> bool:
    if not task.get("tasks") or not was.get("tasks"):
        return False
    inside = [{key: value for key, value in each.items() if key not in _AROUND} for each in (was, task)]
    if old["env"] != new["env"] and any(ref.partition(".")[0] == "env" for ref in _refs(new, inside[1])):
        return False
    return task_digest(inside[0], old["exprs"]) == task_digest(inside[1], new["exprs"])


def _refs(form: dict[str, Any], value: Json) -> Iterator[str]:
    """What the expressions of a compiled value read."""
    match value:
        case {"$expr": int(number)}:
            yield from form["exprs"][number]["refs"]
        case {"$text": list(parts)}:
            for part in parts:
                yield from () if isinstance(part, str) else form["exprs"][part]["refs"]
        case dict():
            for item in value.values():
                yield from _refs(form, item)
        case list():
            for item in value:
                yield from _refs(form, item)


def _settled(form: dict[str, Any], paths: set[str], whole: set[str]) -> dict[str, Any]:
    def settle(tasks: list[dict[str, Any]], prefix: str) -> list[dict[str, Any]]:
        made = []
        for task in tasks:
            path = prefix + task["id"]
            if path in whole:
                made.append({key: task[key] for key in _AROUND if key in task} | _ONE_STEP)
                continue
            changes: dict[str, Any] = {}
            if path in paths:
                changes = {key: None for key in ("outputs", "success_when") if key in task}
            if task.get("tasks"):
                changes["tasks"] = settle(task["tasks"], f"{path}.")
            made.append(task | changes)
        return made

    return form | {phase: settle(form[phase], "") for phase in PHASES}


def _meant(form: dict[str, Any], value: Json) -> Json:
    """A compiled value with its expressions in place of their numbers."""
    match value:
        case {"$expr": int(number)}:
            return {"$expr": form["exprs"][number]["src"]}
        case {"$text": list(parts)}:
            return {
                "$text": [
                    part if isinstance(part, str) else {"$expr": form["exprs"][part]["src"]} for part in parts
                ]
            }
        case dict():
            return {key: _meant(form, item) for key, item in value.items()}
        case list():
            return [_meant(form, item) for item in value]
    return value


def _tasks(form: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Every task by its path, those inside of others after the one around them; compensations too."""
    stack = [("", task) for phase in reversed(PHASES) for task in reversed(form[phase])]
    while stack:
        prefix, task = stack.pop()
        path = prefix + task["id"]
        yield path, task
        if task.get("compensate"):
            yield path + UNDO, {"type": "activity", **task["compensate"]}
        stack += [(f"{path}.", inner) for inner in reversed(task.get("tasks") or [])]


# --- where the paths part ---------------------------------------------------------------------------------------------

_Difference = tuple[str, str, str]
"""Task, what it was, what it would be."""


def _recorded(run: RecordedRun, form: dict[str, Any]) -> Trace:
    """What is recorded of the tasks of the form."""
    known = {path for path, _ in _tasks(form)}
    trace = Trace(status=run.status)
    for task in run.tasks:
        if path_of(task.task) in known:
            trace.tasks[task.task] = TaskEnd(task.status, "", task.attempts, None, task.error)
    return trace


def _compared(run: RecordedRun, before: Trace, after: Trace, form: dict[str, Any]) -> Replayed | None:
    found = _first_difference(before, after, form)
    if found is None:
        return None
    task, was, would = found
    kinds = dict(_tasks(form))
    if was == "CANCELLED" and _answers(kinds.get(path_of(task))):
        would = "unknown, since it was broken off"
    return Replayed(run.id, run.commit_sha, task, was, would, run.status, after.status)


def _answers(task: dict[str, Any] | None) -> bool:
    """Whether how a task ends comes from outside: from an activity, a child, or what is one step here."""
    if task is None:
        return False
    kind = task["type"]
    return kind == "workflow" or (kind == "activity" and bool(task["activity_type"] != HUMAN_APPROVAL))


def _fed_otherwise(
    run: RecordedRun, before: Trace, after: Trace, new: dict[str, Any], whole: frozenset[str]
) -> Replayed | None:
    """The first task taken as one step that reads something else than it did: what it would do with it is unknown."""
    for path, task in _tasks(new):
        if path not in whole or path not in before.tasks or path not in after.tasks:
            continue
        if not {before.tasks[path].status, after.tasks[path].status} <= {"COMPLETED", "FAILED"}:
            continue
        around = path.rpartition(".")[0]
        inside = {key: value for key, value in task.items() if key not in _AROUND}
        for name in (ref.split(".")[1] for ref in _refs(new, inside) if ref.startswith("tasks.")):
            read = f"{around}.{name}" if around else name
            if before.given.get(read) != after.given.get(read):
                would = f"RUNNING on what {read} would give, of which nothing is recorded"
                return Replayed(
                    run.id, run.commit_sha, path, before.tasks[path].status, would, run.status, ""
                )
    return None


def _first_difference(before: Trace, after: Trace, form: dict[str, Any]) -> _Difference | None:
    """The first task, in the order in which the second trace ended them, that stands otherwise."""
    for missing in after.missing:
        was = before.tasks[missing.task].status if missing.task in before.tasks else NOT_THERE
        asked = "RUNNING" if missing.attempt == 1 else f"at attempt {missing.attempt}"
        return missing.task, was, f"{asked}, of which nothing is recorded"
    order = {name: at for at, name in enumerate(after.path)}
    names = sorted(
        {*before.tasks, *after.tasks},
        key=lambda name: (order.get(name, len(order)), _position(form, name), name),
    )
    ends: Sequence[tuple[str, str, str]] = [(n, _status(before, n), _status(after, n)) for n in names]
    for name, was, would in ends:
        if name.endswith(UNDO):
            continue  # told by what it undoes
        if was != would and not {was, would} <= {"PENDING", "SKIPPED", NOT_THERE}:
            return name, was, would
    if before.status != after.status:
        return "", before.status, after.status or "waiting"
    return None


def _status(trace: Trace, name: str) -> str:
    return trace.tasks[name].status if name in trace.tasks else NOT_THERE


def _position(form: dict[str, Any], name: str) -> int:
    return next((at for at, (path, _) in enumerate(_tasks(form)) if path == path_of(name)), -1)


def _unexplained(difference: _Difference) -> str:
    """Why a run says nothing whose own definition leads elsewhere."""
    task, was, would = difference
    if path_of(task) != task:
        outer = task.partition("[")[0]
        return f"what the tasks inside of {outer} gave is not kept"
    comes = f"{task or 'the run'} was {was}, and comes to {would}"
    return f"its own definition does not lead to what is recorded: {comes}"


def replay_all(
    runs: Sequence[tuple[RecordedRun, dict[str, Any]]], new: dict[str, Any], types: ActivityTypes
) -> tuple[list[Replayed], list[NotReplayed]]:
    """All runs, each with the form that it ran. A run that cannot be played stops no other."""
    differ: list[Replayed] = []
    unknown: list[NotReplayed] = []
    for run, old in runs:
        try:
            found = replay(run, old, new, types)
        except (LookupError, ValueError, TypeError, AssertionError) as error:
            # Recorded by another release, or damaged: it says nothing, and the others still do.
            found = NotReplayed(run.id, f"it cannot be read: {type(error).__name__}")
        if isinstance(found, Replayed):
            differ.append(found)
        elif found is not None:
            unknown.append(found)
    return differ, unknown
