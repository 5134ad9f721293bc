"""How a run ends: the verdict of its tasks, and what the clean-up may change in it."""

from __future__ import annotations

from engine.core.contracts import Json, TaskError
from engine.core.error_types import ENDED, OUTPUTS
from engine.core.plan import FINALLY, Plan
from engine.core.run_state import RunState
from engine.core.values import UNFORESEEN, Values


def decide_tasks(plan: Plan, run: RunState, values: Values) -> None:
    """All tasks have ended: cancelled and timed out come first, then the first failure, then the run's outputs."""
    if run.cut == "cancelled":
        _decide(run, "CANCELLED", cancelled(run))
    elif run.cut == "timed_out":
        _decide(run, "TIMED_OUT", TaskError("RunTimedOut", f"not done within {plan.timeout:g} seconds"))
    elif run.ended is not None:
        _decide_ended(run)
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
    elif run.frames[FINALLY].error is not None:
        _decide(run, "FAILED", run.frames[FINALLY].error)
    elif run.cut == "cleanup_timed_out":
        message = f"finally was not done within {plan.cleanup_timeout:g} seconds"
        _decide(run, "FAILED", TaskError("CleanupTimedOut", message))


def decide_refused(run: RunState, error: TaskError, verdict: str) -> None:
    """The run never began."""
    _decide(run, verdict, error)


def cancelled(run: RunState) -> TaskError:
    """Who cancelled the run, and why."""
    reason = f": {run.cancel_reason}" if run.cancel_reason else ""
    return TaskError("RunCancelled", f"cancelled by {_who(run)}{reason}")


def _decide_ended(run: RunState) -> None:
    """A task of type `end` has the last word, whatever else failed."""
    said = run.ended
    if said["status"] == "FAILED":
        message = said["message"] or f"ended by task {said['task']}"
        _decide(run, "FAILED", TaskError(ENDED, message, said["task"]))
    else:
        _decide(run, "COMPLETED", None, said["outputs"])


def _decide(run: RunState, verdict: str, error: TaskError | None, outputs: Json = None) -> None:
    run.verdict = verdict
    run.error = error
    run.outputs = outputs


def _who(run: RunState) -> str:
    return run.cancelled_by or "nobody"
