"""Bearer tokens: made once, shown once, kept as a hash."""

from __future__ import annotations

import asyncio
import getpass
import hashlib
import os
import re
import secrets
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from engine.errors import InputProblem, InvalidInput, NotFound, Unauthenticated
from engine.services.callers import ROLES, Caller
from engine.services.ids import new_id
from engine.storage import audit, tokens
from engine.storage.database import Database
from engine.storage.rows import Record

PREFIX = "pf_"
_SECRET = re.compile(r"pf_[A-Za-z0-9_-]{43}")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@+-]{0,127}")
RESERVED = frozenset({"sync", "worker", "dispatcher", "reconciler", "system", "pinflow"})
"""The audit names our own processes so; no token may pass for one of them."""

_TRUSTED_FOR = 5.0
"""Seconds for which a look at the table is believed: a revoked token may work for so long in other processes."""
_MAX_CACHED = 10_000


@dataclass(frozen=True, slots=True)
class NewToken:
    """A token at the only moment at which its secret is known."""

    secret: str
    shown: Record


class TokenService:
    """Makes, revokes and checks tokens."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._checked: dict[str, tuple[float, Caller]] = {}

    async def authenticate(self, secret: str) -> Caller:
        """The caller behind a token. Raises `Unauthenticated`."""
        digest = hashlib.sha256(secret.encode()).hexdigest()
        known = self._checked.get(digest)
        now = time.monotonic()
        if known is not None and known[0] > now:
            return known[1]
        row = None
        if _SECRET.fullmatch(secret):
            async with self._database.read() as connection:
                row = await tokens.valid(connection, digest)
        if row is None:
            self._checked.pop(digest, None)
            raise Unauthenticated("this token is unknown, revoked or expired")
        caller = Caller(row["subject"], frozenset(row["roles"]), tuple(row["groups"]))
        until = now + _TRUSTED_FOR
        if row["expires_at"] is not None:
            until = min(until, now + (row["expires_at"] - datetime.now(UTC)).total_seconds())
        if len(self._checked) >= _MAX_CACHED:
            self._checked.clear()
        self._checked[digest] = (until, caller)
        return caller

    async def create(
        self,
        caller: Caller,
        *,
        subject: str,
        roles: Sequence[str],
        groups: Sequence[str] = (),
        expires_in: float | None = None,
    ) -> NewToken:
        """A new token for `subject`; `expires_in` is in seconds, None for never. Raises `InvalidInput`."""
        caller.require("admin")
        return await create_token(
            self._database,
            actor=caller.subject,
            subject=subject,
            roles=roles,
            groups=groups,
            expires_in=expires_in,
        )

    async def page(self, caller: Caller, *, count: int, before: str = "") -> list[Record]:
        """Tokens, the newest first, without their secrets."""
        caller.require("admin")
        async with self._database.read() as connection:
            return await tokens.page(connection, count=count, before=before)

    async def revoke(self, caller: Caller, token_id: str) -> Record:
        """End a token. A repeat changes nothing. Raises `NotFound`."""
        caller.require("admin")
        async with self._database.begin() as connection:
            shown, changed = await tokens.revoke(connection, token_id)
            if shown is None:
                raise NotFound(f"no token {token_id}")
            if changed:
                details = {"token_id": token_id, "subject": shown["subject"]}
                await audit.record(connection, "token.revoked", actor=caller.subject, details=details)
        self._checked.clear()
        return shown


async def create_token(
    database: Database,
    *,
    actor: str,
    subject: str,
    roles: Sequence[str],
    groups: Sequence[str] = (),
    expires_in: float | None = None,
) -> NewToken:
    """Make a token on the authority of somebody who holds the database. Raises `InvalidInput`."""
    _check(subject, roles, groups, expires_in)
    secret = PREFIX + secrets.token_urlsafe(32)
    expires_at = None if expires_in is None else datetime.now(UTC) + timedelta(seconds=expires_in)
    async with database.begin() as connection:
        shown = await tokens.create(
            connection,
            token_id=new_id(),
            subject=subject,
            digest=hashlib.sha256(secret.encode()).hexdigest(),
            roles=sorted(set(roles)),
            groups=sorted(set(groups)),
            expires_at=expires_at,
        )
        details = {
            "token_id": shown["id"],
            "subject": subject,
            "roles": shown["roles"],
            "groups": shown["groups"],
        }
        await audit.record(connection, "token.created", actor=actor, details=details)
    return NewToken(secret, shown)


async def ensure_local_token(database: Database, path: Path, *, subject: str = "") -> str:
    """The token in the file `path`, made (admin, group `admins`) if there is none that the database knows.

    The file is readable by its owner only. `subject` is the person at the machine by default.
    """
    try:
        secret = (await asyncio.to_thread(path.read_text)).strip()
        await TokenService(database).authenticate(secret)
    except (FileNotFoundError, UnicodeDecodeError, Unauthenticated):
        made = await create_token(
            database, actor="pinflow", subject=subject or _person(), roles=["admin"], groups=["admins"]
        )
        await asyncio.to_thread(_write_private, path, made.secret)
        return made.secret
    return secret


def _check(subject: str, roles: Sequence[str], groups: Sequence[str], expires_in: float | None) -> None:
    problems = []
    if not _NAME.fullmatch(subject):
        problems.append(InputProblem("/subject", f"{subject[:80]!r} must match {_NAME.pattern}"))
    if subject.lower() in RESERVED:
        problems.append(InputProblem("/subject", f"{subject!r} is the name of a process of Pinflow"))
    if not roles:
        problems.append(InputProblem("/roles", "at least one role is needed"))
    for position, role in enumerate(roles):
        if role not in ROLES:
            problems.append(
                InputProblem(f"/roles/{position}", f"{role[:80]!r} is none of {', '.join(ROLES)}")
            )
    for position, group in enumerate(groups):
        if not _NAME.fullmatch(group):
            problems.append(InputProblem(f"/groups/{position}", f"{group[:80]!r} must match {_NAME.pattern}"))
    if expires_in is not None and not 0 < expires_in <= 10 * 365 * 86400:
        problems.append(InputProblem("/expires_in", "must be more than 0 s and at most ten years"))
    if problems:
        raise InvalidInput("the token cannot be made so", problems)


def _person() -> str:
    try:
        name = getpass.getuser()
    except (KeyError, OSError):  # a container's user without an entry in passwd
        name = "local"
    return name if _NAME.fullmatch(name) and name.lower() not in RESERVED else "local"


def _write_private(path: Path, secret: str) -> None:
    """Replace the file in one step, never readable by others in between."""
    path.parent.mkdir(parents=True, exist_ok=True)
    new = path.with_name(f"{path.name}.{secrets.token_hex(4)}")
    descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(secret + "\n")
    new.replace(path)
