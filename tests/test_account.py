"""Every snapshot of a delta is accounted for, whatever it did."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timezone

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from handlers.account import account, divisible, familiar, first, skipped, unread
from handlers.facts import Delta, Fate, Kind, Snapshot

EXAMPLES = settings(max_examples=25, deadline=None)
WHEN = datetime(2026, 1, 31, tzinfo=timezone.utc)
OPERATIONS = st.sampled_from(["append", "overwrite", "delete", "replace", "unknown", "merge", ""])
COUNTS = (
    "added-records",
    "deleted-records",
    "total-records",
    "added-position-deletes",
    "added-equality-deletes",
    "total-delete-files",
    "changed-partition-count",
)
SUMMARIES = st.dictionaries(
    st.sampled_from(COUNTS), st.integers(0, 5).map(str), max_size=len(COUNTS)
)


def snapshot(number: int, operation: str = "append", **counts: int) -> Snapshot:
    """Make a snapshot; `added_records=3` becomes `added-records: 3`."""
    summary = {name.replace("_", "-"): str(count) for name, count in counts.items()}
    return Snapshot(number, number - 1 or None, WHEN, operation, summary)


def delta(*snapshots: Snapshot, start: int | None = 0, note: str = "") -> Delta:
    """Make a delta over these snapshots."""
    end = snapshots[-1].id if snapshots else 0
    return Delta("lake.bank.cards", "main", "uuid", start, end, snapshots, note)


@st.composite
def deltas(draw: st.DrawFn, *, start: int | None = 0, least: int = 0) -> Delta:
    """Draw a log of any operations with any summaries."""
    drawn = draw(st.lists(st.tuples(OPERATIONS, SUMMARIES), min_size=least, max_size=6))
    log = [Snapshot(i, i - 1 or None, WHEN, op, s) for i, (op, s) in enumerate(drawn, start=1)]
    return delta(*log, start=start)


any_delta = deltas() | deltas(start=None)
FATES: tuple[Fate, ...] = ("trained", "skipped", "parked")
outcomes = st.sampled_from(FATES)


@EXAMPLES
@given(any_delta, outcomes)
def test_every_snapshot_appears_exactly_once(wanted: Delta, outcome: Fate) -> None:
    """The records are the snapshots, one for one and in order, each with a reason."""
    records = account(wanted, outcome, "because")
    assert [r.snapshot_id for r in records] == [s.id for s in wanted.snapshots]
    assert [(r.kind, r.added) for r in records] == [(s.kind, s.added) for s in wanted.snapshots]
    assert all(r.reason and r.state in {"trained", "skipped", "unread", "parked"} for r in records)


@EXAMPLES
@given(deltas(), outcomes)
def test_the_rows_add_up(wanted: Delta, outcome: Fate) -> None:
    """Rows trained on are the delta's rows; all other added rows are unread or only moved."""
    records = account(wanted, outcome, "because")
    taken = [r for r in records if r.kind is Kind.APPEND]
    left = [r for r in records if r.state == "unread"]
    moved = [r for r in records if r.kind is Kind.COMPACTION]
    assert all(r.state == outcome for r in taken)
    assert sum(r.added for r in taken) == wanted.rows
    assert sum(r.added for r in left) == unread(wanted)
    assert sum(s.added for s in wanted.snapshots) == sum(r.added for r in [*taken, *left, *moved])


@EXAMPLES
@given(deltas())
def test_only_appended_rows_are_called_trained(wanted: Delta) -> None:
    """An incremental read returns appends alone, so nothing else may claim to be trained on."""
    for record, seen in zip(account(wanted, "trained", "why"), wanted.snapshots, strict=True):
        if seen.operation not in {"append", "replace"} and seen.added:
            assert record.state == "unread"
            assert str(seen.added) in record.reason
            assert seen.operation in record.reason
        assert (record.state == "trained") == (seen.operation == "append" and seen.added > 0)


@EXAMPLES
@given(st.text(max_size=10).filter(lambda t: t not in {"append", "replace"}), st.integers(1, 9))
def test_an_unknown_operation_with_rows_is_unread(operation: str, rows: int) -> None:
    """Whatever a future engine calls its operation: rows it adds are counted, never lost."""
    strange = delta(snapshot(1, operation, added_records=rows))
    assert unread(strange) == rows
    assert strange.rows == 0
    assert account(strange, "trained", "why")[0].state == "unread"
    assert f"{rows} rows" in skipped(strange)


@EXAMPLES
@given(deltas(start=None), outcomes)
def test_a_whole_table_takes_every_snapshot(wanted: Delta, outcome: Fate) -> None:
    """A read of the whole table sees what every snapshot did, so all share its outcome."""
    records = account(wanted, outcome, "because")
    assert {(r.state, r.reason) for r in records} <= {(outcome, "because")}
    assert unread(wanted) == 0


