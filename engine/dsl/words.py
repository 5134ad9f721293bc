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
SIGNAL_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9._:-]*$"
PERCENT_PATTERN = r"^(?:100|[0-9]{1,2}(?:\.[0-9]{1,4})?)%$"
REF_PATTERN = r"^(?:same|latest|[0-9a-f]{7,40})$"
NAME_OR_EXPRESSION_PATTERN = r"^[a-z][a-z0-9-]{0,62}$|" + EXPRESSION_PATTERN

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
MAX_ITERATIONS = 10_000
MAX_NESTING = 10
"""Maps, loops and groups inside of each other: an address with all their names stays within Temporal's 1,000 characters."""
MAX_CALLS = 50
"""Workflows among which one task may choose."""
MAX_SECRETS = 200
MAX_TRIGGERS = 50
MAX_CRONS = 50

RESERVED_IDS = frozenset({"in", "true", "false", "null"})
"""CEL reads these as words of its own, so no task, input or constant can have them for a name."""

TAKEN_NAMES = frozenset(
    {"inputs", "env", "secrets", "tasks", "run", "task", "trigger", "result", "attempt", "error", "state", "iteration"}
    | {"bool", "int", "double", "string", "list", "map", "null_type", "type", "optional"}
    | {"as", "break", "const", "continue", "else", "for", "function", "if", "import", "let", "loop", "package"}
    | {"namespace", "return", "var", "void", "while"}
)  # fmt: skip
"""What begins a name in expressions already, ours and CEL's: no item of a map is called so."""

DEFAULT_TIMEOUT = 300.0
DEFAULT_CLEANUP_TIMEOUT = 900.0
DEFAULT_MAX_ATTEMPTS = 3
DEFAULT_INITIAL_INTERVAL = 1.0
DEFAULT_BACKOFF = 2.0
DEFAULT_MAX_INTERVAL = 60.0
DEFAULT_CATCHUP_WINDOW = 60.0

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
    SIGNAL_PATTERN: (
        "is not the name of a signal",
        "letters, digits, `.`, `_`, `:` and `-`, such as `freeze-lifted`",
    ),
    PERCENT_PATTERN: ("is neither a count nor a percentage", "write it like 3 or 10%"),
    REF_PATTERN: (
        "is not a version",
        "write `same`, `latest`, or a commit's SHA: 7 to 40 lower-case hex digits",
    ),
    NAME_OR_EXPRESSION_PATTERN: (
        "is neither a workflow's name nor an expression",
        "use lower-case letters, digits and dashes, a letter first",
    ),
    ERROR_TYPE_PATTERN: ("is not an error type", "a name, such as `HTTP_4XX` or `ValueError`"),
    DURATION_OR_EXPRESSION_PATTERN: (
        "is neither a duration nor an expression",
        "write it like 90s, 1h30m, 250ms or PT10M",
    ),
    durations.PATTERN: ("is not a duration", "write it like 90s, 1h30m, 250ms or PT10M"),
}
"""What each pattern of the schema means to a person, and what to write."""
