"""Triggers of live versions, and each moment at which one fired."""

from __future__ import annotations

from datetime import datetime

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    """New columns have defaults: what is live has no triggers yet."""
    op.add_column(
        "workflow_versions",
        sa.Column(
            "triggers",
            _json(),
            server_default=sa.text("'[]'::jsonb"),
            nullable=False,
            comment="its compiled triggers, less their expressions",
        ),
    )
    _triggers()
    _fires()


def _json() -> postgresql.JSONB:
    return postgresql.JSONB(astext_type=sa.Text())


def _text(name: str, comment: str | None = None) -> sa.Column[str]:
    return sa.Column(name, sa.Text(), server_default="", nullable=False, comment=comment)


def _time(name: str, *, now: bool = False, comment: str | None = None) -> sa.Column[datetime]:
    default = sa.text("now()") if now else None
    return sa.Column(
        name, sa.DateTime(timezone=True), server_default=default, nullable=not now, comment=comment
    )


def _flag(name: str, default: str, comment: str | None = None) -> sa.Column[bool]:
    return sa.Column(name, sa.Boolean(), server_default=sa.text(default), nullable=False, comment=comment)


def _triggers() -> None:
    op.create_table(
        "triggers",
        sa.Column("source_id", sa.Integer(), nullable=False),
        sa.Column("workflow", sa.Text(), nullable=False),
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("spec", _json(), nullable=False),
        sa.Column("position", sa.Integer(), nullable=False),
        sa.Column("seq", sa.BigInteger(), nullable=False),
        _flag("live", "true"),
        sa.Column("status", sa.Text(), nullable=False),
        _text("message"),
        _text("applied", "revision and digest of what Temporal has"),
        _time("applied_at"),
        sa.ForeignKeyConstraint(["source_id"], ["sources.id"], name=op.f("fk_triggers_source_id")),
        sa.PrimaryKeyConstraint("source_id", "workflow", "id", name=op.f("pk_triggers")),
    )
    op.create_index(
        "ix_triggers_pending", "triggers", ["source_id"], postgresql_where=sa.text("status = 'PENDING'")
    )
    op.create_index(op.f("ix_triggers_workflow"), "triggers", ["workflow"])


def _fires() -> None:
    table = "trigger_fires"
    op.create_table(
        table,
        sa.Column("source_id", sa.Integer(), nullable=False),
        sa.Column("workflow", sa.Text(), nullable=False),
        sa.Column("trigger", sa.Text(), nullable=False),
        sa.Column("key", sa.Text(), nullable=False),
        _time("scheduled_at"),
        _flag("backfill", "false"),
        _text("body_hash", "of a webhook whose signature has no time"),
        sa.Column("status", sa.Text(), nullable=False),
        _text("reason"),
        _text("execution_id"),
        _flag("settled", "false", "nobody waits for its run any more"),
        _time("at", now=True),
        _time("seen_at", now=True, comment="when whoever is at it last said so"),
        sa.ForeignKeyConstraint(["source_id"], ["sources.id"], name=op.f("fk_trigger_fires_source_id")),
        sa.PrimaryKeyConstraint("source_id", "workflow", "trigger", "key", name=op.f("pk_trigger_fires")),
    )
    whose = ["source_id", "workflow", "trigger"]
    op.create_index(
        "ix_trigger_fires_open",
        table,
        whose,
        postgresql_where=sa.text("status IN ('CLAIMED', 'WAITING', 'STARTED') AND NOT settled"),
    )
    op.create_index("ix_trigger_fires_scheduled_at", table, [*whose, "scheduled_at"])
    op.create_index(
        "ix_trigger_fires_body_hash", table, ["body_hash"], postgresql_where=sa.text("body_hash <> ''")
    )
    op.create_index(op.f("ix_trigger_fires_at"), table, ["at"])
