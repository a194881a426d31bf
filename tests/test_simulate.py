"""A history replayed: the live policy decides as it did, another otherwise, nothing is touched."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from io import StringIO
from pathlib import Path
from typing import Any, cast

import pytest
from builders import TABLE, dump
from conftest import Lab
from lake import Row
from rich.console import Console
from world import NAME, Daemon, World, later

from config.policy import changes, load_policy
from config.settings import ConfigError, Pipeline
from daemon.comparison import comparison
from daemon.doors import Access
from daemon.ledger import Ledger
from daemon.screen import simulation_text
from daemon.simulate import Replayed, replay
from handlers.facts import GiveUp, Record, State, TryLater

SETTINGS: dict[str, Any] = {
    "table": TABLE, "label": "label", "features": ["x"], "row_key": ["key"],
    "delta": {"min_rows": 1}, "train": {"rounds": 3, "holdout": 0.4},
    "promote": {"min_held_out": 1, "min_gain": 0.01}, "validate": {"min_per_class": 1},
}  # fmt: skip
LIVE = Pipeline.model_validate(SETTINGS)
Under = Callable[..., Replayed]


@pytest.fixture
def world(tmp_path: Path) -> World:
    """Give a table, a registry and an endpoint in memory."""
    return World(tmp_path)


@pytest.fixture
def daemon(world: World) -> Iterator[Daemon]:
    """Start a daemon on them."""
    daemon = Daemon(world, LIVE)
    yield daemon
    daemon.close()


def under(world: World, daemon: Daemon, since: int | None = None, **policy: Any) -> Replayed:
    """Replay what the daemon did under a policy, and see that nothing of it is touched."""
    before = dump(daemon.book), [run.record for run in world.registry.runs]
    wanted = Pipeline.model_validate({**SETTINGS, **policy})
    access = cast("Access", Doors(world))
    home = world.home / f"scratch-{len(list(world.home.glob('scratch-*')))}"
    found = replay(NAME, LIVE, wanted, access, daemon.book, since, home)
    assert (dump(daemon.book), [run.record for run in world.registry.runs]) == before
    return found


class Doors:
    """The doors that a simulation reads through."""

    def __init__(self, world: World) -> None:
        self.table = world.table
        self.registry = world.registry


def rows(first: int, sign: float = 1.0, count: int = 300) -> list[Row]:
    """Make rows whose feature tells the label, in this sense."""
    return [Row(first + n, sign * (n % 2) + n % 7 / 9, n % 2, 0.0, 0) for n in range(count)]


def alike(replayed: Replayed) -> bool:
    """Say whether all decisions and their figures are the live ones."""
    return all(
        step.same and [figures(record) for record in step.made] == [figures(step.was.record)]
        for step in replayed.steps
    )


def figures(record: Record) -> Any:
    """Give all of a decision that is not a name or a moment."""
    digest = record.learnt.rows_digest if record.learnt else None
    known = record.verdict, record.live, record.drift, record.delta, record.breaches
    return record.state, record.reason, digest, known


def states(replayed: Replayed) -> list[list[str]]:
    """Give the states of the simulated decisions."""
    return [[record.state.value for record in step.made] for step in replayed.steps]


def story(world: World, daemon: Daemon) -> None:
    """Let there be promotions, keeps, a parked delta, rollbacks of table and champion, a drop."""

    def tick() -> None:
        later(world, 60)
        daemon.reconciler.tick()

    first = world.lake.append(rows(0))
    tick()
    world.lake.append(rows(1000))
    tick()
    world.lake.append(rows(2000, -1.0))
    tick()
    world.lake.append([row._replace(label=1) for row in rows(3000)])
    tick()
    champion = daemon.book.champion(NAME)
    assert champion is not None
    model = daemon.book.before(NAME, champion.model.version)
    assert model is not None
    daemon.book.rollback(NAME, "ann", model, "odd")
    world.lake.append(rows(4000, -1.0))
    tick()
    world.lake.rewrite(world.lake.rows[:40], rows(5000, count=50), in_place=True)
    tick()
    (parked,) = daemon.book.parked(NAME)
    daemon.book.retry(NAME, "ann", [parked], "drop")
    tick()
    world.lake.set_head(first)
    tick()
    world.lake.append(rows(6000))
    tick()


def test_the_live_policy_gives_the_live_decisions(world: World, daemon: Daemon) -> None:
    """From the first delta on, or from any later one, all figures are the recorded ones."""
    story(world, daemon)
    live = [record.state.value for record in reversed(daemon.book.history(NAME))]
    assert {"promoted", "kept", "parked", "skipped", "dropped"} <= set(live)
    found = under(world, daemon)
    assert alike(found)
    assert states(found) == [[state] for state in live]
    assert not found.turns
    for record in daemon.book.history(NAME):
        later_on = under(world, daemon, record.delta.end_id)
        assert alike(later_on)
        assert not later_on.turns
    view = comparison(NAME, LIVE, LIVE, found)
    assert (view["same"], view["told"], view["policy"]) == (True, "The same decisions.", {})
    assert view["totals"]["live"] == view["totals"]["simulated"]
    assert view["totals"]["deltas"] > 2


def test_another_policy_decides_otherwise(world: World, daemon: Daemon) -> None:
    """What it would have served is scored on the very rows on which that which served was."""
    story(world, daemon)
    strict: dict[str, Any] = {"promote": {"min_held_out": 1, "min_gain": 5.0}}
    found = under(world, daemon, **strict)
    assert "promoted" not in {state for made in states(found) for state in made}
    view = comparison(NAME, LIVE, Pipeline.model_validate({**SETTINGS, **strict}), found)
    assert view["policy"] == {"promote.min_gain": {"live": 0.01, "simulated": 5.0}}
    assert "no delta for which both had a model" in view["told"]

    second = daemon.book.history(NAME)[-2].delta.end_id
    found = under(world, daemon, second, **strict)
    (one,) = {step.after for step in found.steps}
    assert one == "1"
    assert found.steps[0].simulated == found.steps[0].live, "not apart yet"
    view = comparison(NAME, LIVE, Pipeline.model_validate({**SETTINGS, **strict}), found)
    assert "would have promoted 0 of" in view["told"]
    assert "log loss" in view["told"]
    for item in view["deltas"]:
        ours, theirs = item["live"]["scored"], item["simulated"]["scored"]
        assert bool(ours) == bool(theirs)
        assert not ours or ours["rows"] == theirs["rows"]
    assert view["turns"] == []


def test_a_stricter_contract_takes_apart_what_was_trained_on(world: World, daemon: Daemon) -> None:
    """Good snapshots beside bad ones are taken one by one; both sides are scored all the same."""
    world.lake.append(rows(0))
    daemon.reconciler.tick()
    world.lake.append(rows(1000))
    world.lake.append([row._replace(x=99.0) for row in rows(2000)])
    daemon.reconciler.tick()
    world.lake.append(rows(3000))
    daemon.reconciler.tick()
    found = under(world, daemon, validate={"columns": {"x": {"max": 50}}})
    first, second, third = states(found)
    assert first == ["promoted"]
    assert second[0] == "split"
    assert second[2] == "parked"
    assert len(third) == 1
    apart = found.steps[1]
    assert apart.live is not None
    assert apart.live == apart.simulated, "the same model served when these rows came"
    console = Console(width=150, file=StringIO(), record=True)
    console.print(simulation_text(comparison(NAME, LIVE, LIVE, found)))
    assert f"split ({second[1]}, parked)" in console.export_text()


def test_what_nobody_would_have_parked_is_not_taken_up_again(world: World, daemon: Daemon) -> None:
    """A retry of a delta that the policy trained on is left out."""
    broken = {**SETTINGS, "validate": {"columns": {"x": {"max": 50}}}}
    daemon.close()
    strict = Daemon(world, Pipeline.model_validate(broken))
    world.lake.append(rows(0))
    strict.reconciler.tick()
    world.lake.append([row._replace(x=99.0) for row in rows(2000)])
    strict.reconciler.tick()
    strict.book.retry(NAME, "ann", strict.book.parked(NAME), "release")
    strict.reconciler.tick()
    found = under(world, strict)
    assert [len(made) for made in states(found)] == [1, 1, 0]
    assert found.steps[1].made[0].state in {State.KEPT, State.PROMOTED}
    assert alike(under(world, strict, validate=broken["validate"])), "released here, too"
    strict.close()


def test_expired_deltas_are_told(world: World, daemon: Daemon) -> None:
    """Decisions on rows that cannot be read any more are taken over, and that is said."""
    story(world, daemon)
    world.lake.expire(1, cut=False)
    found = under(world, daemon)
    view = comparison(NAME, LIVE, LIVE, found)
    assert view["holes"]
    assert view["same"]
    assert "This has holes" in view["told"]
    strict: dict[str, Any] = {"promote": {"min_held_out": 1, "min_gain": 5.0}}
    assert all(len(step.made) <= 1 for step in under(world, daemon, **strict).steps)


def test_a_column_that_the_table_lost_is_done_without(tmp_path: Path) -> None:
    """One that it got since was not there to learn from; one that it lost is told."""
    world = World(tmp_path)
    daemon = Daemon(world, Pipeline.model_validate({**SETTINGS, "features": None}))
    world.lake.alter(wanted=False)
    for first in (0, 1000):
        world.lake.append(rows(first))
        daemon.reconciler.tick()
    world.lake.alter(wanted=True)
    assert alike(under(world, daemon, features=None))
    world.lake.append(rows(2000))
    daemon.reconciler.tick()
    world.lake.alter(wanted=False)
    found = under(world, daemon, features=None)
    assert [step.lacks for step in found.steps] == [(), (), ("z",)]
    told = comparison(NAME, LIVE, LIVE, found)["told"]
    assert "The table no longer has z; delta(s) 3 were learnt from without." in told
    daemon.close()


def test_an_outage_ends_it_with_a_sentence(world: World, daemon: Daemon) -> None:
    """Nothing is guessed where the table does not answer; nor where there is no history."""
    with pytest.raises(GiveUp, match="No decision"):
        under(world, daemon)
    story(world, daemon)
    with pytest.raises(GiveUp, match="snapshot 99 is in no delta"):
        under(world, daemon, 99)
    world.out.add("table")
    with pytest.raises(TryLater, match="Delta 1 cannot be simulated: The table is out"):
        under(world, daemon)
    world.out.clear()


# -- the policy file -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("promote: {min_gian: 1}", "promote.min_gian: unknown setting; did you mean 'min_gain'?"),
        ("promote: {min_gain: -1}", "promote.min_gain: Input should be greater than or equal to 0"),
        ("trian: {rounds: 3}", "trian: unknown setting; did you mean 'train'?"),
        ("table: lake.bank.others", "table: is no policy; known: features, ignore, validate,"),
        ("endpoint: {port: 1}", "endpoint: is no policy"),
        ("delta: {min_rows: 1}", "delta: the recorded deltas are replayed as they were cut"),
        ("train: {salt: x, holdout: 0.5}", "train.salt: decides which rows are held out"),
        ("row_key: [a]", "row_key: decides which rows are held out"),
        ("train: 3", "train: Input should be a valid dictionary"),
        ("[train]", "must be a mapping with `promote:` at its top level"),
        ("train: {", "is not valid YAML"),
    ],
)
def test_a_policy_that_cannot_be_simulated_is_refused(tmp_path: Path, text: str, told: str) -> None:
    """Every mistake is told with its path in the file."""
    path = tmp_path / "policy.yaml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError, match=r"policy\.yaml") as refused:
        load_policy(path, LIVE)
    assert told in str(refused.value)


def test_a_policy_that_is_not_there_is_told(tmp_path: Path) -> None:
    """The option that named it is named."""
    with pytest.raises(ConfigError, match=r"Cannot read the policy .* Check --policy"):
        load_policy(tmp_path / "none.yaml", LIVE)


def test_all_mistakes_of_a_policy_are_told_at_once(tmp_path: Path) -> None:
    """As of a configuration."""
    path = tmp_path / "policy.yaml"
    path.write_text("table: x\ntrain: {rounds: 0, salt: x}\n3: 4", encoding="utf-8")
    with pytest.raises(ConfigError, match=r"has 4 mistake\(s\)"):
        load_policy(path, LIVE)


def test_a_policy_replaces_what_it_names_and_nothing_else(tmp_path: Path) -> None:
    """What it leaves out is as it is live; without a file everything is."""
    path = tmp_path / "policy.yaml"
    path.write_text("train: {strategy: full}\nvalidate: {min_per_class: 3}", encoding="utf-8")
    assert changes(LIVE, load_policy(path, LIVE)) == {
        "train.strategy": ("ensemble", "full"),
        "validate.min_per_class": (1, 3),
    }
    assert load_policy(None, LIVE) == LIVE


# -- with every door real --------------------------------------------------------------------


def untouched(lab: Lab, book: Ledger) -> Any:
    """Give all that a simulation must leave as it is."""
    registry = lab.doors().registry
    client, experiment = registry._connect()
    runs = client.search_runs([experiment])
    versions = client.search_model_versions(f"name = '{registry.model_name}'")
    return (
        book.path.read_bytes(),
        sorted((run.info.run_id, str(run.data), run.info.end_time) for run in runs),
        sorted((v.version, v.last_updated_timestamp, str(v.aliases)) for v in versions),
        lab.sql("SELECT file FROM {t}.metadata_log_entries"),
        lab.sql("SELECT * FROM {t}.refs"),
    )


@pytest.mark.real
def test_a_real_history_is_replayed_and_left_alone(lab: Lab, tmp_path: Path) -> None:
    """Whatever the table went through since, the live policy decides as it did."""
    book = lab.ledger()
    reconciler = lab.reconciler(book, validate={"min_per_class": 5})
    for batch in (0, 1, 2):
        lab.append(batch)
        reconciler.tick()
    previous = book.before(lab.pipeline, "3")
    assert previous is not None
    book.rollback(lab.pipeline, "ann", previous, "odd")
    lab.append(3, 300, fraud_trx=[1] * 300)
    reconciler.tick()
    lab.append(3)
    reconciler.tick()
    lab.sql("ALTER TABLE {t} ADD COLUMN later DOUBLE")
    lab.sql("CALL lake.system.rewrite_data_files(table => '{t}', options => "
            "map('rewrite-all', 'true'))")  # fmt: skip
    live = [record.state.value for record in reversed(book.history(lab.pipeline))]
    assert live == ["promoted", "kept", "promoted", "parked", "promoted"]
    before = untouched(lab, book)

    mine = lab.settings().pipelines[lab.pipeline]
    doors = lab.doors()
    found = replay(lab.pipeline, mine, mine, doors, book, None, tmp_path / "all")
    assert alike(found)
    assert states(found) == [[state] for state in live]

    since = book.history(lab.pipeline)[1].delta.end_id
    file = tmp_path / "policy.yaml"
    file.write_text("promote: {min_gain: 9}", encoding="utf-8")
    policy = load_policy(file, mine)
    found = replay(lab.pipeline, mine, policy, doors, book, since, tmp_path / "late")
    assert states(found) == [["parked"], ["kept"]]
    assert found.steps[-1].after == "1", "a model of an earlier run serves on"
    assert found.steps[-1].simulated == found.steps[-1].live
    assert untouched(lab, book) == before
