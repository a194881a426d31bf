"""Odd deltas in the midst of plain ones: the right answer or a clear refusal, never nonsense."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from functools import cache
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter

from config.settings import Pipeline, Train
from handlers import drift
from handlers.explain import Explanation, explain
from handlers.facts import Decision, Drifted, GiveUp, Live, Verdict
from handlers.judge import Champion, Past, judge
from handlers.live import look_before
from handlers.rows import Columns, inputs, split
from handlers.scorer import BadInput, Task
from handlers.strategies import STRATEGIES, Challenge, Reads, Run, Told, challenge
from handlers.strategies import Past as Earlier

COLUMNS = Columns((("x", "number"), ("z", "number"), ("c", "category")), "y", ("id",))
VERDICT, LIVE = TypeAdapter(Verdict), TypeAdapter(Live)
REMEMBERING = ("full", "window", "continue", "ensemble", "tournament")
"""Strategies that know more than the delta."""
Change = Callable[[pa.Table], pa.Table]


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of one delta."""

    made: Challenge
    verdict: Verdict
    live: Live | None
    explanation: Explanation | None
    moved: tuple[Drifted, ...]


@dataclass
class Story:
    """A table and its models, as the daemon would keep them, without any door."""

    settings: Train
    task: Task = "binary"
    columns: Columns = COLUMNS
    champion: Champion | None = None
    tables: list[pa.Table] = field(default_factory=list)
    runs: list[Run] = field(default_factory=list)
    told: list[Outcome] = field(default_factory=list)
    crowned: Run | None = None

    def take(self, table: pa.Table) -> Outcome:
        """Bring a delta to its verdict; a delta that is given up stays in the table."""
        self.tables.append(table)
        mine = Pipeline(table="a.b.c", label="y", task=self.task, train=self.settings)
        parts = split(table, self.columns, self.task, self.settings)
        reign = [
            t for t in self.told if self.champion and t.verdict.against == self.champion.version
        ]
        live = None
        if self.champion:
            lives = [t.live for t in reign if t.live]
            live = look_before(mine, self.champion, None, parts, None, lives, unseen=True)
        earlier = Earlier(lambda: self.crowned, lambda: self.runs, len(self.tables))
        made = challenge(parts, self.reads(), self.columns, self.task, self.settings, earlier)
        looks = tuple(look for t in reign for look in t.verdict.looks)
        signals = tuple(t.verdict.signal for t in self.told if t.verdict.signal)
        past = Past(looks if self.champion else signals, signals, live)
        champion, held_out = self.champion, made.material.held_out
        verdict = judge(mine, made.scorer, champion, made.material.train, held_out, past)
        moved = (
            drift.drift(champion.profile, champion.scorer, inputs(table, self.columns))
            if champion
            else ()
        )
        found = Outcome(made, verdict, live, explain(made.scorer, champion, held_out), moved)
        sound(found, table, self.columns)
        self.keep(found)
        return found

    def keep(self, found: Outcome) -> None:
        """Remember a run, and crown its model if it won."""
        made, number = found.made, len(self.tables)
        models = {**made.made, "served": made.scorer}
        if number == 1:
            models |= dict.fromkeys(("fresh", "full", "window"), made.scorer)
        kinds = tuple(kind for kind in models if kind != "served")
        self.runs.insert(0, Run(f"run{number}", number, kinds, models.__getitem__, made.members))
        self.told.append(found)
        if found.verdict.decision is Decision.PROMOTE:
            profile = drift.profile(made.scorer, made.material.train.rows)
            self.champion = Champion(str(number), made.scorer, profile)
            self.crowned = self.runs[0]

    def reads(self) -> Reads:
        """Give the rows."""
        before = self.tables[:-1] or [self.tables[0].slice(0, 0)]
        return Reads(
            lambda _: pa.concat_tables(self.tables),
            lambda deltas, _: Told(pa.concat_tables(self.tables[-deltas:])),
            lambda _: Told(pa.concat_tables(before)),
            everything=len(self.tables) == 1,
        )


