"""`pinflow token`: who may call the API."""

from __future__ import annotations

import argparse
import os
from typing import Any

from engine.cli.client import Client, segment
from engine.cli.output import add_limit_option, add_output_option, print_json, show_list, when
from engine.errors import InvalidInput

HELP = """
Tokens for the API. A token's text is shown once, when it is made; only its hash is kept.

  pinflow token create --subject ada --role approver --group sre --expires-in 90d
  pinflow token ls
  pinflow token revoke ID

roles: viewer reads, operator starts and cancels runs, approver decides, admin does all of it and makes tokens.

With PINFLOW_DATABASE_URL set, and PINFLOW_TOKEN not, the database itself is used: so the first token of a server is
made. Otherwise it takes the token of an admin.
"""

_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the verbs."""
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")
    create = verbs.add_parser("create", help="make a token and print it")
    create.add_argument(
        "--subject", required=True, metavar="NAME", help="the person or program it stands for"
    )
    create.add_argument(
        "--role",
        action="append",
        required=True,
        choices=("viewer", "operator", "approver", "admin"),
        help="may be repeated",
    )
    create.add_argument("--group", action="append", default=[], metavar="NAME", help="may be repeated")
    create.add_argument("--expires-in", default="", metavar="TIME", help="90d, 12h, 30m; never if not given")
    listing = verbs.add_parser("ls", help="tokens, without their text")
    add_limit_option(listing)
    revoke = verbs.add_parser("revoke", help="end a token")
    revoke.add_argument("id", help="the token's id")
    for verb in (create, listing, revoke):
        add_output_option(verb)


def run(args: argparse.Namespace) -> int:
    """Do what the verb says."""
    by_database = bool(os.environ.get("PINFLOW_DATABASE_URL")) and not os.environ.get("PINFLOW_TOKEN")
    said = _by_database(args) if by_database else _by_api(args)
    if args.verb == "ls":
        return show_list(
            args,
            said,
            [
                ("ID", lambda t: t["id"]),
                ("SUBJECT", lambda t: t["subject"]),
                ("ROLES", lambda t: " ".join(t["roles"])),
                ("GROUPS", lambda t: " ".join(t["groups"])),
                ("CREATED", lambda t: when(t.get("created_at"))),
                ("EXPIRES", lambda t: when(t.get("expires_at"))),
                ("REVOKED", lambda t: when(t.get("revoked_at"))),
            ],
            "no token",
        )
    if args.output == "json":
        print_json(said)
    elif args.verb == "create":
        print(said["token"])
    else:
        print(f"{args.id}: revoked")
    return 0


def _by_api(args: argparse.Namespace) -> Any:
    client = Client.from_environment()
    if args.verb == "ls":
        return list(client.pages("/tokens", args.limit))
    if args.verb == "revoke":
        return client.delete(f"/tokens/{segment(args.id)}")
    return client.post("/tokens", _wanted(args))


def _by_database(args: argparse.Namespace) -> Any:
    import asyncio

    from engine.cli.environment import settings
    from engine.services.callers import Caller
    from engine.services.tokens import TokenService
    from engine.storage.database import Database

    # Whoever holds the database may do all of it; the audit says that it was done so.
    caller = Caller("database", frozenset({"admin"}))

    async def act() -> Any:
        database = Database(settings().database_url, pool_size=1)
        try:
            service = TokenService(database)
            if args.verb == "ls":
                return [_plain(row) for row in await service.page(caller, count=args.limit)]
            if args.verb == "revoke":
                return _plain(await service.revoke(caller, args.id))
            made = await service.create(caller, **_wanted(args))
            return {**_plain(made.shown), "token": made.secret}
        finally:
            await database.aclose()

    return asyncio.run(act())


def _wanted(args: argparse.Namespace) -> dict[str, Any]:
    wanted: dict[str, Any] = {"subject": args.subject, "roles": args.role, "groups": args.group}
    if args.expires_in:
        wanted["expires_in"] = _seconds(args.expires_in)
    return wanted


def _seconds(text: str) -> float:
    try:
        return float(text[:-1]) * _UNITS[text[-1]]
    except (ValueError, KeyError):
        raise InvalidInput(f"--expires-in {text!r} is no time", hint="write 90d, 12h or 30m") from None


def _plain(row: Any) -> dict[str, Any]:
    return {name: value.isoformat() if hasattr(value, "isoformat") else value for name, value in row.items()}
