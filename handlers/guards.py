"""What a challenger that won its comparison must still hold to. Pure, but for a stop-watch."""

from __future__ import annotations

import time
from collections.abc import Iterator

import numpy as np
from scipy.stats import norm

from config.settings import Pipeline, Promote
from handlers.facts import Scores
from handlers.gain import clustered, compare
from handlers.measures import LOWER_IS_BETTER, losses, score, word
from handlers.rows import Part
from handlers.scorer import Scorer
from handlers.slices import slices

LEAST = 30
"""Rows that a slice must have to be judged."""
LEVEL = 0.05
"""Doubt that is allowed over all slices together, one-sided."""
TIMED = 50


def refusals(
    pipeline: Pipeline, challenger: Scorer, champion: Scorer | None, held_out: Part,
    scores: Scores, history: Part | None,
) -> Iterator[str]:  # fmt: skip
    """Say which guards the challenger fails; `history` are held-out rows of the whole table."""
    rules = pipeline.promote
    yield from _below(rules, scores)
    yield from _too_large(rules, challenger)
    yield from _too_slow(rules, challenger, held_out)
    if champion is not None:
        yield from _lacks(challenger, champion)
        yield from _worse_slices(rules, challenger, champion, held_out)
        if history is not None and len(history.rows):
            yield from _forgets(pipeline, challenger, champion, history)


def _below(rules: Promote, scores: Scores) -> Iterator[str]:
    for name, asked in rules.require.items():
        found, lower = scores.get(name), name in LOWER_IS_BETTER
        if found is None:
            yield f"its {word(name)}, of which {asked:g} is asked, cannot be computed"
        elif found > asked if lower else found < asked:
            side = "most" if lower else "least"
            yield f"its {word(name)} is {found:.4f} where at {side} {asked:g} is asked"


def _lacks(challenger: Scorer, champion: Scorer) -> Iterator[str]:
    if lost := [name for name in champion.classes if name not in challenger.classes]:
        yield (
            f"it cannot tell the class(es) {', '.join(map(repr, lost))}, as the champion can; "
            f"learn from earlier rows as well (`train.strategy`: full, window, ensemble)"
        )


def _too_large(rules: Promote, challenger: Scorer) -> Iterator[str]:
    if rules.max_megabytes is None:
        return
    size = len(challenger.booster.save_raw("ubj")) / 1e6
    if size > rules.max_megabytes:
        yield f"it has {size:.1f} MB where {rules.max_megabytes:g} are allowed"


def _too_slow(rules: Promote, challenger: Scorer, held_out: Part) -> Iterator[str]:
    if rules.max_latency is None:
        return
    row, took = held_out.rows.head(1), []
    for _ in range(TIMED):
        began = time.perf_counter()
        challenger.score(row)
        took.append(time.perf_counter() - began)
    if (middle := float(np.median(took))) > rules.max_latency:
        allowed = rules.max_latency * 1000
        yield f"a row takes {middle * 1000:.1f} ms where {allowed:g} ms are allowed"


def _worse_slices(
    rules: Promote, challenger: Scorer, champion: Scorer, held_out: Part
) -> Iterator[str]:
    """Give the slices on which it is worse for certain, though one looks at several."""
    if not rules.slices:
        return
    mine, theirs = losses(challenger, held_out), losses(champion, held_out)
    cut = [
        (name, rows)
        for name, rows in slices(challenger, held_out.rows, rules.slices)
        if rows.sum() >= LEAST
    ]
    for name, rows in cut:
        gain = (theirs - mine)[rows]
        error = clustered(gain, None if held_out.buckets is None else held_out.buckets[rows])
        if error is not None and gain.mean() < -norm.isf(LEVEL / len(cut)) * error:
            told = f"{mine[rows].mean():.4f} against {theirs[rows].mean():.4f}"
            yield f"it is worse where {name}: loss {told} on {len(gain)} rows"


def _forgets(
    pipeline: Pipeline, challenger: Scorer, champion: Scorer, history: Part
) -> Iterator[str]:
    allowed = pipeline.promote.max_forgetting
    ours, theirs = score(challenger, history), score(champion, history)
    look = compare(pipeline.metric, ours, theirs, history)
    if allowed is not None and look and look.gain < -allowed:
        yield (
            f"it forgets: on {look.rows} held-out rows of the whole table it is worse by "
            f"{-look.gain:.4f} where {allowed:g} is allowed"
        )
