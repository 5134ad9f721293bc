"""Calls a Python function in a child process: starts it, talks JSON with it, bounds it, and leaves nothing behind."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import structlog

from engine.activities import function_child
from engine.activities.failures import ActivityFailure

if TYPE_CHECKING:
    from engine.activities.environments import Environment

_log = structlog.get_logger(__name__)
_MEGABYTE = 1024 * 1024
MAX_RESULT_BYTES = 4 * _MEGABYTE
_MAX_PRINTED_BYTES = 16 * _MEGABYTE
_SHOWN_BYTES = 16 * 1024
_FOLDER_PREFIX = "pinflow-function-"
_STALE_SECONDS = 2 * 86_400


@dataclass(frozen=True, slots=True)
class FunctionCall:
    """`files` is unpacked into a folder of this call's own; `packages` are folders that can be imported from, too.

    With an `environment`, its interpreter and its packages are used instead of the worker's.
    """

    function: str
    args: Mapping[str, Any]
    files: Mapping[str, bytes]
    packages: tuple[str, ...] = ()
    environment: Environment | None = None
    variables: Mapping[str, str] = field(default_factory=dict)
    timeout: float | None = None


@dataclass(slots=True)
class _Output:
    """What the child said: its reply, and the end of what the function printed."""

    reply: bytes = b""
    printed: bytes = b""
    too_large: str = ""


class FunctionRunner:
    """Runs at most `at_once` functions at a time, each with at most `memory` bytes of address space.

    `namespaces=False` does without what many containers refuse anyway; tests show that nothing is left behind then.
    """

    def __init__(self, *, memory: int = 1024 * _MEGABYTE, at_once: int = 32, namespaces: bool = True) -> None:
        self._memory = memory
        self._namespaces = namespaces
        self._gate = asyncio.Semaphore(at_once)
        _remove_stale_folders()

    async def call(self, call: FunctionCall) -> tuple[Any, str]:
        """The function's result and the end of what it printed. The child and all its children are gone afterwards.

        Raises `ActivityFailure`. There is no timer here: cancel the call to end it.
        """
        async with self._gate:
            folder = await asyncio.to_thread(_unpack, call.files)
            try:
                return await self._run(call, folder)
            finally:
                await asyncio.to_thread(_remove, folder)

    async def _run(self, call: FunctionCall, folder: Path) -> tuple[Any, str]:
        request = json.dumps(
            {
                "function": call.function,
                "args": dict(call.args),
                "folder": str(folder / "code"),
                "packages": list(call.packages),
                "site": str(call.environment.packages) if call.environment else "",
                "parent": os.getpid(),
                "namespaces": self._namespaces,
                "limits": {
                    "memory": self._memory,
                    # Counted over all threads: one that keeps every processor busy has its whole time, too.
                    "cpu": (int(call.timeout or 86_400) + 2) * (os.cpu_count() or 1),
                    "file_size": 256 * _MEGABYTE,
                    "files": 256,
                    "processes": 256,
                },
            }
        ).encode()
        receiver, sender = os.pipe()
        try:
            python = str(call.environment.python) if call.environment else sys.executable
            process = await _start(python, sender, folder / "tmp", call.variables)
        except BaseException:
            os.close(receiver)
            raise
        finally:
            os.close(sender)
        try:
            output = await _converse(process, receiver, request)
        finally:
            await _end(process)
        return _verdict(output, process.returncode)


def _remove(folder: Path) -> None:
    """What cannot be removed now must not fail a call that is done; stale folders are removed at the next start."""
    try:
        shutil.rmtree(folder, ignore_errors=True)
    except OSError as error:  # `ignore_errors` does not cover the closing of a folder
        _log.warning("a folder of a function stays", folder=str(folder), reason=str(error))


async def _start(
    python: str, sender: int, home: Path, variables: Mapping[str, str]
) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        python,
        *("-I", "-S", "-B", "-X", "utf8", function_child.__file__, str(sender)),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        pass_fds=(sender,),
        cwd=home,
        start_new_session=True,
        env={
            "PATH": "/usr/local/bin:/usr/bin:/bin",
            "LANG": "C.UTF-8",
            "HOME": str(home),
            "TMPDIR": str(home),
            **variables,
        },
    )


async def _converse(process: asyncio.subprocess.Process, receiver: int, request: bytes) -> _Output:
    output = _Output()
    reader, transport = await _reader(receiver)
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        async with asyncio.TaskGroup() as group:
            group.create_task(_send(process.stdin, request))
            printed = group.create_task(_printed(process, process.stdout, output))
            await _reply(process, reader, output)
            # Its word is given (or it died): whoever it left behind must not keep us waiting for the end of stdout.
            await process.wait()
            _kill(process)
            await asyncio.wait([printed], timeout=2.0)
            printed.cancel()
    finally:
        transport.close()
    return output


async def _reader(fd: int) -> tuple[asyncio.StreamReader, asyncio.ReadTransport]:
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader()
    transport, _ = await loop.connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(reader), os.fdopen(fd, "rb", buffering=0)
    )
    return reader, transport


async def _send(stdin: asyncio.StreamWriter, request: bytes) -> None:
    try:
        stdin.write(request)
        await stdin.drain()
        stdin.close()
        await stdin.wait_closed()
    except (BrokenPipeError, ConnectionResetError):
        pass  # it died before it had read: its exit code says why


async def _reply(process: asyncio.subprocess.Process, reader: asyncio.StreamReader, output: _Output) -> None:
    parts: list[bytes] = []
    size = 0
    while data := await reader.read(65536):
        parts.append(data)
        size += len(data)
        if size > MAX_RESULT_BYTES:
            output.too_large = f"the function's result is larger than {MAX_RESULT_BYTES} bytes"
            _kill(process)
            return
    output.reply = b"".join(parts)


async def _printed(
    process: asyncio.subprocess.Process, stdout: asyncio.StreamReader, output: _Output
) -> None:
    size = 0
    while data := await stdout.read(65536):
        output.printed = (output.printed + data)[-_SHOWN_BYTES:]
        size += len(data)
        if size > _MAX_PRINTED_BYTES and not output.too_large:
            output.too_large = f"the function printed more than {_MAX_PRINTED_BYTES} bytes"
            _kill(process)


async def _end(process: asyncio.subprocess.Process) -> None:
    """Nobody of the child's group or offspring lives on, also when we were cancelled."""
    if process.returncode is None:
        _kill(process)
        await process.wait()


