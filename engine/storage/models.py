"""The tables. Every one says what a row is and what may change in it.

Times are `timestamptz` in UTC. Digests are lower-case hex sha256. Ids of runs, approvals and decisions are
UUIDv7-like text made before the transaction, so that an unknown outcome of a commit can be looked up by id.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import (
    BigInteger,
    Boolean,
    DateTime,
    ForeignKey,
    Identity,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    Text,
    UniqueConstraint,
    func,
    text,
)
from sqlalchemy.dialects.postgresql import ARRAY, JSONB
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

# Constraint names are fixed, so that Alembic can name them again and a violation can be recognised by name.
NAMING = {
    "ix": "ix_%(table_name)s_%(column_0_N_name)s",
    "uq": "uq_%(table_name)s_%(column_0_N_name)s",
    "ck": "ck_%(table_name)s_%(constraint_name)s",
    "fk": "fk_%(table_name)s_%(column_0_N_name)s",
    "pk": "pk_%(table_name)s",
}


class Base(DeclarativeBase):
    """Declarative base; Python types map to Postgres' own."""

    metadata = MetaData(naming_convention=NAMING)
    type_annotation_map = {  # noqa: RUF012 - SQLAlchemy's own convention
        str: Text,
        bytes: LargeBinary,
        datetime: DateTime(timezone=True),
        dict[str, Any]: JSONB,
        list[Any]: JSONB,
        list[str]: ARRAY(Text),
    }


class Blob(Base):
    """Content by its digest: definition text, compiled form, bundle of functions, large payload. Never updated.

    `kind` is `definition`, `compiled`, `bundle` or `payload`; only payloads may be deleted, after their run.
    """

    __tablename__ = "blobs"

    digest: Mapped[str] = mapped_column(primary_key=True)
    kind: Mapped[str]
    content: Mapped[bytes]
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())


class Source(Base):
    """A git repository, a branch and a folder in it, with its condition and the live pointer.

    `live_seq` is the sequence number of the live revision and moves by compare-and-set only; 0 means none yet.
    `observed_sha` is the last tip seen, registered or not.  `kind` is `definitions`, or `sources` for a file that lists
    further sources (its `folder` is the file).  `declaration` says what the daemon that watches it was told to watch,
    `settings` the rest of it, for people; `watched_until` is when to worry that no daemon does any more.  A daemon that
    was told something else stands aside and leaves a note in `contested_at` and `contested_by`.  `retired_at` is when somebody retired all that it deployed.
    """

    __tablename__ = "sources"

    id: Mapped[int] = mapped_column(Integer, Identity(), primary_key=True)
    name: Mapped[str] = mapped_column(unique=True)
    url: Mapped[str]
    branch: Mapped[str]
    folder: Mapped[str]
    live_seq: Mapped[int] = mapped_column(BigInteger, server_default=text("0"))
    live_sha: Mapped[str] = mapped_column(server_default="")
    observed_sha: Mapped[str] = mapped_column(server_default="")
    condition: Mapped[str] = mapped_column(server_default="Unknown")
    reason: Mapped[str] = mapped_column(server_default="")
    message: Mapped[str] = mapped_column(server_default="")
    condition_since: Mapped[datetime] = mapped_column(server_default=func.now())
    checked_at: Mapped[datetime | None]
    sync_requested_at: Mapped[datetime | None]
    kind: Mapped[str] = mapped_column(server_default="definitions")
    declaration: Mapped[str] = mapped_column(server_default="")
    settings: Mapped[dict[str, Any]] = mapped_column(server_default=text("'{}'::jsonb"))
    watched_until: Mapped[datetime | None]
    contested_at: Mapped[datetime | None]
    contested_by: Mapped[str] = mapped_column(server_default="")
    retired_at: Mapped[datetime | None]


