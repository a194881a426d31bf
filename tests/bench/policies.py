"""Bench: what each way of retraining is worth, on streams whose drift is known.

    python tests/bench/policies.py --quick

Every batch of a stream is scored by the model that was made of the batches before it, and learnt
from afterwards ("prequential": Gama, Sebastiao and Rodrigues, Machine Learning 90, 2013). The
policies are the product's own strategies with the product's own split; only the table and the
registry are lists in memory. Beside them stand what a lab begins with (XGBoost's defaults on the
newest batch, or one model for ever) and two online learners of river, if it is installed.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Protocol

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import numpy as np
import pandas as pd
import pyarrow as pa
import typer
from gate import Gate
from sklearn.metrics import roc_auc_score
from streams import Array, Stream, catalogue, flights

from config.settings import Pipeline, Train
from handlers.facts import Decision, GiveUp
from handlers.rows import Columns, split
from handlers.scorer import Scorer
from handlers.strategies import Challenge, Past, Reads, Run, Told, challenge
from handlers.train import grow, train

KEY, LABEL = "row", "label"
CLIP = 1e-6
"""No answer counts as surer than this, so that one bold mistake of 30,000 does not decide."""
XGBOOST: Mapping[str, bool | int | float | str] = {
    "max_depth": 6, "eta": 0.3, "min_child_weight": 1, "subsample": 1.0,
    "colsample_bytree": 1.0, "lambda": 1.0,
}  # fmt: skip
"""XGBoost's own defaults."""
QUICK = ("sea-none-small", "agrawal-sudden", "agrawal-recurring", "agrawal-segments")


class Model(Protocol):
    """What is served."""

    def score(self, rows: pd.DataFrame) -> Array:
        """Give the probability of a positive label for each row, shape (n,)."""


class Learner(Protocol):
    """Makes a challenger of each snapshot."""

    def learn(self, delta: pa.Table, columns: Columns) -> Model:
        """Learn from the newest snapshot, and from what was learnt from before."""

    def promoted(self) -> None:
        """Hear that what it learnt last is served from now on."""


# -- the policies -------------------------------------------------------------------------------


@dataclass
class Product:
    """A strategy of the product."""

    settings: Train
    tables: list[pa.Table] = field(default_factory=list)
    runs: list[Run] = field(default_factory=list)
    champion: Run | None = None

    def learn(self, delta: pa.Table, columns: Columns) -> Model:
        """Learn as the daemon does."""
        return self.scorer(delta, columns)

    def scorer(self, delta: pa.Table, columns: Columns) -> Scorer:
        """Make a challenger as the daemon does."""
        self.tables.append(delta)
        rows = sum(table.num_rows for table in self.tables)
        past = Past(lambda: self.champion, lambda: self.runs, len(self.tables), rows)
        parts = split(delta, columns, "binary", self.settings)
        made = challenge(parts, self._reads(), columns, "binary", self.settings, past)
        self.runs.insert(0, _run(len(self.tables), made, rows))
        return made.scorer

    def promoted(self) -> None:
        """Let `continue` begin from it."""
        self.champion = self.runs[0]

    def _reads(self) -> Reads:
        def last(count: int) -> pa.Table:
            return pa.concat_tables(self.tables[-count:])

        before = self.tables[:-1] or [self.tables[0].slice(0, 0)]
        return Reads(
            whole=lambda _: pa.concat_tables(self.tables),
            window=lambda deltas, _: Told(last(deltas)),
            before=lambda _: Told(pa.concat_tables(before)),
            everything=len(self.tables) == 1,
        )


def _run(number: int, made: Challenge, rows: int) -> Run:
    kept = {**made.made, "served": made.scorer}
    return Run(str(number), number, tuple(made.made), kept.__getitem__, made.members, rows)


@dataclass
class Judged:
    """A strategy of the product with the product's judge before it, as the daemon runs."""

    settings: Train

    def __post_init__(self) -> None:
        """Begin a history with the default demands on a challenger."""
        self.product = Product(self.settings)
        self.gate = Gate(Pipeline(table="a.bench.table", label=LABEL, train=self.settings))

    def learn(self, delta: pa.Table, columns: Columns) -> Model:
        """Score what serves, make a challenger, and give the one that serves from then on."""
        parts = split(delta, columns, "binary", self.settings)
        live = self.gate.predict(parts)
        made = self.product.scorer(delta, columns)
        if self.gate.decide(made, parts, live).decision is Decision.PROMOTE:
            self.product.promoted()
        return self.gate.champion.scorer if self.gate.champion else made

    def promoted(self) -> None:
        """Its judge has told it."""


