"""What expressions may read: `inputs`, `env`, `tasks`, `run`, `trigger`, and what only one frame, task or attempt knows."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any, Final

from engine.core.contracts import Json, Judgement, RunStart
from engine.core.frames import Frame, Task
from engine.core.ids import callback_url
from engine.core.plan import JudgedExpression, Lookup, Plan
from engine.core.run_state import RunState, error_to_json
from engine.dsl.cel_values import dump
from engine.dsl.durations import MAX_SECONDS, DurationError, parse_duration
from engine.dsl.expressions import ExpressionError

ATTEMPT_SCOPE: Final = frozenset({"result", "attempt", "error", "task.attempt"})
"""Names that only the judge of an attempt knows."""


class ValueProblem(Exception):
    """An expression gave a value that its place cannot take."""


UNFORESEEN: Final = (ExpressionError, ValueProblem)
"""What rendering a value of the definition may raise, whatever the data are."""


class Values:
    """Looks names up in the state of a run, from where a task stands: its frame first, then those around."""

    def __init__(self, plan: Plan, run: RunState) -> None:
        self._plan = plan
        self._run = run
        self._inputs: dict[str, Json] | None = None

    def of(self, frame: Frame | None, names: Mapping[str, Json] | None = None) -> Lookup:
        """A look-up from inside of `frame` that knows `names` too. Raises KeyError for what is not there."""

        def lookup(ref: str) -> Json:
            return names[ref] if names and ref in names else self.lookup(ref, frame)

        return lookup

    def lookup(self, ref: str, frame: Frame | None = None) -> Json:
        """The value of a name. Raises KeyError for an input that was not given, and for a name that cannot be."""
        root, _, rest = ref.partition(".")
        match root:
            case "tasks":
                name, _, field = rest.partition(".")
                task = self._find(name, frame)
                return self._bound(ref) if task is None else self._task(task, field)
            case "inputs":
                return self._input(ref, rest)
            case "env":
                return self._plan.env[rest] if rest else self._plan.env
            case "run":
                start = self._run.start
                if start is not None and start.slice is not None and ref in start.slice.bindings:
                    return start.slice.bindings[ref]
                return self._run_fields()[rest] if rest else self._run_fields()
        while frame is not None:
            if root in frame.locals:
                return _inside(frame.locals[root], rest)
            frame = frame.around
        if root == "trigger" and self._run.start is not None and self._run.start.trigger is not None:
            return _inside(self._run.start.trigger, rest)
        return self._bound(ref)

    @property
    def inputs(self) -> dict[str, Json]:
        """The inputs of the run, the defaults of its schema filled in."""
        if self._inputs is None:
            start = self._run.start
            self._inputs = {**self._plan.input_defaults, **(start.inputs if start else {})}
        return self._inputs

    def judgement(
        self, judged: JudgedExpression | None, frame: Frame, names: Mapping[str, Json]
    ) -> Judgement | None:
        """The expression with all that the run knows of what it reads; the attempt adds the rest."""
        if judged is None:
            return None
        bindings = self.bindings([ref for ref in judged.refs if ref not in ATTEMPT_SCOPE], frame, names)
        return Judgement(judged.entry, bindings)

    def bindings(
        self, refs: Iterable[str], frame: Frame | None, names: Mapping[str, Json] | None = None
    ) -> dict[str, Json]:
        """The values of names as they are now, by name."""
        lookup = self.of(frame, names)
        found: dict[str, Json] = {}
        for ref in refs:
            try:
                found[ref] = lookup(ref)
            except KeyError:
                pass  # Absent is a value of its own: `has(inputs.x)` tells.
        return found

    def _find(self, name: str, frame: Frame | None) -> Task | None:
        while frame is not None:
            position = frame.block.positions.get(name)
            if position is not None:
                return frame.tasks[position]
            frame = frame.around
        for phase in self._run.frames:
            position = phase.block.positions.get(name)
            if position is not None:
                return phase.tasks[position]
        return None

    def _task(self, task: Task, field: str) -> Json:
        match field:
            case "outputs":
                return outputs_of(task)
            case "status":
                return task.status
            case "error":
                return error_to_json(task.error)
            case "attempts":
                return task.attempts
            case "failures":
                return [] if task.work is None else task.work.failures
            case "callback_url":
                start = self._run.start
                if start is None or start.callback is None:
                    raise KeyError(f"{task.address}.callback_url")
                return callback_url(start.callback, start.execution_id, task.address)
            case "":
                return {part: self._task(task, part) for part in ("outputs", "status", "error", "attempts")}
        raise KeyError(f"tasks.{task.plan.id}.{field}")

    def _input(self, ref: str, name: str) -> Json:
        start = self._run.start
        if start is not None and start.slice is not None:
            return self._bound(ref)
        return self.inputs[name] if name else self.inputs

    def _bound(self, ref: str) -> Json:
        """What a slice was given of the run that it is a part of."""
        start = self._run.start
        if start is None or start.slice is None:
            raise KeyError(ref)
        return start.slice.bindings[ref]

    def _run_fields(self) -> dict[str, Json]:
        run = self._run
        start: RunStart | None = run.start
        if start is None:
            return {}
        error = run.error
        return {
            "id": start.execution_id,
            "workflow": start.pin.workflow,
            "source": start.pin.source,
            "commit_sha": start.pin.commit_sha,
            "started_at": start.started_at,
            "started_by": start.started_by,
            "title": run.title,
            "status": run.verdict or "RUNNING",
            "error": None
            if error is None
            else {"type": error.type, "message": error.message, "task": error.task},
            "failed_tasks": list(run.failed),
        }


def own_names(task: Task) -> dict[str, Json]:
    """What a task's expressions read of the task itself. A config is resolved once, hence the first attempt."""
    address = task.address
    return {"task.id": address, "task.attempt": 1, "task": {"id": address, "attempt": 1}}


