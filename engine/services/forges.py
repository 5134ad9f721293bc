"""The forges: their webhooks, which are trusted for nothing but "look now", and how far they have been told."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence

from engine.errors import Misconfigured, Unauthenticated
from engine.forge.places import delivery_of, place_of, repository_said, signed, webhook_secret_of
from engine.services.signatures import SIGNING_TOKEN, read_standard
from engine.services.webhook_tally import WebhookTally
from engine.settings import ForgeSettings
from engine.storage import forge_messages, sources
from engine.storage.database import Database
from engine.storage.json_text import clean_text
from engine.storage.rows import Record

_NOBODY = ForgeSettings(name="nobody", kind="github", api="https://nobody.invalid")
"""In whose place a signature is judged where there is no forge or no secret: it takes as long."""


class ForgeService:
    """Takes deliveries, each once and only those that are signed; knows what could not be told."""

    def __init__(
        self,
        database: Database,
        forges: Sequence[ForgeSettings],
        *,
        tally: WebhookTally | None = None,
        window: float = 300.0,
    ) -> None:
        self._database = database
        self._forges = {forge.name: forge for forge in forges}
        self._tally = tally or WebhookTally()
        self._window = window
        self._looks = _Looks(database, self._forges)

    async def take(self, name: str, headers: Mapping[str, str], body: bytes) -> list[str]:
        """The sources that will be looked at now; none for a delivery that was taken before.

        The signature is judged over the body as it came, before anything of it is read. Raises `Unauthenticated` for a
        wrong one, and for a forge that is not known or has no secret: who cannot sign learns nothing.
        """
        if not self._believed(name, headers, body):
            raise Unauthenticated(
                "the delivery is not signed with the webhook's secret",
                hint="give the forge the secret of its entry in PINFLOW_FORGES",
            )
        delivery = clean_text(delivery_of(headers, body))
        asked = await self._looks.ask(name, delivery, repository_said(body))
        self._tally.count("forge", "repeated" if asked is None else "taken")
        return asked or []

    async def faults(self) -> dict[str, Record]:
        """By source, what its forge could not be told: `{waiting, parked, error, since}`. Only where there is a fault."""
        async with self._database.read() as connection:
            return await forge_messages.faults(connection)

    async def tell_again(self, source: str) -> None:
        """Have what the forge of a source was not told sent again now, also what was given up."""
        async with self._database.begin() as connection:
            await forge_messages.try_again(connection, source)

    def warning(self, source: str, url: str) -> str:
        """Why no webhook of the source's forge is taken, although one is meant to be; else ""."""
        place = place_of(list(self._forges.values()), source, url)
        forge = place.forge if place else None
        if forge is None or not (forge.webhook_secret_env or forge.webhook_secret_file):
            return ""
        try:
            webhook_secret_of(forge)
        except Misconfigured as error:
            return (
                f"every webhook of forge {forge.name} is refused, commits are seen by the next poll: {error}"
            )
        return ""

    def _believed(self, name: str, headers: Mapping[str, str], body: bytes) -> bool:
        forge = self._forges.get(name)
        if forge is None:
            signed(_NOBODY, "nobody", headers, body)
            self._tally.refused("forge", "unsigned")
            return False
        try:
            key = webhook_secret_of(forge)
        except Misconfigured as error:
            signed(_NOBODY, "nobody", headers, body)
            self._tally.refused("forge", "no_secret", f"/webhooks/{name}", reason=str(error))
            return False
        if self._is_signed(forge, key, headers, body):
            return True
        self._tally.refused("forge", "unsigned", f"/webhooks/{name}")
        return False

    def _is_signed(self, forge: ForgeSettings, key: str, headers: Mapping[str, str], body: bytes) -> bool:
        """GitLab signs if it was given a signing token; its plain token then proves nothing any more."""
        if forge.kind != "gitlab" or not key.startswith(SIGNING_TOKEN):
            return signed(forge, key, headers, body)
        try:
            return read_standard(headers, time.time(), self._window).fits(body, key)
        except Unauthenticated:
            return False


class _Looks:
    """Asks for looks: deliveries that come in while a transaction is under way share the next one.

    However many come, one transaction is open, and one look is asked for each source.
    """

    def __init__(self, database: Database, forges: Mapping[str, ForgeSettings]) -> None:
        self._database = database
        self._forges = forges
        self._waiting: dict[tuple[str, str], tuple[str, asyncio.Future[list[str] | None]]] = {}
        self._writer: asyncio.Task[None] | None = None

    async def ask(self, forge: str, delivery: str, repository: str) -> list[str] | None:
        """The sources that will be looked at, once that is durable; None for a delivery that was taken before."""
        waiting = self._waiting.get((forge, delivery))
        if waiting is not None:
            await asyncio.shield(waiting[1])
            return None
        done: asyncio.Future[list[str] | None] = asyncio.get_running_loop().create_future()
        self._waiting[forge, delivery] = repository, done
        if self._writer is None:
            self._writer = asyncio.create_task(self._write(), name="webhooks taken")
        return await asyncio.shield(done)

    async def _write(self) -> None:
        while self._waiting:
            batch, self._waiting = self._waiting, {}
            try:
                asked = await self._note({key: repository for key, (repository, _) in batch.items()})
            except Exception as error:
                for _, done in batch.values():
                    done.set_exception(error)
                    done.exception()  # seen, also if nobody waits any more
            else:
                for key, (_, done) in batch.items():
                    done.set_result(asked.get(key))
        self._writer = None

    async def _note(self, deliveries: Mapping[tuple[str, str], str]) -> dict[tuple[str, str], list[str]]:
        async with self._database.begin() as connection:
            fresh = await forge_messages.take_deliveries(connection, list(deliveries))
            if not fresh:
                return {}
            urls = {row["name"]: row["url"] for row in await sources.list_all(connection)}
            meant: dict[tuple[str, str], list[str]] = {}
            asked: dict[tuple[str, str], list[str]] = {}
            for forge, delivery in fresh:
                place = forge, deliveries[forge, delivery]
                if place not in meant:
                    meant[place] = self._meant(*place, urls)
                asked[forge, delivery] = meant[place]
            for source in sorted({name for names in meant.values() for name in names}):
                await sources.request_sync(connection, source)
        return asked

    def _meant(self, forge: str, repository: str, urls: Mapping[str, str]) -> list[str]:
        """The sources of the repository that is named; all of the forge if it names none that we know."""
        places = {source: place_of(list(self._forges.values()), source, url) for source, url in urls.items()}
        here = {source: place for source, place in places.items() if place and place.forge.name == forge}
        meant = [source for source, place in here.items() if place.repository.lower() == repository]
        return sorted(meant or here)
