"""When the time has come to act on what waits, and what is said until then."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta, timezone

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from config.settings import DeltaPolicy
from daemon.moment import NotNow, Waiting, not_now

EXAMPLES = settings(max_examples=100, deadline=None)
NOON = datetime(2026, 1, 31, 12, tzinfo=timezone.utc)
SECOND = timedelta(seconds=1)


def at(minutes: float) -> datetime:
    """Give the time so many minutes after noon."""
    return NOON + timedelta(minutes=minutes)


def waiting(
    rows: int = 500, seen: float = 0, moved: float = 0, trained: float | None = None
) -> Waiting:
    """Make what waits, of three snapshots, with its times in minutes after noon."""
    ended = None if trained is None else at(trained)
    return Waiting(3, rows, seen_at=at(seen), moved_at=at(moved), trained_at=ended)


durations = st.none() | st.integers(1, 120).map(lambda minutes: minutes * 60.0)
minutes = st.integers(-300, 300)


@st.composite
def policies(draw: st.DrawFn) -> DeltaPolicy:
    """Draw any policy that the configuration takes."""
    most, quiet = draw(durations), draw(durations)
    assume(most is None or quiet is None or quiet < most)
    least = draw(st.integers(1, 4))
    return DeltaPolicy(min_rows=least, max_wait=most, quiet_for=quiet, cooldown=draw(durations))


@st.composite
def waits(draw: st.DrawFn) -> Waiting:
    """Draw anything that waits, with times in any order and on both sides of noon."""
    return replace(
        waiting(draw(st.integers(0, 5)), draw(minutes), draw(minutes), draw(st.none() | minutes)),
        snapshots=draw(st.integers(1, 3)),
    )


def longest(policy: DeltaPolicy) -> timedelta:
    """Give the longest of the policy's durations."""
    known = (policy.max_wait, policy.quiet_for, policy.cooldown)
    return timedelta(seconds=max(seconds or 0.0 for seconds in known))


# -- the rules -------------------------------------------------------------------------------

FEW = "3 snapshots with 120 rows wait"
MANY = "3 snapshots with 500 rows wait"
CAP = "; at the latest at 14:00:00 (max_wait)"


@pytest.mark.parametrize(
    ("waits", "policy", "now", "told", "next_at"),
    [
        (waiting(), {}, 0, None, None),
        (waiting(200), {}, 0, None, None),
        (waiting(120), {}, 60, f"{FEW} for min_rows: 200", None),
        (
            waiting(120),
            {"max_wait": "2h"},
            60,
            f"{FEW} for min_rows: 200{CAP}",
            120,
        ),
        (waiting(120), {"max_wait": "2h"}, 120, None, None),
        (waiting(120), {"max_wait": "2h", "cooldown": "1h"}, 120, None, None),
        (waiting(), {"quiet_for": "5m"}, 4, f"{MANY} until 12:05:00 (quiet_for)", 5),
        (waiting(moved=3), {"quiet_for": "5m"}, 7, f"{MANY} until 12:08:00 (quiet_for)", 8),
        (waiting(moved=3), {"quiet_for": "5m"}, 8, None, None),
        (
            waiting(moved=8),
            {"quiet_for": "5m", "max_wait": "10m"},
            9,
            f"{MANY} until 12:13:00 (quiet_for); at the latest at 12:10:00 (max_wait)",
            10,
        ),
        (waiting(moved=9), {"quiet_for": "5m", "max_wait": "10m"}, 10, None, None),
        (
            waiting(120),
            {"quiet_for": "5m"},
            2,
            f"{FEW} until 12:05:00 (quiet_for) and for min_rows: 200",
            None,
        ),
        (waiting(trained=-10), {"cooldown": "1h"}, 0, f"{MANY} until 12:50:00 (cooldown)", 50),
        (waiting(trained=-10), {"cooldown": "1h"}, 50, None, None),
        (waiting(trained=-10), {}, 0, None, None),
        (
            waiting(120, trained=-10),
            {"cooldown": "1h", "max_wait": "5m"},
            1,
            f"{FEW} until 12:50:00 (cooldown)",
            50,
        ),
        (
            waiting(120, trained=-10),
            {"cooldown": "1h", "max_wait": "5m"},
            30,
            f"{FEW} until 12:50:00 (cooldown)",
            50,
        ),
        (
            waiting(120, trained=-10),
            {"cooldown": "1h", "max_wait": "2h"},
            1,
            f"{FEW} until 12:50:00 (cooldown) and for min_rows: 200{CAP}",
            120,
        ),
        (
            waiting(trained=-10),
            {"cooldown": "1h", "max_wait": "2h", "quiet_for": "5m"},
            1,
            f"{MANY} until 12:50:00 (cooldown) and until 12:05:00 (quiet_for){CAP}",
            50,
        ),
        (
            waiting(trained=-10),
            {"cooldown": "1h", "max_wait": "2h"},
            1,
            f"{MANY} until 12:50:00 (cooldown)",
            50,
        ),
    ],
)
def test_what_is_waited_for(
    waits: Waiting, policy: dict[str, str], now: float, told: str | None, next_at: float | None
) -> None:
    """The cooldown always holds; once max_wait has passed, the quiet time and min_rows do not."""
    found = not_now(waits, DeltaPolicy.model_validate(policy), at(now))
    expected = NotNow(f"not now: {told}", None if next_at is None else at(next_at))
    assert found == (expected if told else None)


