"""The door of the command line: what is found, what is imported, which exit code an error gets."""

from __future__ import annotations

import argparse
import errno
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

from engine import errors
from engine.cli import main as door
from engine.cli.commands import COMMANDS
from engine.errors import InputProblem, PinflowError, Problem


def _modules_after(arguments: list[str]) -> set[str]:
    code = f"""
import sys
from engine.cli.main import run
try:
    run({arguments!r})
except SystemExit:
    pass
print("MODULES", *sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(done.stdout.rpartition("MODULES")[2].split())


def _command_that(monkeypatch: pytest.MonkeyPatch, act: Callable[[], int]) -> None:
    """Make `pinflow db` do something else."""
    module = ModuleType("stub")
    module.__dict__.update(HELP="", configure=lambda parser: None, run=lambda args: act())
    monkeypatch.setattr("engine.cli.commands.Command.load", lambda self: module)


def _raising(error: BaseException) -> Callable[..., int]:
    def act(*_: object, **__: object) -> int:
        raise error

    return act


def test_the_manual_names_every_command_and_imports_none(capsys: pytest.CaptureFixture[str]) -> None:
    assert door.run(["--help"]) == 0
    said = capsys.readouterr().out
    assert all(f"  {command.name}" in said and command.summary in said for command in COMMANDS)
    assert max(map(len, said.splitlines())) <= 118

    loaded = _modules_after(["--help"])
    assert not {command.module for command in COMMANDS} & loaded
    assert "argparse" in loaded


def test_no_argument_is_a_request_for_the_manual(capsys: pytest.CaptureFixture[str]) -> None:
    assert door.run([]) == 0
    assert capsys.readouterr().out == door.manual()


@pytest.mark.parametrize("name", ["executions", "run", "approvals", "audit", "workflows", "sync"])
def test_a_client_command_loads_nothing_heavy(name: str) -> None:
    loaded = _modules_after([name, "--help"])

    assert f"engine.cli.{name}" in loaded
    others = {command.module for command in COMMANDS if command.name != name}
    heavy = {"pydantic", "temporalio", "sqlalchemy", "fastapi", "git", "asyncpg", "httpx2", "yaml", "asyncio"}
    assert not (others | heavy) & loaded


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command.name)
def test_every_command_has_help_of_its_own(command: object, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        door.run([getattr(command, "name"), "--help"])  # noqa: B009
    assert end.value.code == 0
    assert f"usage: pinflow {getattr(command, 'name')}" in capsys.readouterr().out  # noqa: B009


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command.name)
def test_every_listing_speaks_json(command: object) -> None:
    from engine.cli.commands import Command
    from engine.cli.reference import _leaves

    assert isinstance(command, Command)
    for parser in _leaves(command.parser(command.load())):
        if parser.prog.split()[-1] in ("ls", "show", "versions", "status"):
            assert "--output" in parser._option_string_actions, parser.prog


def test_an_unknown_command_is_wrong_usage_with_a_guess(capsys: pytest.CaptureFixture[str]) -> None:
    assert door.run(["exections"]) == 2
    assert "did you mean `pinflow executions`?" in capsys.readouterr().err


def test_an_unknown_option_is_wrong_usage() -> None:
    with pytest.raises(SystemExit) as end:
        door.run(["executions", "ls", "--nope"])
    assert end.value.code == 2


def _all_errors() -> list[PinflowError]:
    made: list[PinflowError] = []
    for kind in PinflowError.__subclasses__():
        if kind.__module__ != errors.__name__:
            continue
        if kind is errors.InvalidDefinition:
            made.append(errors.InvalidDefinition([Problem("X", "wrong", "a.yaml", 1, 2)]))
        elif kind is errors.SourceError:
            made.append(errors.SourceError("gone", reason="Unreachable"))
        else:
            made.append(kind("what happened", hint="what to do"))
    return made


@pytest.mark.parametrize("error", _all_errors(), ids=lambda error: type(error).__name__)
def test_every_error_of_the_tree_has_an_exit_code_and_no_trace(
    error: PinflowError, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    _command_that(monkeypatch, _raising(error))

    code = door.run(["db"])

    said = capsys.readouterr().err
    assert code == (75 if isinstance(error, errors.Unavailable) else 1)
    assert "Traceback" not in said
    assert "a.yaml:1:2: X wrong" in said or error.message in said


def test_faults_of_inputs_are_listed_by_pointer(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    _command_that(monkeypatch, _raising(errors.InvalidInput("no", [InputProblem("/a/0", "is no number")])))
    assert door.run(["db"]) == 1
    assert "  /a/0: is no number" in capsys.readouterr().err


def test_why_something_is_away_is_told(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    away = errors.Unavailable("Postgres is away")
    away.__cause__ = OSError(111, "Connect call failed ('127.0.0.1', 1)")
    _command_that(monkeypatch, _raising(away))
    assert door.run(["db"]) == 75
    assert capsys.readouterr().err.splitlines()[1] == "  [Errno 111] Connect call failed ('127.0.0.1', 1)"


def test_a_full_disk_is_no_bug(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "/data/up.json")
    _command_that(monkeypatch, _raising(full))
    assert door.run(["db"]) == 1
    assert capsys.readouterr().err == "pinflow: cannot write /data/up.json: No space left on device\n"


def test_a_bug_that_cannot_be_written_down_is_told_all_the_same(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    _command_that(monkeypatch, _raising(RuntimeError("odd")))
    monkeypatch.setattr("tempfile.mkstemp", _raising(OSError(errno.ENOSPC, "full")))
    assert door.run(["db"]) == 3
    said = capsys.readouterr().err
    assert "a bug of Pinflow: RuntimeError: odd" in said
    assert "cannot be written down" in said


def test_a_bug_is_written_to_a_file_and_not_to_the_screen(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    _command_that(monkeypatch, _raising(ZeroDivisionError("oops")))

    assert door.run(["db"]) == 3

    said = capsys.readouterr().err
    (log,) = tmp_path.glob("pinflow-db-*.log")
    assert str(log) in said
    assert "Traceback" not in said
    assert "ZeroDivisionError: oops" in log.read_text()
    assert log.stat().st_mode & 0o077 == 0


def test_an_interrupt_is_no_error(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    _command_that(monkeypatch, _raising(KeyboardInterrupt()))
    assert door.run(["db"]) == 130
    assert capsys.readouterr().err == ""


def test_a_reader_that_has_seen_enough_is_no_error() -> None:
    done = subprocess.run(
        f"{sys.executable} -m engine.cli.main --help | head -1",
        shell=True,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stderr == ""


def test_the_reference_page_is_as_the_program_says() -> None:
    from engine.cli.reference import PAGE, SETTINGS_PAGE, page, settings_page

    assert SETTINGS_PAGE.read_text(encoding="utf-8") == settings_page(), "run `make schemas`"
    assert PAGE.read_text(encoding="utf-8") == page(), "run `make schemas`"


def test_modules_are_what_the_table_says() -> None:
    for command in COMMANDS:
        module = command.load()
        parser = argparse.ArgumentParser()
        module.configure(parser)
        assert isinstance(module.HELP, str)
