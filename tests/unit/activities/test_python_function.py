"""`python_function`: a child process of its own, bounded, with nothing left behind."""

from __future__ import annotations

import asyncio
import os
import sys
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from temporalio.exceptions import ApplicationError

from engine.activities.context import Workbench
from engine.dsl import bundle
from tests.support.activities import attempt, call, workbench

CODE = '''
import asyncio, os, sys, json, time
import helper.inner as inner

def add(a, b=1): return a + b
async def later(x):
    await asyncio.sleep(0.01)
    return {"x": x}
def nothing(): pass
def environment(): return dict(os.environ)
def paths(): return sys.path
def helper(): return inner.VALUE
def own_file(): return open(os.path.join(os.path.dirname(__file__), "data.txt"), encoding="utf-8").read()
def stdin(): return sys.stdin.read()
def chatty(): print("to stdout"); print("to stderr", file=sys.stderr); return {"result": "mine"}
def write_one(): os.write(1, b'{"result": "forged"}'); return "true"
def home():
    open("note", "w").write("x")
    return os.path.exists(os.path.join(os.environ["HOME"], "note"))

class OutOfStock(Exception): pass
def deep(n):
    if n == 0: raise OutOfStock("no more " + "x" * 5000)
    deep(n - 1)
def fail(): deep(3)
def leave(): sys.exit(3)
def hard_exit(): os._exit(7)
def crash(): os.kill(os.getpid(), 11)
def not_json(): return {"x": object()}
def nan(): return float("nan")
def inner_type_error(): return "a" + 1
def big(): return "x" * 5_000_000
def flood():
    while True: os.write(1, b"y" * 65536)
def eat():
    kept = []
    while True: kept.append(bytearray(16_000_000))
def file_bomb():
    with open("big", "wb") as f:
        while True: f.write(b"x" * 1_000_000)
def processor_time():
    import resource
    return resource.getrlimit(resource.RLIMIT_CPU)[0]
def spin():
    while True: pass
def sleep(marker):
    open(marker, "a").write(f"{os.getpid()}\\n")
    time.sleep(600)
def worker_environments():
    found = []
    for pid in os.listdir("/proc"):
        if pid.isdigit():
            try: found.append(open(f"/proc/{pid}/environ").read())
            except OSError: pass
    return found
def kill_parent():
    done = []
    for pid in (os.getppid(), WORKER):
        try: os.kill(pid, 9); done.append(pid)
        except OSError: pass
    return "tried"
def daemon():
    """A child that leaves the group and the session, and holds every pipe open."""
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            time.sleep(600)
        os._exit(0)
    return os.getpid()
def parent(): return os.getppid()
def fork_bomb():
    while True:
        try: os.fork()
        except OSError: time.sleep(0.01)
def thread():
    import threading
    threading.Thread(target=time.sleep, args=(600,)).start()
    return "done"
'''

FILES = {
    "work.py": CODE.replace("WORKER", str(os.getpid())).encode(),
    "helper/__init__.py": b"",
    "helper/inner.py": b"VALUE = 'inner'\n",
    "data.txt": "wörld".encode(),
    "broken.py": b"raise RuntimeError('at import')\n",
    "needs.py": b"import not_installed_anywhere\n",
    "syntax.py": b"def f(:\n",
}
BUNDLE = bundle.pack(FILES)
DIGEST = bundle.digest(BUNDLE)


@pytest.fixture
async def bench() -> AsyncIterator[Workbench]:
    async with workbench(bundles={DIGEST: BUNDLE}, memory=512 * 1024 * 1024) as made:
        yield made


async def run(bench: Workbench, function: str, timeout: float = 20.0, **args: Any) -> Any:
    config = {"function": function, "args": args}
    return await attempt(bench, call("python_function", config, bundle_digest=DIGEST), timeout=timeout)


async def failure(bench: Workbench, function: str, timeout: float = 20.0, **args: Any) -> ApplicationError:
    with pytest.raises(ApplicationError) as caught:
        await run(bench, function, timeout, **args)
    return caught.value


async def _until(condition: Callable[[], bool], limit: float = 5.0) -> bool:
    end = time.monotonic() + limit
    while time.monotonic() < end:
        if condition():
            return True
        await asyncio.sleep(0.02)
    return condition()


def _children_of_this_process() -> set[str]:
    found: set[str] = set()
    for status in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = status.read_text().rpartition(")")[2].split()
            command = (status.parent / "cmdline").read_bytes()
        except OSError:
            continue
        if b"function_child.py" in command and fields[0] != "Z":
            found.add(status.parent.name)
    return found


