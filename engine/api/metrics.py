"""Prometheus metrics: requests as they come, and the state of the installation at each scrape."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from engine.services.health import Figures
from engine.services.webhook_tally import WebhookTally

_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)


class Metrics:
    """One per app, with a registry of its own."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        self._webhooks = _Webhooks()
        self._registry.register(self._webhooks)
        self._requests = Counter(
            "pinflow_http_requests", "Requests", ["method", "route", "status"], registry=self._registry
        )
        self._seconds = Histogram(
            "pinflow_http_request_seconds",
            "Time to the whole answer",
            ["method", "route"],
            buckets=_BUCKETS,
            registry=self._registry,
        )
        self._runs = Gauge("pinflow_open_runs", "Open runs", ["status"], registry=self._registry)
        self._approvals = Gauge(
            "pinflow_pending_approvals", "Approval requests that wait for people", registry=self._registry
        )
        self._outbox = Gauge(
            "pinflow_outbox_messages",
            "Messages for Temporal not yet sent",
            ["state"],
            registry=self._registry,
        )
        self._oldest = Gauge(
            "pinflow_outbox_oldest_seconds", "Age of the oldest unsent message", registry=self._registry
        )
        self._forge_messages = Gauge(
            "pinflow_forge_messages",
            "Statuses, comments and pull requests for forges; those that were sent in the last week",
            ["kind", "state"],
            registry=self._registry,
        )
        self._forge_oldest = Gauge(
            "pinflow_forge_oldest_seconds", "Age of the oldest message that waits", registry=self._registry
        )
        self._proposals = Gauge(
            "pinflow_proposals",
            "Proposals and promotions of the last week",
            ["status"],
            registry=self._registry,
        )
        self._proposals_oldest = Gauge(
            "pinflow_proposals_oldest_seconds",
            "Age of the oldest that is not yet on its remote",
            registry=self._registry,
        )
        self._sources = Gauge(
            "pinflow_source_condition",
            "1 for the condition in which a source is",
            ["source", "condition", "reason"],
            registry=self._registry,
        )
        self._standing = Gauge(
            "pinflow_source_condition_seconds",
            "For how long a source has had its condition and reason",
            ["source"],
            registry=self._registry,
        )
        self._looked = Gauge(
            "pinflow_source_checked_seconds",
            "How long ago a daemon ended a look at a source",
            ["source"],
            registry=self._registry,
        )
        self._watched = Gauge(
            "pinflow_source_watched", "1 if a daemon watches a source", ["source"], registry=self._registry
        )

    def seen(self, method: str, route: str, status: int, seconds: float) -> None:
        """Count a request. `route` is the template: a path would make a series of every id."""
        self._requests.labels(method, route, str(status)).inc()
        self._seconds.labels(method, route).observe(seconds)

    def page(self, figures: Figures, webhooks: WebhookTally) -> bytes:
        """The text that Prometheus reads."""
        self._webhooks.counts = webhooks.counts
        self._runs.clear()
        for gauge in (self._sources, self._standing, self._looked, self._watched):
            gauge.clear()
        for status, count in figures.open_runs.items():
            self._runs.labels(status).set(count)
        for source in figures.sources:
            self._sources.labels(source.name, source.condition, source.reason).set(1)
            self._standing.labels(source.name).set(source.seconds)
            self._watched.labels(source.name).set(source.watched)
            if source.checked is not None:
                self._looked.labels(source.name).set(source.checked)
        self._approvals.set(figures.pending_approvals)
        for state in ("waiting", "parked"):
            self._outbox.labels(state).set(figures.outbox[state])
        self._oldest.set(figures.outbox["oldest"])
        self._forge_messages.clear()
        for (kind, state), messages in figures.forge_messages.items():
            self._forge_messages.labels(kind, state).set(messages)
        self._forge_oldest.set(figures.forge_oldest)
        for status in ("PROPOSING", "PROPOSED", "FAILED"):
            self._proposals.labels(status).set(figures.proposals.get(status, 0))
        self._proposals_oldest.set(figures.proposals_oldest)
        return generate_latest(self._registry)


class _Webhooks(Collector):
    """What became of the webhooks that came, as this process has counted it."""

    def __init__(self) -> None:
        self.counts: Mapping[tuple[str, str], int] = {}

    def collect(self) -> Iterator[Metric]:
        """One figure for each door and outcome."""
        family = CounterMetricFamily("pinflow_webhooks", "Webhooks that came", labels=["door", "outcome"])
        for (door, outcome), count in sorted(self.counts.items()):
            family.add_metric([door, outcome], count)
        yield family


class RequestMetrics:
    """Counts and times every request."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self._app = app
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began = time.perf_counter()
        status = 500

        async def watched(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self._app(scope, receive, watched)
        finally:
            route = getattr(scope.get("route"), "path", "(none)")
            self._metrics.seen(_method(scope["method"]), route, status, time.perf_counter() - began)


def _method(method: str) -> str:
    """A known one: whoever calls may send any word, and each would be a series."""
    return method if method in ("GET", "POST", "DELETE", "PUT", "PATCH", "HEAD", "OPTIONS") else "other"
