"""Tells the forges: one terminal status for each commit and source, a comment on its pull request, proposals' pull requests.

What is told is made from the registry when it is sent, and sent until the forge has it: whatever the forge drops, delays
or repeats, the last status that it shows is what the registry says. A forge that is away, has had enough, or does not
know our token is left alone for a while as a whole: its messages wait, and are never given up for that.
"""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence

import structlog

from engine import faults
from engine.errors import Misconfigured, Unavailable
from engine.forge.apis import Away, Denied, Http, Refused, State, api_of
from engine.forge.pauses import Pauses
from engine.forge.places import Place, place_of
from engine.forge.pull_requests import pull_request
from engine.passes import keep_on
from engine.registry.workflow_registry import WorkflowRegistry
from engine.settings import ForgeSettings, SourceSettings
from engine.storage import forge_messages, proposals, sources
from engine.storage.database import Database
from engine.storage.rows import Record

_log = structlog.get_logger(__name__)
_EVERY = 2.0
"""Seconds between two looks at the registry."""
_LEASE = 120.0
_BATCH = 8
_REFUSALS = 8
"""Times that a forge may refuse a message before it is parked."""
_LONGEST = 300.0
"""Seconds between two tries, unless the forge asks for more."""
_UNTIL_MENDED = 60.0
"""As long where a person has to see to it, who then wants to see it go."""
_LOOKED_AGAIN = 5
"""Times that a comment is written anew, because the registry has moved while it was written."""
_PROBLEMS_SHOWN = 50
Sources = Callable[[], Mapping[str, SourceSettings]]


