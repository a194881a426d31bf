"""Logs: one event a line, JSON unless a person reads along on a terminal."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, MutableMapping
from typing import Any, TextIO

import structlog

Renderer = Callable[[Any, str, MutableMapping[str, Any]], str | bytes]

# Local variables may be secrets, or rows of the table.
TRACEBACKS = structlog.tracebacks.ExceptionDictTransformer(show_locals=False)


def configure(
    *, verbose: bool = False, to: TextIO | None = None, render: Renderer | None = None
) -> None:
    """Set up structlog and the standard library's loggers of the packages below it."""
    to = to or sys.stderr  # as it is now: kernels and test runners replace it
    renderer = render or (
        structlog.dev.ConsoleRenderer(
            exception_formatter=structlog.dev.RichTracebackFormatter(show_locals=False)
        )
        if to.isatty()
        else structlog.processors.JSONRenderer()
    )
    before: list[Any] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    if not isinstance(renderer, structlog.dev.ConsoleRenderer):
        before.append(structlog.processors.ExceptionRenderer(TRACEBACKS))
    structlog.configure(
        processors=[*before, renderer],
        wrapper_class=structlog.make_filtering_bound_logger("debug" if verbose else "info"),
        logger_factory=structlog.PrintLoggerFactory(to),
        cache_logger_on_first_use=False,
    )
    quiet = ("mlflow", "alembic", "py4j", "apscheduler", "uvicorn", "httpx", "urllib3")
    for name in quiet:
        logging.getLogger(name).setLevel(logging.ERROR)
