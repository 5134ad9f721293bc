"""Messages about plans."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import StringConstraints

from engine.api.schemas.common import Body, DefinitionProblem, Field, Message, Name

_Path = Annotated[str, StringConstraints(min_length=1, max_length=1000)]


class FileAtBothEnds(Body):
    """A definition file at the two ends of the range; null where it does not stand."""

    path: _Path
    old: str | None = None
    new: str | None = None
    functions: list[_Path] = Field(default_factory=list, max_length=2000)
    """Files of the source's `functions/` that differ, if any do."""
    folder: Annotated[str, StringConstraints(max_length=1000)] = ""
    """The folder of the source, where files of several are planned: in each of them a name stands once."""


class SourceAtHead(Body):
    """What a source holds at the head beside the files that differ: what changes must fit to it."""

    folder: Annotated[str, StringConstraints(max_length=1000)] = ""
    others: dict[str, str] = Field(default_factory=dict, max_length=20_000)
    """Texts by path: of what starts a changed definition or is started by one, at least."""
    names: dict[str, str] = Field(default_factory=dict, max_length=20_000)
    """Names of definitions that do not change, with the path of each: those of `others`, and any more."""
    modules: dict[str, list[str] | None] | None = Field(default=None, max_length=2000)
    """Files of `functions/` by path, with the names that each module has; null for those that are not to be judged.
    Without it nothing is said of functions."""
    lock: dict[str, str] = Field(default_factory=dict, max_length=3)
    """Texts of `requirements.txt`, `uv.lock` and `pyproject.toml` in `functions/`; of the last two any will do."""


class PlanRequest(Body):
    """What to plan. Files that are the same at both ends may be left out."""

    base: Name = "base"
    """A label, such as the SHA that the change starts from."""
    head: Name = "head"
    files: list[FileAtBothEnds] = Field(max_length=2000)
    names: dict[str, str] = Field(default_factory=dict, max_length=20_000)
    """Names of definitions that do not change, with the path of each: a name stands once. For those who send no
    `sources`."""
    sources: list[SourceAtHead] = Field(default_factory=list, max_length=100)
    """The sources at the head, to see whether what changes fits: without them each file is checked alone."""
    source: Annotated[str, StringConstraints(max_length=100)] = ""
    """The source that is planned; all that have the name, if it is empty."""
    runs: int = Field(default=20, ge=0, le=100, strict=True)
    """Recorded runs of each definition to put through the new one."""


class PlannedChange(Message):
    """One change of meaning; docs/reference/plan.md lists the codes."""

    path: str
    kind: Literal["added", "removed", "changed", "effect"]
    old: Any
    new: Any
    level: Literal["high", "medium", "low", "none"]
    code: str
    why: str
    line: int
    column: int


class OpenRuns(Message):
    """Open runs of one version: each ends as it began."""

    commit_sha: str
    count: int
    statuses: dict[str, int]
    oldest: str


class OtherPath(Message):
    """A recorded run whose path would be another, and the task where the paths part."""

    run: str
    commit_sha: str
    task: str
    was: str
    would: str
    status: str
    would_end: str


class Unknown(Message):
    """A recorded run that says nothing, and why."""

    run: str
    why: str


class LiveEffect(Message):
    """What the change of a definition would meet in one source."""

    source: str
    commit_sha: str
    is_base: bool
    runs: list[OpenRuns]
    parents: list[str]
    triggers: list[str]
    replayed: int
    differ: list[OtherPath]
    unknown: list[Unknown]


class PlannedDefinition(Message):
    """What happens to one definition."""

    name: str
    change: Literal["added", "changed", "moved", "retired", "rewritten", "invalid"]
    path: str
    old_path: str
    level: Literal["high", "medium", "low", "none"]
    changes: list[PlannedChange]
    live: list[LiveEffect]


class PlanAnswer(Message):
    """A plan, the same as `pinflow plan --format json` gives."""

    format: int
    base: str
    head: str
    server: str
    valid: bool
    level: Literal["high", "medium", "low", "none"]
    definitions: list[PlannedDefinition]
    problems: list[DefinitionProblem]
    notes: list[str]
