"""Pages of what the ledger keeps, newest first, and one delta with all that explains it.

A page reads as many rows as it shows, however long the history is.
"""

from __future__ import annotations

import sqlite3
from dataclasses import asdict
from typing import Any

from daemon import schema, schema_delta
from daemon.ledger import Ledger
from daemon.reading import Work
from daemon.schema_delta import Brief, Delta, Measured, mean
from handlers.facts import Learnt, Live, Record, State, Verdict


def deltas(
    book: Ledger, pipeline: str, limit: int, before: int | None, state: State | None
) -> schema_delta.Deltas:
    """Give a page of deltas, open ones as well."""
    rows = book.all(
        "SELECT * FROM deltas WHERE pipeline = ?1 AND sequence < coalesce(?2, 1 << 62) "
        "AND state = coalesce(?3, state) ORDER BY sequence DESC LIMIT ?4",
        pipeline, before, state.value if state else None, limit + 1,
    )  # fmt: skip
    forced = book.forced(pipeline)
    shown = [Brief(**_brief(*_either(book, row), forced)) for row in rows[:limit]]
    following = shown[-1].delta if len(rows) > limit else None
    return schema_delta.Deltas(deltas=tuple(shown), next=following)


def delta(book: Ledger, pipeline: str, number: int) -> Delta | None:
    """Give everything about one delta; None if there is none of that number."""
    row = book.one("SELECT * FROM deltas WHERE pipeline = ? AND sequence = ?", pipeline, number)
    if row is None:
        return None
    work, record = _either(book, row)
    rows = work.delta
    model = record.model if record else None
    told = {
        **_brief(work, record, book.forced(pipeline)),
        "table": rows.table,
        "branch": rows.branch,
        "snapshot_from": rows.start_id,
        "snapshot_to": rows.end_id,
        "read": "whole" if rows.whole else rows.way,
        "note": rows.note,
        "snapshots": _snapshots(record),
        "attempts": None if record else _attempts(work),
        "run_id": model.run_id if model else None,
        "breaches": [asdict(breach) for breach in record.breaches] if record else [],
        "learnt": _learnt(record.learnt) if record and record.learnt else None,
        "comparison": _comparison(record) if record else None,
        "live": _live(record.live) if record and record.live else None,
        "drift": [asdict(moved) for moved in record.drift] if record else [],
        "reproduce": f"retraind reproduce {pipeline}-{number}" if model else None,
    }
    return Delta(**told)


def champions(
    book: Ledger, pipeline: str, limit: int, before: int | None, how: str | None
) -> schema.Champions:
    """Give a page of champions; `how` chooses by how they came to be."""
    rows = book.all(
        "SELECT c.*, (SELECT since FROM champions WHERE pipeline = c.pipeline AND id > c.id "
        "ORDER BY id LIMIT 1) AS until FROM champions AS c WHERE pipeline = ?1 "
        "AND id < coalesce(?2, 1 << 62) AND how = coalesce(?3, how) ORDER BY id DESC LIMIT ?4",
        pipeline, before, how, limit + 1,
    )  # fmt: skip
    shown = tuple(schema.Reign.model_validate(dict(row)) for row in rows[:limit])
    return schema.Champions(champions=shown, next=_next(rows, limit))


def deployments(book: Ledger, pipeline: str, limit: int, before: int | None) -> schema.Deployments:
    """Give a page of deployments, that which goes on as well."""
    rows = book.all(
        "SELECT * FROM deployments WHERE pipeline = ?1 AND id < coalesce(?2, 1 << 62) "
        "ORDER BY id DESC LIMIT ?3",
        pipeline, before, limit + 1,
    )  # fmt: skip
    shown = tuple(schema.Deployment.model_validate(dict(row)) for row in rows[:limit])
    return schema.Deployments(deployments=shown, next=_next(rows, limit))


