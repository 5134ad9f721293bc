"""How a run ends: the verdict of its tasks, and what the clean-up may change in it."""

from __future__ import annotations

from engine.core.contracts import Json, TaskError
from engine.core.plan import FINALLY, Plan
from engine.core.run_state import RunState
from engine.core.values import UNFORESEEN, Values

OUTPUTS = "OUTPUTS"


def decide_tasks(plan: Plan, run: RunState, values: Values) -> None:
    """All tasks have ended: cancelled and timed out come first, then the first failure, then the run's outputs."""
    if run.cut == "cancelled":
        reason = f": {run.cancel_reason}" if run.cancel_reason else ""
        _decide(run, "CANCELLED", TaskError("RunCancelled", f"cancelled by {_who(run)}{reason}"))
    elif run.cut == "timed_out":
        _decide(run, "TIMED_OUT", TaskError("RunTimedOut", f"not done within {plan.timeout:g} seconds"))
    elif run.first_error is not None:
        _decide(run, "FAILED", run.first_error)
    else:
        try:
            outputs = None if plan.outputs is None else plan.outputs.render(values.lookup)
        except UNFORESEEN as error:
            _decide(run, "FAILED", TaskError(OUTPUTS, f"outputs of the run: {error}"))
        else:
            _decide(run, "COMPLETED", None, outputs)


def decide_cleanup(plan: Plan, run: RunState) -> None:
    """A phase of the clean-up has ended: it never hides the first error, and turns only COMPLETED into something else."""
    if run.verdict != "COMPLETED" or run.phase != FINALLY:
        return
    if run.cut == "skipped":
        _decide(run, "CANCELLED", TaskError("RunCancelled", f"cancelled by {_who(run)} during its clean-up"))
    elif run.cleanup_error is not None:
        _decide(run, "FAILED", run.cleanup_error)
    elif run.cut == "cleanup_timed_out":
        message = f"finally was not done within {plan.cleanup_timeout:g} seconds"
        _decide(run, "FAILED", TaskError("CleanupTimedOut", message))


def _decide(run: RunState, verdict: str, error: TaskError | None, outputs: Json = None) -> None:
    run.verdict = verdict
    run.error = error
    run.outputs = outputs


def _who(run: RunState) -> str:
    return run.cancelled_by or "nobody"
