"""Accounts for every snapshot of a table: the log on one side, the ledger on the other. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from daemon.reading import Fated, Standing
from handlers.cut import BRINGS
from handlers.facts import Fate, Snapshot

View = dict[str, Any]
WAITING, UNACCOUNTED, ELSEWHERE = "waiting", "unaccounted", "elsewhere"


def accounting(
    standing: Standing,
    log: Sequence[Snapshot],
    elsewhere: Sequence[Snapshot],
    fates: Mapping[int, Fated],
) -> View:
    """Give each snapshot exactly one state with its reason, and say whether all add up.

    `log` is the branch's history, oldest first; `elsewhere` are snapshots outside of it, which are
    listed but need no account.
    """
    ids = [snapshot.id for snapshot in log]
    cursor = standing.cursor.snapshot_id if standing.cursor else None
    dealt_with = ids.index(cursor) + 1 if cursor in ids else 0
    shared = Counter(f.sequence for f in fates.values() if f.kind in BRINGS and f.added)
    lines = [
        _line(snapshot, fates.get(snapshot.id), shared, standing.doing, late=late)
        for late, snapshot in ((at >= dealt_with, s) for at, s in enumerate(log))
    ]
    others = [_elsewhere(snapshot, fates.get(snapshot.id)) for snapshot in elsewhere]
    states = Counter(line["state"] for line in lines)
    rows: Counter[str] = Counter()
    for line in lines:
        rows[line["state"]] += line["rows"]
    return {
        "pipeline": standing.name,
        "snapshots": lines,
        "elsewhere": others,
        "totals": {name: {"snapshots": states[name], "rows": rows[name]} for name in states},
        "adds_up": UNACCOUNTED not in states and sum(states.values()) == len(log),
    }


def _line(
    snapshot: Snapshot, fated: Fated | None, shared: Counter[int], doing: str, *, late: bool
) -> View:
    if fated is not None:
        state, reason = fated.state.value, fated.reason
        if fated.state is Fate.TRAINED and shared[fated.sequence] > 1:
            state = "coalesced"
            reason = f"together with {shared[fated.sequence] - 1} other(s): {reason}"
    elif late:
        state, reason = WAITING, doing or "not looked yet"
    else:
        state, reason = UNACCOUNTED, "it lies before the cursor, but no decision names it"
    return _view(snapshot, state, reason, fated.sequence if fated else None)


def _elsewhere(snapshot: Snapshot, fated: Fated | None) -> View:
    if fated is None:
        why = "never in the branch's history: staged, or on another branch"
        return _view(snapshot, ELSEWHERE, why, None)
    why = f"was {fated.state.value} in delta {fated.sequence}; {fated.undone or 'left the history'}"
    return _view(snapshot, ELSEWHERE, why, fated.sequence)


def _view(snapshot: Snapshot, state: str, reason: str, delta: int | None) -> View:
    return {
        "id": snapshot.id,
        "committed_at": snapshot.committed_at.isoformat(),
        "operation": snapshot.operation,
        "kind": snapshot.kind.value,
        "rows": snapshot.added,
        "state": state,
        "delta": delta,
        "reason": reason,
    }
