"""Telling one violated constraint from every other error, by its name."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy.exc import IntegrityError


@contextmanager
def violates(constraint: str, error: type[Exception]) -> Iterator[None]:
    """Raise `error` if the block breaks the constraint of this name; the transaction is then to be rolled back."""
    try:
        yield
    except IntegrityError as violation:
        # The driver's own error stands behind the adapter's, and is the one that knows the name.
        cause = getattr(violation.orig, "__cause__", None)
        if getattr(cause, "constraint_name", "") == constraint:
            raise error(str(violation.orig)) from violation
        raise
