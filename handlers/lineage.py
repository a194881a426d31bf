"""Finds what is new by ancestry: from the cursor to the head, along parent links. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from itertools import takewhile

from handlers.facts import Cursor, Delta, Kind, Snapshot

REPLACED = "history rewritten: another table has taken this one's name"
ROLLED_BACK = "history rewritten: rolled back from {} to {}"
PARTED = (
    "history rewritten: snapshot {} has no ancestor in common with the head, as far as the log goes"
)
EXPIRED = "history lost: snapshot {} was expired before what followed it was read"

Ancestors = Callable[[int], Iterable[Snapshot]]
"""Gives a snapshot and its ancestors, youngest first, as far back as the table keeps them."""


def since(
    head: Cursor, cursor: Cursor | None, ancestors: Ancestors, table: str, branch: str
) -> Delta | None:
    """Give what came after the cursor, None if nothing did.

    A cursor that is no ancestor of the head means that history was rewritten: the delta then
    starts at the youngest common ancestor or, where there is none, is the whole table; its `note`
    tells, and `gone` names the snapshots that left the history.
    """
    if head == cursor:
        return None
    start: int | None = None
    gone: tuple[int, ...] = ()
    note = REPLACED if cursor else ""
    if cursor is None or cursor.table_uuid != head.table_uuid:
        log = list(ancestors(head.snapshot_id))
    else:
        log, met = _down_to(cursor.snapshot_id, ancestors(head.snapshot_id))
        if met:
            start, note = cursor.snapshot_id, ""
        else:
            log, start, note, gone = _rewritten(log, list(ancestors(cursor.snapshot_id)), cursor)
    delta = Delta(
        table=table, branch=branch, table_uuid=head.table_uuid, start_id=start,
        end_id=head.snapshot_id, snapshots=tuple(reversed(log)), note=note, gone=gone,
    )  # fmt: skip
    return _readable(delta, ancestors)


def _down_to(cursor: int, log: Iterable[Snapshot]) -> tuple[list[Snapshot], bool]:
    """Walk down to the cursor (which may be expired itself); say whether it was met."""
    passed: list[Snapshot] = []
    for snapshot in log:
        if snapshot.id == cursor:
            return passed, True
        passed.append(snapshot)
        if snapshot.parent_id == cursor:
            return passed, True
    return passed, False


def _rewritten(
    log: list[Snapshot], former: list[Snapshot], cursor: Cursor
) -> tuple[list[Snapshot], int | None, str, tuple[int, ...]]:
    """Find where the head's history and the cursor's part: log, start, note and what is gone.

    They may part at a snapshot that was expired, as long as both sides still name it. Where the
    head's own history ends at an expired snapshot, the cursor may lie behind that: then nothing is
    known to be gone.
    """
    if not former:
        return log, None, EXPIRED.format(cursor.snapshot_id), ()
    ids = {snapshot.id for snapshot in log}
    gone = tuple(takewhile(lambda id_: id_ not in ids, (s.id for s in former)))
    lost = log[-1].parent_id if log else None
    start = former[len(gone)].id if len(gone) < len(former) else former[-1].parent_id
    if start is None or start not in ids | {lost}:
        if lost is not None:
            return log, None, EXPIRED.format(lost), ()
        return log, None, PARTED.format(cursor.snapshot_id), gone
    note = ROLLED_BACK.format(cursor.snapshot_id, start)
    return list(takewhile(lambda s: s.id != start, log)), start, note, gone


def _readable(delta: Delta, ancestors: Ancestors) -> Delta:
    """Take the whole table where rows were rewritten and the state before that was expired.

    Appends are read without their start's own metadata; a comparison of two states is not.
    """
    start = delta.start_id
    if start is None or not mutated(delta.snapshots) or _kept(start, ancestors):
        return delta
    log = tuple(reversed(list(ancestors(delta.end_id))))
    return replace(delta, start_id=None, snapshots=log, note=EXPIRED.format(start))


def mutated(snapshots: Iterable[Snapshot]) -> bool:
    """Say whether a snapshot among these rewrote or deleted rows."""
    return any(snapshot.kind in {Kind.REWRITE, Kind.DELETE} for snapshot in snapshots)


def complete(delta: Delta, ancestors: Ancestors) -> bool:
    """Say whether the table still keeps all snapshots that a read of the delta needs."""
    start = delta.start_id
    if delta.whole or start is None:
        return _kept(delta.end_id, ancestors)
    if delta.way == "appended":
        return _down_to(start, ancestors(delta.end_id))[1]
    appends = (s.id for s in delta.snapshots if delta.way == "apart" and s.kind is Kind.APPEND)
    return all(_kept(needed, ancestors) for needed in (start, delta.end_id, *appends))


def _kept(snapshot_id: int, ancestors: Ancestors) -> bool:
    return any(True for _ in ancestors(snapshot_id))
