"""Has uv make an environment in a folder, from wheels of the operator's index alone.

No code of a package runs while it is installed (wheels only), uv sees nothing of the worker's own settings, and the
author's files choose no index: where packages come from is the operator's word, in uv's own variables and files.
"""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import signal
import sys
from collections.abc import Mapping
from pathlib import Path

from engine.activities.failures import ActivityFailure
from engine.dsl.function_lock import REQUIREMENTS, FunctionLock, LockError, check_pinned
from engine.masking import SHORTEST, Masker

ENVIRONMENT = "ENVIRONMENT"
BUILD_LIMIT = 900.0
"""Seconds for one step of uv."""
_SAID_BYTES = 64 * 1024
_SHOWN = 1500

# Where packages come from and how they are reached; nothing that would lead an installation elsewhere.
_PASSED = re.compile(
    r"PATH|HOME|LANG|TMPDIR|NETRC|XDG_CONFIG_(HOME|DIRS)|SSL_(CERT_FILE|CERT_DIR|CLIENT_CERT)"
    r"|(http|https|all|no)_proxy|(HTTP|HTTPS|ALL|NO)_PROXY"
    r"|UV_(DEFAULT_INDEX|INDEX|INDEX_URL|EXTRA_INDEX_URL|INDEX_[A-Z0-9_]+|FIND_LINKS|OFFLINE|CONFIG_FILE"
    r"|CACHE_DIR|CREDENTIALS_DIR|KEYRING_PROVIDER|INSECURE_HOST|NATIVE_TLS|SYSTEM_CERTS|HTTP_[A-Z_]+|EXCLUDE_NEWER"
    r"|CONCURRENT_[A-Z]+)"
)
_SECRET = re.compile(r"UV_INDEX_[A-Z0-9_]+_(USERNAME|PASSWORD)")
_USER_OF_URL = re.compile(r"//([^/@\s]+)@")
_REST_OF_URL = re.compile(r"(https?://[^\s?#`'\"]*)[?#][^\s`'\"]*")

# uv must not outlive a worker that is killed; this survives the exec.
_LAUNCH = """
import os, signal, sys
if sys.platform == "linux":
    import ctypes
    ctypes.CDLL(None).prctl(1, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != int(sys.argv[1]):
        os._exit(1)
os.execv(sys.argv[2], sys.argv[2:])
"""


async def build(uv: str, lock: FunctionLock, folder: Path, environment: Mapping[str, str]) -> None:
    """Make the environment of `lock` in `folder`, which is empty. `environment` is the worker's own.

    Raises `ActivityFailure` ENVIRONMENT with what uv said, shortened and without credentials.
    """
    tool = _Uv(_found(uv), environment)
    inside = folder / "environment"
    await tool.run(
        "venv", "--quiet", "--relocatable", "--no-project", "--python", sys.executable, str(inside), at=folder
    )
    project = folder / "project"
    project.mkdir()
    for name, content in lock.files.items():
        (project / name).write_bytes(content)
    requirements = await _requirements(tool, lock, project)
    python = ("--python", str(inside / "bin" / "python"))
    hashes = ("--require-hashes",) if lock.is_project else ()
    # From here on uv stands where no file of the author's is, so that none of them is its configuration.
    wanted = folder / "wanted.txt"
    wanted.write_text(requirements, "utf-8")
    shutil.rmtree(project)
    # Copied, because a hard link would be a way from an environment into uv's cache and into all others.
    how = ("--no-build", "--link-mode", "copy", "--compile-bytecode", "--allow-empty-requirements", *hashes)
    await tool.run("pip", "sync", "--quiet", "--no-progress", *python, *how, str(wanted), at=folder)
    await tool.run("pip", "check", *python, at=folder)


async def _requirements(tool: _Uv, lock: FunctionLock, project: Path) -> str:
    """The whole list with one version of each, as `uv pip sync` takes it."""
    if not lock.is_project:
        return lock.files[REQUIREMENTS].decode("utf-8", errors="replace")
    export = (
        "--frozen",
        "--offline",
        "--no-config",
        "--no-dev",
        "--no-emit-project",
        "--no-header",
        "--no-annotate",
    )
    await tool.run("export", "--quiet", *export, "--python", sys.executable, "-o", "wanted.txt", at=project)
    text = (project / "wanted.txt").read_text("utf-8")
    try:
        check_pinned(text, "uv.lock")
    except LockError as error:
        # The line is that of the list which was made of it.
        message = (
            f"functions/uv.lock: {error.reason.partition(';')[0]}: only packages of an index can be installed"
        )
        raise ActivityFailure(ENVIRONMENT, message, retryable=False) from error
    return text


class _Uv:
    """Runs uv, and says what it said if that went wrong."""

    def __init__(self, path: str, environment: Mapping[str, str]) -> None:
        self._path = path
        self._environment = {k: v for k, v in environment.items() if _PASSED.fullmatch(k)}
        if "UV_CACHE_DIR" not in self._environment:
            # What stands in a cache of the worker's user could be changed by functions of the same user.
            self._environment["UV_NO_CACHE"] = "1"
        self._environment |= {"UV_PYTHON_DOWNLOADS": "never", "NO_COLOR": "1"}
        self._masker = Masker(_credentials(self._environment))

    async def run(self, *arguments: str, at: Path) -> None:
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            *("-I", "-S", "-c", _LAUNCH, str(os.getpid()), self._path, *arguments),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            cwd=at,
            env=self._environment,
            start_new_session=True,
        )
        try:
            async with asyncio.timeout(BUILD_LIMIT):
                said = await _last_words(process)
                await process.wait()
        except TimeoutError:
            raise ActivityFailure(ENVIRONMENT, f"uv was not done within {BUILD_LIMIT:.0f} s") from None
        finally:
            if process.returncode is None:
                os.killpg(process.pid, signal.SIGKILL)
                await process.wait()
        if process.returncode:
            raise ActivityFailure(ENVIRONMENT, f"uv could not make the environment: {self._shown(said)}")

    def _shown(self, said: bytes) -> str:
        text = " ".join(said.decode("utf-8", errors="replace").split())
        text = _REST_OF_URL.sub(r"\1", _USER_OF_URL.sub("//***@", self._masker.text(text)))
        return text if len(text) <= _SHOWN else f"{text[: _SHOWN // 2]} ... {text[-_SHOWN // 2 :]}"


async def _last_words(process: asyncio.subprocess.Process) -> bytes:
    assert process.stdout is not None
    said = b""
    while data := await process.stdout.read(65536):
        said = (said + data)[-_SAID_BYTES:]
    return said


def _credentials(environment: Mapping[str, str]) -> list[str]:
    """What must not be seen: passwords in variables of their own, and those in URLs."""
    found = [value for name, value in environment.items() if _SECRET.fullmatch(name)]
    for value in environment.values():
        for user in _USER_OF_URL.findall(value):
            found += [user, *user.split(":")]
    return [value for value in dict.fromkeys(found) if len(value) >= SHORTEST]


def _found(uv: str) -> str:
    """Where uv is: beside our own interpreter if it was installed with us, else on the PATH."""
    beside = Path(sys.executable).with_name(uv)
    path = str(beside) if os.sep not in uv and os.access(beside, os.X_OK) else shutil.which(uv)
    if path is None:
        raise ActivityFailure(
            ENVIRONMENT,
            f"the functions need packages, and this worker has no {uv!r} to install them with: "
            "install `pinflow[environments]`, or name uv's path in PINFLOW_UV",
        )
    return os.path.abspath(path)
