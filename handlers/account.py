"""Accounts for every snapshot of a delta. Pure."""

from __future__ import annotations

from handlers.facts import Delta, Fate, Kind, Snapshot, SnapshotRecord

WHY_NOT_NEW = {
    Kind.EMPTY: "changes no rows",
    Kind.COMPACTION: "rewrites files, brings no new rows",
}


def account(delta: Delta, outcome: Fate, reason: str) -> tuple[SnapshotRecord, ...]:
    """Say for each snapshot what became of it; `outcome` is what became of the delta's rows."""
    return tuple(_account(delta, snapshot, outcome, reason) for snapshot in delta.snapshots)


def _account(delta: Delta, snapshot: Snapshot, outcome: Fate, reason: str) -> SnapshotRecord:
    fate, why = _fate(delta, snapshot, outcome, reason)
    return SnapshotRecord(
        snapshot.id, snapshot.kind, snapshot.added, snapshot.committed_at, fate, why
    )


def _fate(delta: Delta, snapshot: Snapshot, outcome: Fate, reason: str) -> tuple[Fate, str]:
    if snapshot.kind in WHY_NOT_NEW:
        return Fate.SKIPPED, WHY_NOT_NEW[snapshot.kind]
    whole_state = delta.start_id is None and snapshot.kind is Kind.REWRITE
    if snapshot.kind is Kind.APPEND or whole_state:
        return outcome, reason
    if outcome in {Fate.QUARANTINED, Fate.LOST}:
        return outcome, reason
    return Fate.REWRITTEN, _rewritten(delta, snapshot, outcome)


def _rewritten(delta: Delta, snapshot: Snapshot, outcome: Fate) -> str:
    """Say how the policy dealt with a snapshot that rewrote or deleted rows."""
    wrote = f"{snapshot.operation}: {snapshot.added} rows written, {snapshot.removed} taken away"
    if delta.way in {"apart", "appended"}:
        return f"{wrote}; not trained on (rewrites: skip)" if snapshot.added else wrote
    if outcome is not Fate.TRAINED:
        return wrote
    if delta.way == "whole":
        return f"{wrote}; trained on the table as it stood after it"
    return f"{wrote}; trained on the {delta.rows} rows of the delta that really are new"


def left_out(delta: Delta) -> int:
    """Count the rows that rewrites wrote and that the way of reading leaves out.

    An upper bound: rows that a rewrite only carried over are among them.
    """
    if delta.whole or delta.way == "changed":
        return 0
    return sum(s.added for s in delta.snapshots if s.kind is Kind.REWRITE)


def skipped(delta: Delta) -> str:
    """Say in a sentence why a delta without rows to read is skipped."""
    told = [delta.note] if delta.note else []
    if count := left_out(delta):
        told.append(f"up to {count} rows written by overwrite or merge were left out")
    if delta.removed:
        told.append(f"{delta.removed} rows were taken away")
    kinds = sorted({s.kind.value for s in delta.snapshots})
    told.append(f"no new rows ({', '.join(kinds) or 'no snapshots'})")
    return "skipped: " + "; ".join(told)
