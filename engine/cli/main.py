"""The door between the person and the program: finds the command, and turns errors into exit codes.

    0 done · 1 you must act · 2 wrong usage · 3 a bug of Pinflow (a log file is written) · 75 try again later · 130 interrupted

Nothing but the standard library and the error tree is imported until a command is named.
"""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Sequence

from engine.cli.commands import BY_NAME, COMMANDS
from engine.errors import InvalidDefinition, InvalidInput, PinflowError, Unavailable

_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)
"""Of a disk that takes nothing more: no bug, whoever meets it."""
DONE, ACT, USAGE, BUG, LATER, INTERRUPTED = 0, 1, 2, 3, 75, 130

_HEAD = """\
Pinflow: merge a pull request and the workflow is deployed; every run is pinned to its commit.

usage: pinflow COMMAND [arguments]        pinflow COMMAND --help   tells all about one
"""

_TAIL = """
Environment
  PINFLOW_URL, PINFLOW_TOKEN   the server to talk to; without them, the one that `pinflow up` runs here
  PINFLOW_*                    settings of the server's own processes: docs/reference/settings.md
  NO_COLOR                     no colours; there are none either where the output is no terminal

Exit codes
  0 done   1 you must act   2 wrong usage   3 a bug of Pinflow   75 try again later   130 interrupted

Every command that lists something takes --output json.
"""


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and exit with its code."""
    code = run(list(sys.argv[1:] if arguments is None else arguments))
    if "temporalio" in sys.modules:
        # The SDK's own threads can crash the interpreter while it shuts down, and lose what was printed.
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    sys.exit(code)


def run(arguments: list[str]) -> int:
    """Run one command and return its exit code. Raises nothing but what argparse exits with."""
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        return _help(arguments[1:])
    if arguments[0] in ("-V", "--version"):
        return _version()
    name, *rest = arguments
    if name not in BY_NAME:
        return _unknown(name)
    try:
        module = BY_NAME[name].load()
        code = int(module.run(BY_NAME[name].parser(module).parse_args(rest)))
        sys.stdout.flush()
        return code
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:
        # The reader (`| head`) has what it wanted. Python would complain again when it flushes at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return DONE
    except PinflowError as error:
        _say(error)
        return exit_code(error)
    except OSError as error:
        if error.errno not in _DISK:
            return _bug(name, error)
        place = f" {error.filename}" if error.filename else ""
        print(f"pinflow: cannot write{place}: {error.strerror}", file=sys.stderr)
        return ACT
    except Exception as error:
        return _bug(name, error)


def exit_code(error: PinflowError) -> int:
    """The exit code of an error of the tree: time heals it, or somebody must act."""
    return LATER if isinstance(error, Unavailable) else ACT


def manual() -> str:
    """The text of `pinflow --help`."""
    width = max(len(f"{command.name} {command.usage}") for command in COMMANDS)
    lines = [_HEAD]
    for group in dict.fromkeys(command.group for command in COMMANDS):
        members = [command for command in COMMANDS if command.group == group]
        lines += [group, *(f"  {f'{c.name} {c.usage}':<{width}}  {c.summary}" for c in members), ""]
    return "\n".join(lines).rstrip("\n") + "\n" + _TAIL


def _help(names: list[str]) -> int:
    if names and names[0] in BY_NAME:
        return run([names[0], "--help"])
    if names:
        return _unknown(names[0])
    print(manual(), end="")
    return DONE


def _version() -> int:
    from importlib.metadata import version

    print(f"pinflow {version('pinflow')}")
    return DONE


def _unknown(name: str) -> int:
    import difflib  # costs as much as the rest of a start, and only a wrong word needs it

    near = difflib.get_close_matches(name, BY_NAME, n=1)
    hint = f"did you mean `pinflow {near[0]}`?" if near else "`pinflow --help` lists the commands"
    print(f"pinflow: there is no command {name!r} ({hint})", file=sys.stderr)
    return USAGE


def _say(error: PinflowError) -> None:
    if isinstance(error, InvalidDefinition) and error.problems:
        for problem in error.problems:
            print(problem, file=sys.stderr)
        return
    print(f"pinflow: {error.message}", file=sys.stderr)
    if isinstance(error, InvalidInput):
        for fault in error.problems:
            if fault.message not in error.message:
                print(f"  {fault.pointer or '/'}: {fault.message}", file=sys.stderr)
    # What is away is told to callers of the API without its address; whoever has that in an environment may read it.
    cause = str(error.__cause__ or "").partition("\n")[0][:200]
    if isinstance(error, Unavailable) and cause not in error.message:
        print(f"  {cause}", file=sys.stderr)
    if error.hint:
        print(f"  {error.hint}", file=sys.stderr)


def _bug(command: str, error: Exception) -> int:
    """Write what happened to a file, and say where: a trace on the screen helps nobody."""
    import platform
    import tempfile
    import traceback
    from importlib.metadata import version

    print(f"pinflow: a bug of Pinflow: {type(error).__name__}: {str(error)[:200]}", file=sys.stderr)
    try:
        descriptor, path = tempfile.mkstemp(prefix=f"pinflow-{command}-", suffix=".log")
        with os.fdopen(descriptor, "w", encoding="utf-8") as log:
            # Not the arguments: inputs of a run may be private.
            log.write(
                f"pinflow {version('pinflow')} {command}\n{platform.platform()} Python {sys.version}\n\n"
            )
            log.writelines(traceback.format_exception(error))
        print(f"  what happened stands in {path}; please send it with your report", file=sys.stderr)
    except OSError as refused:
        print(f"  what happened cannot be written down: {refused}", file=sys.stderr)
    return BUG


if __name__ == "__main__":
    main()
