"""Every `pinflow` command that a page tells its reader to type is one that the program takes."""

from __future__ import annotations

import shlex

import pytest

from engine.cli.commands import BY_NAME
from tests.support.docs import commands

PAGES = (
    "how-to/plan-a-change.md",
    "how-to/plan-on-a-pull-request.md",
    "how-to/promote-a-workflow.md",
    "how-to/propose-a-workflow.md",
    "how-to/connect-a-forge.md",
    "tutorial/from-pull-request-to-production.md",
)
EXAMPLES = [(page, line) for page in PAGES for line in commands(page) if line.startswith("pinflow ")]


@pytest.mark.parametrize(("page", "line"), EXAMPLES, ids=[line for _, line in EXAMPLES])
def test_an_example_is_taken(page: str, line: str) -> None:
    _, name, *arguments = shlex.split(line)
    command = BY_NAME[name]
    command.parser(command.load()).parse_args(arguments)


def test_there_are_examples() -> None:
    assert len(EXAMPLES) > 8
