"""API, worker and sync in one process: a third of the memory of three, for machines where that matters."""

from __future__ import annotations

import asyncio
import signal

from engine.api.serve import serve_api
from engine.logs import configure_logging
from engine.settings import Settings
from engine.sync.daemon import serve_sync
from engine.worker import serve_worker


async def run_all(settings: Settings) -> None:
    """Serve all parts until SIGTERM or SIGINT, then drain them at the same time.

    A part that ends for good ends the others: whoever supervises us starts all of them again.
    """
    configure_logging(settings.log_format, settings.log_level)
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    # The API says how all of it stands, so worker and sync need no port of their own.
    quiet = settings.model_copy(update={"worker_health_port": 0, "sync_health_port": 0})
    parts = [
        asyncio.create_task(serve_api(settings, stop), name="api"),
        asyncio.create_task(serve_worker(quiet, stop), name="worker"),
        asyncio.create_task(serve_sync(quiet, stop), name="sync"),
    ]
    await asyncio.wait(parts, return_when=asyncio.FIRST_COMPLETED)
    stop.set()
    outcomes = await asyncio.gather(*parts, return_exceptions=True)
    for outcome in outcomes:
        if isinstance(outcome, BaseException):
            raise outcome
