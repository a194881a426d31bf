"""Accounts for every snapshot of a delta. Pure."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace

from handlers.facts import Delta, Fate, Kind, Snapshot, SnapshotRecord

WHY_NOT_NEW = {
    Kind.EMPTY: "changes no rows",
    Kind.COMPACTION: "rewrites files, brings no new rows",
    Kind.DELETE: "removes rows, brings no new ones",
}


def account(delta: Delta, outcome: Fate, reason: str) -> tuple[SnapshotRecord, ...]:
    """Say for each snapshot what became of it; `outcome` is what became of the appended rows."""
    return tuple(_account(delta, snapshot, outcome, reason) for snapshot in delta.snapshots)


def _account(delta: Delta, snapshot: Snapshot, outcome: Fate, reason: str) -> SnapshotRecord:
    fate, why = _fate(delta, snapshot, outcome, reason)
    return SnapshotRecord(
        snapshot.id, snapshot.kind, snapshot.added, snapshot.committed_at, fate, why
    )


def _fate(delta: Delta, snapshot: Snapshot, outcome: Fate, reason: str) -> tuple[Fate, str]:
    if delta.start_id is None or snapshot.kind is Kind.APPEND:
        return outcome, reason
    if snapshot.kind is Kind.REWRITE:
        return "unread", (
            f"up to {snapshot.added} rows came by {snapshot.operation}, which an incremental read "
            f"leaves out; they were not trained on"
        )
    return "skipped", WHY_NOT_NEW[snapshot.kind]


def unread(delta: Delta) -> int:
    """Count the rows that were added in a way that the delta's read leaves out.

    An upper bound: rows that a rewrite only carried over are among them.
    """
    if delta.start_id is None:
        return 0
    return sum(s.added for s in delta.snapshots if s.kind is Kind.REWRITE)


def skipped(delta: Delta) -> str:
    """Say in a sentence why a delta without rows to read is skipped."""
    told = [delta.note] if delta.note else []
    if count := unread(delta):
        told.append(f"up to {count} rows added by overwrite or merge were not read")
    kinds = sorted({s.kind.value for s in delta.snapshots})
    told.append(f"nothing appended ({', '.join(kinds) or 'no snapshots'})")
    return "skipped: " + "; ".join(told)


def familiar(delta: Delta, trained: Collection[int]) -> Delta:
    """Cut the delta before its first rows that were not trained on yet.

    Where those are the first rows of all, it comes back whole. Otherwise what comes back holds
    nothing new: the history was rolled back and forth again.
    """
    if delta.start_id is None:
        return delta
    appended = [s.kind is Kind.APPEND for s in delta.snapshots]
    new = [seen and s.id not in trained for seen, s in zip(appended, delta.snapshots, strict=True)]
    end = new.index(True) if any(new) else len(new)
    if not any(appended[:end]):
        return delta
    return replace(delta, end_id=delta.snapshots[end - 1].id, snapshots=delta.snapshots[:end])


def divisible(delta: Delta) -> bool:
    """Say whether the delta can be taken in smaller pieces."""
    return first(delta).end_id != delta.end_id


def first(delta: Delta) -> Delta:
    """Cut the delta behind its first snapshot that brings rows."""
    for position, snapshot in enumerate(delta.snapshots, start=1):
        if snapshot.kind is Kind.APPEND or (delta.start_id is None and snapshot.added):
            return replace(delta, end_id=snapshot.id, snapshots=delta.snapshots[:position])
    return delta
