"""The token of the person at the machine."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from engine.errors import Unauthenticated
from engine.services.callers import Caller
from engine.services.tokens import TokenService, ensure_local_token
from engine.storage.database import Database


async def test_it_is_made_once_and_only_its_owner_can_read_it(database: Database, tmp_path: Path) -> None:
    path = tmp_path / "deep" / "token"
    secret = await ensure_local_token(database, path, subject="ada")
    assert await ensure_local_token(database, path) == secret
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    caller = await TokenService(database).authenticate(secret)
    assert caller == Caller("ada", frozenset({"admin"}), ("admins",))


@pytest.mark.parametrize("content", [b"", b"nonsense\n", b"pf_" + b"a" * 43, b"\xff\xfe\0"])
async def test_a_file_that_the_database_does_not_know_is_replaced(
    database: Database, tmp_path: Path, content: bytes
) -> None:
    path = tmp_path / "token"
    path.write_bytes(content)
    secret = await ensure_local_token(database, path, subject="ada")
    assert path.read_text().strip() == secret
    assert (await TokenService(database).authenticate(secret)).subject == "ada"


async def test_text_that_is_no_token_never_reaches_the_database(database: Database) -> None:
    service = TokenService(database)
    await database.aclose()
    for secret in ("", "pf_", "pf_" + "ü" * 43, "x" * 100_000, "pf_" + "a" * 44):
        with pytest.raises(Unauthenticated):
            await service.authenticate(secret)
