"""Children are started again, recognised by later supervisors, and leave when their supervisor is killed."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from engine.stack.processes import HeldLock, free_port
from engine.stack.supervisor import Process, interruptible, keep_alive, stop_in_order
from tests.support.processes import runs

# A child as ours are: leaves when its standard input closes, and on SIGTERM. (It does not print its last word: the signal
# may come while its first one is still being printed, and a stream that is being written to refuses another.)
CHILD = """
import os, signal, sys, time
from engine.stack.processes import leave_when_stdin_closes
leave_when_stdin_closes()
signal.signal(signal.SIGTERM, lambda *_: (os.write(1, b"drained\\n"), sys.exit(0)))
print("ready", flush=True)
while True:
    time.sleep(0.05)
"""
STUBBORN = CHILD.replace('(os.write(1, b"drained\\n"), sys.exit(0))', "None")


def _process(folder: Path, code: str = CHILD, patience: float = 10) -> Process:
    return Process("part", [sys.executable, "-c", code], os.environ, folder, patience=patience)


@pytest.fixture
async def part(tmp_path: Path) -> AsyncIterator[Process]:
    process = _process(tmp_path)
    yield process
    await process.stop()


async def _until(condition: Callable[[], bool], seconds: float = 20) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.02)


def _pid(folder: Path) -> int:
    return int(HeldLock(folder / "run" / "part.lock").read()["pid"])


def _says(process: Process, word: str, times: int = 1) -> Callable[[], bool]:
    return lambda: process.log.exists() and process.log.read_text().count(word) >= times


async def test_a_killed_child_is_started_again(part: Process, tmp_path: Path) -> None:
    said: list[str] = []
    await part.start()
    await _until(_says(part, "ready"))
    keeper = asyncio.create_task(keep_alive("part", part, said.append))
    first = _pid(tmp_path)

    os.kill(first, signal.SIGKILL)

    await _until(_says(part, "ready", 2))
    keeper.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await keeper
    assert _pid(tmp_path) != first
    assert said == ["part ended by SIGKILL; starting it again", "part is back"]


async def test_stopping_drains(part: Process) -> None:
    await part.start()
    await _until(_says(part, "ready"))

    await stop_in_order({"part": part}, print)

    assert not part.alive()
    assert part.log.read_text().split() == ["ready", "drained"]
    assert part.how_it_ended() == "ended with code 0"


async def test_a_child_that_does_not_listen_is_ended_by_force(tmp_path: Path) -> None:
    part = _process(tmp_path, STUBBORN, patience=0.3)
    await part.start()
    await _until(_says(part, "ready"))

    await part.stop()

    assert part.how_it_ended() == "ended by SIGKILL"


@pytest.mark.parametrize("code", [CHILD, STUBBORN], ids=["polite", "stubborn"])
async def test_the_child_of_a_killed_supervisor_makes_room_for_its_heir(tmp_path: Path, code: str) -> None:
    supervisor = subprocess.Popen(
        [
            sys.executable,
            "-c",
            "import asyncio, os, pathlib, sys\n"
            "from engine.stack.supervisor import Process\n"
            "async def main():\n"
            f"    part = Process('part', [sys.executable, '-c', {code!r}], os.environ, pathlib.Path({str(tmp_path)!r}), patience=5)\n"
            "    await part.start()\n"
            "    await asyncio.sleep(600)\n"
            "asyncio.run(main())\n",
        ]
    )
    heir = _process(tmp_path, patience=1)
    await _until(_says(heir, "ready"))
    orphan = _pid(tmp_path)

    supervisor.kill()
    supervisor.wait()
    await heir.start()
    try:
        assert heir.alive()
        assert _pid(tmp_path) != orphan
        assert not runs(orphan)
    finally:
        await heir.stop()


async def test_a_lock_is_held_by_the_child_alone(part: Process, tmp_path: Path) -> None:
    lock = HeldLock(tmp_path / "run" / "part.lock")
    await part.start()
    assert lock.is_held()

    os.kill(_pid(tmp_path), signal.SIGKILL)

    await _until(lambda: not lock.is_held())


async def test_a_long_log_is_put_aside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("engine.stack.supervisor._LOG_LIMIT", 3)
    part = _process(tmp_path)
    part.log.parent.mkdir()
    part.log.write_text("long enough")

    await part.start()
    await _until(_says(part, "ready"))
    await part.stop()

    assert part.log.with_suffix(".log.1").read_text() == "long enough"


async def test_work_is_left_when_a_signal_comes() -> None:
    signals: asyncio.Queue[int] = asyncio.Queue()
    assert await interruptible(asyncio.sleep(0), signals)
    signals.put_nowait(signal.SIGINT)
    assert not await interruptible(asyncio.sleep(60), signals)


def test_a_port_that_is_taken_is_not_given_out() -> None:
    import socket

    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert free_port(port) != port
    assert free_port(port) == port