def outputs_of(task: Task) -> Json:
    """What readers see of a task: its outputs if it completed, else its `default_outputs`."""
    return task.outputs if task.status == "COMPLETED" else task.plan.default_outputs


def text(value: Json, place: str) -> str:
    """`value` as text: what is not text becomes JSON. Raises ValueProblem for null."""
    if value is None:
        raise ValueProblem(f"{place} gave null, which has no text")
    return value if isinstance(value, str) else dump(value)


def listed(value: Json, place: str) -> list[Json]:
    """`value` itself. Raises ValueProblem if it is no list."""
    if not isinstance(value, list):
        raise ValueProblem(f"{place} gave {_kind(value)} instead of a list")
    return value


def mapping(value: Json, place: str) -> dict[str, Json]:
    """`value` itself. Raises ValueProblem if it is no object."""
    if not isinstance(value, dict):
        raise ValueProblem(f"{place} gave {_kind(value)} instead of an object")
    return value


def boolean(value: Json, place: str) -> bool:
    """`value` itself. Raises ValueProblem if it is no boolean."""
    if not isinstance(value, bool):
        raise ValueProblem(f"{place} gave {_kind(value)} instead of a boolean")
    return value


def seconds(value: Json) -> float:
    """A duration as text (`15m`, `PT15M`) or as a number of seconds. Raises ValueProblem."""
    if isinstance(value, str):
        try:
            return parse_duration(value)
        except DurationError as error:
            raise ValueProblem(f"duration {value[:64]!r} {error}") from None
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise ValueProblem(f"duration gave {_kind(value)} instead of a duration such as 15m")
    if not 0 <= value <= MAX_SECONDS:
        raise ValueProblem(f"a duration of {value} seconds is not between nothing and ten years")
    return float(value)


def moment(value: Json) -> float:
    """An RFC 3339 time with its offset, as seconds since the epoch. Raises ValueProblem."""
    if not isinstance(value, str):
        raise ValueProblem(f"until gave {_kind(value)} instead of an RFC 3339 time")
    try:
        parsed = datetime.fromisoformat(value)
        if parsed.tzinfo is None:
            raise ValueProblem(f"until {value[:64]!r} has no offset: write it like 2030-01-31T12:00:00Z")
        return parsed.timestamp()
    except (ValueError, OverflowError):
        raise ValueProblem(f"until {value[:64]!r} is no RFC 3339 time") from None


def time_left(until: float, now: float) -> float:
    """Seconds from `now` on. Raises ValueProblem for what no timer of Temporal can hold: it counts in nanoseconds."""
    if until - now > MAX_SECONDS:
        raise ValueProblem("until is more than ten years away")
    return until - now


def rfc3339(at: float) -> str:
    """Seconds since the epoch as RFC 3339 in UTC."""
    return datetime.fromtimestamp(at, UTC).isoformat().replace("+00:00", "Z")


def _inside(value: Json, path: str) -> Json:
    for name in path.split(".") if path else ():
        if not isinstance(value, dict):
            raise KeyError(path)
        value = value[name]
    return value


def _kind(value: Any) -> str:
    names = {type(None): "null", bool: "a boolean", str: "text", list: "a list", dict: "an object"}
    return names.get(type(value), "a number")