class Confirmation(Base):
    """Somebody's word that a held commit is meant; `codes` are the problems that it passes. Never updated."""

    __tablename__ = "confirmations"
    __table_args__ = (UniqueConstraint("source_id", "sha"),)

    id: Mapped[int] = mapped_column(BigInteger, Identity(), primary_key=True)
    source_id: Mapped[int] = mapped_column(ForeignKey("sources.id"))
    sha: Mapped[str]
    codes: Mapped[list[str]]
    confirmed_by: Mapped[str]
    confirmed_at: Mapped[datetime] = mapped_column(server_default=func.now())


class Revision(Base):
    """A first-parent commit of a source's branch, in the order in which it was taken. Never updated.

    `status` is REGISTERED or REJECTED; a rejected one changed nothing that is live.  A registered one can have problems
    as well, if its source lets bad files keep their last good version.  `signer` is empty unless the commit's signature
    was asked for and is that of a trusted key.  `bundle_digest` is that of the functions, or of the list itself where the
    source is a list of sources.
    """

    __tablename__ = "revisions"
    __table_args__ = (UniqueConstraint("source_id", "seq"), Index(None, "sha"))

    id: Mapped[int] = mapped_column(BigInteger, Identity(), primary_key=True)
    source_id: Mapped[int] = mapped_column(ForeignKey("sources.id"))
    seq: Mapped[int] = mapped_column(BigInteger)
    sha: Mapped[str]
    parent_sha: Mapped[str]
    tree_sha: Mapped[str] = mapped_column(comment="of the source's folder; empty if the commit lacks it")
    status: Mapped[str]
    history_rewritten: Mapped[bool] = mapped_column(Boolean, server_default=text("false"))
    author: Mapped[str]
    author_email: Mapped[str]
    authors: Mapped[list[Any]] = mapped_column(
        server_default=text("'[]'::jsonb"),
        comment="{name, email} of all commits that it brought, if these are more than the one",
    )
    committer: Mapped[str]
    committed_at: Mapped[datetime]
    subject: Mapped[str]
    bundle_digest: Mapped[str] = mapped_column(server_default="")
    registered_at: Mapped[datetime] = mapped_column(server_default=func.now())
    signer: Mapped[str] = mapped_column(server_default="")
    signer_key: Mapped[str] = mapped_column(server_default="")


class RevisionProblem(Base):
    """One located fault of a revision."""

    __tablename__ = "revision_problems"

    id: Mapped[int] = mapped_column(BigInteger, Identity(), primary_key=True)
    revision_id: Mapped[int] = mapped_column(ForeignKey("revisions.id"), index=True)
    file: Mapped[str]
    line: Mapped[int]
    column: Mapped[int]
    code: Mapped[str]
    path: Mapped[str]
    message: Mapped[str]
    hint: Mapped[str]


class WorkflowDefinition(Base):
    """A name of a source that is or was deployed. `retired_seq` is set when a complete tree lacked it."""

    __tablename__ = "workflow_definitions"
    __table_args__ = (
        UniqueConstraint("source_id", "name"),
        Index(None, "name"),
        Index(None, "source_id", "path"),
    )

    id: Mapped[int] = mapped_column(BigInteger, Identity(), primary_key=True)
    source_id: Mapped[int] = mapped_column(ForeignKey("sources.id"))
    name: Mapped[str]
    live_version_id: Mapped[int | None] = mapped_column(BigInteger)
    path: Mapped[str]
    retired_seq: Mapped[int | None] = mapped_column(BigInteger)
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())


class WorkflowVersion(Base):
    """A definition's content as of the commit that brought it. Never updated, never deleted while a run points at it.

    The same bytes with the same functions are the same version, also after a revert.
    """

    __tablename__ = "workflow_versions"
    __table_args__ = (UniqueConstraint("source_id", "name", "digest", "compiled_digest", "bundle_digest"),)

    id: Mapped[int] = mapped_column(BigInteger, Identity(), primary_key=True)
    source_id: Mapped[int] = mapped_column(ForeignKey("sources.id"))
    name: Mapped[str]
    commit_sha: Mapped[str] = mapped_column(index=True)
    seq: Mapped[int] = mapped_column(BigInteger)
    path: Mapped[str]
    digest: Mapped[str] = mapped_column(ForeignKey("blobs.digest"))
    compiled_digest: Mapped[str] = mapped_column(ForeignKey("blobs.digest"))
    bundle_digest: Mapped[str] = mapped_column(server_default="", comment="empty unless it uses functions")
    git_blob: Mapped[str] = mapped_column(comment="object id in git, for the auditor")
    dsl: Mapped[str]
    version: Mapped[str]
    title: Mapped[str]
    description: Mapped[str]
    labels: Mapped[dict[str, Any]]
    uses_functions: Mapped[bool]
    calls: Mapped[list[Any]] = mapped_column(
        server_default=text("'[]'::jsonb"), comment="[{workflow, ref}] of its tasks of type workflow"
    )
    triggers: Mapped[list[Any]] = mapped_column(
        server_default=text("'[]'::jsonb"), comment="its compiled triggers, less their expressions"
    )


