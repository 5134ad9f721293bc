"""A real Temporal dev server for the session."""

from __future__ import annotations

import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from engine.stack.temporal import EmbeddedTemporal


@asynccontextmanager
async def running_temporal() -> AsyncIterator[EmbeddedTemporal]:
    """An in-memory server that ends with this process, even when this process is killed."""
    with tempfile.TemporaryDirectory(prefix="pinflow-test-") as folder:
        server = EmbeddedTemporal(Path(folder), durable=False, ui=False, die_with_parent=True)
        await server.start()
        try:
            yield server
        finally:
            await server.stop()
