"""What the child process of `python_function` runs. Standard library only, and as little of that as possible.

Started as `python -I -S -B -X utf8 function_child.py <result fd>` with the request (JSON) on stdin.  Two processes:
a supervisor, which holds the limits and leaves nobody behind, and the one that runs the author's code.

Not a wall against a hostile author (whoever can merge into the source can already start any task), but: no way to
signal the worker or to read its environment where the kernel lets us make namespaces, and nothing that outlives the
call.
"""

from __future__ import annotations

import json
import os
import resource
import signal
import sys

TYPE_CHECKING = False  # importing `typing` would be a tenth of the start
if TYPE_CHECKING:
    from ctypes import CDLL
    from typing import Any, NoReturn

_CLONE_NEWUSER = 0x10000000
_CLONE_NEWPID = 0x20000000
_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36
_NOBODY = 65534


def _limit(kind: int, value: int) -> None:
    try:
        hard = resource.getrlimit(kind)[1]
        if hard != resource.RLIM_INFINITY:
            value = min(value, hard)
        resource.setrlimit(kind, (value, value))
    except (ValueError, OSError):
        pass  # not every system has every limit


def _set_limits(limits: dict[str, int]) -> None:
    _limit(resource.RLIMIT_CORE, 0)
    _limit(resource.RLIMIT_AS, limits["memory"])
    _limit(resource.RLIMIT_CPU, limits["cpu"])
    _limit(resource.RLIMIT_FSIZE, limits["file_size"])
    _limit(resource.RLIMIT_NOFILE, limits["files"])
    try:
        with open("/proc/self/oom_score_adj", "w") as file:
            file.write("1000")  # when memory ends, this process goes and not the worker
    except OSError:
        pass


def _drop_root(*folders: str) -> None:
    """Become nobody, if nobody can still read what is needed, and give nobody the home that we stand in."""
    if os.geteuid() != 0:
        return
    os.setgroups([])
    os.setegid(_NOBODY)
    os.seteuid(_NOBODY)
    reachable = os.access(os.__file__, os.R_OK, effective_ids=True) and all(
        os.access(folder, os.R_OK | os.X_OK, effective_ids=True) for folder in folders
    )
    os.seteuid(0)
    os.setegid(0)
    if reachable:
        os.chown(".", _NOBODY, _NOBODY)
        os.setresgid(_NOBODY, _NOBODY, _NOBODY)
        os.setresuid(_NOBODY, _NOBODY, _NOBODY)


def _isolate(libc: CDLL | None, wanted: bool) -> bool:
    """A user and a process namespace for our children, where that is allowed."""
    if libc is None:
        return False
    libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    return wanted and bool(libc.unshare(_CLONE_NEWUSER | _CLONE_NEWPID) == 0)


def _follow_parent(libc: CDLL | None) -> None:
    """Be killed when the parent ends, however it ends. Every change of identity forgets it."""
    if libc is not None:
        libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)


def _libc() -> CDLL | None:
    if sys.platform != "linux":
        return None
    import ctypes

    return ctypes.CDLL(None)


def _children() -> list[int]:
    try:
        with open("/proc/thread-self/children") as file:
            return [int(pid) for pid in file.read().split()]
    except OSError:
        return []


def _supervise(child: int) -> NoReturn:
    """Wait for the author's process, then end whoever it left behind, and end as it did."""
    status = os.waitpid(child, 0)[1]
    while left := _children():
        for pid in left:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
        for _ in left:
            try:
                os.waitpid(-1, 0)
            except ChildProcessError:
                break
    _end_as(status)


def _end_as(status: int) -> NoReturn:
    code = os.waitstatus_to_exitcode(status)
    os._exit(code if code >= 0 else 128 - code)


def _frames(error: BaseException, folder: str) -> list[str]:
    import traceback

    lines = []
    for frame in traceback.extract_tb(error.__traceback__):
        if frame.filename.startswith(folder + os.sep):
            name = frame.filename[len(folder) + 1 :]
            lines.append(f"functions/{name}:{frame.lineno} in {frame.name}: {frame.line}")
    return lines[-8:]


