"""Children, reruns, signals, slots of concurrency groups, cached results."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """New columns have defaults: rows of runs that are under way stay as they are."""
    _runs()
    op.add_column(
        "workflow_versions",
        sa.Column(
            "calls",
            _json(),
            server_default=sa.text("'[]'::jsonb"),
            nullable=False,
            comment="[{workflow, ref}] of its tasks of type workflow",
        ),
    )
    op.add_column("task_states", sa.Column("more", _json(), nullable=True, comment=_MORE))
    op.add_column("approval_requests", _text("told"))
    _signals()
    _slots()
    op.create_table(
        "cache_entries",
        sa.Column("key", sa.Text(), nullable=False, comment="sha256 of the complete key"),
        sa.Column("result", _json(), nullable=True),
        sa.Column("execution_id", sa.Text(), nullable=False),
        sa.Column("task", sa.Text(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.PrimaryKeyConstraint("key", name=op.f("pk_cache_entries")),
    )


_MORE = "{cached_from, reused_from, compensation, child_id, items: {total, completed, failed}}, what there is"


def _json() -> postgresql.JSONB:
    return postgresql.JSONB(astext_type=sa.Text())


def _text(name: str, comment: str | None = None) -> sa.Column[str]:
    return sa.Column(name, sa.Text(), server_default="", nullable=False, comment=comment)


def _runs() -> None:
    table = "workflow_executions"
    empty = sa.text("'{}'::jsonb")
    op.add_column(table, sa.Column("calls", _json(), server_default=empty, nullable=False))
    op.add_column(table, sa.Column("closure", _json(), server_default=empty, nullable=False))
    op.add_column(
        table,
        sa.Column(
            "targets", postgresql.ARRAY(sa.Text()), server_default=sa.text("'{}'::text[]"), nullable=False
        ),
    )
    op.add_column(table, sa.Column("trigger", _json(), nullable=True))
    op.add_column(table, _text("parent_id"))
    op.add_column(table, _text("parent_task", "address of the parent's task"))
    op.add_column(table, _text("root_id", "empty for a root"))
    op.add_column(table, _text("rerun_of"))
    op.add_column(
        table, sa.Column("carried", _json(), nullable=True, comment="what a rerun may take over, by address")
    )
    op.add_column(table, sa.Column("callback_key", sa.Text(), nullable=True))
    for column in ("parent_id", "root_id", "rerun_of"):
        op.create_index(f"ix_{table}_{column}", table, [column], postgresql_where=sa.text(f"{column} <> ''"))


def _signals() -> None:
    op.create_table(
        "signals",
        sa.Column("execution_id", sa.Text(), nullable=False),
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        _text("correlation"),
        _text("task", "address of the task, for a callback"),
        sa.Column("payload", _json(), nullable=True),
        sa.Column("by", sa.Text(), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.ForeignKeyConstraint(
            ["execution_id"], ["workflow_executions.id"], name=op.f("fk_signals_execution_id")
        ),
        sa.PrimaryKeyConstraint("execution_id", "id", name=op.f("pk_signals")),
    )
    op.create_index(
        "uq_signals_callback",
        "signals",
        ["execution_id", "task"],
        unique=True,
        postgresql_where=sa.text("task <> ''"),
    )


def _slots() -> None:
    op.create_table(
        "slots",
        sa.Column("position", sa.BigInteger(), sa.Identity(always=False), nullable=False),
        sa.Column("group", sa.Text(), nullable=False),
        sa.Column("execution_id", sa.Text(), nullable=False),
        sa.Column("task", sa.Text(), nullable=False),
        sa.Column("root_id", sa.Text(), nullable=False),
        sa.Column("holder", sa.Text(), nullable=False),
        sa.Column("limit", sa.Integer(), nullable=False),
        sa.Column("held_since", sa.DateTime(timezone=True), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.ForeignKeyConstraint(
            ["execution_id"], ["workflow_executions.id"], name=op.f("fk_slots_execution_id")
        ),
        sa.PrimaryKeyConstraint("position", name=op.f("pk_slots")),
        sa.UniqueConstraint("execution_id", "task", name=op.f("uq_slots_execution_id_task")),
    )
    op.create_index(op.f("ix_slots_execution_id"), "slots", ["execution_id"])
    op.create_index(op.f("ix_slots_group_position"), "slots", ["group", "position"])
