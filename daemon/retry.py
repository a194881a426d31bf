"""Decides what follows a failed attempt: wait how long, or give up. Pure."""

from __future__ import annotations

from handlers.facts import RetraindError, TryLater, Unreadable

FIRST_DELAY, LONGEST_DELAY = 5.0, 300.0
UNFORESEEN_ATTEMPTS, UNREADABLE_ATTEMPTS = 3, 6


def delay(attempts: int, jitter: float) -> float:
    """Give the seconds until the next attempt: doubling, capped, spread by `jitter` in 0..1."""
    longest: float = min(LONGEST_DELAY, FIRST_DELAY * 2.0 ** min(attempts, 16))
    return longest * (0.5 + 0.5 * jitter)


def limit(error: Exception) -> int | None:
    """Say how often work may fail like this before it is given up; None for an outage.

    An outage is nobody's fault and passes. What looks like damage, or is a fault of this program,
    may last for ever, and must not keep what comes after it waiting for ever.
    """
    if isinstance(error, Unreadable):
        return UNREADABLE_ATTEMPTS
    return None if isinstance(error, TryLater) else UNFORESEEN_ATTEMPTS


def wait(error: Exception, attempts: int, faults: int, jitter: float) -> float | None:
    """Give the seconds to wait after this failure; None if the work is to be given up.

    `attempts` failed before this one, `faults` of them in a way that may be the work's own fault.
    """
    most = limit(error)
    if most is not None and faults + 1 >= most:
        return None
    return delay(attempts, jitter)


def words(error: Exception) -> str:
    """Tell a failure: foreseen ones are sentences, of others the kind is told as well."""
    foreseen = isinstance(error, RetraindError | ValueError) and str(error)
    return str(error) if foreseen else f"{type(error).__name__}: {error}"
