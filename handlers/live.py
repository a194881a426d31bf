"""How what serves does on rows before anything learns from them: predict, then learn. Pure.

The prequential record (Gama, Sebastião and Rodrigues, On evaluating stream learning algorithms,
Machine Learning 2013) is the one honest measure of a model in use. Its alarm tells harm, not
change: the mean loss since the champion reigns against what it promised on held-out rows, with a
tolerance, and however often one looks (Podkopaev and Ramdas, ICLR 2022).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import pandas as pd

from config.settings import Pipeline
from handlers import sequential
from handlers.facts import Live, Look
from handlers.gain import compare, mean_loss
from handlers.judge import Champion
from handlers.measures import measure_said, score
from handlers.rows import Part, Split
from handlers.scorer import BadInput

TOLERANCE = 0.05
"""Share by which the loss may exceed the promise before it counts as harm."""
DOUBT = 2.0
"""Standard errors by which the promise itself may be off."""
LEVEL = 0.05


def look_before(
    pipeline: Pipeline, champion: Champion, contender: Champion | None, rows: Split,
    promise: Look | None, before: Iterable[Live], *, unseen: bool,
) -> Live | None:  # fmt: skip
    """Score what served, and the last challenger, on a delta; None where the champion cannot.

    `promise` is the champion's mean loss on the rows that it was judged on, `before` what was
    recorded since it reigns. Where it may have learnt from rows of the delta (not `unseen`), only
    the held-out ones count.
    """
    part = _both(rows) if unseen else rows.held_out
    if part.rows.empty:
        return None
    try:
        said = score(champion.scorer, part)
    except BadInput:
        return None
    loss = mean_loss(said, part)
    losses = [*(live.loss for live in before), loss]
    sure = alarm(promise, losses)
    gain = _gain(pipeline.metric, champion, contender, rows.train) if unseen else None
    return Live(
        version=champion.version,
        rows=len(part.labels),
        scores=measure_said(said, part.labels),
        loss=loss,
        alarm=sure,
        alarmed=sure >= 1 / LEVEL,
        contender=contender.version if contender and gain else None,
        gain=gain,
        promised=promise.gain if promise else None,
        failing=_failing(promise, losses) if promise and sure >= 1 / LEVEL else None,
    )


def alarm(promise: Look | None, losses: Sequence[Look]) -> float:
    """Give the evidence that the mean loss is above what was promised.

    A promise that nobody can tell the error of, as of a single row, is none.
    """
    if promise is None or promise.error is None or promise.rows < sequential.LEAST_ROWS:
        return 1.0
    return sequential.evidence(losses, _worst(promise))


def _worst(promise: Look) -> float:
    return promise.gain * (1 + TOLERANCE) + DOUBT * (promise.error or 0.0)


def _failing(promise: Look, losses: Sequence[Look]) -> Look:
    """Give the mean loss since it rose: over the last looks that exceed the promise the most."""
    worst = _worst(promise)
    since = [losses[first:] for first in range(len(losses))]
    most = max(since, key=lambda last: sum(look.rows * (look.gain - worst) for look in last))
    return Look(sum(look.rows for look in most), sequential.mean(most), None)


def _gain(metric: str, champion: Champion, contender: Champion | None, rows: Part) -> Look | None:
    """Give what the last challenger gains over the champion on rows that are not learnt from yet.

    Rows that are held out are left to the new challenger, so that no row is looked at twice.
    """
    if contender is None or rows.rows.empty:
        return None
    try:
        ours, theirs = score(contender.scorer, rows), score(champion.scorer, rows)
    except BadInput:
        return None
    return compare(metric, ours, theirs, rows)


def _both(rows: Split) -> Part:
    parts = (rows.train, rows.held_out)
    buckets = [part.buckets for part in parts if part.buckets is not None]
    return Part(
        pd.concat([part.rows for part in parts], ignore_index=True),
        pd.concat([part.labels for part in parts], ignore_index=True),
        np.concatenate(buckets) if len(buckets) == len(parts) else None,
    )
