"""How often the judge is wrong, how soon it is right: `python tests/bench/judging.py`.

Every history is 30 snapshots judged with the default settings, as the daemon judges them:
labels drawn at random, where at most 5 % of the histories may promote anything after their first
model; a champion that is worse than retraining by a known gain; and a concept that changes.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import median
from typing import Annotated, Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import numpy as np
import pandas as pd
import typer
from gate import Gate

from config.settings import Pipeline, Train
from handlers.rows import Columns, Part, Split
from handlers.train import train

FEATURES = 8
SNAPSHOTS = 30
CHANGE = 10
"""Snapshot at which a concept changes, counted from 1."""
Array = np.ndarray[Any, np.dtype[Any]]
Concept = Callable[[np.random.Generator, Array, int], Array]
COLUMNS = Columns(tuple((f"x{i}", "number") for i in range(FEATURES)), "y", ("id",))


def noise(chance: np.random.Generator, rows: Array, _: int) -> Array:
    """Labels at random, as in the public lab."""
    return chance.random(len(rows)) < 0.3


def steady(chance: np.random.Generator, rows: Array, _: int) -> Array:
    """A concept that stays."""
    return chance.random(len(rows)) < _logistic(1.5 * rows[:, 0] + rows[:, 1] * rows[:, 2])


def sudden(chance: np.random.Generator, rows: Array, snapshot: int) -> Array:
    """A concept that turns round once."""
    sign = 1 if snapshot < CHANGE else -1
    return chance.random(len(rows)) < _logistic(sign * (1.5 * rows[:, 0] + rows[:, 1] * rows[:, 2]))


def _logistic(margin: Array) -> Array:
    found: Array = 1 / (1 + np.exp(-margin))
    return found


def batches(concept: Concept, rows: int, seed: int, snapshots: int) -> Iterator[Split]:
    """Draw the snapshots of a history, each split as the daemon splits it: 80 to 20."""
    chance = np.random.default_rng(seed)
    for snapshot in range(1, snapshots + 1):
        values = chance.normal(size=(rows, FEATURES))
        frame = pd.DataFrame(values, columns=[name for name, _ in COLUMNS.features])
        labels = pd.Series(np.where(concept(chance, values, snapshot), "1", "0"))
        held = chance.random(rows) < 0.2
        yield Split(_part(frame, labels, ~held), _part(frame, labels, held), 0)


def _part(frame: pd.DataFrame, labels: pd.Series[Any], mask: Array) -> Part:
    return Part(frame[mask].reset_index(drop=True), labels[mask].reset_index(drop=True))


def history(concept: Concept, rows: int, seed: int, snapshots: int = SNAPSHOTS) -> Gate:
    """Judge a fresh challenger at every snapshot."""
    gate = Gate(Pipeline(table="bench.bench.bench", label="y"))
    for number, split in enumerate(batches(concept, rows, seed, snapshots)):
        live = gate.predict(split)
        settings = Train(seed=number)
        challenger = train(split.train, COLUMNS, "binary", settings, lambda *_: None)
        gate.decide(challenger, split, live)
    return gate


@dataclass(frozen=True, slots=True)
class Handicap:
    """A history whose first model learnt from few rows, so that retraining gains something."""

    first: int
    rows: int

    def __call__(self, seed: int) -> list[int]:
        """Give the snapshots at which something was promoted."""
        gate = Gate(Pipeline(table="bench.bench.bench", label="y"))
        sizes = [self.first] + [self.rows] * (SNAPSHOTS - 1)
        chance = np.random.default_rng(seed)
        for number, size in enumerate(sizes):
            (split,) = batches(steady, size, int(chance.integers(2**31)), 1)
            live = gate.predict(split)
            made = train(split.train, COLUMNS, "binary", Train(seed=number), lambda *_: None)
            gate.decide(made, split, live)
        return gate.promoted_at


def promotions(concept: Concept, rows: int, seed: int) -> list[int]:
    """Give the snapshots at which something was promoted."""
    return history(concept, rows, seed).promoted_at


def main(
    histories: Annotated[int, typer.Option(help="Histories of each kind.")] = 200,
    workers: Annotated[int, typer.Option(help="Processes.")] = 2,
) -> None:
    """Print the figures."""
    with ProcessPoolExecutor(workers) as pool:
        for rows in (200, 2000):
            found = list(pool.map(partial(promotions, noise, rows), range(histories)))
            wrong = sum(len(promoted) > 1 for promoted in found)
            typer.echo(
                f"labels at random, {rows} rows a snapshot: {wrong} of {histories} histories "
                f"({wrong / histories:.1%}) promoted something after the first model"
            )
        for rows in (200, 500, 2000):
            found = list(pool.map(partial(promotions, sudden, rows), range(histories // 4)))
            waits = [_after(promoted, CHANGE) for promoted in found]
            at_once = sum(wait is not None and wait <= 1 for wait in waits)
            told = median(wait if wait is not None else SNAPSHOTS for wait in waits)
            typer.echo(
                f"concept turns round, {rows} rows a snapshot: champion changed within two "
                f"snapshots in {at_once} of {len(waits)} histories, median after {told + 1:g}"
            )
        for first in (300, 500, 800, 1000):
            found = list(pool.map(Handicap(first, 1000), range(histories // 4)))
            second = [promoted[1] for promoted in found if len(promoted) > 1]
            when = f"the median one at snapshot {median(second):g}" if second else "none"
            typer.echo(
                f"champion learnt from {first} rows, challengers from 1000 each: replaced in "
                f"{len(second)} of {len(found)} histories, {when}"
            )


def _after(promoted: list[int], change: int) -> int | None:
    later = [snapshot - change for snapshot in promoted if snapshot >= change]
    return later[0] if later else None


if __name__ == "__main__":
    typer.run(main)
