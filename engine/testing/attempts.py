"""A task's attempts, played from its mock: the retry policy, the time limits and the judges of a real run."""

from __future__ import annotations

from dataclasses import dataclass

from engine.core.attempts import EXPRESSION, judge_error, judge_result
from engine.core.contracts import (
    ActivityCompleted,
    ActivityFailed,
    ActivityOutcome,
    StartActivity,
    TaskError,
)
from engine.testing.cases import Answer, Mock


@dataclass(frozen=True, slots=True)
class NoAnswer:
    """The mock's list has ended, and one more attempt asks."""

    task: str
    attempt: int
    at: float


def play(command: StartActivity, mock: Mock, now: float) -> ActivityCompleted | ActivityFailed | NoAnswer:
    """How the task ends, and when: all attempts and the pauses between them, from `now` on."""
    policy = command.retry
    end = None if command.total_timeout is None else now + command.total_timeout
    pause = policy.initial_interval
    attempt = 0
    while True:
        attempt += 1
        answer = mock.answer(attempt)
        if answer is None:
            return NoAnswer(command.task, attempt, now)
        limits = [command.timeout] if command.timeout is not None else []
        limits += [end - now] if end is not None else []
        limit = min(limits, default=None)
        now += answer.after if limit is None else min(answer.after, limit)
        error, retryable = _judged(command, answer, attempt, limit)
        if error is None:
            return ActivityCompleted(command.task, ActivityOutcome(answer.result, attempt), now)
        final = judge_error(command.call.retry_when, error, attempt) if retryable else error
        error = final or error
        told = ActivityFailed(
            command.task, TaskError(error.type, error.message, command.task, error.details), attempt, now
        )
        if final is not None or attempt >= policy.max_attempts or error.type in policy.non_retryable_errors:
            return told
        # As Temporal does: an attempt that could only begin after the end of all of them is not made.
        if end is not None and now + pause >= end:
            return told
        now += pause
        pause = min(pause * policy.backoff_coefficient, policy.max_interval)


def _judged(
    command: StartActivity, answer: Answer, attempt: int, limit: float | None
) -> tuple[TaskError | None, bool]:
    """What an attempt comes to: None if it succeeded, else its error and whether the activity lets it be retried."""
    if limit is not None and answer.after > limit:
        return TaskError("TIMEOUT", f"the attempt was not done within {limit:.4g} s"), True
    if answer.error is not None:
        failed = answer.error
        return TaskError(failed.type, failed.message, details=failed.details), failed.retryable
    problem = judge_result(command.call.success_when, answer.result, attempt)
    return problem, problem is None or problem.type != EXPRESSION