class VersionRange(Base):
    """From which to which revision a version was the live one: `from_seq <= seq < to_seq`, open while `to_seq` is null."""

    __tablename__ = "version_ranges"
    __table_args__ = (
        Index("ix_version_ranges_lookup", "source_id", "name", "from_seq"),
        Index(
            "uq_version_ranges_open",
            "source_id",
            "name",
            unique=True,
            postgresql_where=text("to_seq IS NULL"),
        ),
    )

    id: Mapped[int] = mapped_column(BigInteger, Identity(), primary_key=True)
    source_id: Mapped[int] = mapped_column(ForeignKey("sources.id"))
    name: Mapped[str]
    version_id: Mapped[int] = mapped_column(ForeignKey("workflow_versions.id"), index=True)
    path: Mapped[str]
    from_seq: Mapped[int] = mapped_column(BigInteger)
    to_seq: Mapped[int | None] = mapped_column(BigInteger)


class WorkflowExecution(Base):
    """One run. The pin columns are written once; `status` moves forward only (see `core/states.py`).

    `calls` and `closure` are those of the `Pin` (see `core/contracts.py`), of a child's row only its own `calls`: its
    root's row holds the closure. `callback_key` makes the tokens of its callback URLs, null if it has none.
    """

    __tablename__ = "workflow_executions"
    __table_args__ = (
        Index("ix_workflow_executions_workflow_id", "workflow", "id"),
        Index("ix_workflow_executions_commit_sha_id", "commit_sha", "id"),
        Index("ix_workflow_executions_revision_sha", "revision_sha"),
        Index("ix_workflow_executions_parent_id", "parent_id", postgresql_where=text("parent_id <> ''")),
        Index("ix_workflow_executions_root_id", "root_id", postgresql_where=text("root_id <> ''")),
        Index("ix_workflow_executions_rerun_of", "rerun_of", postgresql_where=text("rerun_of <> ''")),
        Index(
            "ix_workflow_executions_open",
            "status",
            postgresql_where=text("status IN ('PENDING', 'QUEUED', 'RUNNING', 'WAITING', 'PAUSED')"),
        ),
    )

    id: Mapped[str] = mapped_column(primary_key=True)
    source_id: Mapped[int] = mapped_column(ForeignKey("sources.id"))
    workflow: Mapped[str]
    version_id: Mapped[int] = mapped_column(ForeignKey("workflow_versions.id"), index=True)
    commit_sha: Mapped[str]
    revision_sha: Mapped[str]
    digest: Mapped[str]
    compiled_digest: Mapped[str]
    bundle_digest: Mapped[str]
    dsl: Mapped[str]
    calls: Mapped[dict[str, Any]] = mapped_column(server_default=text("'{}'::jsonb"))
    closure: Mapped[dict[str, Any]] = mapped_column(server_default=text("'{}'::jsonb"))
    inputs: Mapped[dict[str, Any]]
    targets: Mapped[list[str]] = mapped_column(server_default=text("'{}'::text[]"))
    trigger: Mapped[Any | None] = mapped_column(JSONB)
    parent_id: Mapped[str] = mapped_column(server_default="")
    parent_task: Mapped[str] = mapped_column(server_default="", comment="address of the parent's task")
    root_id: Mapped[str] = mapped_column(server_default="", comment="empty for a root")
    rerun_of: Mapped[str] = mapped_column(server_default="")
    carried: Mapped[Any | None] = mapped_column(JSONB, comment="what a rerun may take over, by address")
    callback_key: Mapped[str | None]
    title: Mapped[str] = mapped_column(server_default="")
    status: Mapped[str] = mapped_column(server_default="PENDING")
    started_by: Mapped[str]
    outputs: Mapped[Any | None] = mapped_column(JSONB)
    error: Mapped[Any | None] = mapped_column(JSONB)
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    started_at: Mapped[datetime | None]
    finished_at: Mapped[datetime | None]
    checked_at: Mapped[datetime | None] = mapped_column(
        comment="when the reconciler last compared it with Temporal"
    )