# --- calls --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("function", "args", "expected"),
    [
        ("work:add", {"a": 2, "b": 3}, 5),
        ("work:add", {"a": 2}, 3),
        ("work:later", {"x": [1, None, "é"]}, {"x": [1, None, "é"]}),
        ("work:nothing", {}, None),
        ("work:helper", {}, "inner"),
        ("helper.inner:str", {}, None),
        ("work:own_file", {}, "wörld"),
        ("work:stdin", {}, ""),
        ("work:home", {}, True),
        ("work:thread", {}, "done"),
    ],
)
async def test_function_of_the_bundle(bench: Workbench, function: str, args: Any, expected: Any) -> None:
    if function == "helper.inner:str":
        assert (await failure(bench, function)).type == "FUNCTION_NOT_FOUND"
    else:
        assert await run(bench, function, **args) == expected


async def test_what_it_prints_is_not_its_result(bench: Workbench) -> None:
    assert await run(bench, "work:chatty") == {"result": "mine"}
    assert await run(bench, "work:write_one") == "true"


async def test_environment_is_clean(bench: Workbench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PINFLOW_DATABASE_URL", "postgresql://canary")
    monkeypatch.setenv("PYTHONSTARTUP", "/canary")
    found = await run(bench, "work:environment")
    assert "canary" not in str(found)
    known = {"PATH", "LANG", "LC_CTYPE", "HOME", "TMPDIR"}
    assert {name for name in found if not name.startswith("PINFLOW_")} <= known
    assert found["PINFLOW_IDEMPOTENCY_KEY"] == "run-1/t"
    assert found["PINFLOW_COMMIT_SHA"] == "c" * 40


async def test_installed_packages_are_out_of_reach_by_default(bench: Workbench) -> None:
    assert not [path for path in await run(bench, "work:paths") if "site-packages" in path]


async def test_package_that_the_operator_allows() -> None:
    async with workbench(function_packages=("pydantic",)) as bench:
        config = {"function": "pydantic:VERSION.upper"}
        with pytest.raises(ApplicationError, match="function"):
            await attempt(bench, call("python_function", config))
        config = {"function": "pydantic.version:version_short"}
        assert "." in await attempt(bench, call("python_function", config))


async def test_package_that_the_operator_does_not_allow() -> None:
    async with workbench(function_packages=("acme",)) as bench:
        with pytest.raises(ApplicationError, match="PINFLOW_FUNCTION_PACKAGES") as caught:
            await attempt(bench, call("python_function", {"function": "os:getcwd"}))
    assert (caught.value.type, caught.value.non_retryable) == ("FUNCTION_NOT_FOUND", True)


async def test_bundle_that_is_not_what_its_digest_says() -> None:
    async with workbench(bundles={DIGEST: bundle.pack({"work.py": b"evil"})}) as bench:
        error = await failure(bench, "work:add", a=1)
    assert error.type == "BUNDLE"


# --- errors -------------------------------------------------------------------------------------------------


async def test_error_keeps_its_type_and_a_short_traceback(bench: Workbench) -> None:
    error = await failure(bench, "work:fail")
    assert error.type == "OutOfStock"
    assert error.message.startswith("no more xxx")
    assert len(error.message) <= 2010
    trace = error.details[0]["details"]["traceback"]
    assert all(line.startswith("functions/work.py:") for line in trace)
    assert "raise OutOfStock" in trace[-1]
    assert not error.non_retryable


@pytest.mark.parametrize(
    ("function", "kind", "final"),
    [
        ("work:no_such", "FUNCTION_NOT_FOUND", True),
        ("nope:f", "FUNCTION_NOT_FOUND", True),
        ("helper.nope:f", "FUNCTION_NOT_FOUND", True),
        ("broken:f", "RuntimeError", False),
        ("needs:f", "ModuleNotFoundError", False),
        ("syntax:f", "SyntaxError", False),
        ("work:add", "FUNCTION_ARGS", True),
        ("work:inner_type_error", "TypeError", False),
        ("work:leave", "SystemExit", False),
        ("work:hard_exit", "FUNCTION_CRASHED", False),
        ("work:crash", "FUNCTION_CRASHED", False),
        ("work:not_json", "INVALID_RESULT", True),
        ("work:nan", "INVALID_RESULT", True),
        ("work:big", "TOO_LARGE", False),
        ("work:flood", "TOO_LARGE", False),
        ("work:eat", "MemoryError", False),
        ("not a function", "INVALID_CONFIG", True),
        ("work:__import__('os')", "INVALID_CONFIG", True),
    ],
)
async def test_kinds_of_errors(bench: Workbench, function: str, kind: str, final: bool) -> None:
    error = await failure(bench, function)
    assert (error.type, error.non_retryable) == (kind, final), error.message


async def test_every_processor_may_be_busy_for_the_whole_time(bench: Workbench) -> None:
    assert await run(bench, "work:processor_time", timeout=20.0) >= 20 * (os.cpu_count() or 1)


async def test_file_that_grows_without_end(bench: Workbench) -> None:
    error = await failure(bench, "work:file_bomb")
    assert error.type in ("OSError", "FUNCTION_CRASHED")


# --- ends ---------------------------------------------------------------------------------------------------


@pytest.fixture(params=["namespaces", "no namespaces"])
async def either(request: pytest.FixtureRequest) -> AsyncIterator[Workbench]:
    """Many containers refuse namespaces; nobody may be left behind there either."""
    async with workbench(bundles={DIGEST: BUNDLE}, namespaces=request.param == "namespaces") as made:
        yield made


@pytest.mark.parametrize("function", ["work:spin", "work:fork_bomb"])
async def test_time_is_up_and_nobody_is_left(
    either: Workbench, function: str, request: pytest.FixtureRequest
) -> None:
    if function == "work:fork_bomb" and os.geteuid() == 0 and "no namespaces" in request.node.name:
        pytest.skip("root without namespaces has no limit on processes: not on a shared machine")
    began = time.monotonic()
    error = await failure(either, function, timeout=1.0)
    assert error.type == "TIMEOUT"
    assert time.monotonic() - began < 4.0
    assert await _until(lambda: not _children_of_this_process())


async def test_cancelled_call_ends_its_processes(either: Workbench, tmp_path: Path) -> None:
    tmp_path.chmod(0o777)
    task = asyncio.create_task(run(either, "work:sleep", marker="/dev/null"))
    assert await _until(lambda: len(_children_of_this_process()) >= 2)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await _until(lambda: not _children_of_this_process())


async def test_what_it_leaves_behind_is_ended(either: Workbench) -> None:
    began = time.monotonic()
    await run(either, "work:daemon")
    assert time.monotonic() - began < 5.0
    assert await _until(lambda: not _children_of_this_process())


async def test_killed_worker_takes_its_functions_along(tmp_path: Path) -> None:
    script = tmp_path / "worker.py"
    script.write_text(WORKER_SCRIPT)
    worker = await asyncio.create_subprocess_exec(
        sys.executable,
        str(script),
        cwd=Path(__file__).parents[3],
        env={**os.environ, "TMPDIR": str(tmp_path)},
    )
    try:
        assert await _until(lambda: len(_children_of_this_process()) >= 2)
    finally:
        worker.kill()
        await worker.wait()
    assert await _until(lambda: not _children_of_this_process())


WORKER_SCRIPT = """
import asyncio, sys
sys.path.insert(0, ".")
from engine.activities.function_process import FunctionCall, FunctionRunner
code = b"import time\\ndef f(): time.sleep(600)\\n"
asyncio.run(FunctionRunner().call(FunctionCall("m:f", {}, {"m.py": code})))
"""


async def test_it_cannot_end_the_worker_or_read_its_environment(
    bench: Workbench, monkeypatch: pytest.MonkeyPatch
) -> None:
    await _skip_unless_namespaces(bench)
    assert await run(bench, "work:kill_parent") == "tried"
    own = Path("/proc/self/environ").read_text()
    assert own not in await run(bench, "work:worker_environments")


async def _skip_unless_namespaces(bench: Workbench) -> None:
    if await run(bench, "work:parent") != 1:
        pytest.skip("this kernel makes no namespaces for us")


async def test_folders_are_removed(bench: Workbench) -> None:
    import tempfile

    home = (await run(bench, "work:environment"))["HOME"]
    assert home.startswith(tempfile.gettempdir())
    assert not Path(home).parent.exists()


async def test_many_calls_at_once_leave_no_descriptors(bench: Workbench) -> None:
    await run(bench, "work:nothing")
    before = len(os.listdir("/proc/self/fd"))
    assert await asyncio.gather(*(run(bench, "work:add", a=n) for n in range(12))) == list(range(1, 13))
    assert await _until(lambda: len(os.listdir("/proc/self/fd")) <= before + 1)
