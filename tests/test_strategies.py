"""Each strategy makes one plain model, reads no more than it must, and never a held-out row."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from test_pool import margin
from test_train import COLUMNS, saved, table_of

from config.settings import Train
from handlers.facts import GiveUp, Weighed
from handlers.rows import Split, split
from handlers.scorer import Scorer, Task
from handlers.strategies import STRATEGIES, Challenge, Past, Reads, Run, Told, challenge

ROUNDS = 5
Change = Callable[[pa.Table], pa.Table]


def same(table: pa.Table) -> pa.Table:
    """Change nothing."""
    return table


def delta(number: int, task: Task = "binary", rows: int = 300) -> pa.Table:
    """Make the rows of a delta, with keys of their own."""
    table = table_of(task, rows, number)
    return table.set_column(0, "id", pa.array(np.arange(rows) + 10_000 * number))


@dataclass
class Stream:
    """Deltas one after the other, each challenged by a strategy that remembers the ones before."""

    settings: Train
    task: Task = "binary"
    change: Change = same
    counts: bool = True
    """The table's writer counts its rows."""
    tables: list[pa.Table] = field(default_factory=list)
    runs: list[Run] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)

    def take(self, table: pa.Table) -> Challenge:
        """Make the challenger of the next delta; it becomes the champion."""
        self.tables.append(table)
        number = len(self.tables)
        made = challenge(
            self.parts(), self.reads(), COLUMNS, self.task, self.settings,
            Past(self.champion, lambda: reversed(self.runs), number, self.rows()),
        )  # fmt: skip
        models = {**made.made, "served": made.scorer}
        if number == 1:
            models |= dict.fromkeys(("fresh", "full", "window"), made.scorer)
        kinds = tuple(kind for kind in models if kind != "served")
        run = Run(
            f"run{number}", number, kinds, partial(self.load, models), made.members, self.rows()
        )
        self.runs.append(run)
        self.asked.clear()
        return made

    def rows(self) -> int:
        """Count the rows of the table."""
        return sum(table.num_rows for table in self.tables) if self.counts else 0

    def load(self, models: dict[str, Scorer], kind: str) -> Scorer:
        """Bring a model."""
        self.asked.append(kind)
        return models[kind]

    def champion(self) -> Run | None:
        """Give the last run."""
        return self.runs[-1] if self.runs else None

    def parts(self) -> Split:
        """Split the delta, changed."""
        return split(self.change(self.tables[-1]), COLUMNS, self.task, self.settings)

    def reads(self) -> Reads:
        """Give the rows beyond the delta, changed."""

        def read(name: str, first: int, last: int | None = None) -> pa.Table:
            self.asked.append(name)
            found = self.tables[max(0, first) : last]
            return self.change(pa.concat_tables(found)) if found else self.tables[0].slice(0, 0)

        here = len(self.tables)
        return Reads(
            lambda _: read("whole", 0),
            lambda deltas, _: Told(read("window", here - deltas)),
            lambda _: Told(read("before", 0, here - 1)),
            everything=here == 1,
        )


def stream(strategy: Any, count: int = 0, task: Task = "binary", **settings: Any) -> Stream:
    """Begin a stream, with so many deltas taken."""
    wanted = {"strategy": strategy, "rounds": ROUNDS, "members": 3, "window": 2, **settings}
    begun = Stream(Train.model_validate(wanted), task)
    for number in range(count):
        begun.take(delta(number, task))
    return begun


def shares(made: Challenge, within: str = "") -> dict[tuple[str, int], float]:
    """Give the weights by kind and delta."""
    return {(m.kind, m.sequence): m.weight for m in made.members if m.within == within}


def held_out(table: pa.Table) -> pa.ChunkedArray:
    """Say which rows are held out."""
    columns = replace(COLUMNS, features=(("id", "number"),))
    ids = split(table, columns, "regression", Train()).held_out.rows["id"]
    return pc.is_in(table["id"], pa.array(list(ids)))


def spoil(table: pa.Table) -> pa.Table:
    """Put nonsense into all held-out rows."""
    hidden = held_out(table)
    for name, value in (("x", 1e6), ("c", "poison"), ("y", 7)):
        place = table.schema.get_field_index(name)
        new = pc.if_else(hidden, pa.scalar(value, table[name].type), table[name])
        table = table.set_column(place, name, new)
    return table


def drop(table: pa.Table) -> pa.Table:
    """Leave all held-out rows out."""
    return table.filter(pc.invert(held_out(table)))


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_held_out_rows_never_reach_training(strategy: str, tmp_path: Path) -> None:
    """Whatever the held-out rows hold, or if they are there at all, the models are the same."""
    models = []
    for number, change in enumerate((same, spoil, drop)):
        taken = stream(strategy)
        taken.change = change
        made = [taken.take(delta(step)) for step in range(3)]
        models.append([saved(m.scorer, tmp_path / f"{number}{i}") for i, m in enumerate(made)])
    assert models[0] == models[1] == models[2]


