"""One event a line: JSON for machines, coloured text for a person at a terminal."""

from __future__ import annotations

import io
import json
import logging
import sys
from collections.abc import Iterator
from typing import Any

import pytest
import structlog
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st

from daemon import logs
from handlers.facts import TryLater


class Terminal(io.StringIO):
    """A stream that a person reads."""

    def isatty(self) -> bool:
        """Say that it is a terminal."""
        return True


@pytest.fixture(autouse=True)
def _restored() -> Iterator[None]:
    yield
    structlog.contextvars.clear_contextvars()
    structlog.reset_defaults()


def lines(stream: io.StringIO) -> list[dict[str, Any]]:
    """Read what was logged, one JSON object a line."""
    text = stream.getvalue()
    assert text.endswith("\n")
    return [json.loads(line) for line in text.splitlines()]


def fails() -> None:
    """Fail with a cause, near a secret."""
    password = "hunter2"  # noqa: S105 (the secret that must not be logged)
    try:
        [].pop(len(password))
    except IndexError as error:
        raise TryLater("MLflow failed.", "Wait.") from error


def test_off_a_terminal_each_event_is_a_line_of_json() -> None:
    """Event, level, UTC time, bound context and values are keys of their own."""
    stream = io.StringIO()
    logs.configure(to=stream)
    log = structlog.get_logger()
    with structlog.contextvars.bound_contextvars(pipeline="cards", tick="ab12"):
        log.info("delta_closed", delta=7, reason='kept:\n"quoted" é \'n so')
    log.warning("waiting")
    first, second = lines(stream)
    assert {key: first[key] for key in ("event", "level", "pipeline", "tick", "delta")} == {
        "event": "delta_closed",
        "level": "info",
        "pipeline": "cards",
        "tick": "ab12",
        "delta": 7,
    }
    assert first["reason"] == 'kept:\n"quoted" é \'n so'
    assert first["timestamp"].endswith("Z")
    assert (second["level"], "pipeline" in second) == ("warning", False)


def test_an_exception_is_structure_on_one_line() -> None:
    """Type, text and frames of an exception and of its cause are values, not lines."""
    stream = io.StringIO()
    logs.configure(to=stream)
    try:
        fails()
    except TryLater:
        structlog.get_logger().exception("tick_failed")
    (line,) = lines(stream)
    assert (line["event"], line["level"]) == ("tick_failed", "error")
    outer, cause = line["exception"]
    assert (outer["exc_type"], outer["exc_value"]) == ("TryLater", "MLflow failed. Wait.")
    assert (cause["exc_type"], cause["is_cause"]) == ("IndexError", True)
    assert outer["frames"][-1]["name"] == "fails"


@pytest.mark.parametrize("kind", [io.StringIO, Terminal])
def test_an_exception_tells_no_local_variables(kind: type[io.StringIO]) -> None:
    """Local variables may hold secrets, or rows of the table."""
    stream = kind()
    logs.configure(to=stream)
    try:
        fails()
    except TryLater:
        structlog.get_logger().exception("tick_failed")
    # The source line is shown on a terminal; the value of the variable is not.
    assert stream.getvalue().count("hunter2") == (1 if kind is Terminal else 0)
    assert "locals" not in stream.getvalue()


def test_ticks_are_told_only_on_request() -> None:
    """Debug events are dropped unless asked for."""
    for verbose in (False, True):
        stream = io.StringIO()
        logs.configure(verbose=verbose, to=stream)
        structlog.get_logger().debug("tick")
        assert bool(stream.getvalue()) == verbose


def test_a_logger_made_before_follows_the_configuration() -> None:
    """Modules make their loggers when they are imported, long before the configuration."""
    log = structlog.get_logger("made early")
    for _ in range(2):
        stream = io.StringIO()
        logs.configure(to=stream)
        log.info("started")
        assert lines(stream)[0]["event"] == "started"


def test_a_person_reads_text() -> None:
    """On a terminal an event is no JSON."""
    stream = Terminal()
    logs.configure(to=stream)
    structlog.get_logger().info("started", pipelines=["cards"])
    text = stream.getvalue()
    assert not text.startswith("{")
    assert "started" in text
    assert "cards" in text


def test_the_stream_is_the_one_of_the_moment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Kernels and test runners replace `sys.stderr` after the import."""
    stream = io.StringIO()
    monkeypatch.setattr(sys, "stderr", stream)
    logs.configure()
    structlog.get_logger().info("started")
    assert lines(stream)[0]["event"] == "started"


def test_a_renderer_of_ones_own_gets_the_event() -> None:
    """The demo tells events in its own words."""
    told: list[str] = []

    def render(_logger: Any, _method: str, event: Any) -> str:
        told.append(event["event"])
        raise structlog.DropEvent

    stream = Terminal()
    logs.configure(to=stream, render=render)
    structlog.get_logger().info("started")
    assert (told, stream.getvalue()) == (["started"], "")


def test_libraries_are_quiet() -> None:
    """What the packages below say of themselves is no event of ours."""
    logs.configure(to=io.StringIO())
    for name in ("apscheduler.scheduler", "py4j.clientserver", "uvicorn.error", "mlflow.store"):
        assert not logging.getLogger(name).isEnabledFor(logging.WARNING)


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=10) | st.binary(max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner),
    max_leaves=6,
)


@given(event=st.text(max_size=30), value=VALUES)
@examples(max_examples=50, deadline=None)
def test_whatever_is_logged_stays_one_line_of_json(event: str, value: Any) -> None:
    """No value, be it of an unknown type, breaks a line or the log."""
    stream = io.StringIO()
    logs.configure(to=stream)
    structlog.get_logger().info(event, value=value, odd=object())
    (line,) = stream.getvalue().rstrip("\n").split("\n")
    assert json.loads(line)["event"] == event
