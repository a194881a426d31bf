"""What the ledger tells of snapshots: what became of each, what was undone, what to doubt."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest
from builders import (
    PIPELINE,
    UUID,
    close,
    delta,
    delta_of,
    dump,
    ledger,
    model,
    park,
    promote,
    record,
    snapshot,
)

from daemon.ledger import Ledger
from daemon.reading import Doubts, Fated
from handlers.facts import Delta, Fate, GiveUp, Kind, Record, Snapshot, State

BACK = "history rewritten: rolled back from {} to {}"
OTHER = "7f0c0b1e-0000-4000-8000-000000000002"


@pytest.fixture
def book(tmp_path: Path) -> Iterator[Ledger]:
    """Give a ledger that this process owns."""
    with closing(ledger(tmp_path / "ledger.db")) as book:
        yield book


def rewrite(number: int, rows: int = 70) -> Snapshot:
    """Make a snapshot that rewrites rows."""
    return snapshot(number, rows, "overwrite", deleted_records=str(rows))


def delete(number: int, rows: int) -> Snapshot:
    """Make a snapshot that deletes rows."""
    return snapshot(number, 0, "delete", deleted_records=str(rows))


def compaction(number: int) -> Snapshot:
    """Make a snapshot that brings no new rows."""
    return snapshot(number, 5, "replace", deleted_records="5")


def rolled_back(last: int, to: int, *gone: int) -> Delta:
    """Make the delta of a rollback to a snapshot."""
    return Delta("lake.bank.cards", "main", UUID, to, to, (), note=BACK.format(last, to), gone=gone)


def decide(book: Ledger, wanted: Delta, state: State = State.KEPT) -> Record:
    """Open a delta and close it."""
    return close(book, book.open(PIPELINE, wanted), state)


def again(book: Ledger, state: State) -> Record:
    """Take up all that is parked, and close the oldest."""
    book.retry(PIPELINE, "ann", book.parked(PIPELINE))
    work = book.pending(PIPELINE)
    assert work is not None
    return close(book, work, state)


def states(book: Ledger) -> dict[int, tuple[str, int]]:
    """Give what became of each snapshot, and in which delta."""
    return {id_: (f.state.value, f.sequence) for id_, f in book.fates(PIPELINE).items()}


def undone(book: Ledger) -> dict[int, str | None]:
    """Give why each snapshot left the history."""
    return {id_: fated.undone for id_, fated in book.fates(PIPELINE).items()}


# -- what became of each -------------------------------------------------------------------------


def test_a_fate_is_told_as_it_was_recorded(book: Ledger) -> None:
    """Kind, rows, delta and reason come back with it."""
    closed = decide(book, delta_of([rewrite(2)], 1), State.SKIPPED)
    (seen,) = closed.snapshots
    assert book.fates(PIPELINE) == {
        2: Fated(2, 1, Kind.REWRITE, 70, Fate.REWRITTEN, seen.reason, None)
    }
    assert book.fates("other") == {}


@pytest.mark.parametrize(
    ("state", "expected"),
    [
        (State.PROMOTED, ["trained", "rewritten", "skipped"]),
        (State.KEPT, ["trained", "rewritten", "skipped"]),
        (State.SKIPPED, ["skipped", "rewritten", "skipped"]),
        (State.PARKED, ["quarantined", "quarantined", "skipped"]),
        (State.SPLIT, []),
        (State.ABANDONED, []),
    ],
)
def test_only_a_delta_that_was_dealt_with_decides_a_fate(
    book: Ledger, state: State, expected: list[str]
) -> None:
    """Deltas that were taken apart or given up unread are looked at anew, so they tell nothing."""
    work = book.open(PIPELINE, delta_of([snapshot(2), rewrite(3), compaction(4)], 1))
    close(book, work, state, 1 if state is State.PROMOTED else None)
    assert [fated for fated, _ in states(book).values()] == expected
    closed = state in {State.PROMOTED, State.KEPT, State.SKIPPED}
    assert book.dealt(PIPELINE) == ({2, 3, 4} if closed else set())
    assert book.dealt("other") == set()


def test_the_latest_delta_tells(book: Ledger) -> None:
    """A parked snapshot that is taken up again has the fate of the last attempt."""
    decide(book, delta_of([snapshot(1), rewrite(2)]), State.SPLIT)
    park(book, 1)
    assert (states(book), book.dealt(PIPELINE)) == ({1: ("quarantined", 1 + 1)}, set())
    again(book, State.PARKED)
    assert states(book) == {1: ("quarantined", 3)}
    again(book, State.KEPT)
    assert (states(book), book.dealt(PIPELINE)) == ({1: ("trained", 4)}, {1})


def test_what_was_dropped_is_skipped(book: Ledger) -> None:
    """The operator's word is the last one."""
    park(book, 1)
    again(book, State.DROPPED)
    assert (states(book), book.dealt(PIPELINE)) == ({1: ("skipped", 2)}, {1})


