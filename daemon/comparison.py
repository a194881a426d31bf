"""Tells a simulation: each decision beside the live one, and what it would have meant."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from config.policy import changes
from config.settings import METRICS, Pipeline
from daemon.served import Served
from daemon.simulate import Replayed, Step
from daemon.views import View, finite
from handlers.facts import Record, State
from handlers.measures import word


def comparison(name: str, live: Pipeline, policy: Pipeline, replayed: Replayed) -> View:
    """Tell what was done, what would have been done, and the difference."""
    steps = replayed.steps
    totals = _totals(steps, live.task)
    return {
        "pipeline": name,
        "since": steps[0].was.record.delta.start_id,
        "policy": {path: {"live": ours, "simulated": theirs}
                   for path, (ours, theirs) in changes(live, policy).items()},
        "deltas": [_row(step) for step in steps],
        "turns": list(replayed.turns),
        "holes": [step.was.record.sequence for step in steps if step.hole],
        "totals": totals,
        "same": all(step.same for step in steps),
        "told": " ".join(_told(steps, totals)),
    }  # fmt: skip


def _row(step: Step) -> View:
    record = step.was.record
    return {
        "delta": record.sequence,
        "snapshot_from": record.delta.start_id,
        "snapshot_to": record.delta.end_id,
        "rows": record.delta.rows,
        "live": _side([record], step.was.after, step.live),
        "simulated": _side(step.made, step.after, step.simulated),
        "same": step.same,
        "hole": step.hole,
    }


def _side(made: Sequence[Record], after: str | None, served: Served | None) -> View:
    first = made[0] if made else None
    verdict = first.verdict if first else None
    return {
        "state": first.state.value if first else None,
        "version": first.model.version if first and first.model else None,
        "gain": finite(verdict.gain) if verdict else None,
        "reason": first.reason if first else "nothing was parked here that could be taken up",
        "pieces": [_side([piece], None, None) for piece in made[1:]],
        "serving": after,
        "scored": {
            "version": served.version,
            "rows": served.rows,
            "scores": {name: finite(score) for name, score in served.scores.items()},
        }
        if served
        else None,
    }  # fmt: skip


def _totals(steps: Sequence[Step], task: str) -> View:
    """Sum up each side; scores count where both sides served, weighted by rows."""
    both = [(step.live, step.simulated) for step in steps if step.live and step.simulated]
    metrics = METRICS[task][:2] if task != "regression" else METRICS[task][:1]
    sides: list[tuple[str, list[Record], list[Served]]] = [
        ("live", [step.was.record for step in steps], [live for live, _ in both]),
        ("simulated", [r for step in steps for r in step.made], [mine for _, mine in both]),
    ]
    return {
        "metric": metrics[0],
        "deltas": len(both),
        "rows": sum(live.rows for live, _ in both),
        **{
            side: {
                "trained": sum(record.model is not None for record in records),
                "promoted": sum(record.state is State.PROMOTED for record in records),
                **{metric: _mean(metric, served) for metric in metrics},
            }
            for side, records, served in sides
        },
    }


def _mean(metric: str, served: Sequence[Served]) -> float | None:
    """Give the mean by rows; of a root, the root of the mean square."""
    known = [(one.rows, one.scores[metric]) for one in served if metric in one.scores]
    rows = sum(count for count, _ in known)
    power = 2 if metric == "rmse" else 1
    return finite(
        (sum(count * score**power for count, score in known) / rows) ** (1 / power)
    ) if rows else None  # fmt: skip


def _told(steps: Sequence[Step], totals: View) -> Iterator[str]:
    """Say in sentences what the simulation found, and what it could not see."""
    ours, theirs = totals["live"], totals["simulated"]
    same = all(step.same for step in steps)
    if same:
        yield "The same decisions."
    else:
        yield (
            f"The simulated policy would have promoted {theirs['promoted']} of "
            f"{theirs['trained']} models, the live one promoted {ours['promoted']} of "
            f"{ours['trained']}."
        )
    metric = totals["metric"]
    yield from _scored(totals, ours[metric], theirs[metric], same=same)
    if lacking := {name for step in steps for name in step.lacks}:
        deltas = [str(step.was.record.sequence) for step in steps if step.lacks]
        yield (
            f"The table no longer has {', '.join(sorted(lacking))}; delta(s) {', '.join(deltas)} "
            f"were learnt from without."
        )
    if holes := [str(step.was.record.sequence) for step in steps if step.hole]:
        yield (
            f"This has holes: the snapshots of delta(s) {', '.join(holes)} were expired. Up to the "
            f"first difference the live decision was taken over, after it the delta was left out."
        )


def _scored(totals: View, ours: float | None, theirs: float | None, *, same: bool) -> Iterator[str]:
    if same and (ours is None or theirs is None or math.isclose(ours, theirs)):
        return
    if ours is None or theirs is None:
        yield "There is no delta for which both had a model to serve, so no losses to compare."
        return
    change = f" ({theirs / ours - 1:+.1%})" if ours else ""
    yield (
        f"It would have served at {word(totals['metric'])} {theirs:.4f} against {ours:.4f}"
        f"{change}, on {totals['rows']:,} rows of {totals['deltas']} delta(s), scored before any "
        f"model learnt from them."
    )
