"""Run by Alembic: migrations use the connection (and its transaction) that `engine/storage/migrate.py` hands over."""

from __future__ import annotations

from alembic import context

from engine.storage.models import Base

connection = context.config.attributes["connection"]
context.configure(connection=connection, target_metadata=Base.metadata, transactional_ddl=True)
with context.begin_transaction():
    context.run_migrations()