def _failure(error: BaseException, folder: str) -> dict[str, Any]:
    try:
        message = str(error)
    except Exception:
        message = ""
    return {
        "error": {
            "type": type(error).__name__[:100],
            "message": message[:2000],
            "traceback": [line[:300] for line in _frames(error, folder)],
        }
    }


def _missing(message: str) -> dict[str, Any]:
    return {"refused": {"type": "FUNCTION_NOT_FOUND", "message": message}}


def _call(request: dict[str, Any]) -> dict[str, Any]:
    import importlib

    folder = request["folder"]
    module_name, _, name = request["function"].partition(":")
    try:
        try:
            module = importlib.import_module(module_name)
        except ModuleNotFoundError as error:
            if error.name and (module_name + ".").startswith(error.name + "."):
                return _missing(f"there is no module {module_name!r}")
            raise
        function = getattr(module, name, None)
        if not callable(function):
            return _missing(f"module {module_name!r} has no function {name!r}")
        try:
            result = function(**request["args"])
        except TypeError as error:
            if (
                error.__traceback__ and error.__traceback__.tb_next is None
            ):  # raised by the call itself, not in the function
                return {"refused": {"type": "FUNCTION_ARGS", "message": str(error)[:2000]}}
            raise
        if hasattr(result, "__await__"):
            import asyncio

            async def wait() -> Any:
                return await result

            result = asyncio.run(wait())
    except BaseException as error:
        return _failure(error, folder)
    try:
        return {"result": json.loads(json.dumps(result, allow_nan=False))}
    except (TypeError, ValueError, RecursionError) as error:
        return {
            "refused": {"type": "INVALID_RESULT", "message": f"the function's result is no JSON: {error}"}
        }


def _write(fd: int, reply: dict[str, Any]) -> None:
    data = memoryview(json.dumps(reply).encode())
    while data:
        data = data[os.write(fd, data) :]


def main() -> NoReturn:
    out = int(sys.argv[1])
    request = json.loads(sys.stdin.buffer.read())
    devnull = os.open(os.devnull, os.O_RDONLY)
    os.dup2(devnull, 0)
    os.close(devnull)
    libc = _libc()
    _drop_root(request["folder"], *([request["site"]] if request["site"] else []))
    _set_limits(request["limits"])
    alone = _isolate(libc, request["namespaces"])
    _follow_parent(libc)
    if os.getppid() != request["parent"]:
        os._exit(1)  # the worker was killed before we could ask to follow it
    if alone:
        # The first process of the namespace is its init: with it, everybody in the namespace ends. It does not run the
        # author's code itself, because signals mean something else to an init.
        init = os.fork()
        if init:
            os.close(out)
            _end_as(os.waitpid(init, 0)[1])
        _follow_parent(libc)
        # Counted within the namespace only, so that the worker's own processes do not use it up. (Root has no limit.)
        _limit(resource.RLIMIT_NPROC, request["limits"]["processes"])
    child = os.fork()
    if child:
        os.close(out)
        if alone:
            _end_as(os.waitpid(child, 0)[1])  # whoever is left in the namespace ends with us
        _supervise(child)
    _follow_parent(libc)
    os.set_inheritable(out, False)  # a program that the function starts must not hold the result open
    sys.path[:0] = [request["folder"]]
    if request["site"]:
        import site

        site.addsitedir(request["site"])
    sys.path.extend(request["packages"])
    sys.argv[:] = [request["function"]]
    try:
        reply = _call(request)
        try:
            sys.stdout.flush()
            sys.stderr.flush()
        except Exception:
            pass
        _write(out, reply)
    finally:
        # No atexit, no waiting for the function's threads: its word is given.
        os._exit(0)


if __name__ == "__main__":
    main()
