"""What all messages share."""

from __future__ import annotations

from typing import Annotated, Any, Generic, TypeVar

from fastapi import Query
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, Strict, StringConstraints

T = TypeVar("T")


class Message(BaseModel):
    """Base of the messages that we send."""

    model_config = ConfigDict(use_attribute_docstrings=True, from_attributes=True)


class Body(BaseModel):
    """Base of the messages that we take: an unknown key is an error, never silence."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


class Page(Message, Generic[T]):
    """A page of a listing."""

    # Described as a value: pydantic looks for the docstrings anew for each kind of page, in the source of all modules that
    # import it, which was a third of the API's start.
    model_config = ConfigDict(use_attribute_docstrings=False)

    items: list[T]
    next_cursor: str = Field("", description="Give it as `cursor` for the next page; empty at the last one.")


class Error(Message):
    """Why an attempt, a task or a run failed."""

    type: str
    message: str
    task: str = ""
    details: Any = None


class InputFault(Message):
    """One fault of a request."""

    pointer: str
    """A JSON pointer (RFC 6901) into the request's body, or `/name` of a parameter."""
    message: str


class DefinitionProblem(Message):
    """A located fault of a definition."""

    file: str
    line: int
    column: int
    code: str
    path: str
    message: str
    hint: str


class Problem(Message):
    """Every error (RFC 9457)."""

    type: str
    """`urn:pinflow:problem:` and a word of docs/reference/http.md."""
    title: str
    status: int
    detail: str
    """What happened, and where."""
    code: str
    """Stable, for programs."""
    hint: str = ""
    """What to do next."""
    problems: list[InputFault | DefinitionProblem] = Field(default_factory=list)
    """Faults of the request, or (`INVALID_DEFINITION`) of a definition."""


def _no_nul(text: str) -> str:
    if "\x00" in text:
        raise ValueError("holds the character U+0000")
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ValueError("holds half a surrogate pair") from None
    return text


Flag = Annotated[bool, Strict()]
"""A yes or no, and no number or word for one."""

Text = Annotated[str, StringConstraints(max_length=10_000), AfterValidator(_no_nul)]
"""Free text of a person."""

Name = Annotated[str, StringConstraints(max_length=300), AfterValidator(_no_nul)]

Limit = Annotated[int, Query(ge=1, le=500, description="How many items a page has at most.")]
Cursor = Annotated[str, Query(max_length=500, description="`next_cursor` of the page before.")]
CommitSha = Annotated[
    str, Query(max_length=64, description="A commit, full or at least 4 characters of its SHA.")
]

ERRORS: dict[int | str, dict[str, Any]] = {
    401: {"model": Problem, "description": "No valid token"},
    403: {"model": Problem, "description": "The token's roles do not allow it"},
    404: {"model": Problem, "description": "What was named does not exist; the answer says what does"},
    422: {"model": Problem, "description": "Faults in the request, each with a JSON pointer"},
    503: {
        "model": Problem,
        "description": "Postgres or Temporal is away; try again after `Retry-After` seconds",
    },
}
"""What every closed route can answer."""

CONFLICT: dict[int | str, dict[str, Any]] = {409: {"model": Problem, "description": "The state has moved on"}}

__all__ = [
    "CONFLICT",
    "ERRORS",
    "Body",
    "CommitSha",
    "Cursor",
    "DefinitionProblem",
    "Error",
    "Field",
    "Flag",
    "Limit",
    "Message",
    "Name",
    "Page",
    "Problem",
    "Text",
]
