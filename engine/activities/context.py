"""What an activity knows about its attempt, and what the worker lends to it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from engine.activities.result_cache import ResultCache

if TYPE_CHECKING:
    import structlog

    from engine.activities.bundles import BundleStore
    from engine.activities.environments import EnvironmentStore
    from engine.activities.function_process import FunctionRunner
    from engine.activities.http_client import HttpClient
    from engine.activities.secrets import Secrets
    from engine.settings import Settings


@dataclass(frozen=True, slots=True)
class Workbench:
    """What one worker process shares between all its activities. Made and closed by the composition root."""

    settings: Settings
    http: HttpClient
    """Guarded by the egress rules: use it instead of a client of your own."""
    bundles: BundleStore
    functions: FunctionRunner
    environments: EnvironmentStore
    secrets: Secrets
    """Asked by the door alone, for what a definition has declared."""
    cache: ResultCache = field(default_factory=ResultCache)


@dataclass(frozen=True, slots=True)
class ActivityContext:
    """One attempt of one task.

    `timeout` is in seconds and is what remained when the attempt began (None: no limit). `idempotency_key` is the
    same over all attempts of the task, also after a worker was killed: hand it to the target of a side effect.
    """

    execution_id: str
    workflow: str
    source: str
    commit_sha: str
    bundle_digest: str
    task: str
    attempt: int
    idempotency_key: str
    timeout: float | None
    workbench: Workbench
    log: structlog.typing.FilteringBoundLogger
    heartbeat: Callable[[], None]
    """Tell Temporal that the attempt is alive. The door already does so at the needed interval."""
