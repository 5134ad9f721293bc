"""What the page about steering runs tells its reader to type and to write is taken as it stands there."""

from __future__ import annotations

import re
import shlex

import pytest

from engine.cli.commands import BY_NAME
from engine.dsl.activity_types import ActivityTypes
from engine.dsl.checking import check
from tests.support.docs import ROOT, commands

PAGE = "how-to/steer-runs.md"


@pytest.mark.parametrize("line", commands(PAGE))
def test_each_command_is_one_that_the_program_takes(line: str) -> None:
    program, name, *words = shlex.split(line, comments=True)
    assert program == "pinflow"
    BY_NAME[name].parser(BY_NAME[name].load()).parse_args(words)


def test_the_tasks_on_the_page_are_valid() -> None:
    (block,) = re.findall(
        r"^```yaml\n(.*?)^```", (ROOT / "docs" / PAGE).read_text(), re.MULTILINE | re.DOTALL
    )
    text = "name: page\ntasks:\n" + "".join(f"  {line}\n" for line in block.splitlines())
    assert check(text.encode(), "page.yaml", ActivityTypes.default()).problems == []
