"""What a revision is about to change, and what it is compared with. Frozen data without behaviour."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, TypeAlias

from engine.errors import Problem

Call: TypeAlias = dict[str, str]
"""`{workflow, ref}`: what a task of type workflow may start, as the definition says it."""


@dataclass(frozen=True, slots=True)
class Author:
    """Who a commit says wrote it. No proof of identity."""

    name: str
    email: str


@dataclass(frozen=True, slots=True)
class Commit:
    """A commit as git has it. `tree_sha` is that of the source's folder, "" if the commit lacks the folder.

    `authors` are those of all commits that it brought, as a merge does, co-authors included; empty if it brought none but
    itself, and has one author.
    `signer` is whose trusted key has signed it, if that was asked for, and `signer_key` the key's fingerprint.
    """

    sha: str
    parent_sha: str
    tree_sha: str
    author: str
    author_email: str
    committer: str
    committed_at: datetime
    subject: str
    authors: tuple[Author, ...] = ()
    signer: str = ""
    signer_key: str = ""


@dataclass(frozen=True, slots=True)
class Cursor:
    """Where the registry stands with a source: the last revision of any status, and what is live.

    Publishing is refused if this has moved meanwhile.
    """

    last_seq: int = 0
    last_sha: str = ""
    last_status: str = ""
    live_seq: int = 0
    live_sha: str = ""
    live_tree: str = ""
    live_bundle: str = ""
    folder: str = ""
    sync_requested_at: datetime | None = None
    declaration: str = ""
    watched: bool = False
    retired: bool = False
    """All that was deployed was taken out by hand, when nobody watched the source."""
    live_faulty: bool = False
    """The live revision has problems: some of its files keep an older version."""
    confirmed_sha: str = ""
    """The held commit that somebody confirmed last."""


@dataclass(frozen=True, slots=True)
class VersionContent:
    """A definition's content, ready to be stored, or (without `text` and `compiled`) in the blobs already."""

    name: str
    path: str
    git_blob: str
    digest: str
    compiled_digest: str
    bundle_digest: str
    dsl: str
    version: str
    title: str
    description: str
    labels: dict[str, Any]
    uses_functions: bool
    calls: list[Call] = field(default_factory=list)
    triggers: list[Any] = field(default_factory=list)
    text: bytes | None = None
    compiled: bytes | None = None


@dataclass(frozen=True, slots=True)
class LiveDefinition:
    """A definition as it is live, as far as the plan of the next revision needs it."""

    name: str
    path: str
    git_blob: str
    digest: str
    compiled_digest: str
    bundle_digest: str
    dsl: str
    version: str
    title: str
    description: str
    labels: dict[str, Any]
    uses_functions: bool
    calls: list[Call] = field(default_factory=list)
    triggers: list[Any] = field(default_factory=list)
    name_line: int = 1
    """The line of its `name`; only filled in where a problem must point at it."""


@dataclass(frozen=True, slots=True)
class Bundle:
    """The source's `functions/` folder at a commit; without it, `digest` is "". `content` is None if known already."""

    digest: str = ""
    content: bytes | None = None


@dataclass(frozen=True, slots=True)
class RevisionPlan:
    """One commit and all that it changes. With `problems` it changes nothing: they are kept, the rest stays live.

    If it is `partial`, they concern only files that are left as they were, and all else is registered.
    """

    source_id: int
    source: str
    folder: str
    commit: Commit
    expected: Cursor
    history_rewritten: bool = False
    bundle: Bundle = Bundle()
    deploys: tuple[VersionContent, ...] = ()
    retires: tuple[str, ...] = ()
    problems: tuple[Problem, ...] = ()
    partial: bool = False
    confirmed: bool = False
    """Somebody confirmed what held it."""

    @property
    def rejected(self) -> bool:
        """Nothing of it becomes live."""
        return bool(self.problems) and not self.partial


@dataclass(frozen=True, slots=True)
class Published:
    """What a revision did. `deployed` includes `restored` and `moved`."""

    seq: int
    registered: bool
    deployed: tuple[str, ...] = field(default=())
    restored: tuple[str, ...] = field(default=())
    moved: tuple[str, ...] = field(default=())
    retired: tuple[str, ...] = field(default=())
