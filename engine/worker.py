"""The worker: runs workflows and their tasks, and tells Temporal what Postgres has promised.

Composition root: everything that lives as long as the process is made, joined and closed here.
"""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import timedelta
from typing import TypeVar

import structlog
from temporalio.client import Client
from temporalio.worker import PollerBehaviorAutoscaling, UnsandboxedWorkflowRunner, Worker

from engine.activities.bundles import BundleStore
from engine.activities.context import Workbench
from engine.activities.door import engine_activities, task_activities
from engine.activities.environment_keeper import EnvironmentKeeper
from engine.activities.environments import EnvironmentStore
from engine.activities.firing import Fire, fire_activity
from engine.activities.function_process import FunctionRunner
from engine.activities.http_client import HttpClient
from engine.activities.recorder import AttemptRecorder, RecordingInterceptor
from engine.activities.registry import ActivityRegistry
from engine.activities.result_cache import ResultCache
from engine.activities.secrets import Secrets
from engine.core.fire import FireWorkflow
from engine.core.workflow import WorkflowEngineWorkflow
from engine.errors import Unavailable
from engine.executor.dispatcher import Dispatcher
from engine.executor.payloads import data_converter
from engine.executor.reconciler import Reconciler
from engine.executor.schedule_sync import ScheduleSync
from engine.executor.schedules import Schedules
from engine.executor.temporal_executor import TemporalWorkflowExecutor
from engine.health_port import answering
from engine.logs import configure_logging
from engine.services.workflow_service import WorkflowService
from engine.settings import Settings
from engine.storage.database import Database

_log = structlog.get_logger(__name__)
_T = TypeVar("_T")

_GRACE = 5.0
"""Seconds beyond the drain for what does not listen: then the process ends anyway."""


async def run_worker(settings: Settings) -> None:
    """Work until SIGTERM or SIGINT, then drain within `settings.drain_timeout`.

    Waits for Temporal and Postgres at the start, and outlives their absence later. The process that called this must
    end by a flush and `os._exit`: threads of Temporal's core can crash an interpreter that shuts down. Raises `Misconfigured` for settings or activity types that cannot be used.
    """
    configure_logging(settings.log_format, settings.log_level)
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    await serve_worker(settings, stop)


async def serve_worker(settings: Settings, stop: asyncio.Event) -> None:
    """Work until `stop` is set, then drain. For a process with several parts, and for tests."""
    registry = ActivityRegistry.load()
    secrets = Secrets.load(settings.secrets)
    async with AsyncExitStack() as stack:
        database = Database(settings.database_url)
        stack.push_async_callback(database.aclose)
        http = HttpClient(settings.http_allow)
        stack.push_async_callback(http.aclose)
        functions = FunctionRunner(
            memory=settings.function_memory_mb * 1024 * 1024, at_once=settings.max_concurrent_functions
        )
        environments = EnvironmentStore(
            settings.data_dir / "environments",
            uv=settings.uv,
            allowed=settings.function_environments,
            keep=settings.function_environments_keep,
            keep_bytes=settings.function_environments_mb * 1024 * 1024,
        )
        stack.push_async_callback(environments.aclose)
        bundles = BundleStore(database)
        workbench = Workbench(
            settings=settings,
            http=http,
            bundles=bundles,
            functions=functions,
            environments=environments,
            cache=ResultCache(database),
            secrets=secrets,
        )
        executor = await _connected(settings, database, stop)
        if executor is None:
            return
        recorder = AttemptRecorder(database, worker=worker_name())
        recorder.start()
        stack.push_async_callback(recorder.aclose)
        services = WorkflowService(database, executor, callback_base=settings.callback_base, secrets=secrets)
        worker = make_worker(
            settings, executor.client, registry, workbench, database, recorder, services.triggers.fire
        )
        await stack.enter_async_context(_health(settings, database, executor))
        # What is loaded by now stays: no collection needs to look at it again, and the events of a run leave cycles
        # enough to make it look often.
        gc.collect()
        gc.freeze()
        gc.set_threshold(10_000, 10, 10)
        keeper = EnvironmentKeeper(database, bundles, environments, interval=settings.reconcile_interval)
        await _work(worker, keeper, database, executor, settings, stop)


