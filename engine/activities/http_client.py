"""The HTTP client that all activities of a worker share: one guarded pool, no cookies, no proxies, no memory."""

from __future__ import annotations

from collections.abc import Sequence

import httpcore2
import httpx2

from engine.activities.egress import EgressRules, GuardedBackend, Resolve, Resolver

_CONNECT_TIMEOUT = 10.0
# Many servers close an idle connection after five seconds; taking one up at that very moment would fail a request.
_KEEP_IDLE = 2.0


class HttpClient:
    """Sends single requests. Make one per process and `aclose` it.

    It works below httpx's client on purpose: that one keeps cookies, and a cookie that one workflow was given must
    not be sent for another.
    """

    def __init__(
        self, allow: Sequence[str] = (), *, resolve: Resolve | None = None, connections: int = 200
    ) -> None:
        self._resolver = Resolver()
        self._transport = httpx2.AsyncHTTPTransport(trust_env=False)
        # httpx offers no way to hand a network backend to its transport, so the pool is put in place of its own.
        self._transport._pool = httpcore2.AsyncConnectionPool(
            ssl_context=httpx2.create_ssl_context(),
            max_connections=connections,
            max_keepalive_connections=connections // 4,
            keepalive_expiry=_KEEP_IDLE,
            network_backend=GuardedBackend(EgressRules(allow), resolve or self._resolver),
        )

    async def send(self, request: httpx2.Request) -> httpx2.Response:
        """One exchange, no redirects; the body is not read yet, so `aclose` the response.

        Raises httpx2's transport errors and `EgressDenied`. Only connecting has a time limit of its own.
        """
        request.extensions["timeout"] = {
            "connect": _CONNECT_TIMEOUT,
            "read": None,
            "write": None,
            "pool": None,
        }
        return await self._transport.handle_async_request(request)

    async def aclose(self) -> None:
        """Close all connections."""
        await self._transport.aclose()
        self._resolver.close()
