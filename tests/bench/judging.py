"""Bench: how often the judge is wrong, and how soon it is right.

    python tests/bench/judging.py

Every history is 30 snapshots, learnt from and judged with the default settings as the daemon does
it: labels drawn at random, where at most 5 % of the histories may promote anything after their
first model; a concept that turns round at the tenth snapshot; and a champion that retraining beats
by a gain that is known, as it learnt from fewer rows than its challengers.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Executor, ProcessPoolExecutor
from functools import partial
from pathlib import Path
from statistics import median
from typing import Annotated, Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import numpy as np
import pyarrow as pa
import typer
from gate import Gate
from policies import Product

from config.settings import Pipeline, Train
from handlers.facts import Look
from handlers.live import LEVEL, alarm
from handlers.rows import Columns, split

FEATURES, SNAPSHOTS, CHANGE = 8, 30, 10
CHANGED = 250
"""Looks after which a model in use begins to fail."""
Array = np.ndarray[Any, np.dtype[Any]]
Concept = Callable[[Array, int], Array]
"""Gives the probability of a positive label for rows of a snapshot, counted from 1."""
COLUMNS = Columns(tuple((f"x{i}", "number") for i in range(FEATURES)), "y", ("id",))


def noise(rows: Array, _: int) -> Array:
    """Labels at random, as in the public lab."""
    return np.full(len(rows), 0.3)


def steady(rows: Array, _: int) -> Array:
    """A concept that stays."""
    found: Array = 1 / (1 + np.exp(-1.5 * rows[:, 0] - rows[:, 1] * rows[:, 2]))
    return found


def sudden(rows: Array, snapshot: int) -> Array:
    """A concept that turns round once."""
    return steady(rows, snapshot) if snapshot < CHANGE else 1 - steady(rows, snapshot)


def promotions(concept: Concept, sizes: Sequence[int], strategy: Any, seed: int) -> list[int]:
    """Play one history with snapshots of these sizes; tell at which ones a model was promoted."""
    pipeline = Pipeline(table="a.bench.table", label="y", train=Train(strategy=strategy))
    gate, learner = Gate(pipeline), Product(pipeline.train)
    chance, begin, found = np.random.default_rng(seed), 0, []
    for number, size in enumerate(sizes, start=1):
        rows = chance.normal(size=(size, FEATURES))
        labels = chance.random(size) < concept(rows, number)
        names = [name for name, _ in COLUMNS.features]
        ids = np.arange(begin, begin + size) + seed * 10_000_000
        begin += size
        table = pa.table({**dict(zip(names, rows.T, strict=True)), "y": labels, "id": ids})
        parts = split(table, COLUMNS, "binary", pipeline.train)
        live = gate.predict(parts)
        gate.decide(learner.scorer(table, COLUMNS), parts, live)
        if gate.promoted_at[-1:] == [number]:
            learner.promoted()
            found.append(number)
    return found


def alarms(rise: float, seed: int, rows: int = 200, looks: int = 500) -> int | None:
    """Give the delta with the first alarm; from the 251st on the loss is up by this share.

    The losses of single rows are drawn as those of a model in use are: most small, few large.
    """
    chance, losses = np.random.default_rng(seed), []
    promised = chance.exponential(0.4, rows)
    promise = Look(rows, float(promised.mean()), float(promised.std() / np.sqrt(rows)))
    for number in range(1, looks + 1):
        drawn = chance.exponential(0.4 * (1 + rise * (number > CHANGED)), rows)
        losses.append(Look(rows, float(drawn.mean()), float(drawn.std() / np.sqrt(rows))))
        if alarm(promise, losses) >= 1 / LEVEL:
            return number
    return None


def main(
    *,
    histories: Annotated[int, typer.Option(help="Histories without signal, of each kind.")] = 200,
    strategy: Annotated[str, typer.Option(help="How challengers are made.")] = "ensemble",
    jobs: Annotated[int, typer.Option(help="Histories played at a time.")] = 2,
    seed: Annotated[int, typer.Option(help="Of the first history.")] = 0,
) -> None:
    """Play histories and print how they were judged."""
    few = max(1, histories // 4)
    typer.echo(f"strategy {strategy}, {SNAPSHOTS} snapshots, confidence 0.95")
    with ProcessPoolExecutor(jobs) as pool:
        for rise in (0.0, 0.25, 0.5):
            _tell_alarms(rise, list(pool.map(partial(alarms, rise), range(seed, seed + histories))))
        for rows in (200, 1000):
            play = partial(promotions, noise, [rows] * SNAPSHOTS, strategy)
            _tell_noise(rows, _played(pool, play, range(seed, seed + histories)))
        for rows in (200, 500, 2000):
            play = partial(promotions, sudden, [rows] * (CHANGE + 5), strategy)
            _tell_drift(rows, _played(pool, play, range(seed, seed + few)))
        for first in (250, 500, 750, 1000):
            play = partial(promotions, steady, [first] + [1000] * (SNAPSHOTS - 1), "fresh")
            _tell_gain(first, _played(pool, play, range(seed, seed + few)))


def _played(pool: Executor, play: Callable[[int], list[int]], seeds: Iterable[int]) -> list[Any]:
    return list(pool.map(play, seeds))


def _tell_alarms(rise: float, found: list[int | None]) -> None:
    early = sum(number is not None and number <= CHANGED for number in found)
    after = [number - CHANGED for number in found if number is not None and number > CHANGED]
    told = f", the median one after {median(after):g} more" if after else ""
    typer.echo(
        f"500 deltas of 200 rows, loss {rise:+.0%} from the 251st on: {early} of {len(found)} "
        f"models were alarmed before, {len(after)} after{told}"
    )


def _tell_noise(rows: int, found: list[list[int]]) -> None:
    wrong = sum(len(promoted) > 1 for promoted in found)
    typer.echo(
        f"labels at random, {rows} rows a snapshot: {wrong} of {len(found)} histories "
        f"({wrong / len(found):.1%}) promoted anything after the first model"
    )


def _tell_drift(rows: int, found: list[list[int]]) -> None:
    waits = [next((n - CHANGE + 1 for n in promoted if n >= CHANGE), 99) for promoted in found]
    early = sum(1 < n < CHANGE for promoted in found for n in promoted)
    typer.echo(
        f"concept turns round, {rows} rows a snapshot: the champion changed within two snapshots "
        f"in {sum(wait <= 2 for wait in waits)} of {len(found)} histories (at the first in "
        f"{sum(wait == 1 for wait in waits)}); before the change {early} promotions"
    )


def _tell_gain(first: int, found: list[list[int]]) -> None:
    second = [promoted[1] for promoted in found if len(promoted) > 1]
    told = f", the median one at snapshot {median(second):g}" if second else ""
    typer.echo(
        f"fresh models of 1000 rows against a champion of {first}: replaced in {len(second)} of "
        f"{len(found)} histories{told}"
    )


if __name__ == "__main__":
    typer.run(main)
