"""The service layer as one thing to pass on: an aggregate each."""

from __future__ import annotations

from collections.abc import Sequence

from engine.activities.secrets import Secrets
from engine.executor.dispatcher import Dispatcher
from engine.executor.temporal_executor import TemporalWorkflowExecutor
from engine.registry.workflow_registry import WorkflowRegistry
from engine.services.approvals import ApprovalService
from engine.services.commits import AuditService
from engine.services.executions import ExecutionService
from engine.services.forges import ForgeService
from engine.services.health import HealthService
from engine.services.inputs import Preparations
from engine.services.live_starts import LiveStarts
from engine.services.plans import PlanService
from engine.services.proposals import ProposalService
from engine.services.reruns import RerunService
from engine.services.signals import SignalService
from engine.services.sources import SourceService
from engine.services.starts import Starts
from engine.services.steering import SteeringService
from engine.services.tokens import TokenService
from engine.services.triggers import TriggerService
from engine.services.webhook_tally import WebhookTally
from engine.services.webhooks import WebhookService
from engine.settings import ForgeSettings
from engine.storage.database import Database


class WorkflowService:
    """What API and console call. Reads of definitions and revisions go to `registry` itself."""

    def __init__(
        self,
        database: Database,
        executor: TemporalWorkflowExecutor,
        *,
        callback_base: str = "",
        secrets: Secrets | None = None,
        webhook_window: float = 300.0,
        forges: Sequence[ForgeSettings] = (),
    ) -> None:
        dispatcher = Dispatcher(database, executor, callback_base=callback_base)
        self.registry = WorkflowRegistry(database)
        preparations = Preparations(self.registry)
        starts = Starts(database, preparations, executor, dispatcher, callback_base=callback_base)
        self.executions = ExecutionService(database, self.registry, starts, executor)
        self.reruns = RerunService(database, self.registry, preparations, starts)
        self.steering = SteeringService(database, executor, dispatcher)
        live = LiveStarts(self.registry, starts)
        secrets = secrets or Secrets()
        self.triggers = TriggerService(database, self.registry, live, self.steering, executor, secrets)
        self.tally = WebhookTally()
        self.webhooks = WebhookService(database, live, secrets, tally=self.tally, window=webhook_window)
        self.signals = SignalService(database, preparations, executor, dispatcher)
        self.approvals = ApprovalService(database, executor, dispatcher)
        self.audit = AuditService(database, self.registry)
        self.sources = SourceService(database)
        self.plans = PlanService(database, self.registry)
        self.proposals = ProposalService(database, self.registry, forges)
        self.forges = ForgeService(database, forges, tally=self.tally, window=webhook_window)
        self.tokens = TokenService(database)
        self.health = HealthService(database, executor)
