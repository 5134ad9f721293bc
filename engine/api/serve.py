"""The API process: everything that lives as long as it does is made, joined and closed here."""

from __future__ import annotations

import asyncio
import gc
import signal
import socket
from collections.abc import Iterator
from contextlib import AsyncExitStack, contextmanager

import structlog
import uvicorn

from engine.activities.secrets import Secrets
from engine.api.app import create_app
from engine.api.wire import BoundedHttp
from engine.errors import Misconfigured
from engine.executor.payloads import data_converter
from engine.executor.temporal_executor import TemporalWorkflowExecutor
from engine.logs import configure_logging
from engine.services.workflow_service import WorkflowService
from engine.settings import Settings
from engine.storage.database import Database

_POOL = 20
"""Connections to Postgres; each request holds one for about a millisecond at a time."""

_log = structlog.get_logger(__name__)


class _Server(uvicorn.Server):
    """Leaves signals to the process: uvicorn would raise them again after its end, and turn it into a failure."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Nothing."""
        yield


async def run_api(settings: Settings) -> None:
    """Serve until SIGTERM or SIGINT, then let requests finish within `settings.drain_timeout`."""
    configure_logging(settings.log_format, settings.log_level)
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    await serve_api(settings, stop)


async def serve_api(settings: Settings, stop: asyncio.Event) -> None:
    """Serve until `stop` is set, then drain. For a process with several parts, and for tests.

    Raises `Misconfigured` if it cannot listen at the address.
    """
    secrets = Secrets.load(settings.secrets)
    async with AsyncExitStack() as stack:
        listening = stack.enter_context(_listening(settings))
        database = Database(settings.database_url, pool_size=_POOL)
        stack.push_async_callback(database.aclose)
        executor = await TemporalWorkflowExecutor.connect(
            settings.temporal_address,
            namespace=settings.temporal_namespace,
            task_queue=settings.task_queue,
            converter=data_converter(database),
        )
        service = WorkflowService(
            database,
            executor,
            callback_base=settings.callback_base,
            secrets=secrets,
            webhook_window=settings.webhook_window,
            forges=settings.forges,
            function_packages=settings.function_packages,
        )
        server = _Server(
            uvicorn.Config(
                create_app(service),
                host=settings.api_host,
                port=settings.api_port,
                http=BoundedHttp,
                ws="none",
                loop="none",
                lifespan="on",
                log_config=None,
                access_log=False,
                server_header=False,
                timeout_keep_alive=30,
                timeout_graceful_shutdown=int(settings.drain_timeout),
            )
        )
        # What is loaded by now stays: no collection needs to look at it again, and requests leave few cycles behind.
        gc.collect()
        gc.freeze()
        gc.set_threshold(10_000, 10, 10)
        await _serve(server, listening, settings, stop)


def _listening(settings: Settings) -> socket.socket:
    """Bound by ourselves: uvicorn would end the process without a word if the address is taken."""
    if settings.api_fd:
        return socket.socket(fileno=settings.api_fd)
    try:
        return socket.create_server((settings.api_host, settings.api_port), backlog=2048)
    except OSError as error:
        raise Misconfigured(
            f"the API cannot listen at {settings.api_host}:{settings.api_port}: {error.strerror}",
            hint="set PINFLOW_API_HOST and PINFLOW_API_PORT",
        ) from error


async def _serve(
    server: uvicorn.Server, listening: socket.socket, settings: Settings, stop: asyncio.Event
) -> None:
    serving = asyncio.create_task(server.serve([listening]), name="http")
    stopped = asyncio.create_task(stop.wait(), name="stop")
    _log.info("api starts", host=settings.api_host, port=settings.api_port)
    await asyncio.wait([serving, stopped], return_when=asyncio.FIRST_COMPLETED)
    stopped.cancel()
    server.should_exit = True
    await serving
    _log.info("api stopped")
