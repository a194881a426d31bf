"""Decides which part of what is new becomes the next delta, and how its rows are read. Pure.

A delta without rewrites is read by what was appended. Where rows were rewritten or deleted, the
pipeline's policy decides.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace

from config.settings import DeltaPolicy
from handlers.facts import Cursor, Delta, Kind, Snapshot
from handlers.lineage import mutated

BRINGS = frozenset({Kind.APPEND, Kind.REWRITE})
REWRITES = frozenset({Kind.DELETE, Kind.REWRITE})


@dataclass(frozen=True, slots=True)
class Halt:
    """The policy stops the pipeline here until a person resumes it."""

    reason: str
    at: int
    """The head that was seen; `resume` lets the pipeline pass up to it."""


def plan(
    delta: Delta, cursor: Cursor | None, policy: DeltaPolicy, passed: int | None = None
) -> Delta | Halt:
    """Apply the policies to a delta as the log gives it.

    `passed` is the snapshot up to which a person resumed the pipeline after a halt.
    """
    resumed = passed in {snapshot.id for snapshot in delta.snapshots}
    if delta.start_id is None:
        if cursor is None or policy.history == "full":
            return delta
        halt = Halt(f"{delta.note} (history: halt)", delta.end_id)
        return _up_to(delta, passed) if resumed else halt
    if not mutated(delta.snapshots):
        return delta
    if policy.rewrites == "halt":
        return _passed(_up_to(delta, passed)) if resumed else _halted(delta)
    if policy.rewrites == "skip":
        return _apart(delta)
    rewritten = any(snapshot.kind is Kind.REWRITE for snapshot in delta.snapshots)
    return replace(delta, way="whole" if policy.rewrites == "full" and rewritten else "changed")


def passing(delta: Delta, piece: Delta, passed: int | None) -> int | None:
    """Say up to where a leading piece of a delta may pass that a person let pass."""
    later = {snapshot.id for snapshot in delta.snapshots[len(piece.snapshots) :]}
    return piece.end_id if passed in later else passed


def _up_to(delta: Delta, passed: int | None) -> Delta:
    """Take what a person let pass; what came later may halt again."""
    ids = [snapshot.id for snapshot in delta.snapshots]
    return _head(delta, ids.index(passed or 0) + 1)


def _passed(delta: Delta) -> Delta:
    return replace(delta, way="changed") if mutated(delta.snapshots) else delta


def _halted(delta: Delta) -> Delta | Halt:
    before = _before_rewrites(delta)
    if before.brings_rows:
        return before
    found = next(s for s in delta.snapshots if s.kind in REWRITES)
    what = f"snapshot {found.id} ({found.operation}) rewrites or deletes rows"
    return Halt(f"{what}, and rewrites: halt", delta.end_id)


def _apart(delta: Delta) -> Delta:
    """Take the appends before the first rewrite, else the rewrites with the append after them.

    That append stays with them because some writers rewrite rows as a delete followed by an
    append: only against the rows just deleted can it be told which of its rows are new.
    """
    before = _before_rewrites(delta)
    if before.brings_rows:
        return before
    kinds = [snapshot.kind for snapshot in delta.snapshots]
    started = next(i for i, kind in enumerate(kinds) if kind in REWRITES)
    ends = [i for i, kind in enumerate(kinds) if i > started and kind is Kind.APPEND]
    return replace(_head(delta, ends[0] + 1) if ends else delta, way="apart")


def _before_rewrites(delta: Delta) -> Delta:
    kinds = [snapshot.kind for snapshot in delta.snapshots]
    return _head(delta, next(i for i, kind in enumerate(kinds) if kind in REWRITES))


def _head(delta: Delta, count: int) -> Delta:
    """Cut the delta behind its first `count` snapshots."""
    if count == len(delta.snapshots):
        return delta
    end = delta.snapshots[count - 1].id if count else delta.start_id or delta.end_id
    return replace(delta, end_id=end, snapshots=delta.snapshots[:count])


def turn(delta: Delta) -> Delta | None:
    """Give a rollback alone, so that it is recorded at once, however long what follows waits."""
    if delta.start_id is None or not delta.gone or not delta.snapshots:
        return None
    return _head(delta, 0)


def familiar(delta: Delta, dealt: Collection[int]) -> Delta | None:
    """Give the leading part whose rows were all dealt with before; None if there is none.

    History was rolled back and forth again, or a snapshot came back by a cherry-pick.
    """
    if delta.start_id is None:
        return None
    seen = [_seen(snapshot, dealt) for snapshot in delta.snapshots]
    count = seen.index(False) if False in seen else len(seen)
    return _head(delta, count) if True in seen[:count] else None


def unfamiliar(delta: Delta, dealt: Collection[int]) -> Delta:
    """Cut the delta before the first snapshot whose rows were dealt with before.

    Such a snapshot comes back behind new ones by a cherry-pick; its rows must not be read again.
    """
    seen = [_seen(snapshot, dealt) for snapshot in delta.snapshots]
    known = delta.start_id is not None and True in seen
    return _head(delta, seen.index(True)) if known else delta


def _seen(snapshot: Snapshot, dealt: Collection[int]) -> bool | None:
    """Say whether a snapshot was dealt with before; None if it changes no rows."""
    if snapshot.kind not in BRINGS | REWRITES:
        return None
    return snapshot.id in dealt or snapshot.source_id in dealt


def divisible(delta: Delta) -> bool:
    """Say whether the delta can be taken in smaller pieces."""
    return first(delta).end_id != delta.end_id


def first(delta: Delta, rows: int = 1) -> Delta:
    """Cut the delta behind the first snapshot with which it brings so many rows.

    Where it does not, it comes back whole. A writer that does not count counts as enough.
    """
    brought = 0
    for position, snapshot in enumerate(delta.snapshots, start=1):
        if snapshot.kind in BRINGS:
            brought += snapshot.added if "added-records" in snapshot.summary else rows
        following = delta.snapshots[position : position + 1]
        if brought >= rows and not any(_paired(snapshot, later) for later in following):
            return _head(delta, position)
    return delta


def _paired(snapshot: Snapshot, later: Snapshot) -> bool:
    """Say whether both may be one operation: some writers delete rows and append them again.

    The delete is told by its files, which hold fewer rows than those that they replace.
    """
    shrinks = snapshot.count("deleted-records") > snapshot.added
    return snapshot.kind is Kind.REWRITE and shrinks and later.kind is Kind.APPEND
