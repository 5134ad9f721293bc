"""What `pinflow up` makes of what it is told."""

from __future__ import annotations

import re
import socket
from pathlib import Path

import pytest

from engine.errors import Conflict, Misconfigured
from engine.settings import SourceSettings
from engine.stack.processes import HeldLock
from engine.stack.sources import SourceChoice, source_name
from engine.stack.up import Stack


@pytest.mark.parametrize(
    ("url", "name"),
    [
        ("/home/ada/My Flows", "my-flows"),
        ("https://git.example.test/team/flows.git", "flows"),
        ("git@git.example.test:team/flows.git/", "flows"),
        ("/srv/2024", "source-2024"),
        ("/srv/日本", "source"),
        ("/srv/" + "x" * 100, "x" * 63),
    ],
)
def test_a_source_is_named_after_its_repository(url: str, name: str) -> None:
    assert source_name(url) == name
    SourceSettings(name=name, url=url)
    assert re.fullmatch("[a-z][a-z0-9-]{0,62}", name)


def test_a_repository_that_is_not_there_is_told_at_once(tmp_path: Path) -> None:
    with pytest.raises(Misconfigured, match="no repository at"):
        SourceChoice(repo=str(tmp_path / "nope")).sources([])


def test_what_was_watched_last_time_is_watched_again(tmp_path: Path) -> None:
    before = [{"name": "a", "url": "/a"}]
    assert SourceChoice().sources(before) == before


def test_a_port_that_was_asked_for_and_is_taken_is_told(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(Misconfigured, match=str(port)):
            Stack(tmp_path, SourceChoice(), port=port)._listen(0)


def test_a_port_that_is_only_remembered_gives_way(tmp_path: Path) -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as taken,
        Stack(tmp_path, SourceChoice())._listen(taken.getsockname()[1]) as found,
    ):
        assert found.getsockname()[1] != taken.getsockname()[1]


def test_a_folder_belongs_to_one_stack(tmp_path: Path) -> None:
    first = HeldLock(tmp_path / "up.lock")
    assert first.acquire()
    first.note({"pid": 42, "url": "http://127.0.0.1:1"})

    with pytest.raises(Conflict, match=r"process 42, API at http://127\.0\.0\.1:1"):
        Stack(tmp_path, SourceChoice())._take_folder()

    first.let_go()
    Stack(tmp_path, SourceChoice())._take_folder()


@pytest.mark.parametrize("place", ["a-file", "a-file/below", "/proc/nowhere"])
def test_a_data_folder_that_cannot_be_is_told(tmp_path: Path, place: str) -> None:
    (tmp_path / "a-file").touch()
    with pytest.raises(Misconfigured, match="--data"):
        Stack(tmp_path / place, SourceChoice())


def test_a_folder_that_is_no_repository_is_told_at_once(tmp_path: Path) -> None:
    plain = tmp_path / "plain"
    plain.mkdir()
    with pytest.raises(Misconfigured, match="not a git repository") as said:
        SourceChoice(repo=str(plain)).sources([])
    assert "git init" in said.value.hint


def test_a_folder_inside_a_repository_is_told_the_repository(tmp_path: Path) -> None:
    (tmp_path / "repo" / ".git").mkdir(parents=True)
    inside = tmp_path / "repo" / "workflows"
    inside.mkdir()
    with pytest.raises(Misconfigured) as said:
        SourceChoice(repo=str(inside)).sources([])
    assert f"--repo {tmp_path / 'repo'}" in said.value.hint


def test_a_memory_that_cannot_be_read_is_not_taken_for_no_memory(tmp_path: Path) -> None:
    (tmp_path / "up.json").write_text("{")
    with pytest.raises(Misconfigured, match="what to watch"):
        Stack(tmp_path, SourceChoice())._remembered()
    assert Stack(tmp_path, SourceChoice(repo="/somewhere"))._remembered() == {}


async def test_a_stack_that_never_began_says_nothing_of_draining(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(Misconfigured):
        await Stack(tmp_path / "data", SourceChoice(repo=str(tmp_path / "nope"))).run()
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    ("folder", "said"), [(".pinflow", "find it by themselves"), ("data", "PINFLOW_DATA_DIR=")]
)
def test_the_screen_says_how_commands_find_the_token(tmp_path: Path, folder: str, said: str) -> None:
    stack = Stack(tmp_path / folder, SourceChoice())
    stack.postgres.port = stack.temporal.port = 1
    assert said in stack._screen()
