"""`python -m benchmarks`: the figures, as rows of one Markdown table, each a ratio to its limit in the same run."""

from __future__ import annotations

import argparse
import asyncio
import importlib
import os
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from benchmarks.table import HEAD, Row, line
from engine.logs import configure_logging

SECTIONS = (
    *("brain", "validate", "chain", "fan", "diamond", "where"),
    *("start", "read", "live", "webhook", "past", "cold", "idle", "storm", "large"),
)
HELP = """
Each section measures Pinflow and the limit of the same work in turns, on real servers of its own, and prints the
medians and the median of their ratios. Only ratios mean something: absolute figures move with the machine's mood.
"""


def main() -> int:
    """Run the sections, print the table. 1 if a section failed; a missed target is no failure."""
    parser = argparse.ArgumentParser("python -m benchmarks", description=HELP)
    parser.add_argument("--only", nargs="+", choices=SECTIONS, metavar="SECTION", help=", ".join(SECTIONS))
    parser.add_argument(
        "--quick", action="store_true", help="a small slice that shows that every section works"
    )
    args = parser.parse_args()
    # Found by the entry point beside it, as a package of somebody else's would be.
    sys.path.append(str(Path(__file__).parent / "plugin"))
    configure_logging("text", "ERROR")  # a busy server makes warnings, which are no figures
    with tempfile.TemporaryDirectory(prefix="pinflow-bench-bytecode-") as bytecode:
        # Every process starts from compiled files, as an installed program does, whatever the machine's settings.
        os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
        os.environ["PYTHONPYCACHEPREFIX"] = bytecode
        return _all(args.only or SECTIONS, args.quick)


def _all(sections: Sequence[str], quick: bool) -> int:
    size = "quick slice: its figures mean nothing" if quick else "full size"
    print(f"{size}, {os.cpu_count()} CPUs, Python {sys.version.split()[0]}\n\n{HEAD}", flush=True)
    failed: list[str] = []
    for name in sections:
        begin = time.monotonic()
        print(f"{name} ...", end=" ", file=sys.stderr, flush=True)
        try:
            found = _run(name, quick)
        except Exception as error:
            failed.append(f"{name}: {type(error).__name__}: {error}")
            print("FAILED", file=sys.stderr, flush=True)
            continue
        print(f"{time.monotonic() - begin:.0f} s", file=sys.stderr, flush=True)
        print("\n".join(map(line, found)), flush=True)
    for each in failed:
        print(f"\n{each}", file=sys.stderr)
    return 1 if failed else 0


def _run(name: str, quick: bool) -> list[Row]:
    import uvloop

    # Imported here, so that one section's needs do not weigh on another's figures.
    section = importlib.import_module(f"benchmarks.{name}")
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        found: list[Row] = runner.run(section.measure(quick))
    if not found:
        raise RuntimeError("no rows")
    return found


if __name__ == "__main__":
    code = main()
    sys.stdout.flush()
    sys.stderr.flush()
    # Temporal's core has threads that can crash the interpreter while it ends.
    os._exit(code)
