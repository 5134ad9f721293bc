"""What a Postgres that does not let us in is called."""

from __future__ import annotations

from urllib.parse import urlsplit, urlunsplit

import pytest

from engine.errors import Misconfigured
from engine.storage.database import Database


@pytest.mark.parametrize("way", ["begin", "read", "direct"])
async def test_a_database_that_is_not_there_is_the_operators_to_mend(database_url: str, way: str) -> None:
    database = Database(urlunsplit(urlsplit(database_url)._replace(path="/nowhere")), pool_size=1)
    try:
        with pytest.raises(Misconfigured, match="nowhere"):
            async with getattr(database, way)():
                pass
    finally:
        await database.aclose()
