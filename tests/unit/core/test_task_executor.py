"""What goes local, what Temporal's failures mean, how a call looks in a history."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from temporalio.exceptions import ActivityError, ApplicationError, RetryState, TimeoutError, TimeoutType

from engine.activities.door import read_call
from engine.core.contracts import RetryPolicy, StartActivity, TaskError
from engine.core.locality import runs_locally
from engine.core.translation import call_to_json, failure, resolution, temporal_retry_policy
from tests.support.definitions import definition, retry, task
from tests.support.driver import Run


def command(**fields: Any) -> StartActivity:
    run = Run(definition(task("a", **({"activity_type": "http_request", "timeout": 1.0} | fields))))
    return run.command("a")


@pytest.mark.parametrize(
    ("fields", "local"),
    [
        ({}, True),
        ({"activity_type": "python_function"}, True),
        ({"activity_type": "of_a_user"}, False),
        ({"timeout": 2.0}, False),
        ({"timeout": 300.0, "total_timeout": 1.0}, True),
        ({"timeout": None}, False),
        ({"retry": retry(3, initial_interval=0.2)}, True),
        ({"retry": retry(3, initial_interval=2.0, max_interval=60.0)}, False),
        ({"retry": retry(10, initial_interval=0.2)}, False),
        ({"execution": "worker"}, False),
        ({"execution": "local", "timeout": 300.0}, True),
        ({"execution": "local", "activity_type": "of_a_user"}, True),
        ({"execution": "local", "task_queue": "gpu"}, False),
        ({"task_queue": "gpu"}, False),
    ],
)
def test_what_runs_inside_the_workflow_task(fields: dict[str, Any], local: bool) -> None:
    assert runs_locally(command(**fields)) is local


def activity_error(cause: BaseException) -> ActivityError:
    error = ActivityError(
        "activity failed",
        scheduled_event_id=1,
        started_event_id=2,
        identity="",
        activity_type="echo",
        activity_id="a",
        retry_state=RetryState.MAXIMUM_ATTEMPTS_REACHED,
    )
    error.__cause__ = cause
    return error


def application(type: str | None = "BOOM") -> ApplicationError:
    return ApplicationError("went wrong", {"attempt": 3, "details": {"n": 1}}, type=type)


@pytest.mark.parametrize("error", [application(), activity_error(application())], ids=["local", "ordinary"])
def test_both_shapes_of_a_failed_activity_say_the_same(error: BaseException) -> None:
    assert failure(error, RetryPolicy()) == (TaskError("BOOM", "went wrong", details={"n": 1}), 3)


def test_a_timeout_names_which() -> None:
    late = TimeoutError("late", type=TimeoutType.START_TO_CLOSE, last_heartbeat_details=[])
    told, attempts = failure(activity_error(late), RetryPolicy(max_attempts=4))
    assert (told.type, told.message, attempts) == ("TIMEOUT", "the start to close timeout passed", 4)


def test_a_failure_from_elsewhere_keeps_what_it_says() -> None:
    told, attempts = failure(ApplicationError("no", "one", "two"), RetryPolicy())
    assert (told.type, told.details, attempts) == ("ApplicationError", ["one", "two"], 1)
    told, _ = failure(RuntimeError("not readable"), RetryPolicy())
    assert told == TaskError("INTERNAL", "RuntimeError: not readable")


def test_the_policy_in_temporals_words() -> None:
    policy = temporal_retry_policy(RetryPolicy(5, 2.0, 1.5, 60.0, ("FATAL",)))
    assert policy.maximum_attempts == 5
    assert policy.initial_interval == timedelta(seconds=2)
    assert policy.maximum_interval == timedelta(seconds=60)
    assert policy.backoff_coefficient == 1.5
    assert policy.non_retryable_error_types == ["FATAL"]


def test_the_door_reads_the_call_that_the_executor_writes() -> None:
    plain = command(config={"n": 1}).call
    assert read_call(call_to_json(plain)) == plain
    judged = command(success_when="${{ result.ok }}", retry=retry(2, when="${{ attempt < 2 }}")).call
    assert judged.success_when is not None
    assert judged.retry_when is not None
    assert read_call(call_to_json(judged)) == judged
    assert "success_when" not in call_to_json(replace(judged, success_when=None))


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"task": "a", "approval_id": "x", "outcome": "MAYBE"},
        {"task": "a", "approval_id": "x", "outcome": "REJECTED", "decisions": ["no"]},
        {"task": "a", "approval_id": "x", "outcome": "PENDING", "deadline": float("nan")},
        [],
        "text",
        None,
    ],
)
def test_a_signal_that_makes_no_sense_is_an_error_that_the_driver_expects(body: Any) -> None:
    with pytest.raises((KeyError, TypeError, ValueError, AttributeError)):
        resolution(body, 0.0)
