"""Messages about proposals: commits that callers ask for."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal

from pydantic import StringConstraints

from engine.api.schemas.common import Body, Message, Text

_SourceName = Annotated[str, StringConstraints(max_length=100)]


class Propose(Body):
    """A definition to be committed on a branch of its own."""

    definition: Annotated[str, StringConstraints(min_length=1)]
    """The text of the file. It is checked as `pinflow validate` does."""
    source: _SourceName = ""
    """Where to; the source that has the name, or the only one, if it is empty."""
    path: Annotated[str, StringConstraints(max_length=900)] = ""
    """From the source's folder; where the definition stands, or `<name>.yaml`, if it is empty."""
    title: Annotated[Text, StringConstraints(max_length=200)] = ""
    """The subject of the commit."""
    message: Text = ""
    """The body of the commit's message."""
    pull_request: bool = False
    """Open a pull request, if the source's forge is known."""


class Promote(Body):
    """What is live of a workflow in one source, to be committed to another."""

    from_source: Annotated[str, StringConstraints(min_length=1, max_length=100)]
    to_source: Annotated[str, StringConstraints(min_length=1, max_length=100)]
    direct: bool = False
    """On the target's branch itself, and not on a branch of its own."""
    with_functions: bool = False
    """Bring the functions that it calls along, where they are others."""
    message: Text = ""
    """The body of the commit's message."""
    pull_request: bool = False
    """Open a pull request, if the target's forge is known."""


class Proposal(Message):
    """A commit that somebody asked for, and how it stands."""

    id: str
    kind: Literal["proposal", "promotion"]
    source: str
    name: str
    path: str
    branch: str
    direct: bool
    """It goes to the source's branch itself."""
    message: str
    digest: str
    """Of the definition's bytes."""
    bundle_digest: str
    """Of the functions that go along; empty if none do."""
    requested_by: str
    status: Literal["PROPOSING", "PROPOSED", "FAILED"]
    """PROPOSED once the commit is on the remote; FAILED if it never will be."""
    commit_sha: str
    base_sha: str
    """The commit that it stands on."""
    url: str
    """Of the pull request, if one was opened."""
    pull_request: bool
    """One was asked for."""
    pull_request_error: str
    """Why it is not opened yet, as the forge says."""
    error: str
    """Why it failed, or what it waits for."""
    created_at: datetime
    pushed_at: datetime | None