@pytest.mark.parametrize(
    ("one", "kind", "state"),
    [
        (snapshot(1, added_records=2), Kind.APPEND, "trained"),
        (snapshot(1), Kind.EMPTY, "skipped"),
        (snapshot(1, "delete", deleted_records=2), Kind.DELETE, "skipped"),
        (snapshot(1, "overwrite", added_position_deletes=2), Kind.DELETE, "skipped"),
        (snapshot(1, "overwrite", added_equality_deletes=2), Kind.DELETE, "skipped"),
        (snapshot(1, "overwrite", added_records=1, deleted_records=1), Kind.REWRITE, "unread"),
        (snapshot(1, "overwrite"), Kind.EMPTY, "skipped"),
        (snapshot(1, "delete", added_records=3), Kind.REWRITE, "unread"),
        (snapshot(1, "replace", added_records=5, deleted_records=5), Kind.COMPACTION, "skipped"),
        (snapshot(1, "unknown"), Kind.EMPTY, "skipped"),
    ],
)
def test_kinds(one: Snapshot, kind: Kind, state: str) -> None:
    """The operation and the summary together say what a snapshot did."""
    assert one.kind is kind
    assert account(delta(one), "trained", "why")[0].state == state


@EXAMPLES
@given(any_delta)
def test_the_first_piece_ends_where_rows_come(wanted: Delta) -> None:
    """The first piece ends at a snapshot that brings rows, or is the delta itself."""
    piece = first(wanted)
    assert piece.snapshots == wanted.snapshots[: len(piece.snapshots)]
    assert (piece.start_id, piece.table_uuid) == (wanted.start_id, wanted.table_uuid)
    if piece != wanted:
        assert piece.end_id == piece.snapshots[-1].id
        assert piece.snapshots[-1].added > 0
        assert wanted.start_id is None or piece.snapshots[-1].kind is Kind.APPEND
    assert divisible(wanted) == (piece.end_id != wanted.end_id)
    assert not divisible(piece)
    assert first(piece) == piece


@EXAMPLES
@given(any_delta)
def test_taken_in_pieces_nothing_is_lost_or_repeated(wanted: Delta) -> None:
    """Piece by piece the delta comes to its end, and every snapshot was in exactly one piece."""
    seen: list[int] = []
    rest, pieces = wanted, 0
    while rest.snapshots:
        piece = first(rest)
        assert piece.snapshots
        seen += [s.id for s in piece.snapshots]
        left = rest.snapshots[len(piece.snapshots) :]
        rest = replace(rest, start_id=piece.end_id, snapshots=left)
        pieces += 1
    assert seen == [s.id for s in wanted.snapshots]
    assert pieces <= len(wanted.snapshots)


@EXAMPLES
@given(deltas())
def test_pieces_hold_as_many_rows_as_the_whole(wanted: Delta) -> None:
    """Splitting moves no row in or out: the pieces' rows sum to the delta's, and so the unread."""
    rows = lost = 0
    rest = wanted
    while rest.snapshots:
        piece = first(rest)
        rows, lost = rows + piece.rows, lost + unread(piece)
        left = rest.snapshots[len(piece.snapshots) :]
        rest = replace(rest, start_id=piece.end_id, snapshots=left)
    assert (rows, lost) == (wanted.rows, unread(wanted))


def test_why_a_delta_is_skipped() -> None:
    """The sentence tells the note, the unread rows and what was there instead."""
    only = delta(
        snapshot(1, "overwrite", added_records=7), snapshot(2, "replace"), note="history rewritten"
    )
    text = skipped(only)
    assert text.startswith("skipped: history rewritten; up to 7 rows added by overwrite")
    assert "compaction, rewrite" in text
    assert "no snapshots" in skipped(delta())


def test_what_was_trained_on_before_is_cut_off() -> None:
    """Rows known from an undone rollback come first, alone; what follows them is new."""
    known, moved, new = (
        snapshot(1, added_records=5),
        snapshot(2, "replace"),
        snapshot(3, added_records=5),
    )
    whole = replace(delta(known, moved, new), start_id=9)
    cut = familiar(whole, {1})
    assert [s.id for s in cut.snapshots] == [1, 2]
    assert (cut.start_id, cut.end_id) == (9, 2)
    assert familiar(whole, {7}) is whole
    assert [s.id for s in familiar(whole, {1, 3}).snapshots] == [1, 2, 3]
    assert familiar(replace(whole, start_id=None), {1}) == replace(whole, start_id=None)