@pytest.mark.parametrize(
    ("strategy", "asked"),
    [
        ("fresh", set()),
        ("full", {"whole"}),
        ("window", {"window"}),
        ("continue", {"before", "served"}),
        ("ensemble", {"fresh"}),
        ("tournament", {"fresh", "window", "whole", "full", "ensemble"}),
    ],
)
def test_a_strategy_reads_no_more_than_it_must(strategy: str, asked: set[str]) -> None:
    """Rows and earlier models are only looked at by who learns from them."""
    taken = stream(strategy, 2, refresh_share=None, window_member=False)
    assert taken.take(delta(1)).material.held_out.rows.shape[0] < 100
    again = stream(strategy, 2, refresh_share=None, window_member=False)
    again.tables.append(delta(2))
    challenge(again.parts(), again.reads(), COLUMNS, "binary", again.settings,
              Past(again.champion, lambda: reversed(again.runs), 3))  # fmt: skip
    assert set(again.asked) == asked
    assert set(get_args(Train.model_fields["strategy"].annotation)) == set(STRATEGIES)


def test_all_are_judged_on_the_same_rows() -> None:
    """What differs is learnt from; the judging is on the delta's held-out rows."""
    made = {strategy: stream(strategy, 2).take(delta(2)).material for strategy in STRATEGIES}
    for material in made.values():
        assert material.held_out.rows.equals(made["fresh"].held_out.rows)
    rows = {strategy: len(material.train.rows) for strategy, material in made.items()}
    assert rows["fresh"] == rows["ensemble"] < rows["window"] < rows["full"]
    assert rows["fresh"] * 1.7 < rows["continue"] < rows["fresh"] * 2.3


def test_a_sample_is_drawn_by_the_key() -> None:
    """More rows than the limit are thinned, the same ones whatever their order."""
    taken = stream("full", 3, max_rows=200)
    first = taken.take(delta(3)).material.train
    assert 100 < len(first.rows) < 200
    taken = stream("full", 3, max_rows=200)
    taken.change = lambda table: table.take(np.random.default_rng(1).permutation(table.num_rows))
    assert taken.take(delta(3)).material.train.rows.equals(first.rows)


# -- continue -----------------------------------------------------------------------------------


@pytest.mark.parametrize("task", ["binary", "multiclass", "regression"])
def test_continue_adds_trees_and_keeps_the_ones_before(task: Task) -> None:
    """The champion is in the model, tree by tree, with its constant."""
    taken = stream("continue", 1, task, continue_rounds=4)
    first = taken.runs[0].load("served")
    made = taken.take(delta(1, task))
    assert made.scorer.booster.num_boosted_rounds() == ROUNDS + 4
    rows = made.material.held_out.rows
    before = margin(made.scorer, rows, iteration_range=(0, ROUNDS), output_margin=True)
    assert (before == margin(first, rows)).all()
    assert made.members == (Weighed("served", "run1", 1, 1.0),)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda s: replace_settings(s, max_rounds=9), "25 rounds, of 9 at most"),
        (lambda s: s.runs.clear(), "no champion"),
        (lambda s: s.tables.append(recoloured(delta(7))), "many of the values of 'c'"),
    ],
)
def test_continue_begins_anew_where_it_must(change: Callable[[Stream], Any], reason: str) -> None:
    """A champion that cannot be continued is replaced by a model of the whole table."""
    taken = stream("continue", 1)
    change(taken)
    made = taken.take(taken.tables.pop() if len(taken.tables) > 1 else delta(1))
    assert made.scorer.booster.num_boosted_rounds() == ROUNDS
    assert reason in made.notes[0]
    assert made.notes[0].startswith("begun anew on the whole table: ")


def replace_settings(taken: Stream, **changes: Any) -> None:
    """Change the settings of a stream."""
    taken.settings = taken.settings.model_copy(update=changes)


def recoloured(table: pa.Table) -> pa.Table:
    """Replace all categories by new ones."""
    new = pc.binary_join_element_wise(table["c"], "ish", "")
    return table.set_column(table.schema.get_field_index("c"), "c", new)


# -- ensemble -----------------------------------------------------------------------------------


@pytest.mark.parametrize("task", ["binary", "multiclass", "regression"])
@pytest.mark.parametrize("weighing", ["exponential", "aue"])
def test_an_ensemble_pools_the_last_models(task: Task, weighing: str) -> None:
    """One model for each of the last deltas, one of a window and one of the whole table."""
    taken = stream("ensemble", 4, task, weighing=weighing, refresh_share=0.9)
    made = taken.take(delta(4, task))
    found = shares(made)
    assert set(found) == {("fresh", 0), ("fresh", 4), ("fresh", 3), ("window", 0), ("full", 1)}
    assert sum(found.values()) == pytest.approx(1)
    used = sum(share > 0 for share in found.values())
    assert made.scorer.booster.num_boosted_rounds() == used * ROUNDS
    assert set(made.made) == {"fresh", "window"}