def test_what_was_dealt_with_stays_so_when_it_comes_back(book: Ledger) -> None:
    """Snapshots that return with an undone rollback are skipped, but that is not their fate."""
    decide(book, delta(1))
    decide(book, replace(delta_of([snapshot(2), rewrite(3)], 1), way="changed"))
    before = book.fates(PIPELINE)
    decide(book, rolled_back(3, 1, 3, 2), State.SKIPPED)
    decide(book, delta_of([snapshot(2), rewrite(3)], 1), State.SKIPPED)
    assert book.fates(PIPELINE) == before
    assert "trained on" in before[3].reason
    assert book.dealt(PIPELINE) == {1, 2, 3}


def test_what_was_cherry_picked_once_may_be_picked_again(book: Ledger) -> None:
    """With the snapshot that was picked goes the one that it was picked from."""
    decide(book, delta_of([snapshot(2, source_snapshot_id="77")], 1))
    assert book.dealt(PIPELINE) == {2, 77}


def test_a_whole_table_that_is_trained_on_again_tells_anew(book: Ledger) -> None:
    """After a lost history each snapshot that is kept belongs to the delta that read it again."""
    decide(book, delta(1, 3))
    whole = replace(delta(2, 4), start_id=None, note="history lost")
    decide(book, whole)
    assert states(book) == {1: ("trained", 1)} | dict.fromkeys((2, 3, 4), ("trained", 2))


def test_a_run_is_found_by_its_id_or_name(book: Ledger) -> None:
    """The beginning of an id is enough where it is the only one."""
    promote(book, 1)
    promote(book, 2)
    second, first = book.history(PIPELINE)
    for made in (first, second):
        assert made.model is not None
        assert book.by_run(f"{PIPELINE}-{made.sequence}") == made
        assert book.by_run(made.model.run_id) == made
    with pytest.raises(GiveUp, match="No model has the run 'zzz'"):
        book.by_run("zzz")
    with pytest.raises(GiveUp, match="Several models"):
        book.by_run("")


# -- what was undone -----------------------------------------------------------------------------


def test_a_rollback_marks_what_left_the_history_and_nothing_else(book: Ledger) -> None:
    """Gone snapshots are marked with the note, wherever they are recorded."""
    for number in (1, 2, 3):
        decide(book, delta(number))
    book.settle(record(book.open("other", delta(3)), State.KEPT))
    decide(book, rolled_back(3, 1, 3, 2), State.SKIPPED)
    note = BACK.format(3, 1)
    assert undone(book) == {1: None, 2: note, 3: note}
    assert book.fates("other")[3].undone is None
    cursor = book.standing(PIPELINE).cursor
    assert cursor is not None
    assert cursor.snapshot_id == 1


def test_what_comes_back_is_unmarked(book: Ledger) -> None:
    """Once it is in the history again, nothing was undone; and it may leave again."""
    decide(book, delta(1))
    decide(book, delta(2, 3))
    for _ in range(2):
        decide(book, rolled_back(3, 1, 3, 2), State.SKIPPED)
        assert undone(book) == {1: None, 2: BACK.format(3, 1), 3: BACK.format(3, 1)}
        decide(book, delta(2), State.SKIPPED)
        assert undone(book) == {1: None, 2: None, 3: BACK.format(3, 1)}
        decide(book, delta(3), State.SKIPPED)
        assert undone(book) == {1: None, 2: None, 3: None}


@pytest.mark.parametrize("state", [State.SPLIT, State.ABANDONED])
def test_nothing_is_marked_before_it_is_dealt_with(book: Ledger, state: State) -> None:
    """A delta that leaves the cursor where it is will be looked at again."""
    decide(book, delta(1, 2))
    decide(book, replace(delta(3, 4), start_id=1, note="rolled back", gone=(2,)), state)
    assert undone(book) == {1: None, 2: None}


def test_another_table_undoes_all_that_was_learnt_from_the_first(book: Ledger) -> None:
    """Everything of the former table is marked, once, with its own reason; the new is not."""
    decide(book, delta(1))
    decide(book, delta(2))
    decide(book, rolled_back(2, 1, 2), State.SKIPPED)
    other = replace(delta_of([snapshot(11), snapshot(12)]), table_uuid=OTHER, note="another table")
    decide(book, other)
    assert undone(book) == {1: "another table", 2: BACK.format(2, 1), 11: None, 12: None}
    decide(book, replace(delta_of([snapshot(13)], 12), table_uuid=OTHER))
    assert undone(book)[11] is None


def test_a_restored_ledger_tells_the_same(book: Ledger) -> None:
    """Marks follow from the records, so a rebuilt ledger has them too."""
    promote(book, 1)
    decide(book, delta(2, 3))
    decide(book, rolled_back(3, 1, 3, 2), State.SKIPPED)
    decide(book, replace(delta(2), table_uuid=OTHER, start_id=None, note="another table"))
    with closing(ledger(book.path.with_name("again.db"))) as rebuilt:
        rebuilt.restore(reversed(book.history(PIPELINE)), model(1))
        assert rebuilt.fates(PIPELINE) == book.fates(PIPELINE)
        assert rebuilt.dealt(PIPELINE) == book.dealt(PIPELINE)
        made = book.made(PIPELINE, "1")
        assert made is not None
        assert rebuilt.doubts(made) == book.doubts(made) != Doubts(0, 0, 0)