def _kill(process: asyncio.subprocess.Process) -> None:
    # Stopped first: a group that forks as fast as it can would outrun a walk through its tree. The walk is for those
    # who left the group, and must come while the tree still shows whose they are.
    if process.returncode is None:
        _signal(os.killpg, process.pid, signal.SIGSTOP)
        for pid in _offspring(process.pid):
            _signal(os.kill, pid, signal.SIGKILL)
    _signal(os.killpg, process.pid, signal.SIGKILL)


def _signal(send: Any, pid: int, number: signal.Signals) -> None:
    try:
        send(pid, number)
    except (ProcessLookupError, PermissionError):
        pass


def _offspring(pid: int) -> list[int]:
    """Children of children first. Empty where the system does not tell."""
    try:
        children = [int(p) for p in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except (OSError, ValueError):
        return []
    return [q for child in children for q in (*_offspring(child), child)]


def _verdict(output: _Output, code: int | None) -> tuple[Any, str]:
    printed = output.printed.decode("utf-8", errors="replace")
    if output.too_large:
        raise ActivityFailure("TOO_LARGE", output.too_large, details={"output": printed[-2000:]})
    try:
        reply = json.loads(output.reply)
        if "result" in reply:
            return reply["result"], printed
        failed = reply.get("refused") or reply["error"]
        kind, message = str(failed["type"]), str(failed["message"])
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        raise ActivityFailure(
            "FUNCTION_CRASHED", f"the function's process {_death(code)}", details={"output": printed[-2000:]}
        ) from None
    details = {"traceback": failed.get("traceback", []), "output": printed[-2000:]}
    raise ActivityFailure(
        kind, message, details={k: v for k, v in details.items() if v}, retryable="refused" not in reply
    )


def _death(code: int | None) -> str:
    number = -code if code is not None and code < 0 else (code or 0) - 128
    if number == signal.SIGXCPU:
        return "used more CPU time than it may"
    if number == signal.SIGXFSZ:
        return "wrote a larger file than it may"
    if number > 0:
        try:
            return f"was killed by {signal.Signals(number).name}"
        except ValueError:
            pass
    return f"ended with exit code {code} and without a result"


def _unpack(files: Mapping[str, bytes]) -> Path:
    """A folder of one call's own: code that others cannot have changed, and a home that it can write to."""
    folder = Path(tempfile.mkdtemp(prefix=_FOLDER_PREFIX))
    folder.chmod(0o711)  # the child may be another user; it needs to pass through
    home = folder / "tmp"
    home.mkdir(mode=0o700)
    code = folder / "code"
    code.mkdir()
    code.chmod(0o755)
    made = {code}
    for path, content in files.items():
        target = code / path
        if target.parent not in made:
            target.parent.mkdir(parents=True, exist_ok=True)
            made.add(target.parent)
        target.write_bytes(content)
    return folder


def _remove_stale_folders() -> None:
    """Those of workers that were killed: nobody else cleans up after them."""
    oldest = time.time() - _STALE_SECONDS
    for folder in Path(tempfile.gettempdir()).glob(f"{_FOLDER_PREFIX}*"):
        try:
            status = folder.lstat()
            if status.st_mtime < oldest and status.st_uid == os.geteuid():
                shutil.rmtree(folder, ignore_errors=True)
        except OSError:
            pass