def sound(found: Outcome, table: pa.Table, columns: Columns) -> None:
    """See that all that is told is a number, and can be written and read again."""
    assert VERDICT.validate_json(VERDICT.dump_json(found.verdict)) == found.verdict
    if found.live:
        assert LIVE.validate_json(LIVE.dump_json(found.live)) == found.live
    json.dumps(found.explanation, allow_nan=False)
    profile = drift.profile(found.made.scorer, found.made.material.train.rows)
    assert drift.PROFILE.validate_json(drift.PROFILE.dump_json(profile)) == profile
    scores = found.made.scorer.score(inputs(table, columns))
    assert np.isfinite(scores).all()
    if found.made.scorer.task != "regression":
        assert scores.min(initial=0) >= 0
        assert scores.max(initial=0) <= 1


def story(strategy: Any, task: Task = "binary", **wanted: Any) -> Story:
    """Begin a story with few rounds."""
    return Story(Train.model_validate({"strategy": strategy, "rounds": 6, **wanted}), task)


def begun(wanted: str, task: Task) -> Story:
    """Give a story of two plain deltas, told once for all tests."""
    known = _begun(wanted, task)
    return replace(
        known, tables=[*known.tables], runs=[*known.runs], told=[*known.told]
    )  # fmt: skip


@cache
def _begun(wanted: str, task: Task) -> Story:
    taken = Story(Train.model_validate_json(wanted), task)
    for number in (1, 2):
        taken.take(plain(number, task=task))
    return taken


def plain(number: int, rows: int = 200, task: Task = "binary") -> pa.Table:
    """Make a delta whose label can be learnt in part, with keys of its own."""
    chance = np.random.default_rng(number)
    x, c = chance.normal(size=rows), chance.choice(["a", "b", "c"], rows)
    signal = 2 * x + (c == "a") + chance.normal(size=rows) * 0.5
    labels: dict[Task, Any] = {
        "binary": (signal > 0.3).astype(int),
        "multiclass": np.digitize(signal, [-1, 1]),
        "regression": signal,
    }
    ids = np.arange(rows) + 100_000 * number
    return pa.table({"id": ids, "x": x, "z": chance.normal(size=rows), "c": c, "y": labels[task]})


def put(table: pa.Table, **columns: Any) -> pa.Table:
    """Replace columns."""
    for name, values in columns.items():
        place = table.schema.get_field_index(name)
        table = table.set_column(place, name, pa.array(values))
    return table


def held(table: pa.Table) -> np.ndarray[Any, np.dtype[np.bool_]]:
    """Say which rows are held out."""
    columns = replace(COLUMNS, features=(("id", "number"),))
    ids = split(table, columns, "regression", Train()).held_out.rows["id"]
    return np.isin(table["id"].to_numpy(), ids)


def amid(taken: Story, change: Change) -> Iterator[Outcome | GiveUp]:
    """Take an odd delta and a plain one after two plain ones; give what came of the last two."""
    taken = begun(taken.settings.model_dump_json(), taken.task)
    assert taken.champion
    for table in (change(plain(3, task=taken.task)), plain(4, task=taken.task)):
        try:
            yield taken.take(table)
        except GiveUp as error:
            taken.tables.pop()
            yield error


# -- what can be learnt from, or judged on, by all ------------------------------------------------


def strange_numbers(table: pa.Table) -> pa.Table:
    """Put infinities, gaps and what no float32 holds among the numbers."""
    x = table["x"].to_numpy().copy()
    for start, value in enumerate((np.inf, -np.inf, np.nan, 1e300)):
        x[start::7] = value
    return put(table, x=x)


def flipped(table: pa.Table) -> pa.Table:
    """Turn 20 % of the labels."""
    wrong = np.random.default_rng(5).random(len(table)) < 0.2
    return put(table, y=np.where(wrong, 1 - table["y"].to_numpy(), table["y"].to_numpy()))


