"""Decides whether now is the time to act on what waits. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from config.settings import DeltaPolicy

CENTURY = 100 * 365.25 * 86400
"""Seconds; a wait of more is for ever, and this much can still be added to a date."""


@dataclass(frozen=True, slots=True)
class Waiting:
    """What waits to be acted on, and since when, as this program saw it."""

    snapshots: int
    rows: int
    seen_at: datetime
    """When the first of the snapshots was seen."""
    moved_at: datetime
    """When the branch's head last moved."""
    trained_at: datetime | None
    """When the last training ended."""


@dataclass(frozen=True, slots=True)
class NotNow:
    """Why nothing is done now; the text stays the same until a condition or the table changes."""

    reason: str
    next_at: datetime | None
    """When it is time, if no commit comes before; None if only a commit can make it so."""


def not_now(waiting: Waiting, policy: DeltaPolicy, now: datetime) -> NotNow | None:
    """Say why to wait; None if it is time to act.

    `cooldown` always holds. Once `max_wait` has passed, nothing else does; before that, `quiet_for`
    and `min_rows` do. Take `now` last: a time later than `now` tells that the clock was set back.
    """
    cooldown = _end(waiting.trained_at, policy.cooldown, now)
    latest = _end(waiting.seen_at, policy.max_wait, now)
    overdue = policy.max_wait is not None and latest is None
    if overdue or (cooldown and latest and latest <= cooldown):
        return _told(waiting, [("cooldown", cooldown)], cooldown) if cooldown else None
    quiet = _end(waiting.moved_at, policy.quiet_for, now)
    ends = [(name, end) for name, end in (("cooldown", cooldown), ("quiet_for", quiet)) if end]
    if waiting.rows < policy.min_rows:
        return _told(waiting, ends, latest, least=policy.min_rows, latest=latest)
    if not ends:
        return None
    until = max(end for _, end in ends)
    next_at = min(until, latest) if latest else until
    return _told(waiting, ends, next_at, latest=latest if quiet else None)


def _end(since: datetime | None, seconds: float | None, now: datetime) -> datetime | None:
    """Say when a wait ends; None if it is over, or never began.

    A wait that begins later than `now` counts as over, since it cannot be known how long it took.
    """
    if since is None or seconds is None or since > now:
        return None
    end = since + timedelta(seconds=min(seconds, CENTURY))
    return end if end > now else None


def _told(
    waiting: Waiting, ends: list[tuple[str, datetime]], next_at: datetime | None, *,
    least: int | None = None, latest: datetime | None = None,
) -> NotNow:  # fmt: skip
    """Name each condition that does not hold yet, with its moment: no countdown."""
    first = waiting.seen_at
    what = f"{_count(waiting.snapshots, 'snapshot')} with {_count(waiting.rows, 'row')}"
    verb = "waits" if waiting.snapshots == 1 else "wait"
    conditions = [f"until {_clock(end, first)} ({name})" for name, end in ends]
    conditions += [f"for min_rows: {least}"] if least else []
    cap = f"; at the latest at {_clock(latest, first)} (max_wait)" if latest else ""
    return NotNow(f"not now: {what} {verb} {' and '.join(conditions)}{cap}", next_at)


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _clock(moment: datetime, first: datetime) -> str:
    """Give the time of day, with the day unless it is the one on which the wait began."""
    return f"{moment:%H:%M:%S}" if moment.date() == first.date() else f"{moment:%Y-%m-%d %H:%M:%S}"