def test_one_of_each() -> None:
    """A single snapshot with a single row is told in the singular."""
    found = not_now(replace(waiting(1), snapshots=1), DeltaPolicy(), NOON)
    assert found == NotNow("not now: 1 snapshot with 1 row waits for min_rows: 200", None)


def test_another_day_is_told_with_its_date() -> None:
    """A moment on another day than the first commit's has its date, before and after midnight."""
    policy = DeltaPolicy(min_rows=1000, max_wait=86400.0)
    for hours in (0, 11, 13, 23):
        found = not_now(waiting(), policy, NOON + timedelta(hours=hours))
        assert found
        assert found.reason.endswith("at the latest at 2026-02-01 12:00:00 (max_wait)")


def test_a_wait_without_end_is_no_crash() -> None:
    """Durations that no calendar holds are waited for like very long ones."""
    policy = DeltaPolicy(max_wait=1e300, quiet_for=1e200, cooldown=1e100)
    found = not_now(waiting(trained=0), policy, NOON)
    assert found
    assert found.next_at
    assert found.next_at.year > 2100


# -- what holds for all ----------------------------------------------------------------------


@EXAMPLES
@given(waits(), policies())
def test_the_next_moment_is_the_first_one(wanted: Waiting, policy: DeltaPolicy) -> None:
    """At `next_at` it is time, and not a second sooner."""
    found = not_now(wanted, policy, NOON)
    if found and found.next_at:
        assert found.next_at > NOON
        assert not_now(wanted, policy, found.next_at) is None
        before = not_now(wanted, policy, max(NOON, found.next_at - SECOND))
        assert before
        assert before.next_at == found.next_at


@EXAMPLES
@given(waits(), policies(), st.integers(0, 10**5))
def test_without_a_next_moment_only_a_commit_helps(
    wanted: Waiting, policy: DeltaPolicy, later: int
) -> None:
    """Where no moment is given, rows are too few, and however late it is they stay too few."""
    found = not_now(wanted, policy, NOON)
    if found and found.next_at is None:
        assert wanted.rows < policy.min_rows
        assert policy.max_wait is None
        assert not_now(wanted, policy, at(later))


@EXAMPLES
@given(waits(), policies(), st.integers(0, 10**5), st.integers(0, 10**5))
def test_what_is_due_stays_due(wanted: Waiting, policy: DeltaPolicy, one: int, more: int) -> None:
    """Time alone never turns the answer back from acting to waiting."""
    first = max(filter(None, (wanted.seen_at, wanted.moved_at, wanted.trained_at)))
    now = first + timedelta(seconds=one)
    if not_now(wanted, policy, now) is None:
        assert not_now(wanted, policy, now + timedelta(seconds=more)) is None


@EXAMPLES
@given(waits(), policies(), st.integers(0, 5))
def test_more_rows_are_never_later(wanted: Waiting, policy: DeltaPolicy, more: int) -> None:
    """Rows added to what waits do not put off the moment."""
    found = not_now(replace(wanted, rows=wanted.rows + more), policy, NOON)
    fewer = not_now(wanted, policy, NOON)
    if found:
        assert fewer
        if fewer.next_at:
            assert found.next_at
            assert found.next_at <= fewer.next_at


@EXAMPLES
@given(waits(), policies())
def test_the_longest_wait(wanted: Waiting, policy: DeltaPolicy) -> None:
    """With a max_wait nothing waits beyond it, or beyond the cooldown, whatever the clock says."""
    found = not_now(wanted, policy, NOON)
    if found and policy.max_wait:
        most = max(policy.max_wait, policy.cooldown or 0.0)
        assert found.next_at
        assert found.next_at <= NOON + timedelta(seconds=most)
    if found and found.next_at:
        assert found.next_at <= NOON + longest(policy)


@EXAMPLES
@given(policies(), st.integers(1, 10**6))
def test_a_clock_that_was_set_back_delays_nothing(policy: DeltaPolicy, gap: int) -> None:
    """Times that lie ahead count as long past, however far ahead they lie."""
    ahead = NOON + timedelta(seconds=gap)
    assert not_now(Waiting(1, 4, ahead, ahead, ahead), policy, NOON) is None


@EXAMPLES
@given(waits(), policies(), st.integers(0, 7200))
def test_the_text_changes_only_with_a_condition(
    wanted: Waiting, policy: DeltaPolicy, later: int
) -> None:
    """From tick to tick the same conditions are told in the same words: there is no countdown."""
    one, other = (not_now(wanted, policy, now) for now in (NOON, NOON + timedelta(seconds=later)))
    if one and other:
        names = [
            [name for name in ("cooldown", "quiet_for", "min_rows", "max_wait") if name in text]
            for text in (one.reason, other.reason)
        ]
        assert (one.reason == other.reason) == (names[0] == names[1])
