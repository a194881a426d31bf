"""What is new is found by ancestry, whatever became of the history in the meantime."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import pytest
from builders import EPOCH, TABLE, UUID
from hypothesis import given, settings
from hypothesis import strategies as st

from handlers.facts import Cursor, Delta, Kind, Snapshot
from handlers.lineage import EXPIRED, PARTED, REPLACED, ROLLED_BACK, complete, mutated, since

EXAMPLES = settings(max_examples=300, deadline=None)
OTHER = "7f0c0b1e-0000-4000-8000-000000000002"
APPEND = ("append", {"added-records": "5"})
REWRITE = ("overwrite", {"added-records": "5", "deleted-records": "2"})
DELETE = ("delete", {"deleted-records": "2"})
COMPACTION = ("replace", {"added-records": "5", "deleted-records": "5"})
EMPTY = ("append", dict[str, str]())
DOINGS = (APPEND, REWRITE, DELETE, COMPACTION, EMPTY)


@dataclass(frozen=True)
class Past:
    """Every commit that was ever made, and those whose metadata the table still keeps."""

    parents: Mapping[int, int | None]
    kept: Mapping[int, Snapshot]
    head: int
    cursor: int

    def line(self, snapshot_id: int) -> list[int]:
        """Give a snapshot and all its ancestors, expired ones as well, youngest first."""
        found, at = [], self.parents.get(snapshot_id)
        while at is not None:
            found.append(at)
            at = self.parents[at]
        return [snapshot_id, *found]

    def ancestors(self, snapshot_id: int) -> Iterator[Snapshot]:
        """Walk as the table does: an expired snapshot ends it without a word."""
        at: int | None = snapshot_id
        while at is not None and at in self.kept:
            yield self.kept[at]
            at = self.kept[at].parent_id

    def expire(self, gone: Collection[int]) -> Past:
        """Let these snapshots' metadata go."""
        return replace(self, kept={id_: s for id_, s in self.kept.items() if id_ not in gone})

    @property
    def parted(self) -> int | None:
        """Name the youngest snapshot that is in the history of both head and cursor."""
        mine = self.line(self.head)
        return next((id_ for id_ in self.line(self.cursor) if id_ in mine), None)

    @property
    def followed(self) -> bool:
        """Say whether the table keeps all that came after that snapshot, on both sides."""
        sides = [self.line(self.head), self.line(self.cursor)]
        parted = self.parted
        return parted is not None and all(
            id_ in self.kept for side in sides for id_ in side[: side.index(parted)]
        )

    @property
    def gone(self) -> list[int]:
        """Give what the cursor followed and the head does not."""
        mine = self.line(self.head)
        return [id_ for id_ in self.line(self.cursor) if id_ not in mine]


def past(
    parents: Mapping[int, int | None],
    head: int,
    cursor: int,
    expired: Collection[int] = (),
    doings: Mapping[int, tuple[str, Mapping[str, str]]] | None = None,
) -> Past:
    """Make a past; each snapshot is an append unless `doings` says otherwise."""
    did = {id_: (doings or {}).get(id_, APPEND) for id_ in parents}
    kept = {id_: Snapshot(id_, parents[id_], EPOCH, *did[id_]) for id_ in parents}
    return Past(parents, kept, head, cursor).expire(expired)


