"""Logs: one line per event, JSON for machines or text for people, on stderr.

Inside of an activity every line carries `execution_id`, `commit_sha` and `task`. Lines of libraries go the same way.
Values of secrets are hidden in all of them.
"""

from __future__ import annotations

import logging
import sys
from typing import Any, Literal

import structlog
from structlog.typing import Processor

from engine.errors import Misconfigured
from engine.masking import LOGS

# Libraries that repeat at WARNING, with a stack, what we log in one line of our own.
_QUIET = {"temporalio.activity": logging.ERROR, "httpx2": logging.WARNING, "httpcore2": logging.WARNING}


def configure_logging(format: str = "json", level: str = "INFO") -> None:
    """Set up this process' logs. Call it once, in a composition root. Raises `Misconfigured`."""
    number = logging.getLevelNamesMapping().get(level.upper())
    if number is None:
        raise Misconfigured(f"PINFLOW_LOG_LEVEL is {level!r}", hint="give DEBUG, INFO, WARNING or ERROR")
    if format not in ("json", "text"):
        raise Misconfigured(f"PINFLOW_LOG_FORMAT is {format!r}", hint="give json or text")
    shared = _shared(format)
    last = _renderers(format)
    structlog.configure(
        processors=[*shared, *last],
        wrapper_class=structlog.make_filtering_bound_logger(number),
        logger_factory=structlog.WriteLoggerFactory(sys.stderr),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[structlog.stdlib.add_logger_name, *shared],
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *last],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(number)
    for name, quiet in _QUIET.items():
        logging.getLogger(name).setLevel(max(number, quiet))


def _shared(format: Literal["json", "text"] | str) -> list[Processor]:
    time = structlog.processors.TimeStamper(
        fmt="iso" if format == "json" else "%H:%M:%S", utc=format == "json"
    )
    return [structlog.contextvars.merge_contextvars, structlog.processors.add_log_level, time]


def _renderers(format: str) -> list[Processor]:
    if format == "text":
        # The renderer's own choice prints every local variable of every frame: slow, and full of secrets.
        plain = structlog.dev.plain_traceback
        return [structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty(), exception_formatter=plain), LOGS]
    return [
        structlog.processors.format_exc_info,
        structlog.processors.EventRenamer("message"),
        structlog.processors.JSONRenderer(default=_readable, ensure_ascii=False),
        LOGS,
    ]


def _readable(value: Any) -> str:
    return str(value)