@dataclass
class Static:
    """The first model, for ever."""

    model: Model | None = None

    def learn(self, delta: pa.Table, columns: Columns) -> Model:
        """Learn once."""
        self.model = self.model or Product(Train(strategy="fresh")).learn(delta, columns)
        return self.model

    def promoted(self) -> None:
        """Nothing depends on it."""


@dataclass
class Append:
    """Twenty more trees to the last model with each snapshot, of its rows alone."""

    settings: Train = field(default_factory=lambda: Train(continue_rounds=20, continue_eta=0.1))
    model: Scorer | None = None

    def learn(self, delta: pa.Table, columns: Columns) -> Model:
        """Let the trees grow."""
        part = split(delta, columns, "binary", self.settings).train
        if self.model is None:
            self.model = train(part, columns, "binary", self.settings, lambda *_: None)
        else:
            self.model = grow(self.model, part, self.settings, lambda *_: None)
        return self.model

    def promoted(self) -> None:
        """It goes on from its last model, whatever is served."""


@dataclass
class Online:
    """A learner of river, which sees the same training rows one by one."""

    model: Any

    def learn(self, delta: pa.Table, columns: Columns) -> Model:
        """Show it the rows in the order in which they came."""
        part = split(delta, columns, "binary", Train()).train
        rows = part.rows.to_dict(orient="records")
        for row, label in zip(rows, part.labels, strict=True):
            self.model.learn_one(row, label == "1")
        return self

    def promoted(self) -> None:
        """It cannot be held back."""

    def score(self, rows: pd.DataFrame) -> Array:
        """Score row by row."""
        answers = map(self.model.predict_proba_one, rows.to_dict(orient="records"))
        return np.array([answer.get(True, 0.0) for answer in answers], np.float64)


def _forest() -> Online:
    from river import forest  # type: ignore[import-not-found] # noqa: PLC0415 (optional)

    return Online(forest.ARFClassifier(n_models=10, seed=0))


def _tree() -> Online:
    from river import tree  # noqa: PLC0415 (optional)

    return Online(tree.HoeffdingAdaptiveTreeClassifier(seed=0))


def _product(**settings: Any) -> Callable[[], Learner]:
    return lambda: Product(Train(**settings))


_DELTAS: Mapping[str, Any] = {"refresh_share": None, "window_member": False}

POLICIES: Mapping[str, Callable[[], Learner]] = {
    "static": Static,
    "fresh, XGBoost's defaults": _product(strategy="fresh", rounds=100, parameters=XGBOOST),
    "full, XGBoost's defaults": _product(strategy="full", rounds=100, parameters=XGBOOST),
    "fresh": _product(strategy="fresh"),
    "full": _product(strategy="full"),
    "window": _product(strategy="window"),
    "append": Append,
    "continue": _product(strategy="continue"),
    "ensemble of deltas": _product(strategy="ensemble", **_DELTAS),
    "ensemble of deltas, AUE": _product(strategy="ensemble", weighing="aue", **_DELTAS),
    "ensemble without full": _product(strategy="ensemble", refresh_share=None),
    "ensemble": _product(strategy="ensemble"),
    "ensemble, judged": lambda: Judged(Train(strategy="ensemble")),
    "fresh, judged": lambda: Judged(Train(strategy="fresh")),
    "tournament": _product(strategy="tournament"),
    "river, adaptive forest": _forest,
    "river, adaptive tree": _tree,
}


# -- the measurement ----------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Score:
    """How a policy did on a stream."""

    log_loss: float
    auc: float
    promotions: int
    seconds: float


def measure(stream: Stream, learner: Learner, seed: int = 0) -> Score:
    """Score each batch by the model of those before it, then learn from it."""
    served: Model | None = None
    truth: list[Array] = []
    answers: list[Array] = []
    promotions, began = 0, time.monotonic()
    for delta, columns in _deltas(stream, seed):
        if served is not None:
            truth.append(delta[LABEL].to_numpy())
            answers.append(served.score(delta.select(list(_names(columns))).to_pandas()))
        try:
            made = learner.learn(delta, columns)
        except GiveUp:  # a batch of one class teaches nothing
            continue
        learner.promoted()
        served, promotions = made, promotions + (made is not served)
    labels, given = np.concatenate(truth), np.concatenate(answers).astype(np.float64)
    seconds = time.monotonic() - began
    auc = float(roc_auc_score(labels, given))
    return Score(log_loss(labels, given), auc, promotions, seconds)


def log_loss(labels: Array, given: Array) -> float:
    """Give the mean log loss of probabilities of a positive label."""
    right = np.where(labels == 1, given, 1 - given)
    return float(-np.log(np.clip(right, CLIP, 1)).mean())