@st.composite
def pasts(draw: st.DrawFn, doings: Sequence[tuple[str, Mapping[str, str]]] = DOINGS) -> Past:
    """Draw commits on the head, after rollbacks, on branches or a new lineage, and expiries."""
    size = draw(st.integers(1, 9))
    parents: dict[int, int | None] = {1: None}
    for number in range(2, size + 1):
        last = st.just(number - 1)
        parents[number] = draw(last | last | st.integers(1, number - 1) | st.none())
    numbers = st.integers(1, size)
    head, cursor = draw(numbers | st.just(size)), draw(numbers)
    expired = draw(st.sets(numbers, max_size=size // 2)) - {head}
    done = draw(st.lists(st.sampled_from(doings), min_size=size, max_size=size))
    return past(parents, head, cursor, expired, dict(enumerate(done, start=1)))


def look(seen: Past, cursor: Cursor | None) -> Delta | None:
    """Ask what is new since a cursor."""
    return since(Cursor(UUID, seen.head), cursor, seen.ancestors, TABLE, "main")


def new(seen: Past) -> Delta:
    """Give what is new since the past's cursor, where something is."""
    delta = look(seen, Cursor(UUID, seen.cursor))
    assert delta is not None
    return delta


def ids(delta: Delta) -> list[int]:
    """Name a delta's snapshots."""
    return [snapshot.id for snapshot in delta.snapshots]


# -- the rules -----------------------------------------------------------------------------------

LINE = {1: None, 2: 1, 3: 2, 4: 3, 5: 4}
FORK = {1: None, 2: 1, 3: 2, 4: 2, 5: 4}
APART = {1: None, 2: 1, 3: None, 4: 3}


@pytest.mark.parametrize(
    ("seen", "start", "found", "gone", "note"),
    [
        (past(LINE, 5, 3), 3, [4, 5], (), ""),
        (past(LINE, 5, 3, {1, 2}), 3, [4, 5], (), ""),
        (past(LINE, 5, 3, {1, 2, 3}), 3, [4, 5], (), ""),
        (past(LINE, 5, 3, {1, 2, 3, 4}), None, [5], (), EXPIRED.format(3)),
        # A tag keeps the cursor, and what followed it was expired.
        (past(LINE, 5, 2, {1, 3, 4}), None, [5], (), EXPIRED.format(4)),
        (past(LINE, 2, 5), 2, [], (5, 4, 3), ROLLED_BACK.format(5, 2)),
        (past(LINE, 2, 5, {1}), 2, [], (5, 4, 3), ROLLED_BACK.format(5, 2)),
        (past(LINE, 2, 5, {5}), None, [1, 2], (), EXPIRED.format(5)),
        (past(FORK, 5, 3), 2, [4, 5], (3,), ROLLED_BACK.format(3, 2)),
        (past(FORK, 5, 3, {1, 2}), 2, [4, 5], (3,), ROLLED_BACK.format(3, 2)),
        (past(FORK, 5, 3, {3}), None, [1, 2, 4, 5], (), EXPIRED.format(3)),
        (past(FORK, 5, 3, {4}), None, [5], (), EXPIRED.format(4)),
        (past(FORK, 3, 5, {4}), None, [1, 2, 3], (5,), PARTED.format(5)),
        (past(APART, 4, 2), None, [3, 4], (2, 1), PARTED.format(2)),
        (past(APART, 4, 2, {1}), None, [3, 4], (2,), PARTED.format(2)),
        (past(APART, 4, 2, {3}), None, [4], (), EXPIRED.format(3)),
        # Rewritten rows are told by comparison with the start, which must then be kept itself.
        (past(LINE, 5, 3, {3}, {5: DELETE}), None, [4, 5], (), EXPIRED.format(3)),
        (past(LINE, 5, 3, {2}, {5: DELETE}), 3, [4, 5], (), ""),
        (past(FORK, 5, 3, {1, 2}, {4: REWRITE}), None, [4, 5], (3,), EXPIRED.format(2)),
    ],
)
def test_what_is_new(
    seen: Past, start: int | None, found: list[int], gone: tuple[int, ...], note: str
) -> None:
    """What follows the youngest common snapshot is new; where there is none, the whole table."""
    delta = new(seen)
    assert (delta.start_id, ids(delta), delta.gone, delta.note) == (start, found, gone, note)


def test_another_table_is_new_as_a_whole() -> None:
    """A table of another identity has nothing in common, even where ids are the same."""
    delta = look(past(LINE, 3, 3), Cursor(OTHER, 3))
    assert delta is not None
    assert (delta.start_id, ids(delta), delta.gone, delta.note) == (None, [1, 2, 3], (), REPLACED)


def test_a_snapshot_that_was_published_late_is_new() -> None:
    """A staged snapshot may be older than what it is published after: only ancestry counts."""
    assert ids(new(past({1: None, 3: 1, 2: 3}, 2, 3))) == [2]


# -- what holds for every history ----------------------------------------------------------------


@EXAMPLES
@given(pasts(), st.sampled_from([UUID, OTHER, None]))
def test_nothing_is_new_only_at_the_head(seen: Past, uuid: str | None) -> None:
    """There is no delta if and only if the cursor stands at the head of this very table."""
    cursor = Cursor(uuid, seen.cursor) if uuid else None
    assert (look(seen, cursor) is None) == (cursor == Cursor(UUID, seen.head))


@EXAMPLES
@given(seen=pasts(), uuid=st.sampled_from([UUID, OTHER, None]), nulls=st.booleans())
def test_a_delta_holds_just_what_follows_its_start(
    seen: Past, uuid: str | None, *, nulls: bool
) -> None:
    """From the start, an ancestor, to the head no snapshot lacks; and all that it needs is kept.

    PyIceberg's expiry lets snapshots forget their expired parents; that may not mislead.
    """
    if nulls:
        blind = {
            id_: replace(s, parent_id=s.parent_id if s.parent_id in seen.kept else None)
            for id_, s in seen.kept.items()
        }
        seen = replace(seen, kept=blind)
    delta = look(seen, Cursor(uuid, seen.cursor) if uuid else None)
    if delta is None:
        return
    line = seen.line(seen.head)
    assert (delta.table, delta.branch, delta.table_uuid) == (TABLE, "main", UUID)
    assert delta.cursor == Cursor(UUID, seen.head)
    assert delta.way == "appended"
    if delta.start_id is None:
        assert delta.snapshots == tuple(reversed(list(seen.ancestors(seen.head))))
    else:
        assert ids(delta) == line[: line.index(delta.start_id)][::-1]
        assert delta.start_id in seen.kept or not mutated(delta.snapshots)
    assert all(snapshot == seen.kept[snapshot.id] for snapshot in delta.snapshots)
    assert complete(delta, seen.ancestors)


@EXAMPLES
@given(pasts())
def test_the_start_is_where_head_and_cursor_part(seen: Past) -> None:
    """It is the youngest common snapshot, wherever the log can be followed so far."""
    if seen.head == seen.cursor:
        return
    delta = new(seen)
    parted = seen.parted
    if not seen.followed:
        assert delta.start_id is None
    elif parted in seen.kept or not mutated(delta.snapshots):
        assert delta.start_id == parted
    else:
        assert (delta.start_id, delta.note) == (None, EXPIRED.format(parted))


@EXAMPLES
@given(pasts())
def test_what_left_the_history_is_named(seen: Past) -> None:
    """Gone are exactly the cursor's ancestors that are not the head's, as far as can be known."""
    if seen.head == seen.cursor:
        return
    gone = list(new(seen).gone)
    if seen.followed:
        assert gone == seen.gone
    elif seen.line(seen.head)[-1] in {s.id for s in seen.ancestors(seen.head)}:
        assert gone == [s.id for s in seen.ancestors(seen.cursor)], "the head's history is all kept"
    else:
        assert gone == [], "nothing is told to be gone that may be behind an expired snapshot"


@EXAMPLES
@given(pasts(doings=[APPEND, COMPACTION, EMPTY]))
def test_the_note_tells_the_case(seen: Past) -> None:
    """Followed, rolled back, parted or expired: each is told in its own words, and only then."""
    if seen.head == seen.cursor:
        return
    note, cursor = new(seen).note, seen.cursor
    if seen.followed:
        assert note == ("" if seen.parted == cursor else ROLLED_BACK.format(cursor, seen.parted))
        return
    visible = {s.id for s in seen.ancestors(seen.head)}
    if lost := next((id_ for id_ in seen.line(seen.head) if id_ not in visible), None):
        assert note == EXPIRED.format(lost if cursor in seen.kept else cursor)
    else:
        assert note == (PARTED if cursor in seen.kept else EXPIRED).format(cursor)


@EXAMPLES
@given(pasts(), st.sampled_from(["appended", "changed", "apart", "whole"]), st.data())
def test_what_must_be_kept_depends_on_the_way_of_reading(
    seen: Past, way: str, data: st.DataObject
) -> None:
    """A delta is complete as long as nothing was expired that its way of reading needs.

    An incremental read takes every snapshot, a comparison its two ends, and the end is enough for
    the whole table. To tell appended rows apart, the snapshots that appended them are needed.
    """
    if seen.head == seen.cursor:
        return
    delta = replace(new(seen), way=way)  # type: ignore[arg-type]
    if delta.start_id not in seen.kept and way in {"changed", "apart"}:
        return
    expired = data.draw(st.sets(st.sampled_from(sorted(seen.parents))))
    needs = {delta.end_id}
    if not delta.whole and way == "appended":
        needs |= set(ids(delta))
    elif not delta.whole and delta.start_id is not None:
        appends = {s.id for s in delta.snapshots if s.kind is Kind.APPEND}
        needs |= {delta.start_id} | (appends if way == "apart" else set())
    assert complete(delta, seen.expire(expired).ancestors) == needs.isdisjoint(expired)
