"""How an activity says that an attempt failed.

Not part of the tree in `engine/errors.py`: that tree says who of us must act, this says what happened to the
author's task. The door is the only one that catches it.
"""

from __future__ import annotations

from typing import Any


class ActivityFailure(Exception):
    """An attempt failed. `type` is what `retry.non_retryable_errors` and `tasks.<id>.error.type` show.

    `retryable=False` ends the task whatever its retry policy says. `details` is JSON and is shown to everybody
    who may read the run: never put a secret in it.
    """

    def __init__(self, type: str, message: str, *, details: Any = None, retryable: bool = True) -> None:
        super().__init__(message)
        self.type = type
        self.message = message
        self.details = details
        self.retryable = retryable
