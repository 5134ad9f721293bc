"""`pinflow db`: the schema of the database."""

from __future__ import annotations

import argparse

HELP = """
Bring the database of PINFLOW_DATABASE_URL to the schema of this version. Any number may do so at once; doing it
again does nothing. `pinflow up` does it by itself.
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the verbs."""
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")
    verbs.add_parser("upgrade", help="apply the migrations that are missing")


def run(args: argparse.Namespace) -> int:
    """Migrate."""
    import asyncio

    from engine.cli.environment import settings
    from engine.storage.migrate import upgrade

    print(f"the database is at {asyncio.run(upgrade(settings().database_url))}")
    return 0