HARMLESS: dict[str, Change] = {
    "five rows": lambda t: t.slice(0, 5),
    "no held-out row": lambda t: t.filter(~held(t)),
    "a new category": lambda t: put(t, c=["new"] * len(t)),
    "no category": lambda t: put(t, c=pa.nulls(len(t), pa.string())),
    "a constant feature": lambda t: put(t, x=np.ones(len(t))),
    "constant features": lambda t: put(t, x=np.ones(len(t)), z=np.ones(len(t)), c=["a"] * len(t)),
    "an empty feature": lambda t: put(t, x=pa.nulls(len(t), pa.float64())),
    "label noise": flipped,
    "strange numbers": strange_numbers,
    "every row thrice": lambda t: pa.concat_tables([t] * 3),
    "keys that recur": lambda t: put(t, id=np.arange(len(t)) % 40),
    "long texts": lambda t: put(t, c=[chr(97 + i % 7) * 5000 for i in range(len(t))]),
    "a text for each row": lambda t: put(t, c=[f"shop {i}" for i in range(len(t))]),
}


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("case", HARMLESS)
def test_odd_rows_are_learnt_from_and_judged(strategy: str, case: str) -> None:
    """Whatever rows of two classes hold, a challenger comes of them, and plain ones follow."""
    odd, after = amid(story(strategy), HARMLESS[case])
    assert isinstance(odd, Outcome), odd
    assert isinstance(after, Outcome), after
    if case == "no held-out row":
        assert odd.verdict.decision is Decision.KEEP
        assert "0 held-out rows" in odd.verdict.sentence
        assert odd.explanation is None
    assert len(json.dumps(odd.explanation)) < 10_000
    assert len(VERDICT.dump_json(odd.verdict)) < 5000
    told = [item.told for item in odd.moved]
    assert all(len(text) < 300 for text in told)
    if case == "label noise":
        log_loss = odd.verdict.challenger["log_loss"]
        assert log_loss < odd.verdict.trivial["log_loss"]


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_feature_that_is_the_label_is_told(strategy: str) -> None:
    """It is not refused, as some are that good; but it stands first, with nearly all the weight."""
    taken = story(strategy, rounds=20)
    for number in (1, 2):
        table = plain(number)
        found = taken.take(put(table, z=table["y"].to_numpy().astype(float)))
    assert found.explanation
    first = found.explanation["features"][0]
    assert first["name"] == "z"
    assert first["share"] > 0.5


# -- one class --------------------------------------------------------------------------------


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("only", [0, 1])
def test_one_class_is_learnt_with_what_is_known(strategy: str, only: int) -> None:
    """Who knows both classes from earlier rows goes on, but nothing is promoted on such rows."""
    odd, after = amid(story(strategy), lambda t: t.filter(pc.equal(t["y"], only)))
    assert isinstance(after, Outcome)
    if strategy not in REMEMBERING:
        assert isinstance(odd, GiveUp)
        assert f"hold 1 class(es): '{only}'" in str(odd)
        assert "full, window, ensemble" in odd.remedy
        return
    assert isinstance(odd, Outcome)
    assert odd.made.scorer.classes == ("0", "1")
    assert odd.verdict.decision is not Decision.PROMOTE
    assert not {"auc", "average_precision"} & set(odd.verdict.challenger)
    scores = odd.made.scorer.score(inputs(plain(9), COLUMNS))
    assert 0.2 < scores.mean() < 0.8


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_first_delta_of_one_class_is_refused(strategy: str) -> None:
    """There is nothing else to learn from: the sentence names the class and the remedy."""
    with pytest.raises(GiveUp, match=r"hold 1 class\(es\): '0'.*retraind retry"):
        story(strategy).take(plain(1).filter(pc.equal(plain(1)["y"], 0)))


@pytest.mark.parametrize("strategy", ["ensemble", "tournament"])
def test_a_pool_of_single_deltas_survives_one_class(strategy: str) -> None:
    """Without longer memories the older models are left, and say what the new one lacks."""
    taken = story(
        strategy, refresh_share=None, window_member=False, candidates=("fresh", "ensemble")
    )
    odd, after = amid(taken, lambda t: t.filter(pc.equal(t["y"], 0)))
    assert isinstance(odd, Outcome)
    assert isinstance(after, Outcome)
    reasons = [m.reason for m in odd.made.members if m.kind == "fresh" and not m.run_id]
    assert reasons
    assert all("1 class" in reason for reason in reasons)
    assert sum(m.weight for m in odd.made.members if not m.within) == pytest.approx(1)


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("rows", [1, 2])
def test_a_row_or_two(strategy: str, rows: int) -> None:
    """They promote nothing; a strategy that remembers takes them along."""
    odd, after = amid(story(strategy), lambda t: t.slice(0, rows))
    assert isinstance(after, Outcome)
    if isinstance(odd, GiveUp):
        assert strategy not in REMEMBERING
        assert "class(es)" in str(odd)
    else:
        assert odd.verdict.decision is Decision.KEEP


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_rows_that_are_all_held_out(strategy: str) -> None:
    """There is nothing new to learn; who remembers is judged on them all the same."""
    odd, after = amid(story(strategy), lambda t: t.filter(held(t)))
    assert isinstance(after, Outcome)
    if strategy in REMEMBERING:
        assert isinstance(odd, Outcome)
        assert odd.verdict.rows == odd.live.rows if odd.live else 0
    else:
        assert str(odd).startswith("No row is left to learn from")


