"""From a forge's signed webhook to the moment the definition is live: nothing is watched, and nothing polled.

The remote is a repository behind HTTPS, for both sides.
"""

from __future__ import annotations

import hashlib
import hmac
import json

from benchmarks.table import Pair, Row, at_most, milliseconds
from benchmarks.watching import Watched, commits, flat, watched

_KEY = "the webhook's secret"
_FORGES = [
    {
        "name": "forge",
        "kind": "github",
        "api": "https://forge.example.test",
        "repositories": {"bench": "ada/flows"},
        "webhook_secret_env": "BENCH_WEBHOOK_SECRET",
    }
]


async def measure(quick: bool) -> list[Row]:
    """A row for each size of repository, and one for how flat they are."""
    sizes, count = ((20, 40), 3) if quick else ((100, 10_000), 15)
    rows: list[Row] = []
    medians: list[float] = []
    for size in sizes:
        pair = await _size(size, count)
        medians.append(pair.pinflow)
        rows.append(at_most(f"webhook to live, one of {size:,} definitions, p50", pair, 3, milliseconds))
    beside = f"{sizes[-1]:,} definitions beside {sizes[0]:,}"
    return [*rows, flat(f"webhook to live, {beside}", medians[0], medians[-1], 1.5, milliseconds)]


async def _size(size: int, count: int) -> Pair:
    settings = {"PINFLOW_FORGES": json.dumps(_FORGES), "BENCH_WEBHOOK_SECRET": _KEY}
    async with watched(size, https=True, settings=settings) as here:
        return await commits(here, count, lambda: _deliver(here))


async def _deliver(here: Watched) -> None:
    body = {
        "ref": "refs/heads/main",
        "repository": {"full_name": "ada/flows"},
        "after": here.repository.head(),
    }
    made = hmac.new(_KEY.encode(), json.dumps(body).encode(), hashlib.sha256).hexdigest()
    asked = await here.running.ok("POST", "/webhooks/forge", body, X_Hub_Signature_256=f"sha256={made}")
    if asked != {"asked": ["bench"]}:
        raise RuntimeError(f"the webhook was not taken: {asked}")