def make_worker(
    settings: Settings,
    client: Client,
    registry: ActivityRegistry,
    workbench: Workbench,
    database: Database,
    recorder: AttemptRecorder,
    fire: Fire,
) -> Worker:
    """The Temporal worker with our workflow and all activities."""
    return Worker(
        client,
        task_queue=settings.task_queue,
        workflows=[WorkflowEngineWorkflow, FireWorkflow],
        activities=[*task_activities(registry, workbench), *engine_activities(database), fire_activity(fire)],
        interceptors=[RecordingInterceptor(recorder)],
        # Our workflow is deterministic by construction (import contracts, replay tests); the sandbox would cost a
        # third more CPU and re-import C extensions that do not bear it.
        workflow_runner=UnsandboxedWorkflowRunner(),
        identity=worker_name(),
        max_cached_workflows=settings.max_concurrent_runs,
        max_concurrent_activities=settings.max_concurrent_activities,
        max_concurrent_local_activities=settings.max_concurrent_activities,
        workflow_task_poller_behavior=PollerBehaviorAutoscaling(initial=5, maximum=50),
        activity_task_poller_behavior=PollerBehaviorAutoscaling(initial=5, maximum=50),
        # Cancellation reaches an ordinary activity in the answer to a heartbeat, so they must not be held back long.
        max_heartbeat_throttle_interval=timedelta(seconds=2),
        default_heartbeat_throttle_interval=timedelta(seconds=2),
        graceful_shutdown_timeout=timedelta(seconds=settings.drain_timeout),
    )


def worker_name() -> str:
    """Who we are in Temporal, in logs and in the rows of attempts."""
    return f"{os.getpid()}@{socket.gethostname()}"


async def _work(
    worker: Worker,
    keeper: EnvironmentKeeper,
    database: Database,
    executor: TemporalWorkflowExecutor,
    settings: Settings,
    stop: asyncio.Event,
) -> None:
    """Run worker, dispatcher, reconciler and schedules until `stop`, or until one of them fails for good."""
    schedules = Schedules(executor.client, task_queue=executor.task_queue)
    parts = [
        asyncio.create_task(worker.run(), name="worker"),
        asyncio.create_task(
            Dispatcher(database, executor, callback_base=settings.callback_base).run(), name="dispatcher"
        ),
        asyncio.create_task(
            Reconciler(database, executor, interval=settings.reconcile_interval).run(), name="reconciler"
        ),
        asyncio.create_task(
            ScheduleSync(database, schedules, interval=settings.reconcile_interval).run(), name="schedules"
        ),
        asyncio.create_task(keeper.run(), name="environments"),
    ]
    stopped = asyncio.create_task(stop.wait(), name="stop")
    _log.info("worker ready", task_queue=settings.task_queue, identity=worker_name())
    done, _ = await asyncio.wait([*parts, stopped], return_when=asyncio.FIRST_COMPLETED)
    _log.info("worker drains", limit=settings.drain_timeout)
    for part in (*parts[1:], stopped):
        part.cancel()
    try:
        # A running local activity keeps `shutdown` waiting whatever its own limit says.
        async with asyncio.timeout(settings.drain_timeout + _GRACE):
            await worker.shutdown()
    except TimeoutError:
        _log.warning("worker not drained in time; Temporal gives its tasks to another")
        parts[0].cancel()
    await asyncio.gather(*parts, stopped, return_exceptions=True)
    for part in done - {stopped}:
        part.result()  # raises what ended it: the process must not look as if it had been asked to stop
    _log.info("worker stopped")


async def _connected(
    settings: Settings, database: Database, stop: asyncio.Event
) -> TemporalWorkflowExecutor | None:
    """Wait for Postgres and Temporal; None if we are asked to stop meanwhile."""
    converter = data_converter(database)

    async def connect() -> TemporalWorkflowExecutor:
        executor = await TemporalWorkflowExecutor.connect(
            settings.temporal_address,
            namespace=settings.temporal_namespace,
            task_queue=settings.task_queue,
            converter=converter,
            lazy=False,
        )
        await executor.ensure_search_attributes()
        return executor

    async def ping() -> bool:
        await database.ping()
        return True

    if await _patiently("Postgres", ping, stop) is None:
        return None
    return await _patiently("Temporal", connect, stop)


async def _patiently(what: str, attempt: Callable[[], Awaitable[_T]], stop: asyncio.Event) -> _T | None:
    told = False
    while not stop.is_set():
        try:
            return await attempt()
        except Unavailable as error:
            if not told:
                _log.warning("worker waits", away=what, reason=error.message)
                told = True
        try:
            async with asyncio.timeout(1.0):
                await stop.wait()
        except TimeoutError:
            pass
    return None


@asynccontextmanager
async def _health(
    settings: Settings, database: Database, executor: TemporalWorkflowExecutor
) -> AsyncIterator[None]:
    if not settings.worker_health_port:
        yield
        return

    async def problems() -> dict[str, str]:
        found: dict[str, str] = {}
        for name, look in (("postgres", database.ping), ("temporal", executor.ping)):
            try:
                await look()
            except Unavailable as error:
                found[name] = error.message
        return found

    async with answering(settings.api_host, settings.worker_health_port, problems):
        yield
