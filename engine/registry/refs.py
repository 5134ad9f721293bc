"""What is said of a short SHA that means several commits, and of a source that is not there, wherever one can be given."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from engine.errors import InvalidInput, NotFound

_SHOWN = 10
_LETTERS = 16


def candidates(commits: Sequence[str]) -> str:
    """The commits that a short SHA may mean, as a person copies one."""
    more = f" and {len(commits) - _SHOWN} more" if len(commits) > _SHOWN else ""
    return ", ".join(commit[:_LETTERS] for commit in commits[:_SHOWN]) + more


def ambiguous_ref(ref: str, commits: Sequence[str]) -> InvalidInput:
    """The error for a short SHA that is the beginning of several commits."""
    return InvalidInput(
        f"ref {ref} is ambiguous: {candidates(commits)}", hint="give more characters of the SHA"
    )


def unknown_source(name: str, known: Iterable[str]) -> NotFound:
    """The error for a source that nobody has declared here."""
    return NotFound(f"no source {name[:80]!r}", hint=f"there are: {', '.join(sorted(known)) or 'none'}")