def test_a_handful_of_rows_does_not_overthrow_a_pool() -> None:
    """Two rows that contradict all before leave the weights nearly as they were."""
    taken = story("ensemble", refresh_share=None, window_member=False)
    for number in (1, 2, 3):
        taken.take(plain(number))
    table = plain(4).slice(0, 4)
    made = taken.take(put(table, y=1 - table["y"].to_numpy())).made
    assert max(m.weight for m in made.members) < 0.9


# -- labels that mean something else ------------------------------------------------------------

STRANGE: dict[str, Change] = {
    "a third value": lambda t: put(t, y=np.where(np.arange(len(t)) % 9 == 0, 2, t["y"].to_numpy())),
    "a third value, held out": lambda t: put(t, y=np.where(held(t), 2, t["y"].to_numpy())),
    "other values": lambda t: put(t, y=t["y"].to_numpy() + 1),
    "another value alone": lambda t: put(t, y=np.full(len(t), 2)),
}


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("case", STRANGE)
def test_other_values_of_a_binary_label_are_refused(strategy: str, case: str) -> None:
    """What is served is a probability: it must not become that of something else in silence."""
    odd, after = amid(story(strategy), STRANGE[case])
    assert isinstance(odd, GiveUp)
    assert "'2'" in str(odd)
    assert "retraind retry" in odd.remedy
    assert isinstance(after, Outcome)


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_new_class_among_many_is_learnt(strategy: str) -> None:
    """The challenger tells it; the champion, which cannot, has a finite loss and loses."""
    taken = story(strategy, "multiclass")
    odd, after = amid(taken, lambda t: put(t, y=np.where(t["x"].to_numpy() > 1, 3, t["y"])))
    assert isinstance(odd, Outcome)
    assert isinstance(after, Outcome)
    assert odd.made.scorer.classes == ("0", "1", "2", "3")
    assert odd.verdict.champion
    assert 1 < odd.verdict.champion["log_loss"] < 35
    assert (odd.verdict.gain or 0) > 1


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_class_is_not_lost_with_one_delta(strategy: str) -> None:
    """A batch that lacks a class does not bring a model that cannot tell it into service."""
    odd, after = amid(story(strategy, "multiclass"), lambda t: t.filter(pc.less(t["y"], 2)))
    assert isinstance(odd, Outcome)
    assert isinstance(after, Outcome)
    if strategy in REMEMBERING:
        assert odd.made.scorer.classes == ("0", "1", "2")
    elif odd.verdict.gain and odd.verdict.gain > 0:
        assert "cannot tell the class(es) '2', as the champion can" in odd.verdict.sentence
    assert taken_classes(odd) >= {"0", "1"}


def taken_classes(found: Outcome) -> set[str]:
    """Give the classes that a challenger tells."""
    return set(found.made.scorer.classes)


# -- rare events ------------------------------------------------------------------------------


def rare(number: int, *, hidden: bool, rows: int = 50_000) -> pa.Table:
    """Make 5 positives among so many rows: all to learn from, or all held out."""
    chance = np.random.default_rng(number)
    ids, x = np.arange(rows) + 10**6 * number, chance.normal(size=rows)
    table = pa.table({"id": ids, "x": x, "z": x, "c": ["a"] * rows, "y": np.zeros(rows, int)})
    places = np.flatnonzero(held(table) == hidden)[:5]
    x[places] += 3
    labels = np.zeros(rows, int)
    labels[places] = 1
    return put(table, x=x, y=labels)


