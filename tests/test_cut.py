"""Which part of what is new becomes the next delta, and how its rows are read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Literal, get_args

import pytest
from builders import EPOCH
from drawing import BEFORE, delta, deltas, logs
from hypothesis import given, settings
from hypothesis import strategies as st

from config.settings import DeltaPolicy
from handlers.account import left_out
from handlers.cut import (
    BRINGS,
    REWRITES,
    Halt,
    divisible,
    familiar,
    first,
    passing,
    plan,
    turn,
)
from handlers.facts import Cursor, Delta, Kind, Snapshot, Way
from handlers.lineage import mutated

EXAMPLES = settings(max_examples=200, deadline=None)
Rewrites = Literal["added", "full", "skip", "halt"]
POLICIES: tuple[Rewrites, ...] = get_args(Rewrites)
CURSOR = Cursor("uuid", BEFORE)
LETTERS = {
    "A": ("append", {"added-records": "5", "total-records": "50"}),
    "R": ("overwrite", {"added-records": "4", "deleted-records": "3", "total-records": "50"}),
    "D": ("delete", {"deleted-records": "3"}),
    "C": ("replace", {"added-records": "5", "deleted-records": "5"}),
    "E": ("append", dict[str, str]()),
}
"""An append, a rewrite, a delete, a compaction, and a commit of nothing."""


def made(letters: str, start: int | None = BEFORE, note: str = "") -> Delta:
    """Make the delta of a log written in letters; its snapshots are numbered from 101 on."""
    numbered = enumerate(letters, start=BEFORE + 1)
    return delta(
        *(Snapshot(n, n - 1, EPOCH, *LETTERS[letter]) for n, letter in numbered),
        start=start, note=note,
    )  # fmt: skip


def ids(found: Delta) -> list[int]:
    """Name a delta's snapshots."""
    return [snapshot.id for snapshot in found.snapshots]


# -- the policies, as a table --------------------------------------------------------------------


@pytest.mark.parametrize("rewrites", POLICIES)
@pytest.mark.parametrize("letters", ["", "A", "C", "E", "AA", "CAEA"])
def test_without_rewrites_every_policy_reads_what_was_appended(
    letters: str, rewrites: Rewrites
) -> None:
    """Policies are for rewrites; all else is one incremental read, even after a halt."""
    wanted = made(letters)
    for passed in (None, BEFORE, BEFORE + 1):
        assert plan(wanted, CURSOR, DeltaPolicy(rewrites=rewrites), passed) == wanted


@pytest.mark.parametrize(
    ("rewrites", "letters", "count", "way"),
    [
        ("added", "R", 1, "changed"),
        ("added", "D", 1, "changed"),
        ("added", "AARAD", 5, "changed"),
        ("full", "R", 1, "whole"),
        ("full", "AARAD", 5, "whole"),
        ("full", "D", 1, "changed"),
        ("full", "ADA", 3, "changed"),
        ("skip", "AARAD", 2, "appended"),
        ("skip", "CEARA", 3, "appended"),
        ("skip", "R", 1, "apart"),
        ("skip", "D", 1, "apart"),
        ("skip", "CRD", 3, "apart"),
        ("skip", "RAA", 2, "apart"),
        ("skip", "ERDCEAAR", 6, "apart"),
        ("halt", "AARAD", 2, "appended"),
        ("halt", "CEAD", 3, "appended"),
    ],
)
def test_which_part_is_taken_and_how_it_is_read(
    rewrites: Rewrites, letters: str, count: int, way: Way
) -> None:
    """`added` and `full` take all; `skip` and `halt` first the appends before a rewrite."""
    wanted = made(letters, note="a note")
    found = plan(wanted, CURSOR, DeltaPolicy(rewrites=rewrites))
    expected = wanted.snapshots[:count]
    assert found == replace(wanted, end_id=expected[-1].id, snapshots=expected, way=way)


@pytest.mark.parametrize(
    ("letters", "culprit"),
    [("R", "101 (overwrite)"), ("D", "101 (delete)"), ("CERA", "103 (overwrite)")],
)
def test_a_halt_names_the_snapshot_and_the_head(letters: str, culprit: str) -> None:
    """Where a rewrite is next, `halt` says which, and remembers the head that was seen."""
    wanted = made(letters)
    for passed in (None, BEFORE, 999):
        found = plan(wanted, CURSOR, DeltaPolicy(rewrites="halt"), passed)
        assert isinstance(found, Halt)
        assert found.at == wanted.end_id
        assert found.reason == (f"snapshot {culprit} rewrites or deletes rows, and rewrites: halt")


