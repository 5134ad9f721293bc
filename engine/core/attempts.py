"""The pure judge of an attempt: did its result satisfy the author, and may a failed one be tried again.

The door of the activities asks it inside the worker; the offline driver asks the same.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from engine.core.contracts import Json, Judgement, TaskError
from engine.dsl.expressions import ExpressionError, evaluate

NOT_SUCCESSFUL = "NOT_SUCCESSFUL"
EXPRESSION = "EXPRESSION"


def judge_result(judgement: Judgement | None, result: Json, attempt: int) -> TaskError | None:
    """None if the result is a success, else the error: NOT_SUCCESSFUL (retried as any) or EXPRESSION (never retried)."""
    if judgement is None:
        return None
    try:
        verdict = _evaluate(judgement, {"result": result, "attempt": attempt, "task.attempt": attempt})
    except ExpressionError as error:
        return TaskError(EXPRESSION, f"success_when: {error}")
    if not isinstance(verdict, bool):
        return TaskError(EXPRESSION, f"success_when gave {_kind(verdict)} instead of a boolean")
    return None if verdict else TaskError(NOT_SUCCESSFUL, "the result does not satisfy success_when")


def judge_error(judgement: Judgement | None, error: TaskError, attempt: int) -> TaskError | None:
    """None if the failed attempt may be retried, else the error to end with (its own, or EXPRESSION).

    Only `retry.when` is judged here: counts and `non_retryable_errors` are Temporal's own.
    """
    if judgement is None:
        return None
    seen = {"type": error.type, "message": error.message, "details": error.details}
    try:
        verdict = _evaluate(judgement, {"error": seen, "attempt": attempt, "task.attempt": attempt})
    except ExpressionError as problem:
        return TaskError(EXPRESSION, f"retry.when: {problem} (after {error.type}: {error.message})")
    if not isinstance(verdict, bool):
        return TaskError(EXPRESSION, f"retry.when gave {_kind(verdict)} instead of a boolean")
    return None if verdict else error


def _evaluate(judgement: Judgement, attempt_scope: Mapping[str, Any]) -> Json:
    if not isinstance(judgement.expr, dict):
        return judgement.expr  # written without an expression: `success_when: true`
    bindings = dict(judgement.bindings)
    for ref in judgement.expr["refs"]:
        if ref in attempt_scope:
            bindings[ref] = attempt_scope[ref]
    return evaluate(judgement.expr, bindings)


def _kind(value: Json) -> str:
    names = {
        type(None): "null",
        str: "text",
        int: "a number",
        float: "a number",
        list: "a list",
        dict: "an object",
    }
    return names.get(type(value), type(value).__name__)
