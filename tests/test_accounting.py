"""The table's log against the ledger: each snapshot has exactly one state, and they add up."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import pytest
from builders import EPOCH, PIPELINE, UUID
from drawing import BEFORE, logs
from hypothesis import given, settings
from hypothesis import strategies as st

from daemon.accounting import ELSEWHERE, UNACCOUNTED, WAITING, accounting
from daemon.reading import Fated, Standing
from handlers.cut import BRINGS
from handlers.facts import Cursor, Fate, Kind, Snapshot

EXAMPLES = settings(max_examples=150, deadline=None)
LOG = [(101, 5), (102, 7), (103, 0), (104, 9)]


def log_of(*rows: tuple[int, int]) -> list[Snapshot]:
    """Make a log of appends with these ids and rows."""
    return [Snapshot(n, n - 1, EPOCH, "append", {"added-records": str(count)}) for n, count in rows]


def fated(
    one: Snapshot, state: Fate = Fate.TRAINED, delta: int = 1, undone: str | None = None
) -> Fated:
    """Say what became of a snapshot."""
    return Fated(one.id, delta, one.kind, one.added, state, f"because of {delta}", undone)


def standing(cursor: int | None, doing: str = "") -> Standing:
    """Make the standing of a pipeline whose cursor is there."""
    return Standing(PIPELINE, Cursor(UUID, cursor) if cursor else None, doing=doing)


def states(view: Mapping[str, Any]) -> dict[int, str]:
    """Give the state of each snapshot."""
    return {line["id"]: line["state"] for line in view["snapshots"]}


@st.composite
def accounts(draw: st.DrawFn) -> tuple[Standing, Sequence[Snapshot], dict[int, Fated]]:
    """Draw a log, a cursor in it, before it or nowhere, and a ledger that knows some of it."""
    log = draw(logs())
    cursor = draw(st.none() | st.integers(BEFORE, BEFORE + len(log)))
    known = {}
    for one in log:
        if draw(st.booleans()):
            state = draw(st.sampled_from(list(Fate)))
            known[one.id] = fated(one, state, draw(st.integers(1, 3)))
    return standing(cursor, draw(st.sampled_from(["", "not now: few rows"]))), log, known


@EXAMPLES
@given(accounts())
def test_each_snapshot_has_exactly_one_state(
    drawn: tuple[Standing, Sequence[Snapshot], dict[int, Fated]],
) -> None:
    """Every snapshot of the log is there once, in order, and the totals are their sums."""
    view = accounting(*drawn[:2], [], drawn[2])
    lines = view["snapshots"]
    assert [line["id"] for line in lines] == [snapshot.id for snapshot in drawn[1]]
    assert all(line["state"] and line["reason"] for line in lines)
    count = Counter(line["state"] for line in lines)
    assert {name: of["snapshots"] for name, of in view["totals"].items()} == count
    assert sum(of["snapshots"] for of in view["totals"].values()) == len(drawn[1])
    assert sum(of["rows"] for of in view["totals"].values()) == sum(s.added for s in drawn[1])
    assert (view["pipeline"], view["elsewhere"]) == (PIPELINE, [])


@EXAMPLES
@given(accounts())
def test_it_adds_up_unless_a_snapshot_behind_the_cursor_has_no_fate(
    drawn: tuple[Standing, Sequence[Snapshot], dict[int, Fated]],
) -> None:
    """Just what lies behind the cursor without a decision is unaccounted for; the rest waits."""
    where, log, known = drawn
    view = accounting(where, log, [], known)
    cursor = where.cursor.snapshot_id if where.cursor else BEFORE
    missing = {s.id for s in log if s.id <= cursor and s.id not in known}
    waiting = {s.id for s in log if s.id > cursor and s.id not in known}
    found = states(view)
    assert {id_ for id_, state in found.items() if state == UNACCOUNTED} == missing
    assert {id_ for id_, state in found.items() if state == WAITING} == waiting
    assert view["adds_up"] == (not missing)
    for line in view["snapshots"]:
        if line["id"] in waiting:
            assert line["reason"] == (where.doing or "not looked yet")


@EXAMPLES
@given(accounts())
def test_a_fate_is_told_with_its_delta(
    drawn: tuple[Standing, Sequence[Snapshot], dict[int, Fated]],
) -> None:
    """The ledger's word is taken; rows that were trained on with others are told as coalesced."""
    _, log, known = drawn
    for line in accounting(drawn[0], log, [], known)["snapshots"]:
        fate = known.get(line["id"])
        if fate is None:
            assert line["delta"] is None
            continue
        beside = [f for f in known.values() if f.sequence == fate.sequence and f is not fate]
        others = sum(f.kind in BRINGS and f.added > 0 for f in beside)
        brings = fate.kind in BRINGS and fate.added > 0
        assert (line["delta"], fate.reason in line["reason"]) == (fate.sequence, True)
        if line["state"] == "coalesced":
            assert fate.state is Fate.TRAINED
            assert others
        else:
            assert line["state"] == fate.state.value
            assert not (fate.state is Fate.TRAINED and brings and others)