@pytest.mark.parametrize("counts", [True, False])
def test_the_member_of_the_whole_table_is_made_anew_from_time_to_time(*, counts: bool) -> None:
    """When so much of the table is new to it, and judged by the one before it."""
    taken = stream("ensemble", refresh_share=0.4, window_member=False)
    taken.counts = counts
    renewed = [taken.take(delta(number)) for number in range(6)]
    assert ["full" in made.made for made in renewed] == [False, True, False, True, False, False]
    full = next(m for m in renewed[3].members if m.kind == "full")
    assert (full.by, full.run_id) == ("run2", "")


def test_who_learnt_something_else_gets_no_say() -> None:
    """After a sudden turn the models of before are left with next to nothing."""
    taken = stream("ensemble", 3, rounds=30)
    table = delta(3)
    turned = pc.subtract(1, table["y"])
    found = shares(taken.take(table.set_column(table.schema.get_field_index("y"), "y", turned)))
    assert found["fresh", 0] > 0.9
    steady = shares(stream("ensemble", 3, rounds=30).take(delta(3)))
    assert steady["fresh", 0] < 0.5


def test_members_that_do_not_fit_are_left_out_with_a_reason() -> None:
    """A class that is new drops the models that cannot tell it; a model may be lost."""
    taken = stream("ensemble", 2, "multiclass", refresh_share=None, window_member=False)
    table = delta(2, "multiclass")
    more = pc.if_else(pc.equal(pc.bit_wise_and(table["id"], 3), 0), 3, table["y"])
    made = taken.take(table.set_column(table.schema.get_field_index("y"), "y", more))
    assert made.scorer.classes == ("0", "1", "2", "3")
    told = {m.sequence: m.reason for m in made.members if m.reason}
    assert set(told) == {1, 2}
    assert told[2] == "its classes are ['0', '1', '2'], now ['0', '1', '2', '3']"

    def lost(_: str) -> Scorer:
        raise GiveUp("gone for good")

    taken.runs[-1] = replace(taken.runs[-1], load=lost)
    made = taken.take(delta(3, "multiclass"))
    assert "gone for good" in {m.reason for m in made.members}


def test_a_delta_without_a_class_keeps_the_earlier_members() -> None:
    """The new model is made to tell all classes that the earlier ones tell."""
    taken = stream("ensemble", 2, "multiclass", refresh_share=None, window_member=False)
    table = delta(2, "multiclass")
    made = taken.take(table.filter(pc.less(table["y"], 2)))
    assert made.scorer.classes == ("0", "1", "2")
    assert not any(m.reason for m in made.members)
    assert np.isfinite(made.scorer.score(made.material.held_out.rows)).all()


def test_what_is_read_whole_ends_the_past() -> None:
    """A delta that is the whole table has learnt from all of it, and nothing earlier counts."""
    taken = stream("ensemble", 2)
    taken.tables.append(delta(2))
    whole = replace(taken.reads(), everything=True)
    made = challenge(
        taken.parts(), whole, COLUMNS, "binary", taken.settings, Past(runs=lambda: taken.runs)
    )
    assert shares(made) == {("fresh", 0): 1.0}


def test_rosy_estimates_are_corrected_by_experience() -> None:
    """The newest model's estimate rises by what earlier estimates lacked."""
    taken = stream("ensemble", 3)
    newest = taken.take(delta(3)).members[0]
    assert newest.loss is not None
    assert newest.estimate is not None
    taken = stream("ensemble", 3)
    for place, run in enumerate(taken.runs):
        rosy = tuple(replace(m, estimate=m.estimate - 1) if m.estimate else m for m in run.members)
        taken.runs[place] = replace(run, members=rosy)
    corrected = taken.take(delta(3)).members[0]
    assert corrected.estimate == newest.estimate
    assert corrected.loss is not None
    assert corrected.loss - newest.estimate > 0.9


# -- tournament ---------------------------------------------------------------------------------


def test_a_tournament_goes_by_the_record() -> None:
    """The record adds up over the deltas, older ones fading, and weighs the candidates."""
    taken = stream("tournament", candidates=("fresh", "full"), rounds=20)
    made = [taken.take(delta(number)) for number in range(5)]
    assert shares(made[0]) == {("fresh", 0): 0.5, ("full", 0): 0.5}
    records = [made[i].members[0].records for i in range(5)]
    assert records == pytest.approx([0, 1, 1.8, 2.44, 2.952])
    last = shares(made[4])
    assert last["full", 0] > last["fresh", 0]
    fresh = made[4].members[0]
    assert (fresh.by, fresh.kind) == ("run4", "fresh")


def test_a_candidate_that_cannot_be_made_is_left_out() -> None:
    """What the table has held for long does not park what is new."""
    taken = stream("tournament", 2)
    table = taken.tables[0]
    odd = table.set_column(table.schema.get_field_index("y"), "y", pc.add(table["y"], 5))
    taken.tables[0] = odd
    made = taken.take(delta(2))
    told = {m.kind: m.reason for m in made.members if not m.within}
    assert "4 values" in told["full"]
    assert (told["window"], told["ensemble"]) == ("", "")
