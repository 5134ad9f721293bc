"""The one door at which Temporal's errors become ours."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from temporalio.api.errordetails.v1 import NamespaceNotFoundFailure
from temporalio.service import RPCError, RPCStatusCode

from engine.errors import Misconfigured, NotFound, PinflowError, Unavailable

# The request itself is refused: sending the same again can only be refused again.
_PERMANENT = {
    RPCStatusCode.INVALID_ARGUMENT,
    RPCStatusCode.FAILED_PRECONDITION,
    RPCStatusCode.OUT_OF_RANGE,
    RPCStatusCode.UNIMPLEMENTED,
    RPCStatusCode.ALREADY_EXISTS,
}


@asynccontextmanager
async def translated(what: str, limit: float) -> AsyncIterator[None]:
    """Give the block `limit` seconds and raise our errors for Temporal's.

    `NotFound`: no such run, or it is closed. `Misconfigured`: Temporal refuses the request for good.
    `Unavailable`: everything that time or an operator heals, a missing namespace and refused credentials among them.
    """
    try:
        async with asyncio.timeout(limit):
            yield
    except RPCError as error:
        raise translate(what, error) from error
    except TimeoutError as error:
        raise Unavailable(f"Temporal did not answer within {limit:g} s ({what})") from error
    except RuntimeError as error:
        # What the SDK raises when its lazy connection cannot be made; it tries again at the next call.
        if "connect" not in str(error).lower():
            raise
        raise Unavailable(f"Temporal is away ({what})") from error


def translate(what: str, error: RPCError) -> PinflowError:
    """Our error for an RPC's."""
    if error.status == RPCStatusCode.NOT_FOUND:
        if any(detail.Is(NamespaceNotFoundFailure.DESCRIPTOR) for detail in error.grpc_status.details):
            return Unavailable(f"Temporal's namespace does not exist: {error.message}", retry_after=10)
        return NotFound(f"{what}: {error.message}")
    if error.status in _PERMANENT:
        return Misconfigured(f"Temporal refuses ({what}): {error.message}")
    if error.status in (RPCStatusCode.PERMISSION_DENIED, RPCStatusCode.UNAUTHENTICATED):
        return Unavailable(f"Temporal does not let us in ({what}): {error.message}", retry_after=10)
    return Unavailable(f"Temporal is away ({what}): {error.message}")
