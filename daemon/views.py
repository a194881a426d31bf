"""What pages and commands show: plain facts, read from the ledger alone, ready for JSON."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from config.settings import Settings
from daemon.ledger import Ledger
from daemon.owner import living
from daemon.reading import Champion
from daemon.reign import BY_HAND, LOSS, MOST, fails, measured
from handlers.facts import Decision, Look, Record, Scores, State, Verdict

View = dict[str, Any]
Forced = Mapping[tuple[str, str], str]
"""Pipeline and version -> who made it champion although it had not won, and why."""
Z = 1.96
"""Standard errors on either side of a mean that hold the true one in 95 cases of 100."""


def status(settings: Settings, ledger: Ledger) -> View:
    """Say who runs, and where each pipeline stands."""
    return {
        "daemon": daemon(ledger),
        "state_dir": str(settings.state_dir.resolve()),
        "pipelines": [pipeline(settings, ledger, name) for name in settings.pipelines],
    }


def daemon(ledger: Ledger) -> View:
    """Say who runs."""
    owner = living(ledger)
    return {
        "running": owner is not None,
        "pid": owner.pid if owner else None,
        "host": owner.host if owner else None,
        "url": owner.url if owner else None,
    }


def pipeline(settings: Settings, ledger: Ledger, name: str) -> View:
    """Say where one pipeline stands."""
    wanted = settings.pipelines[name]
    standing = ledger.standing(name)
    champion = ledger.champion(name)
    work = ledger.pending(name)
    last = ledger.history(name, 1)
    parked = ledger.parked(name)
    lived = _last_lived(ledger, champion, name) if champion else None
    return {
        "name": name,
        "table": wanted.table,
        "branch": wanted.branch,
        "cursor": standing.cursor.snapshot_id if standing.cursor else None,
        "head": standing.head_id,
        "doing": standing.doing or "not looked yet",
        "waits_since": standing.waits_since.isoformat() if standing.waits_since else None,
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
            "live": _live(lived) if lived else None,
        }
        if champion
        else None,
        "deployed": ledger.proven(name),
        "endpoint": wanted.endpoint.address(name),
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
        "last": decision(last[0], ledger.forced(name)) if last else None,
    }


def brief(ledger: Ledger, name: str) -> View:
    """Say of one pipeline what a list of many has room for."""
    standing, champion, work = ledger.standing(name), ledger.champion(name), ledger.pending(name)
    lived = _last_lived(ledger, champion, name) if champion else None
    last = next(iter(ledger.history(name, 1)), None)
    verdict = last.verdict if last else None
    return {
        "name": name,
        "cursor": standing.cursor.snapshot_id if standing.cursor else None,
        "head": standing.head_id,
        "doing": standing.doing or "not looked yet",
        "paused": standing.paused,
        "halted": standing.halted_id is not None,
        "champion": {
            "version": champion.model.version,
            "since": champion.since.isoformat(),
            "live": _live(lived) if lived else None,
        }
        if champion
        else None,
        "open": {"trouble": work.trouble} if work else None,
        "parked": ledger.count_parked(name),
        "last": {
            "delta": last.sequence,
            "state": last.state.value,
            "decision": verdict.decision.value if verdict else None,
            "forced": None,
            "closed_at": last.closed_at.isoformat(),
        }
        if last
        else None,
    }


def _last_lived(ledger: Ledger, champion: Champion, name: str) -> Record | None:
    """Find how the champion did last in this reign; as a rule the newest record tells."""
    for most in (3, MOST):
        for record in ledger.history(name, most):
            live = record.live
            if live and live.version == champion.model.version:
                ours = champion.how not in BY_HAND or record.closed_at > champion.since
                return record if ours else None
    return None


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


def decision(record: Record, forced: Forced | None = None) -> View:
    """Tell one decision."""
    verdict = record.verdict
    made = (record.pipeline, record.model.version) if record.model else None
    return {
        "pipeline": record.pipeline,
        "delta": record.sequence,
        "state": record.state.value,
        "reason": record.reason,
        "forced": forced.get(made) if forced and made else None,
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
        **_verdict(verdict),
        "live": _live(record),
        "retry_of": record.retry_of,
        "drift": [asdict(moved) for moved in record.drift],
    }  # fmt: skip


def _verdict(verdict: Verdict | None) -> View:
    """Tell a comparison; the interval and the evidence are of all looks since it reigns."""
    low, high = (verdict.interval if verdict else None) or (None, None)
    return {
        "decision": verdict.decision.value if verdict else None,
        "against": verdict.against if verdict else None,
        "metric": verdict.metric if verdict else None,
        "challenger": _scores(verdict.challenger) if verdict else None,
        "champion": _scores(verdict.champion) if verdict and verdict.champion else None,
        "gain": finite(verdict.gain) if verdict else None,
        "gain_low": finite(low),
        "gain_high": finite(high),
        "evidence": finite(verdict.evidence) if verdict else None,
        "evidence_rows": verdict.gathered if verdict else None,
        "detectable": finite(verdict.detectable) if verdict else None,
        "held_out_rows": verdict.rows if verdict else None,
    }


def _live(record: Record) -> View | None:
    """Tell how what served did on a delta before anything learnt from it."""
    live = record.live
    if live is None:
        return None
    return {
        "delta": record.sequence,
        "version": live.version,
        "rows": live.rows,
        "scores": _scores(live.scores),
        "measure": LOSS[measured(record)],
        "loss": _look(live.loss),
        "promised": finite(live.promised),
        "alarm": finite(live.alarm),
        "alarmed": live.alarmed,
        "told": fails(record),
        "contender": live.contender,
        "contender_gain": _look(live.gain) if live.gain else None,
    }


def _look(look: Look) -> View:
    return {"rows": look.rows, "mean": finite(look.gain), "error": finite(look.error)}


def outcome(item: View) -> str:
    """Say for people what became of a delta: the state, and what it leaves open."""
    waits = ", waits" if item["decision"] == Decision.WAIT.value else ""
    return f"{item['state']}{', then forced' if item['forced'] else waits}"


def trend(records: Sequence[Record]) -> View:
    """Tell how what was served did over the decided deltas, newest last, and what moved in them.

    The champion of each is measured by the task's proper score on rows that it never saw, before it
    may be replaced: on all of them, or, by records that knew no more, on the held-out ones.
    `records` come newest first.
    """
    judged = [record for record in reversed(records) if record.verdict]
    newest = judged[-1] if judged else None
    metric = measured(newest) if newest else None
    return {
        "metric": metric,
        "points": [_served(record) for record in judged],
        "delta": newest.sequence if newest else None,
        "against": newest.verdict.against if newest and newest.verdict else None,
        "drift": [asdict(moved) for moved in newest.drift] if newest else [],
    }


def _served(record: Record) -> View:
    verdict, live = record.verdict, record.live
    promoted = record.model if record.state is State.PROMOTED else None
    value = live.loss.gain if live else _held_out_loss(record)
    spread = Z * live.loss.error if live and live.loss.error is not None else None
    return {
        "delta": record.sequence,
        "served": verdict.against if verdict else None,
        "value": finite(value),
        "low": finite(value - spread) if value is not None and spread is not None else None,
        "high": finite(value + spread) if value is not None and spread is not None else None,
        "alarm": live.alarmed if live else False,
        "promoted": promoted.version if promoted else None,
    }


def _held_out_loss(record: Record) -> float | None:
    scores = (record.verdict.champion if record.verdict else None) or {}
    if measured(record) == "squared_error":
        return scores["rmse"] ** 2 if "rmse" in scores else None
    return scores.get("log_loss")


def _scores(scores: Scores) -> dict[str, float | None]:
    return {name: finite(score) for name, score in scores.items()}


def finite(number: float | None) -> float | None:
    """Leave out what JSON cannot tell: infinity, and what is no number."""
    return number if number is not None and math.isfinite(number) else None


def history(records: Iterable[Record], forced: Forced | None = None) -> list[View]:
    """Tell decisions, in the order given, and which of their models were `forced` later."""
    return [decision(record, forced) for record in records]
