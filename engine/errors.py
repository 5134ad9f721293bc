"""The one error tree.

    PinflowError
    ├── InvalidDefinition   the author of a definition must act (carries located problems)
    ├── InvalidInput        the caller must send something else (carries JSON pointers)
    ├── NotFound            the caller named something that does not exist
    ├── Conflict            the caller came too late or repeats something differently
    ├── Forbidden           the caller may not do this
    ├── Unauthenticated     the caller did not say who they are
    ├── Misconfigured       the operator must change a setting or a machine
    ├── SourceError         the operator or the owner of a git remote must act
    └── Unavailable         nobody must act: try again after `retry_after` seconds

Rooms raise these; only three doors translate them: `engine/api/problems.py` (problem+json),
`engine/cli/main.py` (exit codes) and the activity door in `engine/activities` (Temporal failures).
No HTTP status and no exit code stands in this tree.  Anything outside of it is our bug.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Problem:
    """One located fault of a definition (or of a test file).

    `line` and `column` count from 1 (0 when the fault has no place, such as an unreadable file).
    `path` is the document path, such as `tasks.2.depends_on.0`.  `code` is a promise: each has a
    section of its own in `docs/reference/problems.md`.
    """

    code: str
    message: str
    file: str = ""
    line: int = 0
    column: int = 0
    path: str = ""
    hint: str = ""

    def __str__(self) -> str:
        """`file:line:column: CODE message (hint)`, the form that editors and CI logs link. Without a file, no place."""
        hint = f" ({self.hint})" if self.hint else ""
        place = f"{self.file}:{self.line}:{self.column}: " if self.file else ""
        return f"{place}{self.code} {self.message}{hint}"

    def to_json(self) -> dict[str, Any]:
        """The same as a JSON object, one key per field."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class InputProblem:
    """One fault of a request: where (JSON pointer, RFC 6901) and what."""

    pointer: str
    message: str

    def to_json(self) -> dict[str, str]:
        """The same as a JSON object."""
        return asdict(self)


class PinflowError(Exception):
    """Base of all errors that Pinflow raises on purpose.

    `code` is stable and machine-readable; the message says what happened and where, `hint` what to do next.
    """

    code = "ERROR"

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message} ({self.hint})" if self.hint else self.message


class InvalidDefinition(PinflowError):
    """A definition has faults; `problems` holds all of them, located."""

    code = "INVALID_DEFINITION"

    def __init__(self, problems: Sequence[Problem], message: str = "", *, hint: str = "") -> None:
        self.problems = tuple(problems)
        super().__init__(
            message or "; ".join(str(p) for p in self.problems) or "invalid definition", hint=hint
        )


class InvalidInput(PinflowError):
    """A request or the inputs of a run do not fit; `problems` holds a JSON pointer for each fault."""

    code = "INVALID_INPUT"

    def __init__(self, message: str, problems: Sequence[InputProblem] = (), *, hint: str = "") -> None:
        self.problems = tuple(problems)
        super().__init__(message, hint=hint)


class NotFound(PinflowError):
    """What was named does not exist; the message says what does."""

    code = "NOT_FOUND"


class Conflict(PinflowError):
    """The state has moved on, or the same key was used for something else."""

    code = "CONFLICT"


class Forbidden(PinflowError):
    """The caller is known and may not do this."""

    code = "FORBIDDEN"


class Unauthenticated(PinflowError):
    """The caller did not present a valid token."""

    code = "UNAUTHENTICATED"


class Misconfigured(PinflowError):
    """A setting, file or program on this machine is not as it must be."""

    code = "MISCONFIGURED"


class SourceError(PinflowError):
    """A git repository cannot be used as it is; `reason` is one of the words of `engine/sync/conditions.py`."""

    code = "SOURCE"

    def __init__(self, message: str, *, reason: str, hint: str = "") -> None:
        self.reason = reason
        super().__init__(message, hint=hint)


class Unavailable(PinflowError):
    """Something we need is away; it heals by itself. `retry_after` is in seconds."""

    code = "UNAVAILABLE"

    def __init__(self, message: str, *, retry_after: float = 2.0, hint: str = "") -> None:
        self.retry_after = retry_after
        super().__init__(message, hint=hint)