class IdempotencyKey(Base):
    """One key of one caller, the hash of its request, and the run it led to (promise P2). Never updated."""

    __tablename__ = "idempotency_keys"

    subject: Mapped[str] = mapped_column(primary_key=True)
    key: Mapped[str] = mapped_column(primary_key=True)
    request_hash: Mapped[str]
    execution_id: Mapped[str] = mapped_column(ForeignKey("workflow_executions.id"))
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())


class TaskState(Base):
    """How a task of a run stands, as the run itself said last (its last step, or a query by the reconciler)."""

    __tablename__ = "task_states"

    execution_id: Mapped[str] = mapped_column(ForeignKey("workflow_executions.id"), primary_key=True)
    task: Mapped[str] = mapped_column(primary_key=True)
    position: Mapped[int]
    status: Mapped[str]
    skip_reason: Mapped[str] = mapped_column(server_default="")
    attempts: Mapped[int] = mapped_column(server_default=text("0"))
    started_at: Mapped[datetime | None]
    finished_at: Mapped[datetime | None]
    outputs: Mapped[Any | None] = mapped_column(JSONB)
    error: Mapped[Any | None] = mapped_column(JSONB)
    more: Mapped[Any | None] = mapped_column(
        JSONB,
        comment="{cached_from, reused_from, compensation, child_id, items: {total, completed, failed}}, what there is",
    )


class TaskAttempt(Base):
    """One attempt of a task's activity, written by the worker in batches.

    A worker killed inside a local activity starts again with attempt 1 and a later `scheduled_at`: hence the key.
    `phase` is 0 for started and 1 for ended; a row moves forward only.
    """

    __tablename__ = "task_attempts"

    execution_id: Mapped[str] = mapped_column(primary_key=True)
    task: Mapped[str] = mapped_column(primary_key=True)
    scheduled_at: Mapped[datetime] = mapped_column(primary_key=True)
    attempt: Mapped[int] = mapped_column(primary_key=True)
    phase: Mapped[int]
    status: Mapped[str]
    started_at: Mapped[datetime]
    finished_at: Mapped[datetime | None]
    worker: Mapped[str] = mapped_column(server_default="")
    error: Mapped[Any | None] = mapped_column(JSONB)


class ApprovalRequest(Base):
    """A task that waits for people. The row is the judge: the first resolution wins, by compare-and-set on PENDING.

    `policy` holds approvers, required_approvals, prevent_self_approval, form, on_timeout, escalate_to. `told` is the
    Temporal workflow that waits for the answer, "" for that of the run itself (a slice of a map has one of its own).
    """

    __tablename__ = "approval_requests"
    __table_args__ = (
        UniqueConstraint("execution_id", "task"),
        Index("ix_approval_requests_open", "status", postgresql_where=text("status = 'PENDING'")),
    )

    id: Mapped[str] = mapped_column(primary_key=True)
    execution_id: Mapped[str] = mapped_column(ForeignKey("workflow_executions.id"), index=True)
    task: Mapped[str]
    workflow: Mapped[str]
    commit_sha: Mapped[str]
    message: Mapped[str]
    told: Mapped[str] = mapped_column(server_default="")
    policy: Mapped[dict[str, Any]]
    status: Mapped[str] = mapped_column(server_default="PENDING")
    requested_at: Mapped[datetime]
    deadline_at: Mapped[datetime | None]
    remind_at: Mapped[datetime | None]
    escalated: Mapped[bool] = mapped_column(server_default=text("false"))
    resolved_at: Mapped[datetime | None]


