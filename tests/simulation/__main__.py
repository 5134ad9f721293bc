"""Play many seeds: `python -m tests.simulation --seeds 100000 --first 0`. Prints and keeps each seed that breaks a rule."""

from __future__ import annotations

import argparse
import sys
from random import Random

from tests.simulation import cases
from tests.simulation.world import World


def main() -> int:
    """The number of the seeds that broke a rule, at most 100."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=100_000)
    parser.add_argument("--first", type=int, default=10_000, help="the tests play those before it")
    options = parser.parse_args()
    broken = 0
    for seed in range(options.first, options.first + options.seeds):
        try:
            World(Random(seed)).simulate()
        except Exception as error:
            broken += 1
            told = f"{type(error).__name__}: {' '.join(str(error).split())}"
            cases.keep(seed, told)
            sys.stdout.write(f"seed {seed}: {told[:300]}\n")
    sys.stdout.write(f"{options.seeds} runs, {broken} broke a rule\n")
    return min(broken, 100)


if __name__ == "__main__":
    sys.exit(main())
