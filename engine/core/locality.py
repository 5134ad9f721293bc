"""Where the activity of a task runs: inside the workflow task, several times faster, or on a worker like any other."""

from __future__ import annotations

from typing import Final

from engine.core.contracts import RetryPolicy, StartActivity

LOCAL_BY_DEFAULT: Final = frozenset({"http_request", "python_function"})
"""Activity types that every worker has; one that a worker lacks would fail the workflow task again and again."""

LOCAL_TIMEOUT: Final = 1.0
"""Seconds one attempt may take at most to go local by itself."""
LOCAL_RETRY_INTERVAL: Final = 1.0
LOCAL_TOTAL: Final = 5.0
"""Seconds for all attempts and the pauses between them; an open workflow task must answer within eight."""


def runs_locally(command: StartActivity) -> bool:
    """Whether the task may run inside the workflow task: the same promises, several times faster."""
    if command.execution == "worker" or command.task_queue:
        return False
    if command.execution == "local":
        return True
    if command.call.activity_type not in LOCAL_BY_DEFAULT:
        return False
    limit = min(command.timeout or LOCAL_TOTAL * 2, command.total_timeout or LOCAL_TOTAL * 2)
    if limit > LOCAL_TIMEOUT:
        return False
    longest, pauses = _pauses(command.retry)
    return longest <= LOCAL_RETRY_INTERVAL and limit * command.retry.max_attempts + pauses <= LOCAL_TOTAL


def _pauses(policy: RetryPolicy) -> tuple[float, float]:
    """The longest pause between two attempts, and all of them together."""
    longest = total = 0.0
    pause = policy.initial_interval
    for _ in range(min(policy.max_attempts - 1, 100)):
        longest = max(longest, min(pause, policy.max_interval))
        total += min(pause, policy.max_interval)
        pause *= policy.backoff_coefficient
    return longest, total