class ApprovalDecision(Base):
    """What one person said of one request: one voice each, the last word before the resolution counts."""

    __tablename__ = "approval_decisions"

    id: Mapped[str] = mapped_column(primary_key=True)
    approval_id: Mapped[str] = mapped_column(ForeignKey("approval_requests.id"), index=True)
    position: Mapped[int] = mapped_column(BigInteger, Identity())
    by: Mapped[str]
    decision: Mapped[str]
    comment: Mapped[str] = mapped_column(server_default="")
    form: Mapped[Any | None] = mapped_column(JSONB)
    at: Mapped[datetime] = mapped_column(server_default=func.now())


class Signal(Base):
    """A signal that a run was sent, by name or through the callback URL of one task. Never updated.

    `id` is the caller's own idempotency key or made by us; a callback is good for one use: hence the unique index.
    """

    __tablename__ = "signals"
    __table_args__ = (
        Index(
            "uq_signals_callback",
            "execution_id",
            "task",
            unique=True,
            postgresql_where=text("task <> ''"),
        ),
    )

    execution_id: Mapped[str] = mapped_column(ForeignKey("workflow_executions.id"), primary_key=True)
    id: Mapped[str] = mapped_column(primary_key=True)
    name: Mapped[str]
    correlation: Mapped[str] = mapped_column(server_default="")
    task: Mapped[str] = mapped_column(server_default="", comment="address of the task, for a callback")
    payload: Mapped[Any | None] = mapped_column(JSONB)
    by: Mapped[str]
    at: Mapped[datetime] = mapped_column(server_default=func.now())


class Slot(Base):
    """A place in a concurrency group: held, or waited for in the order of `position`. Deleted when given back.

    `task` is an address, "" for the run itself; `holder` the Temporal workflow to be told; `root_id` the root of the
    family, whose members re-enter the group.
    """

    __tablename__ = "slots"
    __table_args__ = (UniqueConstraint("execution_id", "task"), Index(None, "group", "position"))

    position: Mapped[int] = mapped_column(BigInteger, Identity(), primary_key=True)
    group: Mapped[str]
    execution_id: Mapped[str] = mapped_column(ForeignKey("workflow_executions.id"), index=True)
    task: Mapped[str]
    root_id: Mapped[str]
    holder: Mapped[str]
    limit: Mapped[int]
    held_since: Mapped[datetime | None]
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())


class CacheEntry(Base):
    """The result of a COMPLETED task, kept for others, with the run that made it. The newest one wins."""

    __tablename__ = "cache_entries"

    key: Mapped[str] = mapped_column(primary_key=True, comment="sha256 of the complete key")
    result: Mapped[Any | None] = mapped_column(JSONB)
    execution_id: Mapped[str]
    task: Mapped[str]
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())


class Trigger(Base):
    """What starts a live workflow by itself, written in the transaction of the revision that says so.

    `spec` is the compiled trigger less `when` and `inputs`, which are read from the version that is live when it fires.
    `seq` is the revision that changed it last.  A schedule stands in Temporal as well: `status` is PENDING until Temporal
    was told of `seq`, then APPLIED, or REFUSED with Temporal's `message`.  `applied` is what Temporal then said it has.
    A row that is not `live` any more goes when its schedule has gone.
    """

    __tablename__ = "triggers"
    __table_args__ = (
        Index("ix_triggers_pending", "source_id", postgresql_where=text("status = 'PENDING'")),
        Index(None, "workflow"),
    )

    source_id: Mapped[int] = mapped_column(ForeignKey("sources.id"), primary_key=True)
    workflow: Mapped[str] = mapped_column(primary_key=True)
    id: Mapped[str] = mapped_column(primary_key=True)
    spec: Mapped[dict[str, Any]]
    position: Mapped[int]
    seq: Mapped[int] = mapped_column(BigInteger)
    live: Mapped[bool] = mapped_column(Boolean, server_default=text("true"))
    status: Mapped[str]
    message: Mapped[str] = mapped_column(server_default="")
    applied: Mapped[str] = mapped_column(
        server_default="", comment="revision and digest of what Temporal has"
    )
    applied_at: Mapped[datetime | None]


