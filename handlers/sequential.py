"""Evidence that grows from look to look and may be read after every one of them. Pure.

A look is a mean gain on rows that the models compared had not learnt from, with its standard
error. The question is always the same: is the gain above some least value on average? It is
answered by an e-process, the one-sided normal mixture of Howard, Ramdas, McAuliffe and Sekhon
(Time-uniform, nonparametric, nonasymptotic confidence sequences, Annals of Statistics 2021), used
as Choe and Ramdas (Comparing Sequential Forecasters, Operations Research 2023) use theirs: where
there is no such gain, it ever reaches 1/level with a probability of at most the level, however
often one looks. As the standard errors are estimated, that holds for large looks and nearly so for
small ones (asymptotic confidence sequences, Waudby-Smith et al., Annals of Statistics 2024).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy.special import log_ndtr, logsumexp

from handlers.facts import Look

Array = np.ndarray[Any, np.dtype[np.float64]]

LEAST_ROWS = 5
"""A look on fewer rows has no standard error worth the name."""
SCALE = 0.5
"""Where the mixture is tightest, in variances of its first look: at about four looks."""
HIGHEST = 700.0
"""Natural logarithm of the largest evidence that is told."""


def evidence(looks: Sequence[Look], least: float = 0.0) -> float:
    """Give the evidence that the mean gain is above `least`: 1 says nothing, 20 is 5 % doubt.

    What began late counts, too: every look may be the first one of the change. The processes that
    begin with look k are mixed with the weights 1/(k (k+1)), which sum to 1.
    """
    usable = _usable(looks)
    if not usable:
        return 1.0
    own = np.array([_variance(look, least) for look in usable])
    gained = _from_here_on([look.rows * (look.gain - least) for look in usable])
    # Where nothing differed in the first look, the later ones begin their own.
    scale = np.maximum(SCALE * own, np.finfo(float).tiny)
    spread = _from_here_on(own) + scale
    logs = np.where(
        own > 0,
        np.log(2) + np.log(scale / spread) / 2 + gained**2 / (2 * spread)
        + log_ndtr(gained / np.sqrt(spread)),
        0.0,
    )  # fmt: skip
    first = np.arange(1, len(usable) + 1)
    rest = -math.log(len(usable) + 1)  # the processes that have not begun yet stand at 1
    total = logsumexp([*(logs - np.log(first * (first + 1))), rest])
    return math.exp(min(float(total), HIGHEST))


def interval(looks: Sequence[Look], level: float) -> tuple[float, float] | None:
    """Give where the mean gain lies, with this doubt at most however often one looks.

    Two-sided normal mixture (as above, proposition 5), over all looks from the first on. It is
    tightest where the models first differed.
    """
    usable = _usable(looks)
    if not usable:
        return None
    rows = sum(look.rows for look in usable)
    variance = sum(_variance(look, 0.0) for look in usable)
    scale = SCALE * next((v for look in usable if (v := _variance(look, 0.0)) > 0), 0.0)
    if scale == 0:  # nothing ever differed, or by less than has a square
        return mean(usable), mean(usable)
    spread = variance + scale
    wide = math.sqrt(spread * math.log(spread / (scale * level**2))) / rows
    return mean(usable) - wide, mean(usable) + wide


def mean(looks: Sequence[Look]) -> float:
    """Give the mean gain per row over all looks."""
    rows = sum(look.rows for look in looks)
    return sum(look.rows * look.gain for look in looks) / rows if rows else 0.0


def _usable(looks: Sequence[Look]) -> list[Look]:
    return [look for look in looks if look.error is not None and look.rows >= LEAST_ROWS]


def _from_here_on(values: Sequence[float] | Array) -> Array:
    """Sum from each value to the last, shape (n,)."""
    found: Array = np.cumsum(np.asarray(values)[::-1])[::-1]
    return found


def _variance(look: Look, least: float) -> float:
    """Give the variance of a look's total gain.

    A spread smaller than the gain itself is not believed: rows that all agree would otherwise
    prove anything. Few rows are given the variance of Student's t.
    """
    assert look.error is not None  # noqa: S101 (as `_usable` sees to)
    own = look.error**2 * (look.rows - 1) / max(look.rows - 3, 1)
    return float(look.rows**2 * max(own, (look.gain - least) ** 2 / look.rows))