@pytest.mark.parametrize(
    ("letters", "passed", "count", "way"),
    [
        ("R", 101, 1, "changed"),
        ("DA", 102, 2, "changed"),
        ("RAARA", 103, 3, "changed"),
        ("CRD", 102, 2, "changed"),
        ("AAR", 102, 2, "appended"),
    ],
)
def test_what_a_person_let_pass_is_read_by_comparison(
    letters: str, passed: int, count: int, way: Way
) -> None:
    """After `resume` everything up to the head that was seen passes, and nothing after it."""
    wanted = made(letters)
    found = plan(wanted, CURSOR, DeltaPolicy(rewrites="halt"), passed)
    expected = wanted.snapshots[:count]
    assert found == replace(wanted, end_id=expected[-1].id, snapshots=expected, way=way)


@pytest.mark.parametrize("rewrites", POLICIES)
@pytest.mark.parametrize("letters", ["A", "R", "ARD"])
def test_the_whole_table_needs_no_policy_for_rewrites(letters: str, rewrites: Rewrites) -> None:
    """The first delta, and one after which no history is left, is read as the table stands."""
    wanted = made(letters, start=None)
    for cursor in (None, CURSOR):
        assert plan(wanted, cursor, DeltaPolicy(rewrites=rewrites)) == wanted


def test_a_lost_history_halts_where_it_should() -> None:
    """`history: halt` stops at another table or an expired history, but not at the first look."""
    policy = DeltaPolicy(history="halt")
    wanted = made("AR", start=None, note="history lost")
    assert plan(wanted, None, policy) == wanted
    halt = Halt("history lost (history: halt)", 102)
    assert plan(wanted, CURSOR, policy) == halt
    assert plan(wanted, CURSOR, policy, passed=999) == halt
    assert plan(wanted, CURSOR, policy, passed=102) == wanted
    assert plan(made("AR"), CURSOR, policy) == replace(made("AR"), way="changed")


def test_a_lost_history_passes_up_to_what_was_seen() -> None:
    """What was committed after the halt is another delta, to which the policies apply."""
    policy = DeltaPolicy(history="halt", rewrites="halt")
    wanted = made("AARA", start=None, note="history lost")
    found = plan(wanted, CURSOR, policy, passed=102)
    assert found == replace(wanted, end_id=102, snapshots=wanted.snapshots[:2])


# -- taken up again and again --------------------------------------------------------------------


@dataclass
class Walk:
    """What became of a log that was looked at again and again until nothing was left."""

    pieces: list[Delta] = field(default_factory=list)
    halts: list[tuple[int, int]] = field(default_factory=list)
    """How many pieces there were when it halted, and the head that was seen."""


def walk(log: Sequence[Snapshot], heads: Sequence[int], policy: DeltaPolicy) -> Walk:
    """Follow a log as the reconciler does, resuming each halt; `heads` are the looks' heads."""
    found = Walk()
    looks = iter(sorted(min(head, len(log)) for head in heads))
    at, passed, halted = 0, None, False
    for _ in range(len(heads) + 3 * len(log) + 1):
        head = next(looks, len(log))
        if at >= head:
            continue
        start = log[at - 1].id if at else BEFORE
        wanted = replace(delta(*log[at:head]), start_id=start)
        each = policy.coalesce == "each"
        piece = first(wanted, policy.min_rows) if each else wanted
        chosen = plan(piece, CURSOR, policy, passing(wanted, piece, passed))
        if isinstance(chosen, Halt):
            assert not halted, "it halts again after it was resumed"
            found.halts.append((len(found.pieces), chosen.at))
            passed, halted = chosen.at, True
            continue
        assert chosen.snapshots == piece.snapshots[: len(chosen.snapshots)]
        assert chosen.snapshots, "nothing is taken"
        found.pieces.append(chosen)
        at, halted = at + len(chosen.snapshots), False
        passed = None if passed in ids(chosen) else passed
    assert at == len(log), "the head is not reached"
    return found


looks = st.lists(st.integers(0, 7), max_size=5)
policies = st.builds(
    DeltaPolicy,
    rewrites=st.sampled_from(POLICIES),
    coalesce=st.sampled_from(["all", "each"]),
    min_rows=st.integers(1, 12),
)


@EXAMPLES
@given(logs(), looks, policies)
def test_every_snapshot_is_taken_exactly_once(
    log: Sequence[Snapshot], heads: Sequence[int], policy: DeltaPolicy
) -> None:
    """Piece after piece the cursor comes to the head; no snapshot is passed over or repeated."""
    pieces = walk(log, heads, policy).pieces
    assert [id_ for piece in pieces for id_ in ids(piece)] == [s.id for s in log]
    starts = [BEFORE, *(piece.end_id for piece in pieces)]
    assert [piece.start_id for piece in pieces] == starts[: len(pieces)]
    assert all(piece.end_id == piece.snapshots[-1].id for piece in pieces)


