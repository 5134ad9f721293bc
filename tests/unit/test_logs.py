"""Logs: one JSON object per line, whoever writes it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from engine.errors import Misconfigured
from engine.logs import configure_logging

SCRIPT = """
import logging, sys
import structlog
from engine.logs import configure_logging
early = structlog.get_logger("early")
configure_logging(sys.argv[1], sys.argv[2])
with structlog.contextvars.bound_contextvars(execution_id="run-1", commit_sha="abc"):
    early.info("hello", odd=object, text="two\\nlines \\x1b[31m")
    logging.getLogger("library").warning("of a %s", "library")
    logging.getLogger("temporalio.activity").warning("repeated")
    try:
        password = "s3" + "cret"
        1 / 0
    except ZeroDivisionError:
        early.exception("oops")
early.debug("detail")
"""


def logged(*arguments: str) -> list[str]:
    """What a process of its own writes: logs are set up once per process."""
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, *arguments],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == ""
    return done.stderr.splitlines()


def test_every_line_is_json_with_the_run_in_it() -> None:
    lines: list[dict[str, Any]] = [json.loads(line) for line in logged("json", "INFO")]
    assert [line["message"] for line in lines] == ["hello", "of a library", "oops"]
    assert all(line["execution_id"] == "run-1" and line["commit_sha"] == "abc" for line in lines)
    assert all(line["timestamp"].endswith("Z") for line in lines)
    assert lines[0]["text"] == "two\nlines \x1b[31m"
    assert (lines[1]["level"], lines[1]["logger"]) == ("warning", "library")
    assert "ZeroDivisionError" in lines[2]["exception"]


def test_level_is_kept() -> None:
    assert json.loads(logged("json", "debug")[-1])["message"] == "detail"


def test_text_is_for_people() -> None:
    first = logged("text", "INFO")[0]
    assert "hello" in first
    assert "\x1b" not in first
    assert "run-1" in first


def test_variables_are_not_in_tracebacks() -> None:
    for format in ("json", "text"):
        assert "s3cret" not in "".join(logged(format, "INFO"))


@pytest.mark.parametrize(("format", "level"), [("xml", "INFO"), ("json", "LOUD")])
def test_setting_that_means_nothing_is_refused(format: str, level: str) -> None:
    with pytest.raises(Misconfigured, match="PINFLOW_LOG"):
        configure_logging(format, level)
