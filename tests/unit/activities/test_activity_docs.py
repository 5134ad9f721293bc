"""What the docs show is what the tests run."""

from __future__ import annotations

import re
from pathlib import Path

from engine.activities.function_process import MAX_RESULT_BYTES
from engine.activities.results import MAX_DEPTH
from engine.settings import Settings
from tests.support.plugins import EXAMPLE

ROOT = Path(__file__).parents[3]


def test_how_to_shows_the_example_package() -> None:
    page = (ROOT / "docs/how-to/own-activity-type.md").read_text("utf-8")
    (code,) = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    (project,) = re.findall(r"```toml\n(.*?)```", page, re.DOTALL)
    assert code == (EXAMPLE / "pinflow_example/__init__.py").read_text("utf-8")
    assert project == (EXAMPLE / "pyproject.toml").read_text("utf-8")


def test_limits_on_the_page_are_the_limits() -> None:
    page = (ROOT / "docs/explanation/activities.md").read_text("utf-8")
    settings = Settings()
    assert f"`PINFLOW_FUNCTION_MEMORY_MB` of address space, {settings.function_memory_mb}" in page
    assert f"`PINFLOW_MAX_CONCURRENT_FUNCTIONS`, {settings.max_concurrent_functions} per worker" in page
    assert f"{MAX_RESULT_BYTES // 2**20} MiB of JSON" in page
    assert f"{MAX_DEPTH} levels" in page
