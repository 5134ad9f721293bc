"""Prometheus metrics: requests as they come, and the state of the installation at each scrape."""

from __future__ import annotations

import time

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from engine.services.health import Figures

_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)


class Metrics:
    """One per app, with a registry of its own."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
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

    def page(self, figures: Figures) -> bytes:
        """The text that Prometheus reads."""
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
        return generate_latest(self._registry)


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