class TriggerFire(Base):
    """One moment at which a trigger fired, and what came of it.

    `key` is the scheduled time, or what tells a webhook's delivery from others.  `status` is CLAIMED (a start is under way),
    WAITING (for another run to end), STARTED, IGNORED (`when` is false), SKIPPED (overlap), MISSED (too late) or FAILED.
    """

    __tablename__ = "trigger_fires"
    __table_args__ = (
        Index(
            "ix_trigger_fires_open",
            "source_id",
            "workflow",
            "trigger",
            postgresql_where=text("status IN ('CLAIMED', 'WAITING', 'STARTED') AND NOT settled"),
        ),
        Index("ix_trigger_fires_scheduled_at", "source_id", "workflow", "trigger", "scheduled_at"),
        Index("ix_trigger_fires_body_hash", "body_hash", postgresql_where=text("body_hash <> ''")),
        Index(None, "at"),
    )

    source_id: Mapped[int] = mapped_column(ForeignKey("sources.id"), primary_key=True)
    workflow: Mapped[str] = mapped_column(primary_key=True)
    trigger: Mapped[str] = mapped_column(primary_key=True)
    key: Mapped[str] = mapped_column(primary_key=True)
    scheduled_at: Mapped[datetime | None]
    backfill: Mapped[bool] = mapped_column(Boolean, server_default=text("false"))
    body_hash: Mapped[str] = mapped_column(
        server_default="", comment="of a webhook whose signature has no time"
    )
    status: Mapped[str]
    reason: Mapped[str] = mapped_column(server_default="")
    execution_id: Mapped[str] = mapped_column(server_default="")
    settled: Mapped[bool] = mapped_column(
        Boolean, server_default=text("false"), comment="nobody waits for its run any more"
    )
    at: Mapped[datetime] = mapped_column(server_default=func.now())
    seen_at: Mapped[datetime] = mapped_column(
        server_default=func.now(), comment="when whoever is at it last said so"
    )


class OutboxMessage(Base):
    """Something Temporal must be told, written in the transaction that promised it. Deleted once done.

    `kind` is `start`, `approval`, `cancel`, `pause`, `resume`, `signal` or `slot`. After too many failures `parked_at` is set and others pass.
    """

    __tablename__ = "outbox"
    __table_args__ = (Index("ix_outbox_due", "due_at", postgresql_where=text("parked_at IS NULL")),)

    id: Mapped[int] = mapped_column(BigInteger, Identity(), primary_key=True)
    kind: Mapped[str]
    execution_id: Mapped[str] = mapped_column(index=True)
    body: Mapped[dict[str, Any]]
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    due_at: Mapped[datetime] = mapped_column(server_default=func.now())
    attempts: Mapped[int] = mapped_column(server_default=text("0"))
    last_error: Mapped[str] = mapped_column(server_default="")
    parked_at: Mapped[datetime | None]


class AuditEntry(Base):
    """Who did what to what, in the transaction that did it (promise P6). A trigger refuses UPDATE, DELETE and TRUNCATE."""

    __tablename__ = "audit"
    __table_args__ = (
        Index("ix_audit_commit_sha_id", "commit_sha", "id"),
        Index("ix_audit_execution_id", "execution_id"),
    )

    id: Mapped[int] = mapped_column(BigInteger, Identity(), primary_key=True)
    at: Mapped[datetime] = mapped_column(server_default=func.now())
    actor: Mapped[str]
    action: Mapped[str]
    source: Mapped[str] = mapped_column(server_default="")
    workflow: Mapped[str] = mapped_column(server_default="")
    execution_id: Mapped[str] = mapped_column(server_default="")
    commit_sha: Mapped[str] = mapped_column(server_default="")
    details: Mapped[dict[str, Any]] = mapped_column(server_default=text("'{}'::jsonb"))