def _deltas(stream: Stream, seed: int) -> Iterator[tuple[pa.Table, Columns]]:
    """Give the batches as they would be read from a table, with an id for each row."""
    begin = 0
    for rows, labels in stream.batches(seed):
        ids = np.arange(begin, begin + len(rows))
        begin += len(rows)
        columns = Columns(tuple((str(name), "number") for name in rows), LABEL, (KEY,))
        yield pa.Table.from_pandas(rows.assign(**{LABEL: labels, KEY: ids})), columns


def _names(columns: Columns) -> Iterator[str]:
    return (name for name, _ in columns.features)


# -- the command --------------------------------------------------------------------------------


def compare(stream: Stream, names: Sequence[str], seed: int) -> dict[str, Score]:
    """Measure policies on a stream, telling each on the way."""
    found: dict[str, Score] = {}
    for name in names:
        found[name] = measure(stream, POLICIES[name](), seed=seed)
        told = found[name]
        typer.echo(
            f"{stream.name}: {name}: log loss {told.log_loss:.4f}, AUC {told.auc:.4f}, "
            f"{told.seconds:.0f} s",
            err=True,
        )
    return found


def table(title: str, rows: Mapping[str, Mapping[str, float]], places: int) -> list[str]:
    """Write a table in Markdown: policies down, streams across."""
    streams = list(next(iter(rows.values())))
    lines = [title, "", f"| policy | {' | '.join(streams)} |", f"|---{'|---:' * len(streams)}|"]
    lines += [
        f"| {name} | {' | '.join(f'{value:.{places}f}' for value in row.values())} |"
        for name, row in rows.items()
    ]
    return [*lines, ""]


def report(found: Mapping[str, Mapping[str, Score]]) -> str:
    """Write the tables of a comparison, by stream and policy."""
    names = list(next(iter(found.values())))
    losses: dict[str, dict[str, float]] = {}
    aucs: dict[str, dict[str, float]] = {}
    for name in names:
        ratios = {
            stream: 100 * scores[name].log_loss / min(s.log_loss for s in scores.values())
            for stream, scores in found.items()
        }
        values = list(ratios.values())
        losses[name] = {"mean": float(np.mean(values)), "worst": max(values), **ratios}
        aucs[name] = {stream: scores[name].auc for stream, scores in found.items()}
        aucs[name]["seconds"] = sum(scores[name].seconds for scores in found.values())
    lines = table("Log loss, the best policy on each stream = 100", losses, 1)
    return "\n".join(lines + table("AUC", aucs, 3))


def main(
    *,
    streams: Annotated[str, typer.Option(help="Only those whose names hold one of these.")] = "",
    policies: Annotated[str, typer.Option(help="Only these, divided by semicolons.")] = "",
    quick: Annotated[bool, typer.Option(help="Four streams of 12 small batches.")] = False,
    seed: Annotated[int, typer.Option(help="Of the streams.")] = 0,
    jobs: Annotated[int, typer.Option(help="Streams measured at a time.")] = 1,
    out: Annotated[Path | None, typer.Option(help="Write the tables here as well.")] = None,
) -> None:
    """Measure policies on streams and print their log loss and AUC."""
    found = _streams(quick=quick)
    wanted = [part for part in streams.split(",") if part] or (QUICK if quick else [""])
    chosen = [stream for stream in found if any(part in stream.name for part in wanted)]
    names = [name.strip() for name in policies.split(";") if name.strip()] or list(_installed())
    if unknown := [name for name in names if name not in POLICIES]:
        raise typer.BadParameter(f"no policy is called {', '.join(unknown)}: {list(POLICIES)}")
    if not chosen:
        raise typer.BadParameter(f"no stream is called so: {[stream.name for stream in found]}")
    work = partial(compare, names=names, seed=seed)
    if jobs > 1:
        with ProcessPoolExecutor(jobs) as pool:
            told = (pool.submit(_by_name, work, stream.name, quick=quick) for stream in chosen)
            scores = [future.result() for future in list(told)]
    else:
        scores = [work(stream) for stream in chosen]
    text = report({stream.name: each for stream, each in zip(chosen, scores, strict=True)})
    typer.echo(text)
    if out:
        out.write_text(text, encoding="utf-8")


def _streams(*, quick: bool) -> list[Stream]:
    return catalogue(12, 0.5) if quick else [*catalogue(), *flights()]


def _by_name(
    work: Callable[[Stream], dict[str, Score]], name: str, *, quick: bool
) -> dict[str, Score]:
    """Find the stream in the worker: a stream itself cannot be sent there."""
    return work(next(stream for stream in _streams(quick=quick) if stream.name == name))


def _installed() -> Iterator[str]:
    try:
        import river  # noqa: F401, PLC0415 (optional)
    except ImportError:
        typer.echo("river is not installed, so its learners are left out.", err=True)
        yield from (name for name in POLICIES if not name.startswith("river"))
    else:
        yield from POLICIES


if __name__ == "__main__":
    typer.run(main)