@pytest.mark.parametrize(
    ("cursor", "known", "expected", "adds_up"),
    [
        (None, [], [WAITING] * 4, True),
        (104, [(101, 1), (102, 2), (103, 3), (104, 4)], ["trained"] * 4, True),
        (102, [(101, 1), (102, 2)], ["trained", "trained", WAITING, WAITING], True),
        (102, [(101, 1)], ["trained", UNACCOUNTED, WAITING, WAITING], False),
        (104, [(101, 1), (102, 1), (103, 1), (104, 2)],
         ["coalesced", "coalesced", "coalesced", "trained"], True),
        # The cursor was expired: what is there came after it.
        (100, [], [WAITING] * 4, True),
        # Rolled back: what both histories share has its fate, what came since waits.
        (999, [(101, 1), (102, 2)], ["trained", "trained", WAITING, WAITING], True),
    ],
)  # fmt: skip
def test_states(
    cursor: int | None, known: list[tuple[int, int]], expected: list[str], *, adds_up: bool
) -> None:
    """What the ledger knows is told, what follows the cursor waits, the rest is missing."""
    log = log_of(*LOG)
    deltas = dict(known)
    fates = {s.id: fated(s, delta=deltas[s.id]) for s in log if s.id in deltas}
    view = accounting(standing(cursor), log, [], fates)
    assert list(states(view).values()) == expected
    assert view["adds_up"] is adds_up


def test_coalesced_rows_tell_with_how_many_others() -> None:
    """Only snapshots that brought rows count; a lone one is simply trained."""
    log = log_of((101, 5), (102, 7), (103, 9))
    fates = {s.id: fated(s, delta=1 if s.id < 103 else 2) for s in log}
    lines = accounting(standing(103), log, [], fates)["snapshots"]
    assert lines[0]["reason"] == "together with 1 other(s): because of 1"
    assert (lines[2]["state"], lines[2]["reason"]) == ("trained", "because of 2")
    assert lines[1] == {
        "id": 102, "committed_at": log[1].committed_at.isoformat(), "operation": "append",
        "kind": "append", "rows": 7, "state": "coalesced", "delta": 1,
        "reason": "together with 1 other(s): because of 1",
    }  # fmt: skip
    quarantined = {**fates, 101: fated(log[0], Fate.QUARANTINED)}
    assert states(accounting(standing(103), log, [], quarantined))[101] == "quarantined"


def test_what_is_elsewhere_needs_no_account() -> None:
    """Staged, on another branch, or rolled back: listed with the reason, and counted nowhere."""
    log = log_of((101, 5))
    others = log_of((201, 6), (202, 7), (203, 8))
    fates = {
        101: fated(log[0]),
        202: fated(others[1], delta=2, undone="history rewritten: rolled back from 202 to 101"),
        203: fated(others[2], Fate.QUARANTINED, delta=4),
    }
    view = accounting(standing(101), log, others, fates)
    assert [line["id"] for line in view["elsewhere"]] == [201, 202, 203]
    assert {line["state"] for line in view["elsewhere"]} == {ELSEWHERE}
    assert [line["delta"] for line in view["elsewhere"]] == [None, 2, 4]
    assert [line["reason"] for line in view["elsewhere"]] == [
        "never in the branch's history: staged, or on another branch",
        "was trained in delta 2; history rewritten: rolled back from 202 to 101",
        "was quarantined in delta 4; left the history",
    ]
    assert view["totals"] == {"trained": {"snapshots": 1, "rows": 5}}
    assert view["adds_up"]


def test_an_empty_table_adds_up() -> None:
    """Where there is nothing, nothing is missing."""
    view = accounting(standing(None), [], [], {})
    assert (view["snapshots"], view["totals"], view["adds_up"]) == ([], {}, True)
    assert {Kind.APPEND, Kind.REWRITE} == BRINGS