@pytest.fixture(scope="module")
def positives() -> dict[bool, pa.Table]:
    """Make both kinds of such a delta once."""
    return {hidden: rare(2, hidden=hidden) for hidden in (False, True)}


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("hidden", [False, True])
def test_one_in_ten_thousand(
    strategy: str, positives: dict[bool, pa.Table], *, hidden: bool
) -> None:
    """Probabilities are right on average; what is undefined is absent, and nothing is promoted."""
    taken = story(strategy, rounds=3)
    if not hidden:
        found = taken.take(positives[False])
        assert found.verdict.decision is Decision.KEEP
        assert "auc" not in found.verdict.challenger
    else:
        taken.take(rare(1, hidden=False, rows=4000))
        if strategy not in REMEMBERING:
            with pytest.raises(GiveUp, match=r"1 class\(es\): '0'"):
                taken.take(positives[True])
            return
        found = taken.take(positives[True])
        assert found.verdict.challenger["auc"] >= 0
    rows = inputs(positives[hidden], COLUMNS)
    base = found.made.material.train.labels.eq("1").mean() if not hidden else 1e-4
    ratio = found.made.scorer.score(rows).astype(float).mean() / base
    assert 1 / 3 < ratio < (3 if not hidden else 15)


# -- numbers to predict -------------------------------------------------------------------------


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_one_value_is_no_end_of_a_regression(strategy: str) -> None:
    """A batch of one value is refused where nothing else is known, and taken along elsewhere."""
    odd, after = amid(story(strategy, "regression"), lambda t: put(t, y=np.full(len(t), 2.0)))
    assert isinstance(after, Outcome)
    assert isinstance(odd, Outcome if strategy in REMEMBERING else GiveUp)


def test_labels_that_overflow_are_refused() -> None:
    """XGBoost would give one answer to all, without a word."""
    table = plain(1, task="regression")
    with pytest.raises(GiveUp, match="overflow in XGBoost"):
        story("fresh", "regression").take(put(table, y=table["y"].to_numpy() * 1e18))
    with pytest.raises(GiveUp, match="infinite, or beyond"):
        story("fresh", "regression").take(put(table, y=table["y"].to_numpy() * 1e60))
    fine = story("fresh", "regression").take(put(table, y=table["y"].to_numpy() * 1e12))
    assert fine.verdict.challenger["r2"] > 0.2


# -- many columns -------------------------------------------------------------------------------


def test_many_columns_stay_readable() -> None:
    """Of 500 columns the record keeps what matters, and the explanation each in a line."""
    names = [f"f{number}" for number in range(500)]
    columns = Columns(tuple((name, "number") for name in names), "y", ("id",))
    taken = replace(story("fresh", rounds=3), columns=columns)
    for number in (1, 2):
        chance = np.random.default_rng(number)
        found = chance.normal(size=(300, 500))
        values = {name: found[:, place] for place, name in enumerate(names)}
        ids = np.arange(300) + 1000 * number
        told = taken.take(pa.table({"id": ids, **values, "y": (found[:, 0] > 0).astype(int)}))
    assert told.explanation
    assert told.explanation["features"][0]["name"] == "f0"
    assert len(told.explanation["slices"]) <= 8
    assert len(told.moved) <= drift.MOST


# -- anything at all ----------------------------------------------------------------------------

NUMBERS = st.sampled_from([0.0, 1.0, -1.0, 1e-300, 1e300, np.inf, -np.inf, np.nan, 3.4e38, None])
TEXTS = st.sampled_from(["", "a", "\x00", "é" * 300, "nan", "null", "[", None])
ROWS = st.lists(
    st.tuples(NUMBERS, NUMBERS, TEXTS, st.sampled_from([0, 1, None])), min_size=1, max_size=60
)


@settings(max_examples=25, deadline=None)
@given(ROWS, st.sampled_from(sorted(STRATEGIES)))
def test_any_small_table_is_answered_or_refused(drawn: list[Any], strategy: str) -> None:
    """No strange value leads to NaN, or to an error that is not foreseen."""
    x, z, c, y = (list(column) for column in zip(*drawn, strict=True))
    odd = pa.table(
        {
            "id": np.arange(len(x)),
            "x": pa.array(x, pa.float64()),
            "z": pa.array(z, pa.float64()),
            "c": pa.array(c, pa.string()),
            "y": pa.array(y, pa.int64()),
        }
    )
    taken = story(strategy, rounds=2)
    for table in (odd, plain(1, 60), put(odd, id=np.arange(len(x)) + 50_000)):
        try:
            taken.take(table)
        except (GiveUp, BadInput):
            taken.tables.pop()
