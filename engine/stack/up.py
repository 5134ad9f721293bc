"""The whole stack in one folder: servers, migration, token, processes; started in order, kept alive, stopped in order."""

from __future__ import annotations

import asyncio
import json
import os
import re
import shlex
import signal
import socket
import sys
import time
import urllib.request
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from engine.errors import Conflict, Misconfigured, Unavailable
from engine.stack.postgres import EmbeddedPostgres
from engine.stack.processes import HeldLock
from engine.stack.sources import SourceChoice, standing_in_words
from engine.stack.supervisor import (
    Part,
    Process,
    child_environment,
    interruptible,
    keep_alive,
    stop_in_order,
)
from engine.stack.temporal import EmbeddedTemporal

CLIENT_FILE = "client.json"
"""Where the client commands find the URL and the token; see `engine/cli/client.py`."""
DATA_FOLDER = ".pinflow"
"""The data folder that client commands look for in their own folder and above; any other must be named to them."""
_MISCONFIGURED = 78  # as in `engine/stack/prepare.py`, whose imports must not come here
_DRAIN = 20.0
_READY_WITHIN = 240.0
_LOOK_WITHIN = 20.0
_DEFAULT_PORT = 8000
# Name of the child (and of its log) and what it serves. Together they need a third of the memory.
_TOGETHER = {"pinflow": "all"}
_SEPARATE = {"api": "api", "worker": "worker", "sync": "sync"}


