"""What the pages tell their readers to type and to write is what the program takes."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

import pytest
from pydantic import TypeAdapter

from engine.cli.commands import BY_NAME
from engine.settings import ForgeSettings, Settings
from engine.sync.declarations import read_declarations
from tests.support.docs import ROOT, blocks, commands

PAGES = sorted(page.relative_to(ROOT / "docs").as_posix() for page in (ROOT / "docs").rglob("*.md"))
EXAMPLES = [(page, line) for page in PAGES for line in commands(page) if line.startswith("pinflow ")]
SOURCES = [
    (page, text)
    for page in ("how-to/run-many-sources.md", "reference/sources-file.md", "tutorial/from-pull-request-to-production.md")
    for text in blocks(page, "yaml")
    if "sources:" in text
]  # fmt: skip


@pytest.mark.parametrize(("page", "line"), EXAMPLES, ids=[f"{page}: {line}" for page, line in EXAMPLES])
def test_an_example_is_taken(page: str, line: str) -> None:
    words = shlex.split(line, comments=True)
    end = next((at for at, word in enumerate(words) if word in ("|", "&&", ">")), len(words))
    command = BY_NAME[words[1]]
    command.parser(command.load()).parse_args(words[2:end])


def test_there_are_examples() -> None:
    assert len(EXAMPLES) > 40


@pytest.mark.parametrize(("page", "text"), SOURCES, ids=[page for page, _ in SOURCES])
def test_a_file_of_sources_is_taken(page: str, text: str, tmp_path: Path) -> None:
    file = tmp_path / "sources.yaml"
    file.write_text(text)
    assert read_declarations(Settings(sources=(), sources_file=file)).sources


def test_the_setting_of_a_forge_is_taken() -> None:
    told = [block for block in blocks("how-to/connect-a-forge.md", "json") if block.startswith("[")]
    told += [
        shlex.split(line)[1].partition("=")[2]
        for line in commands("tutorial/from-pull-request-to-production.md")
        if line.startswith("export PINFLOW_FORGES=")
    ]
    assert len(told) >= 2
    for text in told:
        assert TypeAdapter(tuple[ForgeSettings, ...]).validate_python(json.loads(text))
