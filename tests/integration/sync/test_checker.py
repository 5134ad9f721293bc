"""The child processes that check definitions: what a file can do to them, and to the others."""

from __future__ import annotations

import asyncio
import sys
import textwrap
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from engine.sync import checker as checking
from engine.sync.checker import Answer, Checker, Question
from tests.support.syncing import flow

# A child that does what a file tells it to.
_PUPPET = """
    import json, os, signal, sys, time
    from engine.sync.check_frames import ANSWER, QUESTION

    def say(head):
        encoded = json.dumps(head).encode()
        sys.stdout.buffer.write(ANSWER.pack(len(encoded), 0) + encoded)

    say({})
    sys.stdout.buffer.flush()
    while header := sys.stdin.buffer.read(QUESTION.size):
        _, name, size, waited_for = QUESTION.unpack(header)
        path, text = sys.stdin.buffer.read(name).decode(), sys.stdin.buffer.read(size)
        if text == b"segfault":
            os.kill(os.getpid(), signal.SIGSEGV)
        if text == b"exit":
            os._exit(3)
        if text == b"hang":
            time.sleep(3600)
        if text == b"slow":
            time.sleep(1)
        if text == b"once" and not os.path.exists(path):
            open(path, "w").close()
            os.kill(os.getpid(), signal.SIGKILL)
        say({"name": path})
        if waited_for:
            sys.stdout.buffer.flush()
"""


@pytest_asyncio.fixture(loop_scope="session")
async def puppet(tmp_path: Path) -> AsyncIterator[Checker]:
    script = tmp_path / "puppet.py"
    script.write_text(textwrap.dedent(_PUPPET))
    made = Checker(command=(sys.executable, str(script)))
    yield made
    await made.aclose()


def codes(answers: list[Answer]) -> list[str]:
    return [answer.problems[0].code if answer.problems else answer.name for answer in answers]


async def test_answers_come_in_the_order_of_the_questions(checker: Checker) -> None:
    questions = [Question(f"{n}.yaml", flow(f"w{n}").encode()) for n in range(120)]
    assert [answer.name for answer in await checker.check(questions)] == [f"w{n}" for n in range(120)]


async def test_two_processes_share_much_work(checker: Checker) -> None:
    questions = [Question(f"{n}.yaml", flow(f"w{n}").encode()) for n in range(450)]
    assert [answer.name for answer in await checker.check(questions)] == [f"w{n}" for n in range(450)]


@pytest.mark.parametrize(("text", "why"), [(b"segfault", "signal 11"), (b"exit", "exit code 3")])
async def test_a_file_that_ends_the_child_is_named_and_the_others_are_checked(
    puppet: Checker, text: bytes, why: str
) -> None:
    questions = [Question("a", b""), Question("b", text), Question("c", b"")]
    answers = await puppet.check(questions)
    assert codes(answers) == ["a", "CHECK_CRASHED", "c"]
    assert why in answers[1].problems[0].message
    assert answers[1].problems[0].file == "b"


@pytest.mark.parametrize("place", [0, 7, 10, 24])
async def test_only_the_file_that_ends_the_child_is_blamed_wherever_it_stands(
    puppet: Checker, place: int
) -> None:
    questions = [Question(str(n), b"segfault" if n == place else b"") for n in range(25)]
    expected = ["CHECK_CRASHED" if n == place else str(n) for n in range(25)]
    assert codes(await puppet.check(questions)) == expected


async def test_a_file_that_hangs_the_child_is_named(puppet: Checker, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checking, "FILE_LIMIT", 2.0)
    answers = await puppet.check([Question("a", b"hang"), Question("b", b"")])
    assert codes(answers) == ["CHECK_CRASHED", "b"]


async def test_a_child_that_was_killed_from_outside_does_not_blame_the_file(
    puppet: Checker, tmp_path: Path
) -> None:
    mark = str(tmp_path / "mark")
    assert codes(await puppet.check([Question(mark, b"once")])) == [mark]


async def test_a_check_that_was_broken_off_leaves_no_answers_for_the_next(puppet: Checker) -> None:
    check = asyncio.create_task(puppet.check([Question("first", b"slow"), Question("second", b"")]))
    await asyncio.sleep(0.3)
    check.cancel()
    await asyncio.gather(check, return_exceptions=True)
    assert codes(await puppet.check([Question("third", b"")])) == ["third"]


async def test_after_three_culprits_the_rest_is_left(puppet: Checker) -> None:
    questions = [Question(f"{n}", b"exit") for n in range(6)]
    answers = await puppet.check(questions)
    assert codes(answers) == ["CHECK_CRASHED"] * 6
    assert "not looked at" in answers[3].problems[0].message


async def test_a_child_that_cannot_start_is_our_fault(tmp_path: Path) -> None:
    broken = Checker(command=(sys.executable, "-c", "raise SystemExit(1)"))
    with pytest.raises(RuntimeError, match="does not start"):
        await broken.warm()
    await broken.aclose()