class Stack:
    """One folder's stack. `run` starts it and returns when it has been asked to end and has drained."""

    def __init__(self, data: Path, source: SourceChoice, *, port: int = 0, separate: bool = False) -> None:
        self.data = _usable(data)
        self._source = source
        self._wanted_port = port
        self._separate = separate
        self._lock = HeldLock(self.data / "up.lock")
        self._memory = self.data / "up.json"
        self.postgres = EmbeddedPostgres(self.data / "postgres")
        self.temporal = EmbeddedTemporal(self.data / "temporal")
        # Held from here on: the port cannot be lost to another while a child starts or is started again, and a
        # request that comes meanwhile waits and is not refused.
        self._listening: socket.socket | None = None
        self.sources: list[dict[str, Any]] = []
        self.sources_file = ""
        self.standing: dict[str, str] = {}
        self.processes: dict[str, Part] = {}
        self._servers_begun = False
        self._began = datetime.now(UTC).isoformat()

    @property
    def url(self) -> str:
        """The URL of the API."""
        return f"http://127.0.0.1:{self._port()}"

    async def run(self) -> None:
        """Start everything, keep it alive until SIGINT or SIGTERM, then drain and stop it.

        Raises `Conflict` if the folder's stack runs already, `Misconfigured` or `Unavailable` if it cannot start.
        """
        self._take_folder()
        signals: asyncio.Queue[int] = asyncio.Queue()
        loop = asyncio.get_running_loop()
        for sign in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            loop.add_signal_handler(sign, signals.put_nowait, sign)
        keepers: list[asyncio.Task[None]] = []
        try:
            if not await interruptible(self._start(), signals):
                return
            keepers = [
                asyncio.create_task(keep_alive(name, part, say)) for name, part in self._parts().items()
            ]
            print(self._screen(), flush=True)
            await signals.get()
        finally:
            for keeper in keepers:
                keeper.cancel()
            await asyncio.gather(*keepers, return_exceptions=True)
            await self._stop(signals)

    def _take_folder(self) -> None:
        if not self._lock.acquire():
            other = self._lock.read()
            raise Conflict(
                f"the stack of {self.data} runs already (process {other.get('pid', '?')}, API at {other.get('url', '?')})",
                hint="stop that one with Ctrl-C or `kill`, or choose another folder with --data",
            )
        ignore = self.data / ".gitignore"
        if not ignore.exists():
            ignore.write_text("*\n")  # it holds a token and a password

    async def _start(self) -> None:
        memory = self._remembered()
        self.sources = self._source.sources(memory.get("sources", []))
        self._listening = self._listen(int(memory.get("port", 0)))
        self._lock.note({"pid": os.getpid(), "url": self.url})
        self.sources_file = self._source.sources_file(memory.get("sources_file", ""))
        self._remember({"port": self._port(), "sources": self.sources, "sources_file": self.sources_file})
        self._servers_begun = True
        say("starting Postgres and Temporal")
        await asyncio.gather(self.postgres.start(), self.temporal.start())
        await self.postgres.create_database("pinflow")
        await self._prepare()
        self.processes = self._processes()
        say(f"starting {', '.join(self.processes)}")
        await asyncio.gather(*(process.start() for process in self.processes.values()))
        await self._until_ready()
        await self._until_looked_at()

    def _parts(self) -> dict[str, Part]:
        return {"Postgres": self.postgres, "Temporal": self.temporal, **self.processes}

    async def _stop(self, signals: asyncio.Queue[int]) -> None:
        if not self._servers_begun:
            return
        say("stopping: what is under way drains (again to stop at once)")
        ours = asyncio.gather(*(stop_in_order({name: part}, say) for name, part in self.processes.items()))
        if self.processes and not await interruptible(_done(ours), signals):
            for process in self.processes.values():
                if isinstance(process, Process):
                    process.kill()
        if self._listening:
            self._listening.close()
        await stop_in_order({"Temporal": self.temporal, "Postgres": self.postgres}, say)
        say("stopped; `pinflow up` continues from here")

    def _remembered(self) -> dict[str, Any]:
        try:
            found = json.loads(self._memory.read_text())
        except FileNotFoundError:
            return {}
        except (OSError, ValueError):
            found = None
        if isinstance(found, dict):
            return found
        if self._source.repo:
            return {}
        raise Misconfigured(
            f"{self._memory} cannot be read, so it is not known what to watch",
            hint="say it again with --repo",
        )

    def _remember(self, facts: dict[str, Any]) -> None:
        """Whole or not at all: a kill in the middle must not make the next `up` forget what to watch."""
        fresh = self._memory.with_suffix(".new")
        fresh.write_text(json.dumps(facts))
        fresh.replace(self._memory)

    def _listen(self, remembered: int) -> socket.socket:
        """The socket of the API: at the port asked for, else at last time's, else at 8000, else at any."""
        for port in [self._wanted_port] if self._wanted_port else [remembered or _DEFAULT_PORT, 0]:
            try:
                return socket.create_server(("127.0.0.1", port), backlog=2048)
            except OSError as error:
                taken = error
        raise Misconfigured(
            f"port {self._wanted_port} cannot be used: {os.strerror(taken.errno or 0)}",
            hint="choose another with --port",
        )

    def _port(self) -> int:
        return int(self._listening.getsockname()[1]) if self._listening else 0

    def _environment(self) -> dict[str, str]:
        return child_environment(
            database_url=self.postgres.url(),
            temporal_address=self.temporal.address,
            api_host="127.0.0.1",
            api_port=str(self._port()),
            data_dir=str(self.data),
            sources=json.dumps(self.sources),
            drain_timeout=str(_DRAIN),
            **({"sources_file": self.sources_file} if self.sources_file else {}),
        )

    def _processes(self) -> dict[str, Part]:
        assert self._listening is not None
        fd = self._listening.fileno()
        environment = self._environment() | {"PINFLOW_API_FD": str(fd)}
        return {
            name: Process(
                name,
                [sys.executable, "-m", "engine.cli.main", "serve", part, "--until-stdin-closes"],
                environment,
                self.data,
                patience=_DRAIN + 5,
                inherits=(fd,),
            )
            for name, part in (_SEPARATE if self._separate else _TOGETHER).items()
        }

    async def _prepare(self) -> None:
        """Migrate and make the local token, in a child: its imports would stay in this process for ever."""
        child = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "engine.stack.prepare", self.url, str(self.data / CLIENT_FILE)),
            env=self._environment(),
            stderr=asyncio.subprocess.PIPE,
        )
        _, said = await child.communicate()
        told = said.decode(errors="replace").strip()[-800:]
        if child.returncode == _MISCONFIGURED:
            raise Misconfigured(told)
        if child.returncode != 0:
            raise Unavailable("the database could not be prepared", hint=told)

    async def _until_ready(self) -> None:
        deadline = time.monotonic() + _READY_WITHIN
        while not await asyncio.to_thread(_answers, f"{self.url}/readyz"):
            for name, process in self.processes.items():
                if not process.alive():
                    assert isinstance(process, Process)
                    raise Unavailable(
                        f"{name} {process.how_it_ended()} while it started",
                        hint=f"see {process.log}: {_tail(process.log)}",
                    )
            if time.monotonic() > deadline:
                raise Unavailable(
                    f"the API is not ready after {_READY_WITHIN:.0f} s", hint=f"see {self.data / 'logs'}"
                )
            await asyncio.sleep(0.1)

    async def _until_looked_at(self) -> None:
        """Wait a little for the first look at each source, so that "up" means deployed; a slow remote is not waited for."""
        deadline = time.monotonic() + _LOOK_WITHIN
        names = {source["name"] for source in self.sources} | self._named_in_file()
        while names and time.monotonic() < deadline:
            found = await asyncio.to_thread(self._standing)
            if names <= {source["name"] for source in found if source["checked_at"] >= self._began}:
                self.standing = {source["name"]: standing_in_words(source) for source in found}
                return
            await asyncio.sleep(0.1)

    def _named_in_file(self) -> set[str]:
        """The names in the sources file, as far as a look that imports nothing can tell."""
        if not self.sources_file:
            return set()
        return set(
            re.findall(r"^\s*-?\s*\{?\s*name:\s*([a-z][a-z0-9-]*)", Path(self.sources_file).read_text(), re.M)
        )

    def _standing(self) -> list[dict[str, Any]]:
        token = json.loads((self.data / CLIENT_FILE).read_text())["token"]
        request = urllib.request.Request(f"{self.url}/sources", headers={"authorization": f"Bearer {token}"})
        try:
            with urllib.request.urlopen(request, timeout=5) as reply:
                items = json.load(reply)["items"]
        except (OSError, ValueError):
            return []
        return [{**item, "checked_at": item["checked_at"] or ""} for item in items]

    def _screen(self) -> str:
        lines = [
            "",
            "Pinflow is up. Ctrl-C stops it; after a crash or kill -9 start it again, it continues.",
            "",
        ]
        facts = [
            ("API", f"{self.url}   (documentation: {self.url}/docs)"),
            ("Temporal", f"{self.temporal.address}   (its UI: http://127.0.0.1:{self.temporal.ui_port})"),
            (
                "Postgres",
                f"127.0.0.1:{self.postgres.port}/pinflow   (password in {self.postgres.folder / 'password'})",
            ),
            ("token", f"{self.data / CLIENT_FILE}   ({self._who_finds_it()})"),
            ("data", str(self.data)),
            ("logs", str(self.data / "logs")),
        ]
        for source in self.sources:
            facts.append(
                ("source", f"{source['url']}   (branch {source['branch']}, folder {source['folder']})")
            )
            if standing := self.standing.get(source["name"]):
                facts.append(("", standing))
        if self.sources_file:
            facts.append(("sources", self.sources_file))
            facts += [("", f"{name}: {standing}") for name, standing in sorted(self.standing.items())]
        elif not self.sources:
            facts.append(
                ("source", "none yet: start again with --repo PATH, or make one with `pinflow init`")
            )
        lines += [f"  {name:<9} {value}" for name, value in facts]
        lines += ["", "  next: pinflow sync status · pinflow workflows ls · pinflow run NAME --wait", ""]
        return "\n".join(lines)

    def _who_finds_it(self) -> str:
        if self.data.name == DATA_FOLDER:
            return f"pinflow commands below {self.data.parent} find it by themselves"
        return f"for pinflow commands: export PINFLOW_DATA_DIR={shlex.quote(str(self.data))}"


def _usable(data: Path) -> Path:
    """The folder, made if it is not there. Raises `Misconfigured` if it cannot be made or written."""
    folder = data.expanduser().resolve()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        usable = os.access(folder, os.W_OK | os.X_OK)
    except OSError as error:
        raise Misconfigured(
            f"{folder} cannot be made: {error.strerror}", hint="choose another with --data"
        ) from error
    if not usable:
        raise Misconfigured(f"{folder} cannot be written", hint="choose another with --data")
    return folder


def say(text: str) -> None:
    """One line of what happens, with the time of day."""
    try:
        print(f"{time.strftime('%H:%M:%S')} {text}", flush=True)
    except OSError:
        pass  # nobody reads any more (`pinflow up | head`); the stack goes on


async def _done(work: asyncio.Future[Any]) -> None:
    await work


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=5) as reply:
            return bool(reply.status == 200)
    except OSError:
        return False


def _tail(path: Path) -> str:
    try:
        return path.read_text(errors="replace")[-600:].strip()
    except OSError:
        return "nothing was logged"


async def up(data: Path, source: SourceChoice, *, port: int = 0, separate: bool = False) -> None:
    """Run the stack of a folder until it is asked to end."""
    await Stack(data, source, port=port, separate=separate).run()