# -- what to doubt -------------------------------------------------------------------------------


def test_a_model_whose_rows_all_stand_is_not_doubted(book: Ledger) -> None:
    """Later appends, and a rollback of what it did not learn from, are no matter."""
    first = decide(book, delta(1))
    decide(book, delta(2))
    decide(book, rolled_back(2, 1, 2), State.SKIPPED)
    before = dump(book)
    assert book.doubts(first) == Doubts(0, 0, 0)
    assert dump(book) == before


def test_rows_that_were_rolled_back_are_doubted_by_who_learnt_from_them(book: Ledger) -> None:
    """The delta's own snapshots count, until they come back."""
    decide(book, delta(1))
    second = decide(book, delta_of([snapshot(2), snapshot(3, 40), compaction(4)], 1))
    decide(book, rolled_back(4, 1, 4, 3, 2), State.SKIPPED)
    assert book.doubts(second) == Doubts(undone_snapshots=2, undone_rows=140, removed_rows=0)
    decide(book, delta_of([snapshot(2)], 1), State.SKIPPED)
    assert book.doubts(second) == Doubts(1, 40, 0)


def full(record: Record) -> Record:
    """Have it made by the strategy that learns from the whole table."""
    assert record.learnt is not None
    return replace(record, learnt=replace(record.learnt, strategy="full"))


@pytest.mark.parametrize("way", ["strategy", "whole"])
def test_a_model_of_the_whole_table_is_doubted_for_all_of_it(book: Ledger, way: str) -> None:
    """Whatever was in the table then counts; what came later or had left before does not."""
    decide(book, delta(1))
    decide(book, delta(2))
    decide(book, rolled_back(2, 1, 2), State.SKIPPED)
    wanted = delta_of([snapshot(3)], 1)
    made = full(decide(book, wanted)) if way == "strategy" else decide(
        book, replace(wanted, way="whole")
    )  # fmt: skip
    decide(book, delta_of([snapshot(4)], 3))
    assert book.doubts(made) == Doubts(0, 0, 0), "2 was gone when it learnt"
    decide(book, rolled_back(4, 3, 4), State.SKIPPED)
    assert book.doubts(made) == Doubts(0, 0, 0), "4 came after it"
    decide(book, replace(rolled_back(3, 1, 3, 1), start_id=None, note="parted"), State.SKIPPED)
    assert book.doubts(made) == Doubts(2, 200, 0)


def test_a_model_of_another_table_is_not_doubted_for_the_first(book: Ledger) -> None:
    """What it replaced was undone when it learnt; who learnt from that is doubted for all."""
    first = decide(book, delta(1, 2))
    other = replace(delta_of([snapshot(11)]), table_uuid=OTHER, note="another table")
    second = decide(book, other)
    assert book.doubts(first) == Doubts(2, 200, 0)
    assert book.doubts(second) == book.doubts(full(second)) == Doubts(0, 0, 0)


def test_rows_that_were_deleted_since_are_counted(book: Ledger) -> None:
    """Deletes before it, or in deltas that were not dealt with, do not count; each counts once."""
    decide(book, delta(1))
    decide(book, delta_of([delete(2, 5)], 1), State.SKIPPED)
    made = decide(book, delta(3))
    assert book.doubts(made) == Doubts(0, 0, 0)
    decide(book, delta_of([delete(4, 7), snapshot(5)], 3), State.SPLIT)
    assert book.doubts(made) == Doubts(0, 0, 0)
    decide(book, delta_of([delete(4, 7), snapshot(5)], 3), State.PARKED)
    assert book.doubts(made) == Doubts(0, 0, 7)
    again(book, State.KEPT)
    assert book.doubts(made) == Doubts(0, 0, 7), "the same deletes, taken up again"


def test_deletes_of_a_delta_that_is_taken_up_again_are_old(book: Ledger) -> None:
    """A parked delta's deletes happened when it was new, whenever it is trained on."""
    decide(book, delta_of([snapshot(1), delete(2, 9)]), State.PARKED)
    parked = replace(delta_of([delete(3, 9), snapshot(4)], 2), way="changed")
    decide(book, parked, State.PARKED)
    made = decide(book, delta(5))
    again(book, State.KEPT)
    assert book.doubts(made) == Doubts(0, 0, 0)


def test_when_the_last_training_ended(book: Ledger) -> None:
    """Only a verdict ends a training; the latest counts, in whatever order they were opened."""
    assert book.trained_at(PIPELINE) is None
    park(book, 1)
    decide(book, delta(2), State.SKIPPED)
    assert book.trained_at(PIPELINE) is None
    kept = decide(book, delta(3))
    assert book.trained_at(PIPELINE) == kept.closed_at
    promote(book, 4)
    assert book.trained_at(PIPELINE) == book.history(PIPELINE, 1)[0].closed_at
    retried = again(book, State.KEPT)
    assert book.trained_at(PIPELINE) == retried.closed_at > kept.closed_at
    assert book.trained_at("other") is None
