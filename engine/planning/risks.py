"""How risky each change is: one table, the first rule that holds decides. Written worst first."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from engine.core.contracts import Json
from engine.dsl.words import DEFAULT_TIMEOUT
from engine.planning.difference import Difference
from engine.planning.guards import host_of, host_of_undo, secrets_of
from engine.planning.meaning import TaskMeaning, in_seconds
from engine.planning.plans import Level

_NOT_IDEMPOTENT: Final = frozenset({"POST", "PATCH"})
"""Methods of HTTP that may do their work twice when they are sent twice (RFC 9110, 9.2.2)."""
_TEXT: Final = frozenset({"name", "title", "description", "labels", "version", "message"})
_TIMES: Final = frozenset({"timeout", "total_timeout", "cleanup_timeout", "deadline", "max_age", "catchup_window"})  # fmt: skip
_URL: Final = ("config", "url")
_URL_OF_UNDO: Final = ("compensate", "config", "url")
_NARROWING: Final = frozenset({
    "type", "enum", "const", "pattern", "format", "minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum",
    "minLength", "maxLength", "minItems", "maxItems", "uniqueItems", "multipleOf", "minProperties", "maxProperties",
    "propertyNames", "additionalProperties", "dependentRequired", "not", "if", "then", "else", "allOf", "anyOf", "oneOf",
})  # fmt: skip
"""Keywords of JSON Schema that can refuse what was accepted."""


@dataclass(frozen=True, slots=True)
class Rule:
    """A class of risk. `why` says to the reader of a plan what may come of it."""

    code: str
    level: Level
    why: str
    holds: Callable[[Difference], bool]


def classify(difference: Difference) -> Rule:
    """The rule that a change falls under."""
    return next(rule for rule in RULES if rule.holds(difference))


# --- what the rules ask -----------------------------------------------------------------------------------------------


def _noted(code: str) -> Callable[[Difference], bool]:
    """Found by `effects.py`, and only there."""
    return lambda d: d.note == code


def _of_approval(d: Difference) -> bool:
    return d.old_task is not None and d.old_task.kind == "approval"


def _whole_task(d: Difference) -> bool:
    return d.task is not None and not d.key


def _key(*names: str) -> Callable[[Difference], bool]:
    """The change stands at or below one of these keys of its task, or of the definition."""
    return lambda d: bool(d.key) and d.key[0] in names


def _config(*names: str) -> Callable[[Difference], bool]:
    return lambda d: len(d.key) > 1 and d.key[0] == "config" and d.key[1] in names


def _approval_removed(d: Difference) -> bool:
    gone = _whole_task(d) and d.new_task is None
    turned = d.key == ("activity_type",) or d.key == ("type",)
    return _of_approval(d) and (gone or turned)


def _approval_weakened(d: Difference) -> bool:
    if not _of_approval(d) or not d.key or d.new_task is None:
        return False
    old, new = d.old, d.new
    match d.key:
        case ("config", "required_approvals"):
            return not (isinstance(new, int) and new >= (old or 1))
        case ("config", "approvers", *_) if d.new_task.data["config"].get("approvers") in (None, {}):
            return True  # everybody who has the role may decide now
        case ("config", "approvers" | "escalate_to", *_):
            return _more_people(old, new)
        case ("config", "prevent_self_approval"):
            return not set(_listed(old)) <= set(_listed(new))
        case ("config", "on_timeout"):
            return bool(new == "approve")
        case ("config", "deadline") if d.new_task.data["config"].get("on_timeout") == "approve":
            return _shorter(d)  # it passes by itself, and sooner
        case ("config", "on_reject"):
            return bool(new == "continue")
        case ("config", "form", *_):
            return new is None
        case ("when",) | ("run_on",):
            return True
        case ("continue_on_failure",):
            return bool(new)
    return False


def _more_people(old: Json, new: Json) -> bool:
    """Whether some people may decide who could not. What cannot be told, since it is an expression, counts as more."""
    if new is None:
        return False
    if isinstance(new, dict):
        before = old if isinstance(old, dict) else {}
        return any(_more_people(before.get(key), listed) for key, listed in new.items())
    if not isinstance(new, list) or not (old is None or isinstance(old, list)):
        return True
    return not set(map(str, new)) <= set(map(str, old or ()))


def _listed(value: Json) -> list[Any]:
    return value if isinstance(value, list) else [] if value is None else [value]


def _attempts(task: TaskMeaning | None) -> int:
    retry = task.data.get("retry") if task is not None else None
    if not isinstance(retry, dict):
        return 1
    attempts = retry.get("max_attempts", 3)
    return attempts if isinstance(attempts, int) else 3


def _method(task: TaskMeaning | None) -> str:
    config = task.data.get("config") if task is not None else None
    method = config.get("method", "GET") if isinstance(config, dict) else "GET"
    return str(method).upper()


def _unsafe_call(task: TaskMeaning | None) -> bool:
    return (
        task is not None
        and task.data.get("activity_type") == "http_request"
        and (_method(task) in _NOT_IDEMPOTENT or "${{" in _method(task))
    )


def _retry_begins(d: Difference) -> bool:
    return (
        bool(d.key)
        and d.key[0] == "retry"
        and d.old_task is not None
        and _attempts(d.old_task) <= 1 < _attempts(d.new_task)
    )


def _retry_unsafe(d: Difference) -> bool:
    if _retry_begins(d):
        return _unsafe_call(d.new_task)
    turned = d.key == ("config", "method") or d.key == ("activity_type",)
    return turned and _unsafe_call(d.new_task) and not _unsafe_call(d.old_task) and _attempts(d.new_task) > 1


def _retry_ends(d: Difference) -> bool:
    return bool(d.key) and d.key[0] == "retry" and _attempts(d.new_task) <= 1 < _attempts(d.old_task)


def _input(d: Difference) -> bool:
    return d.task is None and _key("inputs")(d)


def _input_required(d: Difference) -> bool:
    if not _input(d):
        return False
    if d.key == ("inputs",):
        around: tuple[str, ...] = d.key
        made = set((d.new or {}).get("required") or ()) if d.old is None else set()
    elif d.key[-1] == "required" and d.key[-2:-1] != ("properties",):
        around = d.key[:-1]
        made = set(map(str, _listed(d.new))) - set(map(str, _listed(d.old)))
    elif _default(d) and d.new is None:
        around = d.key[:-3]
        made = {d.key[-2]} & set(map(str, _listed(_schema_at(d, around).get("required"))))
    else:
        return False
    properties = _schema_at(d, around).get("properties") or {}
    return any("default" not in (properties.get(name) or {}) for name in made)


def _default(d: Difference) -> bool:
    return _input(d) and d.key[-1] == "default" and d.key[-3:-2] == ("properties",)


def _schema_at(d: Difference, key: tuple[str, ...]) -> dict[str, Any]:
    """The new schema of the inputs at a key."""
    found: Any = d.after.top
    for part in key:
        found = found.get(part) if isinstance(found, dict) else None
    return found if isinstance(found, dict) else {}


def _input_removed(d: Difference) -> bool:
    """An input that is not declared is refused, so that callers who send it fail."""
    if not _input(d) or d.new is not None:
        return False
    return d.key == ("inputs",) or (len(d.key) >= 3 and d.key[-2] == "properties")


def _input_narrowed(d: Difference) -> bool:
    if not _input(d) or d.key[-1] not in _NARROWING or d.key[-2:-1] == ("properties",):
        return False
    if d.key[-1] == "enum":
        return d.new is not None and not set(map(str, _listed(d.old))) <= set(map(str, _listed(d.new)))
    return d.new is not None and d.new is not True


def _target(d: Difference) -> bool:
    if d.note == "TARGET_CHANGED":
        return True
    if d.old_task is None or d.new_task is None or d.key not in (_URL, _URL_OF_UNDO):
        return False
    host = host_of if d.key == _URL else host_of_undo
    return host(d.old_task, d.before) != host(d.new_task, d.after)


def _secret_target(d: Difference) -> bool:
    if not _target(d) or d.new_task is None:
        return False
    undo = d.path.endswith(".".join(_URL_OF_UNDO))
    carried = d.new_task.data.get("compensate") if undo else d.new_task.data
    return bool(secrets_of(carried))


def _trigger(d: Difference, kind: str) -> bool:
    if d.task is not None or not _key("triggers")(d) or len(d.key) < 2:
        return False
    for meaning in (d.after, d.before):
        for each in meaning.top.get("triggers") or ():
            if isinstance(each, dict) and each.get("id") == d.key[1]:
                return bool(each.get("type") == kind)
    return False


def _whole_trigger(d: Difference) -> bool:
    return d.task is None and _key("triggers")(d) and len(d.key) == 2


def _trigger_inputs(d: Difference) -> bool:
    return d.task is None and _key("triggers")(d) and d.key[2:3] == ("inputs",)


def _of_type(d: Difference, kind: str) -> bool:
    return d.task is not None and d.task.data.get("type") == kind


def _unsigned(d: Difference) -> bool:
    return _trigger(d, "webhook") and d.key[2:] == ("secret",) and d.new is None


def _time(d: Difference) -> bool:
    return (
        bool(d.key) and d.key[-1] in _TIMES and (len(d.key) == 1 or _of_approval(d) or d.key[0] == "triggers")
    )


def _shorter(d: Difference) -> bool:
    if not _time(d):
        return False
    # Without a word there is no limit, but for the attempt of an activity.
    unsaid = (
        DEFAULT_TIMEOUT if d.task is not None and d.key == ("timeout",) and _is_activity(d.task) else math.inf
    )
    old, new = (unsaid if side is None else in_seconds(side) for side in (d.old, d.new))
    return old is None or new is None or new < old


def _is_activity(task: TaskMeaning) -> bool:
    return bool(task.data.get("type", "activity") == "activity")


def _fewer_dependencies(d: Difference) -> bool:
    return d.key == ("depends_on",) and bool(set(_listed(d.old)) - set(_listed(d.new)))


def _cleanup_task(d: Difference) -> bool:
    task = d.task
    return task is not None and not task.scope.startswith("tasks") and d.new_task is None


def _code(d: Difference) -> bool:
    function = d.key == ("config", "function")
    return function or d.key in (("activity_type",), ("type",), ("functions",))


def _text(d: Difference) -> bool:
    if d.task is None:
        return bool(d.key) and d.key[0] in _TEXT
    return d.key in (("name",), ("description",)) or (_of_approval(d) and d.key == ("config", "message"))


def _always(d: Difference) -> bool:
    return True


RULES: Final[tuple[Rule, ...]] = (
    Rule("APPROVAL_REMOVED", "high", "nobody is asked any more", _approval_removed),
    Rule("APPROVAL_BYPASSED", "high", "the task no longer waits for this approval", _noted("APPROVAL_BYPASSED")),
    Rule(
        "APPROVAL_WEAKENED", "high", "fewer or other people can let it pass, or it can pass by itself",
        _approval_weakened,
    ),
    Rule("SECRET_ADDED", "high", "a secret that the workflow did not use before", _noted("SECRET_ADDED")),
    Rule("SECRET_TARGET", "high", "a call that carries a secret goes to another host", _secret_target),
    Rule("TRIGGER_UNSIGNED", "high", "anybody who knows the address could send it", _unsigned),
    Rule(
        "RETRY_UNSAFE", "high",
        "the call may be made twice, and the method does not promise that this does no harm: "
        "the target must honour the Idempotency-Key",
        _retry_unsafe,
    ),
    Rule("INPUT_REQUIRED", "high", "callers and triggers that do not give it are refused", _input_required),
    Rule("INPUT_REMOVED", "high", "callers and triggers that still give it are refused", _input_removed),
    Rule("DEFINITION_RETIRED", "high", "nothing can start it any more, but by an older commit", _noted("DEFINITION_RETIRED")),
    Rule("INPUT_NARROWED", "medium", "inputs that were accepted may be refused", _input_narrowed),
    Rule("INPUT_DEFAULT", "medium", "runs that do not give it take another value", _default),
    Rule("SECRET_SPREAD", "medium", "a secret that only other tasks used", _noted("SECRET_SPREAD")),
    Rule("TARGET_CHANGED", "medium", "the call goes to another host", _target),
    Rule("METHOD_CHANGED", "medium", "the call does something else", _config("method")),
    Rule("TRIGGER_ADDED", "medium", "it starts by itself in one more way", lambda d: _whole_trigger(d) and d.old is None),
    Rule("TRIGGER_REMOVED", "medium", "it no longer starts by itself in this way", lambda d: _whole_trigger(d) and d.new is None),
    Rule("TRIGGER_INPUTS", "medium", "the runs that it starts have other inputs", _trigger_inputs),
    Rule("SCHEDULE_CHANGED", "medium", "it starts by itself at other times", lambda d: _trigger(d, "schedule")),
    Rule("TRIGGER_CHANGED", "medium", "other messages start it", _key("triggers")),
    Rule("TIMEOUT_SHORTENED", "medium", "what was in time may be late", _shorter),
    Rule("CONCURRENCY_CHANGED", "medium", "more, fewer or other runs and tasks go on at once", _key("concurrency", "max_concurrency")),
    Rule("RETRY_ADDED", "medium", "its work may be done twice", lambda d: _retry_begins(d) and d.new_task is not None and d.new_task.data.get("activity_type") != "http_request"),
    Rule("RETRY_REMOVED", "medium", "the first failure is final", _retry_ends),
    Rule("CODE_CHANGED", "medium", "other code runs", _code),
    Rule("CHILD_CHANGED", "medium", "another workflow, or another version of it, is started", lambda d: d.task is not None and _key("workflow", "ref", "one_of")(d)),
    Rule("SIGNAL_CHANGED", "medium", "it waits for something else: what is sent as before may not reach it", lambda d: _of_type(d, "signal") and _key("signal", "correlation", "schema")(d)),
    Rule("ITEMS_CHANGED", "medium", "it is done for other items", lambda d: d.task is not None and _key("items")(d)),
    Rule("WAIT_CHANGED", "medium", "what comes after it begins at another time", lambda d: _of_type(d, "wait") and _key("duration", "until")(d)),
    Rule("END_CHANGED", "medium", "the run ends with another status", lambda d: _of_type(d, "end") and _key("status")(d)),
    Rule("CONDITION_CHANGED", "medium", "it runs, succeeds or repeats under another condition", lambda d: d.task is not None and (_key("when", "run_on", "success_when", "until", "max_iterations")(d) or _config("expected_status")(d) or d.key == ("retry", "when"))),
    Rule(
        "FAILURE_HANDLING", "medium", "a failure has other consequences",
        lambda d: _cleanup_task(d) or _key("continue_on_failure", "on_task_failure", "tolerated_failures", "compensate")(d),
    ),
    Rule("TASK_REMOVED", "medium", "it is not done any more", lambda d: _whole_task(d) and d.new_task is None),
    Rule("ORDER_LOOSENED", "medium", "it no longer waits for what it waited for", _fewer_dependencies),
    Rule("OUTPUTS_CHANGED", "medium", "whoever reads them sees something else", _key("outputs", "default_outputs", "results")),
    Rule("CACHE_CHANGED", "medium", "old results may be taken, or no longer", _key("cache")),
    Rule("APPROVAL_CHANGED", "medium", "people are asked in another way", lambda d: _of_approval(d) and _key("config")(d) and not _text(d)),
    Rule("INPUT_CHANGED", "low", "it takes other inputs, and still all that it took", _input),
    Rule("TIMEOUT_CHANGED", "low", "it may take longer", _time),
    Rule("RETRY_CHANGED", "low", "failures are repeated in another way", _key("retry")),
    Rule("TASK_ADDED", "low", "it is done as well", lambda d: _whole_task(d) and d.old_task is None),
    Rule("ORDER_CHANGED", "low", "it waits for something else as well", _key("depends_on")),
    Rule("PLACEMENT_CHANGED", "low", "it runs elsewhere", lambda d: d.task is not None and _key("task_queue", "execution")(d)),
    Rule("SECRET_REMOVED", "low", "a secret is used no more", lambda d: d.task is None and _key("secrets")(d) and bool(set(_listed(d.old)) - set(_listed(d.new)))),
    Rule("SECRET_DECLARED", "low", "its tasks may use it", lambda d: d.task is None and _key("secrets")(d)),
    Rule("DEFINITION_ADDED", "low", "it can be started once this is merged", _noted("DEFINITION_ADDED")),
    Rule("TEXT_CHANGED", "none", "it is told otherwise, and does the same", _text),
    Rule("DEFINITION_MOVED", "none", "the file stands elsewhere, and says the same", _noted("DEFINITION_MOVED")),
    Rule("CONFIG_CHANGED", "low", "it does its work with other values", _always),
)  # fmt: skip
"""Worst first; the last holds always."""


RULES_BY_CODE: Final = {rule.code: rule for rule in RULES}