def audit(book: Ledger, limit: int, before: int | None, pipeline: str | None) -> schema.Audit:
    """Give a page of the audit trail."""
    rows = book.all(
        "SELECT * FROM audit WHERE id < coalesce(?1, 1 << 62) "
        "AND pipeline = coalesce(?2, pipeline) ORDER BY id DESC LIMIT ?3",
        before, pipeline, limit + 1,
    )  # fmt: skip
    shown = tuple(schema.Deed.model_validate(dict(row)) for row in rows[:limit])
    return schema.Audit(audit=shown, next=_next(rows, limit))


def _next(rows: list[sqlite3.Row], limit: int) -> int | None:
    return int(rows[limit - 1]["id"]) if len(rows) > limit else None


def _either(book: Ledger, row: sqlite3.Row) -> tuple[Work, Record | None]:
    return book.work(row), book.record(row) if row["record"] else None


def _brief(work: Work, record: Record | None, forced: dict[tuple[str, str], str]) -> dict[str, Any]:
    verdict = record.verdict if record else None
    model = record.model if record else None
    metric = verdict.metric if verdict else ""
    low, high = (verdict.interval if verdict else None) or (None, None)
    rows = record.delta if record else work.delta  # closed, it is known what was read
    return {
        "pipeline": work.pipeline,
        "delta": work.sequence,
        "state": record.state if record else State.OPEN,
        "reason": record.reason if record else work.trouble,
        "opened_at": work.opened_at,
        "closed_at": record.closed_at if record else None,
        "rows": rows.rows,
        "removed_rows": rows.removed,
        "retry_of": work.retry_of,
        "version": model.version if model else None,
        "forced": forced.get((work.pipeline, model.version)) if model else None,
        "decision": verdict.decision if verdict else None,
        "against": verdict.against if verdict else None,
        "metric": metric or None,
        "score": verdict.challenger.get(metric) if verdict else None,
        "rival": verdict.champion.get(metric) if verdict and verdict.champion else None,
        "gain": verdict.gain if verdict else None,
        "gain_low": low,
        "gain_high": high,
        "alarmed": bool(record and record.live and record.live.alarmed),
        "drifted": sum(moved.size == "large" for moved in record.drift) if record else 0,
    }


def _snapshots(record: Record | None) -> list[dict[str, Any]]:
    return [
        {
            "id": s.snapshot_id, "kind": s.kind, "rows": s.added, "committed_at": s.committed_at,
            "state": s.state, "reason": s.reason,
        }
        for s in (record.snapshots if record else ())
    ]  # fmt: skip


def _attempts(work: Work) -> schema_delta.Attempts:
    return schema_delta.Attempts(
        made=work.attempts, next_at=work.next_try_at, trouble=work.trouble, wish=work.wish
    )


def _learnt(learnt: Learnt) -> dict[str, Any]:
    members = [{**asdict(member), "delta": member.sequence} for member in learnt.members]
    return {**asdict(learnt), "members": members}


def _comparison(record: Record) -> dict[str, Any] | None:
    verdict = record.verdict
    if verdict is None:
        return None
    version = record.model.version if record.model else None
    return {
        "decision": verdict.decision,
        "rule": verdict.sentence,
        "metric": verdict.metric,
        "held_out_rows": verdict.rows,
        "challenger": Measured(
            version=version, scores=dict(verdict.challenger), loss=mean(verdict.loss)
        ),
        "champion": _champion(verdict, record.live),
        "trivial": verdict.trivial,
        "gain": _gain(verdict),
    }


def _champion(verdict: Verdict, live: Live | None) -> Measured | None:
    if verdict.champion is None:
        return None
    same = live is not None and live.version == verdict.against
    loss = mean(live.loss) if live and same else None
    return Measured(version=verdict.against, scores=dict(verdict.champion), loss=loss)


def _gain(verdict: Verdict) -> dict[str, Any]:
    low, high = verdict.interval or (None, None)
    return {
        "here": verdict.gain,
        "low": low,
        "high": high,
        "rows": verdict.gathered,
        "evidence": verdict.evidence,
        "detectable": verdict.detectable,
        "looks": [mean(look) for look in verdict.looks],
        "signal": mean(verdict.signal),
    }


def _live(live: Live) -> dict[str, Any]:
    return {**asdict(live), "loss": mean(live.loss), "contender_gain": mean(live.gain)}
