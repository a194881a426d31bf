"""What follows a failed attempt is decided by its kind and by how often it failed."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from daemon.retry import (
    FIRST_DELAY,
    LONGEST_DELAY,
    UNFORESEEN_ATTEMPTS,
    UNREADABLE_ATTEMPTS,
    delay,
    limit,
    wait,
    words,
)
from handlers.facts import BrokenContract, Expired, GiveUp, RetraindError, TryLater, Unreadable

EXAMPLES = settings(max_examples=150, deadline=None)
OUTAGE = TryLater("MLflow does not answer.", "It is tried again.")
DAMAGE = Unreadable("A file is missing.", "Restore it.")
BUG = ZeroDivisionError("division by zero")
attempts = st.integers(0, 10**6)
jitters = st.floats(0, 1)
errors = st.sampled_from([OUTAGE, DAMAGE, BUG, ValueError("no"), KeyError("x"), MemoryError()])


@pytest.mark.parametrize("attempts", range(12))
def test_delays_double_up_to_a_cap(attempts: int) -> None:
    """A retry is a pure decision: doubling from 5 s, at most 5 minutes, spread by half."""
    longest = min(FIRST_DELAY * 2**attempts, LONGEST_DELAY)
    assert delay(attempts, 1.0) == longest
    assert delay(attempts, 0.0) == longest / 2


@EXAMPLES
@given(attempts, jitters)
def test_no_delay_is_too_short_or_too_long(attempts: int, jitter: float) -> None:
    """However often and with whatever jitter: between half of the first and the longest delay."""
    found = delay(attempts, jitter)
    assert FIRST_DELAY / 2 <= found <= LONGEST_DELAY
    assert found <= delay(attempts + 1, jitter)
    assert delay(attempts, 0.0) <= found <= delay(attempts, 1.0)


@pytest.mark.parametrize(
    ("error", "most"),
    [
        (OUTAGE, None),
        (DAMAGE, UNREADABLE_ATTEMPTS),
        (BUG, UNFORESEEN_ATTEMPTS),
        (OSError("disk"), UNFORESEEN_ATTEMPTS),
        (RetraindError("odd"), UNFORESEEN_ATTEMPTS),
    ],
)
def test_how_often_work_may_fail(error: Exception, most: int | None) -> None:
    """An outage for ever, what looks like damage six times, a fault of ours three times."""
    assert (UNREADABLE_ATTEMPTS, UNFORESEEN_ATTEMPTS) == (6, 3)
    assert limit(error) == most
    if most is None:
        assert all(wait(error, n, n, 1.0) is not None for n in range(100))
        return
    waited = [wait(error, n, n, 1.0) is not None for n in range(10)]
    assert waited == [True] * (most - 1) + [False] * (10 - most + 1)


@EXAMPLES
@given(errors, attempts, attempts, jitters)
def test_the_wait_is_the_delay_until_the_limit(
    error: Exception, attempts: int, faults: int, jitter: float
) -> None:
    """Nothing but the kind of failure and the number of faults decides whether to go on."""
    most = limit(error)
    given_up = most is not None and faults + 1 >= most
    assert wait(error, attempts, faults, jitter) == (None if given_up else delay(attempts, jitter))


@EXAMPLES
@given(attempts, jitters)
def test_outages_before_a_fault_do_not_count_as_faults(attempts: int, jitter: float) -> None:
    """After a night of outages the first fault is still the first; it only waits longer."""
    assert wait(BUG, attempts, 0, jitter) == delay(attempts, jitter)
    assert wait(OUTAGE, attempts, UNREADABLE_ATTEMPTS, jitter) == delay(attempts, jitter)


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (OUTAGE, "MLflow does not answer. It is tried again."),
        (GiveUp("No label."), "No label."),
        (Expired("Gone.", "Look anew."), "Gone. Look anew."),
        (BrokenContract(()), str(BrokenContract(()))),
        (ValueError("bad input"), "bad input"),
        (ValueError(), "ValueError: "),
        (UnicodeDecodeError("utf-8", b"\xff", 0, 1, "x"), None),
        (BUG, "ZeroDivisionError: division by zero"),
        (KeyError("x"), "KeyError: 'x'"),
        (MemoryError(), "MemoryError: "),
    ],
)
def test_a_failure_is_told(error: Exception, told: str | None) -> None:
    """Foreseen ones are sentences as they are, with the remedy; of others the kind is told too."""
    assert words(error) == (str(error) if told is None else told)
    assert words(error).strip()
