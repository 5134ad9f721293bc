"""Play many histories: `python -m tests.histories --count 1000 --first 0`.

Each seed that breaks a rule is printed and kept in `tests/histories/broken_once.txt`, which the tests play for ever.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import sys
import tempfile
import traceback
from pathlib import Path

import structlog

from engine.storage.database import Database
from engine.sync.checker import Checker
from tests.histories.play import Play
from tests.support.postgres import running_postgres

BROKEN = Path(__file__).with_name("broken_once.txt")


def broken_once() -> list[int]:
    """Seeds that once broke a rule."""
    return [int(line) for line in BROKEN.read_text("utf-8").split()] if BROKEN.exists() else []


async def sweep(first: int, count: int) -> int:
    """Play `count` seeds; how many broke a rule."""
    broken = 0
    async with running_postgres() as postgres:
        database = Database(await postgres.fresh_database())
        checker = Checker()
        try:
            for seed in range(first, first + count):
                with tempfile.TemporaryDirectory(prefix="history-") as folder:
                    try:
                        await Play(seed, database, checker, Path(folder)).play()
                    except Exception:
                        broken += 1
                        _keep(seed)
                        sys.stdout.write(f"seed {seed}:\n{traceback.format_exc(limit=-3)}\n")
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
    sys.stdout.write(f"{options.count} histories from seed {options.first} on, {broken} broke a rule\n")
    return min(broken, 100)


if __name__ == "__main__":
    sys.exit(main())
