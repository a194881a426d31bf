"""What pages and commands show: plain facts, read from the ledger alone, ready for JSON."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from typing import Any

from config.settings import Settings
from daemon.ledger import Ledger
from daemon.owner import living
from handlers.facts import Record, Scores, State

View = dict[str, Any]


def status(settings: Settings, ledger: Ledger) -> View:
    """Say who runs, and where each pipeline stands."""
    owner = living(ledger)
    return {
        "daemon": {
            "running": owner is not None,
            "pid": owner.pid if owner else None,
            "host": owner.host if owner else None,
            "url": owner.url if owner else None,
        },
        "state_dir": str(settings.state_dir.resolve()),
        "pipelines": [pipeline(settings, ledger, name) for name in settings.pipelines],
    }


def pipeline(settings: Settings, ledger: Ledger, name: str) -> View:
    """Say where one pipeline stands."""
    wanted = settings.pipelines[name]
    standing = ledger.standing(name)
    champion = ledger.champion(name)
    work = ledger.pending(name)
    last = ledger.history(name, 1)
    parked = ledger.parked(name)
    return {
        "name": name,
        "table": wanted.table,
        "branch": wanted.branch,
        "cursor": standing.cursor.snapshot_id if standing.cursor else None,
        "head": standing.head_id,
        "doing": standing.doing or "not looked yet",
        "next_at": standing.next_at.isoformat() if standing.next_at else None,
        "paused": standing.paused,
        "halted": standing.halted_id is not None,
        "pins": standing.pins,
        "champion": {
            "version": champion.model.version,
            "run_id": champion.model.run_id,
            "since": champion.since.isoformat(),
            "how": champion.how,
            "reason": champion.reason,
            "doubts": doubts(ledger, name, champion.model.version),
        }
        if champion
        else None,
        "deployed": ledger.proven(name),
        "endpoint": f"http://{wanted.endpoint.host}:{wanted.endpoint.port}/invocations",
        "open": {
            "delta": work.sequence,
            "rows": work.delta.rows,
            "attempts": work.attempts,
            "trouble": work.trouble,
            "next_try_at": work.next_try_at.isoformat() if work.next_try_at else None,
        }
        if work
        else None,
        "parked": [
            {
                "delta": record.sequence,
                "rows": record.delta.rows,
                "reason": record.reason,
                "breaches": [asdict(breach) for breach in record.breaches],
            }
            for record in parked
        ],
        "last": decision(last[0]) if last else None,
    }


def doubts(ledger: Ledger, name: str, version: str) -> list[str]:
    """Say what happened since to the rows that a model learnt from."""
    record = ledger.made(name, version)
    if record is None:
        return []
    found, told = ledger.doubts(record), []
    if found.undone_snapshots:
        told.append(
            f"up to {found.undone_rows:,} rows it learnt from, in {found.undone_snapshots} "
            f"snapshot(s), were rolled back"
        )
    if found.removed_rows:
        told.append(
            f"{found.removed_rows:,} rows were deleted since; it may have learnt from some of them"
        )
    return told


def decision(record: Record) -> View:
    """Tell one decision."""
    verdict = record.verdict
    return {
        "pipeline": record.pipeline,
        "delta": record.sequence,
        "state": record.state.value,
        "reason": record.reason,
        "closed_at": record.closed_at.isoformat(),
        "seconds": round((record.closed_at - record.opened_at).total_seconds(), 2),
        "snapshot_from": record.delta.start_id,
        "snapshot_to": record.delta.end_id,
        "snapshots": [
            {"id": s.snapshot_id, "kind": s.kind.value, "rows": s.added, "state": s.state.value,
             "reason": s.reason}
            for s in record.snapshots
        ],
        "rows": record.delta.rows,
        "read": "whole" if record.delta.whole else record.delta.way,
        "removed_rows": record.delta.removed,
        "breaches": [asdict(breach) for breach in record.breaches],
        "version": record.model.version if record.model else None,
        "run_id": record.model.run_id if record.model else None,
        "against": verdict.against if verdict else None,
        "metric": verdict.metric if verdict else None,
        "challenger": _scores(verdict.challenger) if verdict else None,
        "champion": _scores(verdict.champion) if verdict and verdict.champion else None,
        "gain": finite(verdict.gain) if verdict else None,
        "held_out_rows": verdict.rows if verdict else None,
        "retry_of": record.retry_of,
        "drift": [asdict(moved) for moved in record.drift],
    }  # fmt: skip


def trend(records: Sequence[Record]) -> View:
    """Tell how what was served did over the decided deltas, newest last, and what moved in them.

    The champion of each is measured on rows that it never saw, before it may be replaced. `records`
    come newest first.
    """
    judged = [record for record in reversed(records) if record.verdict]
    newest = judged[-1] if judged else None
    metric = newest.verdict.metric if newest and newest.verdict else None
    return {
        "metric": metric,
        "points": [_served(record, metric) for record in judged],
        "delta": newest.sequence if newest else None,
        "against": newest.verdict.against if newest and newest.verdict else None,
        "drift": [asdict(moved) for moved in newest.drift] if newest else [],
    }


def _served(record: Record, metric: str | None) -> View:
    verdict = record.verdict
    scores = verdict.champion if verdict and verdict.metric == metric else None
    promoted = record.model if record.state is State.PROMOTED else None
    return {
        "delta": record.sequence,
        "served": verdict.against if verdict else None,
        "value": finite(scores[metric]) if scores and metric else None,
        "low": None,
        "high": None,
        "alarm": False,
        "promoted": promoted.version if promoted else None,
    }


def _scores(scores: Scores) -> dict[str, float | None]:
    return {name: finite(score) for name, score in scores.items()}


def finite(number: float | None) -> float | None:
    """Leave out what JSON cannot tell: infinity, and what is no number."""
    return number if number is not None and math.isfinite(number) else None


def history(records: Iterable[Record]) -> list[View]:
    """Tell decisions, in the order given."""
    return [decision(record) for record in records]