class Token(Base):
    """A bearer token: only its sha256 is kept. `roles` are viewer, operator, approver, admin."""

    __tablename__ = "tokens"

    id: Mapped[str] = mapped_column(primary_key=True)
    subject: Mapped[str]
    hash: Mapped[str] = mapped_column(unique=True)
    roles: Mapped[list[str]]
    groups: Mapped[list[str]]
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    expires_at: Mapped[datetime | None]
    revoked_at: Mapped[datetime | None]


class Proposal(Base):
    """A commit that somebody asked for: one definition, on a branch of its own or (`direct`) on the source's branch.

    `status` is PROPOSING until the commit is on the remote, then PROPOSED; FAILED if it never will be. The commit carries
    the id as a trailer, by which one whose outcome is unknown is found again. `kind` is `proposal` or `promotion`;
    `bundle_digest` is that of the functions that go along, "" if none do.
    """

    __tablename__ = "proposals"
    __table_args__ = (
        Index("ix_proposals_due", "due_at", postgresql_where=text("status = 'PROPOSING'")),
        Index("uq_proposals_key", "requested_by", "key", unique=True, postgresql_where=text("key <> ''")),
    )

    id: Mapped[str] = mapped_column(primary_key=True)
    kind: Mapped[str]
    source_id: Mapped[int] = mapped_column(ForeignKey("sources.id"))
    name: Mapped[str]
    path: Mapped[str]
    branch: Mapped[str]
    direct: Mapped[bool] = mapped_column(server_default=text("false"))
    message: Mapped[str]
    digest: Mapped[str] = mapped_column(ForeignKey("blobs.digest"))
    bundle_digest: Mapped[str] = mapped_column(server_default="")
    requested_by: Mapped[str]
    key: Mapped[str] = mapped_column(server_default="")
    request_hash: Mapped[str] = mapped_column(server_default="")
    pull_request: Mapped[bool] = mapped_column(server_default=text("false"))
    status: Mapped[str] = mapped_column(server_default="PROPOSING")
    commit_sha: Mapped[str] = mapped_column(server_default="")
    base_sha: Mapped[str] = mapped_column(server_default="")
    url: Mapped[str] = mapped_column(server_default="")
    error: Mapped[str] = mapped_column(server_default="")
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    pushed_at: Mapped[datetime | None]
    due_at: Mapped[datetime] = mapped_column(server_default=func.now())
    attempts: Mapped[int] = mapped_column(server_default=text("0"))


class ForgeMessage(Base):
    """Something a forge must be told: `kind` is `status`, `comment` or `pull_request`. One row per thing told.

    `subject` is what it is about: a commit's SHA, a proposal's id. It is due again (`sent_at` null) when the registry's
    word on it changes. After too many refusals `parked_at` is set, and others pass.
    """

    __tablename__ = "forge_messages"
    __table_args__ = (
        UniqueConstraint("source_id", "kind", "subject"),
        Index(
            "ix_forge_messages_due",
            "due_at",
            postgresql_where=text("sent_at IS NULL AND parked_at IS NULL"),
        ),
    )

    id: Mapped[int] = mapped_column(BigInteger, Identity(), primary_key=True)
    source_id: Mapped[int] = mapped_column(ForeignKey("sources.id"))
    kind: Mapped[str]
    subject: Mapped[str]
    body: Mapped[dict[str, Any]]
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    due_at: Mapped[datetime] = mapped_column(server_default=func.now())
    attempts: Mapped[int] = mapped_column(server_default=text("0"))
    last_error: Mapped[str] = mapped_column(server_default="")
    sent_at: Mapped[datetime | None]
    parked_at: Mapped[datetime | None]


class ForgeDelivery(Base):
    """A webhook of a forge that was taken, so that its repeats are known. Forgotten after a week."""

    __tablename__ = "forge_deliveries"

    forge: Mapped[str] = mapped_column(primary_key=True)
    delivery: Mapped[str] = mapped_column(primary_key=True)
    received_at: Mapped[datetime] = mapped_column(server_default=func.now(), index=True)
