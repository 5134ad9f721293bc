"""The forges: their webhooks, which are trusted for nothing but "look now", and how far they have been told."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from engine.errors import Misconfigured, Unauthenticated
from engine.forge.places import delivery_of, place_of, repository_said, secret, signed
from engine.settings import ForgeSettings
from engine.storage import forge_messages, sources
from engine.storage.database import Database
from engine.storage.rows import Record


class ForgeService:
    """Takes deliveries, each once and only those that are signed; knows what could not be told."""

    def __init__(self, database: Database, forges: Sequence[ForgeSettings]) -> None:
        self._database = database
        self._forges = {forge.name: forge for forge in forges}

    async def take(self, name: str, headers: Mapping[str, str], body: bytes) -> list[str]:
        """The sources that will be looked at now; none for a delivery that was taken before.

        The signature is judged over the body as it came, before anything of it is read. Raises `Unauthenticated` for a
        wrong one, and for a forge that is not known or has no secret: who cannot sign learns nothing.
        """
        forge = self._forges.get(name)
        if forge is None or not _is_signed(forge, headers, body):
            raise Unauthenticated(
                "the delivery is not signed with the webhook's secret",
                hint="give the forge the secret of its entry in PINFLOW_FORGES",
            )
        async with self._database.begin() as connection:
            if not await forge_messages.take_delivery(connection, name, delivery_of(headers, body)):
                return []
            known = await sources.list_all(connection)
            meant = self._meant(forge, known_urls={row["name"]: row["url"] for row in known}, body=body)
            for source in meant:
                await sources.request_sync(connection, source)
        return meant

    async def faults(self) -> dict[str, Record]:
        """By source, what its forge could not be told: `{waiting, parked, error, since}`. Only where there is a fault."""
        async with self._database.read() as connection:
            return await forge_messages.faults(connection)

    def _meant(self, forge: ForgeSettings, *, known_urls: Mapping[str, str], body: bytes) -> list[str]:
        """The sources of the repository that is named; all of the forge if it names none that we know."""
        forges = list(self._forges.values())
        places = {source: place_of(forges, source, url) for source, url in known_urls.items()}
        here = {source: place for source, place in places.items() if place and place.forge.name == forge.name}
        named = repository_said(body)
        meant = [source for source, place in here.items() if place.repository.lower() == named]
        return sorted(meant or here)


def _is_signed(forge: ForgeSettings, headers: Mapping[str, str], body: bytes) -> bool:
    try:
        key = secret(
            forge.webhook_secret_env, forge.webhook_secret_file, f"the webhook secret of forge {forge.name}"
        )
    except Misconfigured:
        return False
    return signed(forge, key, headers, body)
