"""Words and limits of the language that are needed where Pydantic is not loaded."""

from __future__ import annotations

from engine.dsl import durations

NAME_PATTERN = r"^[a-z][a-z0-9-]*$"
ID_PATTERN = r"^[A-Za-z_][A-Za-z0-9_]*$"
ACTIVITY_TYPE_PATTERN = r"^[a-z][a-z0-9_]*(?:\.[a-z][a-z0-9_]*)*$"
QUEUE_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9._-]*$"
EXPRESSION_PATTERN = r"\$\{\{"
DURATION_OR_EXPRESSION_PATTERN = durations.PATTERN + "|" + EXPRESSION_PATTERN
HTTP_URL_PATTERN = "^[Hh][Tt][Tt][Pp][Ss]?://"
ERROR_TYPE_PATTERN = r"^[A-Za-z_][A-Za-z0-9_.]*$"

MAX_NAME = 63
MAX_TASKS = 5_000
"""Tasks of a definition, those of `on_failure` and `finally` included: what one run's state and history can hold."""
MAX_IN_FLIGHT = 1_000
"""Half of the 2,000 pending activities that Temporal allows a run; what `max_concurrency` is without a word."""
MAX_EXPRESSIONS = 5_000
"""Different expressions of a definition: what can be compiled in about a second."""
MAX_PROBLEMS = 100
"""Problems told of one file; nobody reads more, and a hostile file could have one in every byte."""
MAX_ATTEMPTS = 1_000

RESERVED_IDS = frozenset({"in", "true", "false", "null"})
"""CEL reads these as words of its own, so no task, input or constant can have them for a name."""

DEFAULT_TIMEOUT = 300.0
DEFAULT_CLEANUP_TIMEOUT = 900.0
DEFAULT_MAX_ATTEMPTS = 3
DEFAULT_INITIAL_INTERVAL = 1.0
DEFAULT_BACKOFF = 2.0
DEFAULT_MAX_INTERVAL = 60.0

NOT_YET_TYPES = frozenset({"map", "loop", "group", "workflow", "signal", "end"})
NOT_YET_KEYS = frozenset({"triggers", "concurrency", "secrets"})
NOT_YET_TASK_KEYS = frozenset({"cache", "compensate", "concurrency"})

PATTERNS: dict[str, tuple[str, str]] = {
    NAME_PATTERN: ("is not a workflow name", "use lower-case letters, digits and dashes, a letter first"),
    ID_PATTERN: ("is not an id", "use letters, digits and `_`, no digit first"),
    ACTIVITY_TYPE_PATTERN: (
        "is not the name of an activity type",
        "lower-case words, such as `http_request`",
    ),
    QUEUE_PATTERN: ("is not the name of a task queue", "use letters, digits, `.`, `_` and `-`"),
    EXPRESSION_PATTERN: ("is no expression", 'write it as "${{ … }}"'),
    HTTP_URL_PATTERN: ("is not an http URL", "it begins with https:// or http://"),
    ERROR_TYPE_PATTERN: ("is not an error type", "a name, such as `HTTP_4XX` or `ValueError`"),
    DURATION_OR_EXPRESSION_PATTERN: (
        "is neither a duration nor an expression",
        "write it like 90s, 1h30m, 250ms or PT10M",
    ),
    durations.PATTERN: ("is not a duration", "write it like 90s, 1h30m, 250ms or PT10M"),
}
"""What each pattern of the schema means to a person, and what to write."""

NEIGHBOURS: dict[str, str] = {
    "needs": "depends_on",
    "depends": "depends_on",
    "dependencies": "depends_on",
    "dependsOn": "depends_on",
    "after": "depends_on",
    "upstream": "depends_on",
    "if": "when",
    "run_if": "when",
    "condition": "when",
    "only_if": "when",
    "steps": "tasks",
    "jobs": "tasks",
    "nodes": "tasks",
    "do": "tasks",
    "uses": "activity_type",
    "action": "activity_type",
    "operator": "activity_type",
    "call": "activity_type",
    "executor": "activity_type",
    "with": "config",
    "params": "config",
    "parameters": "inputs",
    "input": "inputs",
    "args": "config",
    "foreach": "`type: map` with `items`",
    "for_each": "`type: map` with `items`",
    "with_items": "`type: map` with `items`",
    "loop": "`type: loop`",
    "on_error": "on_failure",
    "onFailure": "on_failure",
    "catch": "on_failure",
    "rescue": "on_failure",
    "always": "finally",
    "on_exit": "finally",
    "ensure": "finally",
    "retries": "retry",
    "retry_policy": "retry",
    "max_retries": "retry: {max_attempts: …}",
    "attempts": "max_attempts",
    "backoff": "backoff_coefficient",
    "interval": "initial_interval",
    "continue_on_error": "continue_on_failure",
    "continue-on-error": "continue_on_failure",
    "ignore_errors": "continue_on_failure",
    "allow_failure": "continue_on_failure",
    "trigger_rule": "run_on",
    "timeout-minutes": "timeout",
    "timeout_minutes": "timeout",
    "timeout_seconds": "timeout",
    "deadline": "timeout",
    "queue": "task_queue",
    "runs-on": "task_queue",
    "runs_on": "task_queue",
    "variables": "env",
    "vars": "env",
    "environment": "env",
    "on": "triggers",
    "schedule": "triggers",
    "cron": "triggers",
    "key": "id",
    "label": "name",
    "summary": "description",
    "assert": "success_when",
    "register": "outputs",
    "output": "outputs",
    "result": "outputs",
    "sleep": "`type: wait` with `duration`",
    "delay": "`type: wait` with `duration`",
    "parallelism": "max_concurrency",
    "concurrency_limit": "max_concurrency",
    "apiVersion": "dsl",
    "kind": "dsl",
    "schema_version": "dsl",
}
"""Words of other systems, and ours."""
