"""Play many histories: `python -m tests.histories --count 1000 --first 0`.

Each seed that breaks a rule is printed and kept in `tests/histories/broken_once.txt`, which the tests play for ever.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import sys
import tempfile
import time
import traceback
from pathlib import Path

import structlog

from engine.storage.database import Database
from engine.sync.checker import Checker
from tests.histories.play import Play
from tests.histories.seeds import BROKEN, broken_once
from tests.support.postgres import running_postgres

_TOLD_EVERY = 50


async def sweep(first: int, count: int) -> int:
    """Play `count` seeds; how many broke a rule."""
    broken = kills = 0
    began = time.monotonic()
    async with running_postgres() as postgres:
        url = await postgres.fresh_database()
        database = Database(url)
        checker = Checker()
        try:
            for seed in range(first, first + count):
                with tempfile.TemporaryDirectory(prefix="history-") as folder:
                    play = Play(seed, database, url, checker, Path(folder))
                    try:
                        await play.play()
                    except Exception:
                        broken += 1
                        _keep(seed)
                        sys.stdout.write(f"seed {seed}:\n{traceback.format_exc(limit=-3)}\n")
                    kills += play.kills
                done = seed - first + 1
                if done % _TOLD_EVERY == 0 or done == count:
                    taken = time.monotonic() - began
                    sys.stdout.write(
                        f"{done} of {count}: {broken} broke a rule, {kills} kills, {taken:.0f} s\n"
                    )
                sys.stdout.flush()
        finally:
            await checker.aclose()
            await database.aclose()
    return broken


def _keep(seed: int) -> None:
    known = broken_once()
    if seed not in known:
        BROKEN.write_text("".join(f"{each}\n" for each in [*known, seed]), "utf-8")


def main() -> int:
    """The number of the seeds that broke a rule, at most 100."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=1000)
    parser.add_argument("--first", type=int, default=0)
    options = parser.parse_args()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    broken = asyncio.run(sweep(options.first, options.count))
    last = options.first + options.count - 1
    sys.stdout.write(f"{options.count} histories, seeds {options.first} to {last}: {broken} broke a rule\n")
    return min(broken, 100)


if __name__ == "__main__":
    sys.exit(main())
