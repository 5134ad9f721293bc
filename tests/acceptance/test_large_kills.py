"""Kill -9 of the worker five times in the middle of large runs: the same result, no effect doubled but interrupted ones.

What runs on a worker (the map, the DAG) repeats only attempts that were under way. Short local tasks (the wide one) may
also repeat what one open workflow task had done and not yet told of, with the same keys.

The sizes are what a CI run has time for; `make chaos` sets `PINFLOW_FULL_SIZE` for a map of 10,000, a DAG of 5,000 tasks
and one 4,000 wide.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import pytest
import pytest_asyncio

from engine.dsl.activity_types import ActivityTypes
from engine.dsl.checking import check
from engine.storage.database import Database
from tests.support.definitions import definition, retry, task
from tests.support.ledger import Ledger
from tests.support.registered import register
from tests.support.system import System

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(1800)]

FULL = bool(os.environ.get("PINFLOW_FULL_SIZE"))
SIZES = {"map": 10_000, "dag": 5_000, "wide": 4_000} if FULL else {"map": 520, "dag": 150, "wide": 150}
KILLS = 5
ATTEMPTS = KILLS + 3
"""One task may be hit by every kill, and a busy machine may make one late."""
IN_FLIGHT = 100
"""What one worker has under way at most (`max_concurrent_activities`): so many attempts a kill can interrupt."""

MAP = """\
name: map
tasks:
  - id: each
    type: map
    items: "${{{{ range({size}) }}}}"
    results: "${{{{ tasks.work.outputs.body.path }}}}"
    tasks:
      - id: work
        activity_type: http_request
        timeout: 3s
        execution: worker
        retry: {{max_attempts: {attempts}, initial_interval: 200ms}}
        config: {{method: POST, url: "{url}/map/${{{{ item }}}}"}}
outputs: {{paths: "${{{{ tasks.each.outputs }}}}"}}
"""


@dataclass
class Bench:
    """The system without a sync: what it runs is too large for a file, and written into the tables."""

    system: System
    database: Database
    ledger: Ledger


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def bench(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Bench]:
    ledger = await Ledger().start()
    system = System(tmp_path_factory.mktemp("system"))
    database = None
    try:
        await system.start("api", "worker")
        database = Database(system.postgres.url())
        yield Bench(system, database, ledger)
    finally:
        if database is not None:
            await database.aclose()
        await system.stop()
        await ledger.stop()


def compiled(shape: str, url: str) -> dict[str, Any]:
    size = SIZES[shape]
    if shape == "map":
        checked = check(
            MAP.format(size=size, url=url, attempts=ATTEMPTS).encode(), "map.yaml", ActivityTypes.default()
        )
        assert checked.compiled is not None, checked.problems
        return checked.compiled

    def work(number: int, *after: str) -> dict[str, Any]:
        config = {"method": "POST", "url": f"{url}/{shape}/{number}", "expected_status": [200]}
        execution = "worker" if shape == "dag" else "auto"
        return task(
            f"t{number}",
            *after,
            activity_type="http_request",
            timeout=3.0 if shape == "dag" else 1.0,  # what is longer than a second is not run locally
            execution=execution,
            retry=retry(ATTEMPTS),
            config=config,
        )

    if shape == "wide":
        many = [work(number) for number in range(size)]
        return definition(*many, task("join", *(t["id"] for t in many), type="set", values={})) | {
            "name": shape
        }
    # Layers of fifty, each task behind two of the layer before.
    layers = [
        work(n, *(f"t{n - n % 50 - 50 + k % 50}" for k in (n % 50, n % 50 + 1)) if n >= 50 else ())
        for n in range(size)
    ]
    return definition(*layers) | {"name": shape}


@pytest.mark.parametrize("shape", ["map", "dag", "wide"])
async def test_five_kills_in_the_middle_change_nothing(bench: Bench, shape: str) -> None:
    system, ledger, size = bench.system, bench.ledger, SIZES[shape]
    ledger.effects.clear()
    await register(bench.database, shape, compiled=compiled(shape, ledger.url), source="large")
    run = (await system.execute(shape))["id"]
    for kill in range(1, KILLS + 1):
        wanted = kill * size // (KILLS + 2)
        await system.until(lambda wanted=wanted: _done(ledger, wanted), f"effects before kill {kill}", 300)  # type: ignore[misc]
        system.kill("worker")
        system.launch("worker")
    done = await system.finished(run, seconds=900)
    paths = [f"/{shape}/{number}" for number in range(size)]
    if shape == "map":
        assert done["outputs"] == {"paths": paths}
    counts = Counter(effect.path for effect in ledger.effects)
    assert sorted(counts) == sorted(paths), "each task left its effect"
    keys: dict[str, set[str]] = {effect.path: set() for effect in ledger.effects}
    for effect in ledger.effects:
        keys[effect.path].add(effect.key)
    assert {len(each) for each in keys.values()} == {1}, "every repetition carried the key of the first"
    assert max(counts.values()) <= 1 + KILLS
    if shape != "wide":
        repeated = sum(counts.values()) - size
        assert repeated <= KILLS * IN_FLIGHT, f"{repeated} repetitions"


async def _done(ledger: Ledger, count: int) -> bool:
    return len({effect.path for effect in ledger.effects}) >= count
