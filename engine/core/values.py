"""What expressions may read: `inputs`, `env`, `tasks`, `run`, and what only one task or attempt knows."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final

from engine.core.contracts import Json, Judgement, RunStart
from engine.core.plan import JudgedExpression, Lookup, Plan
from engine.core.run_state import RunState, TaskRecord, error_to_json
from engine.dsl.durations import MAX_SECONDS, DurationError, parse_duration
from engine.dsl.expressions import ExpressionError

ATTEMPT_SCOPE: Final = frozenset({"result", "attempt", "error", "task.attempt"})
"""Names that only the judge of an attempt knows."""


class ValueProblem(Exception):
    """An expression gave a value that its place cannot take."""


UNFORESEEN: Final = (ExpressionError, ValueProblem)
"""What rendering a value of the definition may raise, whatever the data are."""


class Values:
    """Looks names up in the state of a run."""

    def __init__(self, plan: Plan, run: RunState) -> None:
        self._plan = plan
        self._run = run
        self._inputs: dict[str, Json] | None = None

    def scope(self, names: Mapping[str, Json] | None = None) -> Lookup:
        """A look-up that knows `names` besides those of the run. Raises KeyError for what is not there."""
        if not names:
            return self.lookup

        def lookup(ref: str) -> Json:
            return names[ref] if ref in names else self.lookup(ref)

        return lookup

    def lookup(self, ref: str) -> Json:
        """The value of a name. Raises KeyError for an input that was not given, and for a name that cannot be."""
        root, _, rest = ref.partition(".")
        match root:
            case "tasks":
                name, _, field = rest.partition(".")
                return self._task(name, field)
            case "inputs":
                return self.inputs[rest] if rest else self.inputs
            case "env":
                return self._plan.env[rest] if rest else self._plan.env
            case "run":
                return self._run_fields()[rest] if rest else self._run_fields()
        raise KeyError(ref)

    @property
    def inputs(self) -> dict[str, Json]:
        """The inputs of the run, the defaults of its schema filled in."""
        if self._inputs is None:
            start = self._run.start
            self._inputs = {**self._plan.input_defaults, **(start.inputs if start else {})}
        return self._inputs

    def judgement(self, judged: JudgedExpression | None, names: Mapping[str, Json]) -> Judgement | None:
        """The expression with all that the run knows of what it reads; the attempt adds the rest."""
        if judged is None:
            return None
        lookup = self.scope(names)
        bindings: dict[str, Json] = {}
        for ref in judged.refs:
            if ref in ATTEMPT_SCOPE:
                continue
            try:
                bindings[ref] = lookup(ref)
            except KeyError:
                pass  # Absent is a value of its own: `has(inputs.x)` tells.
        return Judgement(judged.entry, bindings)

    def _task(self, name: str, field: str) -> Json:
        position = self._plan.positions[name]
        record = self._run.records[position]
        match field:
            case "outputs":
                return outputs_of(record, self._plan.tasks[position].default_outputs)
            case "status":
                return record.status
            case "error":
                return error_to_json(record.error)
            case "attempts":
                return record.attempts
            case "":
                return {part: self._task(name, part) for part in ("outputs", "status", "error", "attempts")}
        raise KeyError(f"tasks.{name}.{field}")

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


def outputs_of(record: TaskRecord, default_outputs: Json) -> Json:
    """What readers see of a task: its outputs if it completed, else its `default_outputs`."""
    return record.outputs if record.status == "COMPLETED" else default_outputs


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


def _kind(value: Any) -> str:
    names = {type(None): "null", bool: "a boolean", str: "text", list: "a list", dict: "an object"}
    return names.get(type(value), "a number")
