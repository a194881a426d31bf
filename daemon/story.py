"""What each page tells, put together from the ledger alone; see `daemon.views` for the facts."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict

from config.settings import Settings
from daemon import views
from daemon.chart import Point, chart
from daemon.drawing import Gain, gains
from daemon.ledger import Ledger
from daemon.service import Step
from daemon.views import View
from handlers.facts import GiveUp, Record, State

RECENT = 60
"""Deltas that a chart goes back."""
COMPARED = 12
"""Comparisons that are drawn below each other."""
PAGE = 25
"""Deltas on a page of a timeline."""


def mood(item: View, step: Step) -> tuple[str, str]:
    """Say in a word how a pipeline is, and of which colour that is: the worst that is true."""
    champion, work = item["champion"], item["open"]
    parked = item["parked"] if isinstance(item["parked"], int) else len(item["parked"])
    alarmed = champion and champion["live"] and champion["live"]["alarmed"]
    truths = [
        (item["halted"], "halted", "bad"),
        (alarmed, "degraded", "bad"),
        (work and work["trouble"], "trouble", "bad"),
        (item["paused"] is not None, "paused", "wait"),
        (step.name, "working", "work"),
        (parked, f"{parked} parked", "wait"),
        (item["cursor"] != item["head"], "waiting", "wait"),
        (item["head"], "level", "good"),
    ]
    return next(((word, colour) for true, word, colour in truths if true), ("starting", "idle"))


def overview(settings: Settings, ledger: Ledger, activity: Mapping[str, Step]) -> list[View]:
    """Tell where every pipeline stands, each with its mood and step."""
    return [_moody(views.brief(ledger, name), activity) for name in settings.pipelines]


def _moody(item: View, activity: Mapping[str, Step]) -> View:
    step = activity.get(item["name"], Step())
    word, colour = mood(item, step)
    return {**item, "step": asdict(step), "mood": word, "colour": colour}


def pipeline(
    settings: Settings, ledger: Ledger, name: str, activity: Mapping[str, Step],
    before: int | None = None,
) -> View:  # fmt: skip
    """Tell the story of one pipeline: now, its charts, and its timeline from `before` on."""
    records = ledger.history(name, RECENT)
    trend = views.trend(records)
    timeline = records[:PAGE] if before is None else ledger.history(name, PAGE, before)
    last = timeline[-1].sequence if len(timeline) == PAGE else 1
    return {
        **_moody(views.pipeline(settings, ledger, name), activity),
        "trend": trend,
        "live_chart": drawn(trend),
        "gain_chart": gains(_gains(records), "Gains of the challengers over the champion"),
        "timeline": views.history(timeline, ledger.forced(name)),
        "before": last if last > 1 else None,
        "newest": before is None,
        "deployments": [asdict(one) for one in ledger.deployments(name, 12)],
        "champions": [asdict(one) for one in ledger.champions(name, 12)],
    }


def delta(settings: Settings, ledger: Ledger, name: str, sequence: int) -> View:
    """Tell all about one closed delta.

    Raises:
        GiveUp: there is no such delta on record.
    """
    record = ledger.closed(name, sequence)
    if record is None or name not in settings.pipelines:
        raise GiveUp(f"There is no closed delta {sequence} of {name}.", "Open deltas have no page.")
    return _decided(record, ledger)


def version(settings: Settings, ledger: Ledger, name: str, wanted: str) -> View:
    """Tell all about one model version.

    Raises:
        GiveUp: no decision on record made it.
    """
    record = ledger.made(name, wanted)
    if record is None or name not in settings.pipelines:
        raise GiveUp(f"No decision of {name} on record made version {wanted}.")
    champion = ledger.champion(name)
    reigns = [one for one in ledger.champions(name, 1000) if one.version == wanted]
    return {
        **_decided(record, ledger),
        "serves": champion is not None and champion.model.version == wanted,
        "reigns": [asdict(one) for one in reigns],
        "deployments": [
            asdict(one) for one in ledger.deployments(name, 1000) if one.version == wanted
        ],
        "doubts": views.doubts(ledger, name, wanted),
        "refusal": ledger.refusal(name, wanted),
    }


def _decided(record: Record, ledger: Ledger) -> View:
    told = views.decision(record, ledger.forced(record.pipeline))
    learnt, verdict = record.learnt, record.verdict
    return {
        **told,
        "opened_at": record.opened_at.isoformat(),
        "committed": {one.id: one.committed_at.isoformat() for one in record.delta.snapshots},
        "operations": {one.id: one.operation for one in record.delta.snapshots},
        "note": record.delta.note,
        "scores": _scores(told),
        "learnt": asdict(learnt) if learnt else None,
        "sentence": verdict.sentence if verdict else record.reason,
        "retry": ledger.retried_in(record.pipeline, record.sequence),
        "gain_chart": gains(_gains([record]), "Gain over the champion"),
        "reproduce": f"retraind reproduce {record.pipeline}-{record.sequence}",
    }


def _scores(told: View) -> list[tuple[str, float | None, float | None]]:
    """Put both models' scores side by side."""
    mine, theirs = told["challenger"] or {}, told["champion"] or {}
    return [(name, mine.get(name), theirs.get(name)) for name in {**mine, **theirs}]


def drawn(trend: View) -> str:
    """Draw how what was served did, as SVG; empty if it was never measured."""
    points = [
        Point(
            str(item["delta"]), item["value"], item["low"], item["high"],
            promoted=f"v{item['promoted']}" if item["promoted"] else "", alarm=item["alarm"],
            told=_told(item),
        )
        for item in trend["points"]
    ]  # fmt: skip
    return chart(points, f"{trend['metric']} of the version served")


def _told(item: View) -> str:
    value = "not measured" if item["value"] is None else f"{item['value']:.4g}"
    interval = f" ({item['low']:.4g} to {item['high']:.4g})" if item["low"] is not None else ""
    promoted = f"; version {item['promoted']} was promoted" if item["promoted"] else ""
    return (
        f"delta {item['delta']}: version {item['served']}, {value}{interval}"
        f"{', alarm' if item['alarm'] else ''}{promoted}"
    )


def _gains(records: Iterable[Record]) -> Sequence[Gain]:
    """Give the last comparisons that have an interval, the newest first."""
    found = []
    for record in records:
        verdict = record.verdict
        if verdict is None or verdict.gain is None or verdict.interval is None:
            continue
        low, high = (views.finite(end) for end in verdict.interval)
        gain = views.finite(verdict.gain)
        if low is None or high is None or gain is None:
            continue
        label = f"delta {record.sequence} against v{verdict.against}"
        told = f"{label}: {gain:.4g}, from {low:.4g} to {high:.4g}"
        middle = min(max(gain, low), high)  # that of this delta may lie outside of all looks'
        found.append(Gain(label, middle, low, high, record.state is State.PROMOTED, told))
    return found[:COMPARED]