@EXAMPLES
@given(logs(), looks, policies)
def test_appended_rows_are_never_left_out(
    log: Sequence[Snapshot], heads: Sequence[int], policy: DeltaPolicy
) -> None:
    """Whatever the policy makes of rewrites, what was appended is read; `skip` alone omits."""
    for piece in walk(log, heads, policy).pieces:
        appended = [s for s in piece.snapshots if s.kind is Kind.APPEND]
        assert piece.way == "whole" or piece.rows >= sum(s.added for s in appended)
        assert piece.way == "whole" or piece.brings_rows or not appended
        assert policy.rewrites == "skip" or not left_out(piece)


@EXAMPLES
@given(logs(), looks, policies)
def test_only_rewrites_are_read_in_another_way(
    log: Sequence[Snapshot], heads: Sequence[int], policy: DeltaPolicy
) -> None:
    """A piece is read incrementally if and only if it holds no rewrite; else the policy says."""
    ways = {"added": "changed", "halt": "changed", "skip": "apart"}
    for piece in walk(log, heads, policy).pieces:
        kinds = {snapshot.kind for snapshot in piece.snapshots}
        assert (piece.way == "appended") == kinds.isdisjoint(REWRITES)
        if piece.way != "appended":
            full = "whole" if Kind.REWRITE in kinds else "changed"
            assert piece.way == ways.get(policy.rewrites, full)


@EXAMPLES
@given(logs(), looks, policies)
def test_skip_keeps_an_append_with_the_rewrite_before_it(
    log: Sequence[Snapshot], heads: Sequence[int], policy: DeltaPolicy
) -> None:
    """No append comes before the rewrites of a piece that is told apart, and at most one after."""
    policy = policy.model_copy(update={"rewrites": "skip"})
    for piece in walk(log, heads, policy).pieces:
        kinds = [snapshot.kind for snapshot in piece.snapshots]
        if piece.way == "apart":
            assert kinds.count(Kind.APPEND) <= 1
            assert Kind.APPEND not in kinds[:-1]


@EXAMPLES
@given(logs(), looks, policies)
def test_halt_lets_no_rewrite_pass_that_nobody_saw(
    log: Sequence[Snapshot], heads: Sequence[int], policy: DeltaPolicy
) -> None:
    """A piece with a rewrite ends at or before a head at which the pipeline had halted."""
    policy = policy.model_copy(update={"rewrites": "halt"})
    walked = walk(log, heads, policy)
    for number, piece in enumerate(walked.pieces):
        seen = max((at for before, at in walked.halts if before <= number), default=0)
        assert not mutated(piece.snapshots) or piece.end_id <= seen
    assert len(walked.halts) <= sum(s.kind in REWRITES for s in log)


@EXAMPLES
@given(logs(), looks, policies)
def test_other_policies_never_halt(
    log: Sequence[Snapshot], heads: Sequence[int], policy: DeltaPolicy
) -> None:
    """Without `halt` nobody is needed."""
    if policy.rewrites != "halt":
        assert walk(log, heads, policy).halts == []


def test_a_delta_that_is_taken_apart_needs_no_second_resume() -> None:
    """What passed a halt as a whole passes in pieces too, as after a split; the rest may halt."""
    policy = DeltaPolicy(rewrites="halt")
    whole = made("RARAR")
    assert plan(whole, CURSOR, policy) == Halt(
        "snapshot 101 (overwrite) rewrites or deletes rows, and rewrites: halt", 105
    )
    piece = first(whole)
    assert ids(piece) == [101]
    assert isinstance(plan(piece, CURSOR, policy, passed=None), Halt)
    assert plan(piece, CURSOR, policy, passing(whole, piece, 104)) == replace(piece, way="changed")
    assert passing(whole, piece, 101) == 101
    assert passing(whole, piece, None) is None
    assert passing(whole, piece, 999) == 999
    last = replace(whole, start_id=104, snapshots=whole.snapshots[4:])
    assert isinstance(plan(last, CURSOR, policy, passing(last, first(last), 104)), Halt)


# -- pieces --------------------------------------------------------------------------------------

any_delta = deltas() | deltas(start=None)


def shrinks(rewrite: Snapshot) -> bool:
    """Say whether a snapshot's new files hold fewer rows than those that they replace."""
    return rewrite.count("deleted-records") > rewrite.added