class Reporter:
    """Tells the forges of the sources that this process watches."""

    def __init__(
        self,
        database: Database,
        forges: Sequence[ForgeSettings],
        watched: Sources,
        *,
        public_url: str = "",
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._database = database
        self._registry = WorkflowRegistry(database)
        self._forges = forges
        self._sources = watched
        self._public_url = public_url.rstrip("/")
        self._http = Http()
        self._pauses = Pauses(clock)
        self._commenting: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)

    async def aclose(self) -> None:
        """Close the connections to the forges."""
        await self._http.aclose()

    async def run(self) -> None:
        """Tell until cancelled. An absent Postgres is waited for."""
        await keep_on(self.pass_once, what="messages for forges", pause=_EVERY)

    async def pass_once(self) -> int:
        """Tell what is due; how many messages there were."""
        places = self._places()
        if not places:
            return 0
        chatty = [name for name, place in places.items() if place.forge.comments]
        open_ = [name for name, place in places.items() if not self._pauses.closed(place.forge.name)]
        async with self._database.begin() as connection:
            await forge_messages.note_revisions(connection, list(places), kinds=["status"])
            await forge_messages.note_revisions(connection, chatty, kinds=["comment"])
            due = await forge_messages.claim(connection, open_, count=_BATCH, lease=_LEASE)
        await asyncio.gather(*(self._tell(message, places[message["source"]]) for message in due))
        return len(due)

    def _places(self) -> dict[str, Place]:
        found = {name: place_of(self._forges, name, source.url) for name, source in self._sources().items()}
        return {name: place for name, place in found.items() if place is not None}

    async def _tell(self, message: Record, place: Place) -> None:
        forge = place.forge.name
        try:
            await faults.point("forge.before_send")
            await self._send(message, place)
            await faults.point("forge.after_send")
        except Away as error:
            delay = self._pauses.failed(forge, error.retry_after, _LONGEST)
            await self._postpone(message, delay, error.message)
        except Unavailable:  # Postgres
            raise
        except Misconfigured as error:
            await self._postpone(message, self._pauses.failed(forge, 1.0, _UNTIL_MENDED), str(error))
        except Denied as error:
            delay = min(_LONGEST, 2.0 ** min(message["attempts"], 20))
            if error.unknown:
                delay = self._pauses.failed(forge, 1.0, _UNTIL_MENDED)
            await self._postpone(message, delay, f"{error}; {_way_out(place, unknown=error.unknown)}")
        except Refused as error:
            delay = min(_LONGEST, 4.0 ** (1 + int(message["body"].get("refusals", 0))))
            await self._postpone(message, delay, str(error), refused=True)
        except Exception as error:  # one poisoned message must not stop the others (P9)
            _log.exception("forge not told", kind=message["kind"], source=message["source"])
            await self._postpone(message, _LONGEST, type(error).__name__, refused=True)
        else:
            self._pauses.well(forge)
            async with self._database.begin() as connection:
                await forge_messages.sent(connection, message)

    async def _postpone(self, message: Record, delay: float, error: str, *, refused: bool = False) -> None:
        async with self._database.begin() as connection:
            parked = await forge_messages.postpone(
                connection, message, delay=delay, error=error, refused=refused, limit=_REFUSALS
            )
        log = _log.error if parked else _log.warning
        log(
            "forge not told",
            kind=message["kind"],
            source=message["source"],
            subject=message["subject"],
            reason=error,
            given_up=parked,
        )

    async def _send(self, message: Record, place: Place) -> None:
        if message["kind"] == "pull_request":
            await self._open(message, place)
            return
        async with self._database.read() as connection:
            revision = await forge_messages.revision(connection, message["body"]["revision"])
        if revision is None:
            return
        if message["kind"] == "status":
            await api_of(place, self._http).set_status(
                revision["sha"],
                f"pinflow/{revision['source']}",
                _state(revision),
                await self._in_a_line(revision),
                self._address(revision["sha"]),
                again=message["attempts"] > 1,
            )
        elif (number := pull_request(revision["subject"])) is not None:
            async with self._commenting[place.forge.name]:
                await self._comment(place, number)

    async def _comment(self, place: Place, number: int) -> None:
        """Bring the one comment of a pull request to what the registry says of it, whichever source is the news.

        Another daemon may write it at the same time, for another source: who writes looks at the registry again after it,
        so that the last to write has seen all that was committed before.
        """
        api, told = api_of(place, self._http), None
        for _ in range(_LOOKED_AGAIN):
            text, worth = await self._of_pull_request(place, number)
            if text in ("", told):
                return
            marker = f"<!-- pinflow:live:{self._public_url} -->"
            await api.comment(number, marker, f"{marker}\n{text}", fresh=worth)
            told = text

    async def _of_pull_request(self, place: Place, number: int) -> tuple[str, bool]:
        """What is to be said on a pull request, and whether it is worth a comment where there is none."""
        async with self._database.read() as connection:
            urls = {row["name"]: row["url"] for row in await sources.list_all(connection)}
            here = [name for name, url in urls.items() if place_of(self._forges, name, url) == place]
            named = await forge_messages.revisions_naming(connection, here, number)
        newest = {each["source"]: each for each in named if pull_request(each["subject"]) == number}
        parts = [await self._in_full(newest[source]) for source in sorted(newest)]
        news = [text for text, is_news in parts if is_news]
        return "\n".join(news or [text for text, _ in parts[:1]]), bool(news)

    async def _open(self, message: Record, place: Place) -> None:
        async with self._database.read() as connection:
            proposal = await proposals.by_id(connection, message["body"]["proposal"])
        if proposal is None or proposal["url"]:
            return
        title, _, text = proposal["message"].partition("\n\n")
        base = message["branch"].removeprefix("refs/heads/")
        url = await api_of(place, self._http).open_pull_request(proposal["branch"], base, title, text)
        async with self._database.begin() as connection:
            await proposals.opened(connection, proposal["id"], url)

    # --- words ----------------------------------------------------------------------------------------------------

    async def _in_a_line(self, revision: Record) -> str:
        if revision["status"] != "REGISTERED":
            return await self._first_problem(revision)
        if revision["problem_count"]:  # a source in isolated mode: the good files are live
            return f"live in part; {await self._first_problem(revision)}"
        deployed, retired = await self._changes(revision)
        told = [f"{len(deployed)} deployed"] if deployed else []
        told += [f"{len(retired)} retired"] if retired else []
        return f"live: {', '.join(told) or 'no definition changed'}"

    async def _first_problem(self, revision: Record) -> str:
        found = await self._found(revision)
        first = f": {_located(found[0])}" if found else ""
        return f"{len(found)} problem{'' if len(found) == 1 else 's'}{first}"

    async def _in_full(self, revision: Record) -> tuple[str, bool]:
        """What is said of a revision, and whether it did anything to definitions."""
        address = self._address(revision["sha"])
        commit = f"`{revision['sha'][:12]}`"
        named = f"[{commit}]({address})" if address else commit
        head = f"**Pinflow**, source `{revision['source']}`: {named} "
        registered = revision["status"] == "REGISTERED"
        deployed, retired = await self._changes(revision) if registered else ([], [])
        lines = [f"- `{name}` is deployed" for name in deployed] + [
            f"- `{name}` is retired" for name in retired
        ]
        if registered and not revision["problem_count"]:
            return f"{head}is live.\n\n" + ("\n".join(lines) or "No definition changed.") + "\n", bool(lines)
        said = "is live in part." if registered else "was refused. What was live stays live."
        return f"{head}{said}\n\n" + "\n".join([*lines, *await self._problems(revision)]) + "\n", True

    async def _problems(self, revision: Record) -> list[str]:
        found = await self._found(revision)
        shown = [f"- {_code(_located(each))}" for each in found[:_PROBLEMS_SHOWN]]
        return [*shown, f"- and {len(found) - len(shown)} more"] if len(found) > len(shown) else shown

    async def _found(self, revision: Record) -> list[Record]:
        of_commit = await self._registry.revision(revision["sha"])
        return next((each["problems"] for each in of_commit if each["id"] == revision["id"]), [])

    async def _changes(self, revision: Record) -> tuple[list[str], list[str]]:
        changes = [
            each
            for each in await self._registry.changes_of(revision["sha"])
            if each["source"] == revision["source"]
        ]
        deployed = sorted({each["name"] for each in changes if each["change"] == "deployed"})
        return deployed, sorted({each["name"] for each in changes if each["change"] == "retired"})

    def _address(self, sha: str) -> str:
        return f"{self._public_url}/commits/{sha}" if self._public_url else ""


def _way_out(place: Place, *, unknown: bool) -> str:
    """What the operator does about a token that is refused."""
    where = place.forge.token_env or str(place.forge.token_file)
    if unknown:
        return f"give the daemon a token that is valid ({where}); what waits is then sent"
    return (
        f"the token ({where}) must be allowed to set statuses and to write on pull requests of {place.repository}; "
        "what waits is then sent"
    )


def _state(revision: Record) -> State:
    """A success is a commit that is live as a whole."""
    return "success" if revision["status"] == "REGISTERED" and not revision["problem_count"] else "failure"


def _located(problem: Record) -> str:
    place = f"{problem['file']}:{problem['line']}:{problem['column']}: " if problem["file"] else ""
    hint = f" ({problem['hint']})" if problem["hint"] else ""
    text = f"{place}{problem['code']} {problem['message']}{hint}"
    return "".join(letter if letter.isprintable() else " " for letter in text)


def _code(text: str) -> str:
    """Text of a commit in somebody's page: a code span, in which nothing is a mention, a link or HTML."""
    fence = "`"
    while fence in text:
        fence += "`"
    return f"{fence} {text} {fence}" if "`" in text else f"{fence}{text}{fence}"