@EXAMPLES
@given(any_delta, st.integers(1, 12))
def test_the_first_piece_ends_where_rows_come(wanted: Delta, rows: int) -> None:
    """It ends at the first snapshot with which it brings so many rows, or is the delta itself.

    An append right behind a rewrite that takes more than it brings is never torn from it.
    """
    piece = first(wanted, rows)
    assert piece.snapshots == wanted.snapshots[: len(piece.snapshots)]
    assert (piece.start_id, piece.table_uuid) == (wanted.start_id, wanted.table_uuid)
    assert first(piece, rows) == piece
    bring = [s for s in piece.snapshots if s.kind in BRINGS]
    counted = sum(s.added for s in bring)
    counts = all("added-records" in s.summary for s in bring)
    if piece != wanted:
        assert piece.end_id == piece.snapshots[-1].id
        assert piece.snapshots[-1].kind in BRINGS
        assert not counts or counted >= rows
    rest = wanted.snapshots[len(piece.snapshots) :]
    if piece.snapshots and rest:
        kinds = (piece.snapshots[-1].kind, rest[0].kind)
        assert kinds != (Kind.REWRITE, Kind.APPEND) or not shrinks(piece.snapshots[-1])
    if piece.snapshots:
        pair = len(piece.snapshots) > 1 and shrinks(piece.snapshots[-2])
        last = piece.snapshots[-2 if pair else -1 :]
        assert sum(s.added for s in bring if s not in last) < rows


@EXAMPLES
@given(any_delta)
def test_a_delta_is_divisible_if_its_first_piece_is_another(wanted: Delta) -> None:
    """What cannot be divided any more is not taken apart again."""
    piece = first(wanted)
    assert divisible(wanted) == (piece.end_id != wanted.end_id)
    assert not divisible(piece)


@EXAMPLES
@given(any_delta, st.integers(1, 12))
def test_taken_in_pieces_nothing_is_lost_or_repeated(wanted: Delta, rows: int) -> None:
    """Piece by piece the delta comes to its end; every snapshot and row was in just one piece."""
    seen: list[int] = []
    counted = 0
    rest = wanted
    while rest.snapshots:
        piece = first(rest, rows)
        assert piece.snapshots
        seen += ids(piece)
        counted += sum(s.kind in BRINGS for s in piece.snapshots)
        left = rest.snapshots[len(piece.snapshots) :]
        rest = replace(rest, start_id=piece.end_id, snapshots=left)
    assert seen == ids(wanted)
    assert counted == sum(s.kind in BRINGS for s in wanted.snapshots)


# -- rollbacks and what comes back ---------------------------------------------------------------


def test_a_rollback_is_recorded_before_what_follows_it() -> None:
    """The way back is a delta of its own that ends where it starts; the rest is for the next."""
    back = replace(made("AR"), gone=(7, 6), note="rolled back")
    assert turn(back) == replace(back, end_id=BEFORE, snapshots=())
    assert turn(made("AR")) is None
    assert turn(replace(made(""), gone=(7,))) is None, "it is that delta already"
    assert turn(replace(made("A", start=None), gone=(7,))) is None, "there is no way back"


@EXAMPLES
@given(any_delta, st.sets(st.integers(BEFORE, BEFORE + 8)))
def test_only_what_was_dealt_with_is_familiar(wanted: Delta, dealt: set[int]) -> None:
    """The familiar part is the longest leading one whose changes were all dealt with before."""
    known = familiar(wanted, dealt)
    changed = [s for s in wanted.snapshots if s.kind in BRINGS | REWRITES]
    new = next((s.id for s in changed if s.id not in dealt), None)
    if wanted.start_id is None or not changed or new == changed[0].id:
        assert known is None
        return
    assert known is not None
    assert known.snapshots == wanted.snapshots[: len(known.snapshots)]
    assert len(known.snapshots) == (len(wanted.snapshots) if new is None else new - BEFORE - 1)
    assert known.end_id == known.snapshots[-1].id
    assert replace(known, end_id=0, snapshots=()) == replace(wanted, end_id=0, snapshots=())


def test_a_cherry_pick_is_known_by_its_source() -> None:
    """A picked snapshot has a new id but carries the very same rows."""
    wanted = made("AA")
    picked = replace(
        wanted.snapshots[0],
        summary={**wanted.snapshots[0].summary, "source-snapshot-id": "7"},
    )
    again = replace(wanted, snapshots=(picked, wanted.snapshots[1]))
    assert familiar(again, {8}) is None
    known = familiar(again, {7})
    assert known is not None
    assert ids(known) == [101]
    assert familiar(again, {7, 102}) == again


def test_what_was_dealt_with_is_cut_off() -> None:
    """Rows known from an undone rollback come first, alone; what follows them is new."""
    whole = made("ACA")
    cut = familiar(whole, {101})
    assert cut is not None
    assert (ids(cut), cut.start_id, cut.end_id) == ([101, 102], BEFORE, 102)
    assert familiar(whole, {103}) is None
    assert familiar(whole, {101, 103}) == whole
    assert familiar(made("CE"), {101, 102}) is None, "nothing in it changes rows"
    assert familiar(made("ACA", start=None), {101}) is None, "the whole table is always new"
