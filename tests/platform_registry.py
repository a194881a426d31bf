"""Check the registry against a real MLflow server, with the MLflow client that is installed here.

Run by `.ci/run` with the address of a server of MLflow 3: in the platform's environment, where the
client is mlflow-skinny 2.19, and in our own, where it is MLflow 3. It is a script and no test,
because the platform's environment has no test runner. Every check has an experiment of its own.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from threading import Event
from time import monotonic, time_ns
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import mlflow.pyfunc
import numpy as np
import pandas as pd
import pyarrow as pa
from builders import delta, learnt, moment, verdict
from mlflow import MlflowClient
from mlflow.entities import Run
from mlflow.exceptions import MlflowException
from mlflow.store.model_registry import rest_store as remote_models
from mlflow.store.tracking import rest_store as remote_runs
from mlflow.tracking import fluent
from mlflow.tracking._model_registry import utils as model_stores
from mlflow.tracking._tracking_service import utils as run_stores
from mlflow.utils.credentials import get_default_host_creds
from mlflow_server import PATIENCE, Fault, Line, Lot, all_well

from config.machine import Found, Machine
from config.settings import Pipeline, Settings
from handlers.account import account
from handlers.cards import Recipe, cards
from handlers.evidence import PROOF, read_proof
from handlers.facts import Fate, Record, State, TryLater
from handlers.registry import KEY, SCORER, WORK, Registry
from handlers.rows import choose, split
from handlers.scorer import Scorer, Task
from handlers.train import train

TIMEOUT, RETRIES = 3, 1
KINDS = {"age": "int", "event_time": "timestamp", "shop": "string", "online": "boolean"}
LABELS = {"binary": "fraud_trx", "multiclass": "segment", "regression": "transaction_amount"}
SCHEMA = {**KINDS, "transaction_id": "string", "fraud_trx": "int", "segment": "string"}
SCHEMA |= {"transaction_amount": "double"}


# -- what is recorded ------------------------------------------------------------------------


def trained(task: Task = "binary") -> tuple[Scorer, pd.DataFrame]:
    """Train a small model on columns of every kind; gives it with held-out rows."""
    rows = cards(Recipe(400))
    amounts = rows["transaction_amount"].to_pandas()
    rows = rows.append_column("shop", pa.array((["web", None, "café"] * 134)[:400]))
    rows = rows.append_column("online", pa.array(([True, None, False, True] * 100)[:400]))
    rows = rows.append_column("segment", pa.array(pd.qcut(amounts, 3, list("abc")).astype(str)))
    pipeline = Pipeline.model_validate(
        {
            "table": "lake.bank.cards", "label": LABELS[task], "task": task,
            "row_key": ["transaction_id"], "features": list(KINDS), "train": {"rounds": 5},
        }
    )  # fmt: skip
    columns = choose(SCHEMA, pipeline)
    parts = split(rows.select(columns.to_read), columns, task, pipeline.train)
    model = train(parts.train, columns, task, pipeline.train, lambda *_: None)
    return model, parts.held_out.rows.head(20)


MODEL, ROWS = trained()


def decided(name: str, sequence: int = 1, state: State = State.PROMOTED) -> Record:
    """Give a decision with every field filled."""
    work = delta(sequence + 10)
    return Record(
        name, sequence, work, state, "promoted: because", moment(), moment(),
        account(work, Fate.TRAINED, "why"), learnt=learnt(), verdict=verdict("3"),
    )  # fmt: skip


def unused(name: str) -> str:
    """Give a pipeline's name that no earlier check on the same server had."""
    return f"{name}-{time_ns()}"


def registry(url: str, pipeline: str) -> Registry:
    """Give a registry as the daemon makes it."""
    return Registry(url, None, pipeline, "platform", None, "1+abc")


def runs(url: str, of: Registry) -> list[Run]:
    """Give all runs of a registry's experiment."""
    client = MlflowClient(url)
    experiment = client.get_experiment_by_name(of.model_name)
    return list(client.search_runs([experiment.experiment_id])) if experiment else []


def versions(url: str, of: Registry) -> list[str]:
    """Give all versions of a registry's model."""
    found = MlflowClient(url).search_model_versions(f"name = '{of.model_name}'")
    return [str(version.version) for version in found]


def same(what: str, got: object, wanted: object) -> None:
    """Assert equality with a message of its own, as no test runner writes one."""
    assert got == wanted, f"{what}: {got!r}, expected {wanted!r}"


# -- checks on a server that answers ---------------------------------------------------------


def a_record_comes_back_as_it_went(url: str) -> None:
    """A decision with its model is found by its key, equal in every field, and explained."""
    door = registry(url, unused("back"))
    record = decided(door.model_name)
    same("found before", door.find(record.key), None)
    began = monotonic()
    kept = door.record(record, MODEL, ROWS)
    seconds = monotonic() - began
    assert kept.model, "no version"
    same("found", door.find(record.key), kept)
    same("found by a prefix of its key", door.find(record.key[:-1]), None)
    same("history", door.history(), [kept])
    (run,) = runs(url, door)
    same("status", run.info.status, "FINISHED")
    same("metric", run.data.metrics["champion_auc"], 0.8)
    same("parameter", run.data.params["max_depth"], "4")
    same("snapshot", run.data.tags["iceberg_snapshot_id"], "11")
    assert seconds < PATIENCE, f"recording took {seconds:.1f} s"
    print(f"    one record with its model: {seconds:.2f} s")  # noqa: T201  a script for a log


def decisions_without_a_model_are_kept(url: str) -> None:
    """They are runs without a version, and come back in the order they were taken."""
    door = registry(url, unused("bare"))
    states = {3: State.SKIPPED, 1: State.PARKED, 2: State.SPLIT}
    for sequence, state in states.items():
        door.record(decided(door.model_name, sequence, state), None, None)
    same("order", [record.state for record in door.history()], [states[n] for n in (1, 2, 3)])
    same("versions", versions(url, door), [])
    ended = sorted(run.info.status for run in runs(url, door))
    same("statuses", ended, ["FAILED", "FINISHED", "FINISHED"])


def aliases_point_at_versions(url: str) -> None:
    """An alias moves; one that was never set points nowhere, and none points at what is not."""
    door = registry(url, unused("alias"))
    same("before there is a model", door.pointed("champion"), None)
    for sequence in (1, 2):
        kept = door.record(decided(door.model_name, sequence), MODEL, ROWS)
        assert kept.model, "no version"
        assert door.point("champion", kept.model.version), "the alias was not set"
        same("pointed", door.pointed("champion"), kept.model.version)
    same("never set", door.pointed("challenger"), None)
    assert not door.point("champion", "99"), "there is no such version"
    same("still", door.pointed("champion"), "2")


def a_fetched_model_proves_itself(url: str) -> None:
    """Fetching gives the bytes that were trained, and rows whose scores they reproduce."""
    door = registry(url, unused("fetch"))
    kept = door.record(decided(door.model_name), MODEL, ROWS)
    assert kept.model, "no version"
    with tempfile.TemporaryDirectory() as scratch:
        home = Path(scratch)
        folder = door.fetch(kept.model, home / "models")
        MODEL.save(home / "offline")
        for file in (home / "offline").iterdir():
            there = (folder / SCORER / file.name).read_bytes()
            assert there == file.read_bytes(), f"{file.name} differs"
        rows, expected = read_proof(folder / PROOF)
        same("rows", len(rows), len(ROWS))
        np.testing.assert_array_equal(Scorer.load(folder / SCORER).score(rows), expected)


def anyone_with_mlflow_gets_the_same_scores(url: str) -> None:
    """A version loaded by MLflow alone scores, for every task, as the model that was trained."""
    for task in LABELS:
        scorer, sample = trained(task)  # type: ignore[arg-type]  # the keys are the tasks
        door = registry(url, unused(task))
        kept = door.record(decided(door.model_name), scorer, sample)
        assert kept.model, "no version"
        door.point("champion", kept.model.version)
        rows = sample[scorer.columns]
        for name in (f"{door.model_name}@champion", f"{door.model_name}/{kept.model.version}"):
            loaded = mlflow.pyfunc.load_model(f"models:/{name}")
            np.testing.assert_array_equal(np.asarray(loaded.predict(rows)), scorer.score(sample))
        same("schema of the input", loaded.metadata.get_input_schema(), None)


# -- checks on a server that fails -----------------------------------------------------------


def killed_after(last: int) -> Fault:
    """Kill the server with its last request done, and the answer to it on the way."""
    return lambda n, _: "answered" if n < last else "answer lost" if n == last else "lost"


def outage(act: Callable[[], object], what: str) -> None:
    """Assert that something fails as an outage, soon."""
    began = monotonic()
    try:
        act()
    except TryLater as error:
        told = str(error)
    else:
        raise AssertionError(f"{what}: went through")
    assert "Nothing is lost" in told, f"{what}: {told}"
    seconds = monotonic() - began
    assert seconds < PATIENCE, f"{what}: told after {seconds:.0f} s"


def one_of_each(url: str, door: Registry, kept: Record, what: str) -> None:
    """Assert that of all attempts at a record one complete run is left, and one version."""
    assert kept.model, f"{what}: no version"
    same(f"{what}: found", door.find(kept.key), kept)
    same(f"{what}: history", door.history(), [kept])
    same(f"{what}: versions", versions(url, door), [kept.model.version])
    for run in runs(url, door):
        complete = run.info.run_id == kept.model.run_id
        same(f"{what}: complete", KEY in run.data.tags, complete)
        same(f"{what}: status", run.info.status, "FINISHED" if complete else "KILLED")


def a_killed_server_delays_but_never_doubles(url: str) -> None:
    """Killed at any request of a record, the next attempt leaves one complete run, one version."""
    line = Line(url)
    door = registry(line.url, unused("counted"))
    door.record(decided(door.model_name), MODEL, ROWS)
    paths = list(line.paths)
    line.fault = killed_after(0)
    outage(partial(door.pointed, "champion"), "asking for an alias")
    line.close()
    assert len(paths) > 15, f"only {len(paths)} requests, so the line was not used"
    for last, path in enumerate(paths, 1):
        if "/artifacts/model/" in path and not path.endswith("MLmodel"):
            continue  # the files of the model are all alike
        line = Line(url)
        door = registry(line.url, unused("killed"))
        record = decided(door.model_name)
        line.fault = killed_after(last)
        outage(partial(door.record, record, MODEL, ROWS), f"killed after request {last}, {path}")
        outage(partial(door.find, record.key), "finding")
        assert not door.point("champion", "1"), "nobody answers"
        line.fault = all_well
        kept = door.find(record.key) or door.record(record, MODEL, ROWS)
        one_of_each(url, door, kept, f"killed after request {last}, {path}")
        line.close()


def lost_answers_double_nothing(url: str) -> None:
    """The client asks again where an answer was lost; what the server did twice is tidied."""
    line = Line(url)
    door = registry(line.url, unused("twice"))
    door.history()  # the experiment is there
    lost: set[str] = set()

    def once(_: int, path: str) -> Lot:
        if path in lost:
            return "answered"
        lost.add(path)
        return "answer lost"

    line.fault = once
    kept = door.record(decided(door.model_name), MODEL, ROWS)
    same("runs made twice", len(runs(url, door)), 2)
    one_of_each(url, door, kept, "asked twice")
    line.close()


def a_silent_server_is_told_in_time(url: str) -> None:
    """A server that takes requests and never answers is an outage, too, after the timeout."""
    for path in ("experiments/get-by-name", "model-versions/create"):
        line = Line(url)
        door = registry(line.url, unused("silent"))
        record = decided(door.model_name)
        stopped = Event()

        def silent(_: int, asked: str, path: str = path, stopped: Event = stopped) -> Lot:
            if path in asked:
                stopped.set()
            return "kept waiting" if stopped.is_set() else "answered"

        line.fault = silent
        outage(partial(door.record, record, MODEL, ROWS), f"silent at {path}")
        line.fault = all_well
        kept = door.record(record, MODEL, ROWS)
        one_of_each(url, door, kept, f"silent at {path}")
        line.close()


# -- checks on a store like Cloudera's -------------------------------------------------------


def platform_runs(url: str, artifacts: Path) -> object:
    """Keep runs as Cloudera's plugin is known or feared to keep them, on the server's store."""
    make: Any = remote_runs.RestStore
    store = make(partial(get_default_host_creds, url))
    create, get, search = store.create_experiment, store.get_run, store._search_runs

    def get_run(run_id: str) -> Run:
        run: Run = get(run_id)
        if run.info.experiment_id != fluent._get_experiment_id():
            raise MlflowException("Missing the required parameter `experiment_id`")
        return run

    def search_runs(experiment_ids: list[str], _: str, *rest: Any, **named: Any) -> Any:
        found, token = search(experiment_ids, "", *rest, **named)
        return sorted(found, key=lambda run: str(run.info.run_id)), token

    store.create_experiment = lambda name, *_, **__: create(name, str(artifacts / name))
    store.get_run = get_run  # only in the experiment that was set last
    store._search_runs = search_runs  # more than was asked for, in no particular order
    return store


def platform_models(url: str) -> object:
    """Keep models as Cloudera's plugin is known or feared to keep them, on the server's store."""
    make: Any = remote_models.RestStore
    store = make(partial(get_default_host_creds, url))

    def lacks(*_: object) -> None:
        raise NotImplementedError

    def refuses(*_: object) -> None:
        raise MlflowException("not supported")

    store.set_registered_model_alias = lacks
    store.get_model_version_by_alias = store.delete_model_version = refuses
    return store


def a_platform_store_is_enough(url: str) -> None:
    """Two pipelines work in one process on a store that has the limits of Cloudera's."""
    with tempfile.TemporaryDirectory() as scratch:
        home = Path(scratch)
        run_kinds: Any = run_stores._tracking_store_registry
        run_kinds.register("cml", lambda *_, **__: platform_runs(url, home / "experiments"))
        model_kinds: Any = model_stores._get_store_registry  # it is made at first use
        model_kinds().register("cml", lambda *_, **__: platform_models(url))
        with ThreadPoolExecutor(2) as pool:
            list(pool.map(partial(works_on_a_platform_store, url, home), ("one", "two")))


def works_on_a_platform_store(url: str, home: Path, name: str) -> None:
    """Take three decisions after an interrupted attempt at each, and read them back."""
    pipeline = unused(name)
    door = registry("cml://localhost", pipeline)
    kept = []
    for sequence in (2, 3, 1):
        record = decided(pipeline, sequence)
        same("found before", door.find(record.key), None)
        server = MlflowClient(url)
        experiment = server.get_experiment_by_name(door.model_name)
        assert experiment, "no experiment"
        server.create_run(experiment.experiment_id, tags={WORK: record.key})
        kept.append(door.record(record, MODEL, ROWS))
    again = registry("cml://localhost", pipeline)
    for record in kept:
        same("found", again.find(record.key), record)
        assert record.model, "no version"
        folder = again.fetch(record.model, home / pipeline)
        rows, expected = read_proof(folder / PROOF)
        np.testing.assert_array_equal(Scorer.load(folder / SCORER).score(rows), expected)
    same("order", [record.sequence for record in again.history()], [1, 2, 3])
    assert not again.point("champion", "1"), "there are no aliases"
    same("pointed", again.pointed("champion"), None)
    ended = sorted(run.info.status for run in runs(url, again))
    same("statuses", ended, ["FINISHED"] * 3 + ["KILLED"] * 3)


CHECKS = (
    a_record_comes_back_as_it_went,
    decisions_without_a_model_are_kept,
    aliases_point_at_versions,
    a_fetched_model_proves_itself,
    anyone_with_mlflow_gets_the_same_scores,
    lost_answers_double_nothing,
    a_silent_server_is_told_in_time,
    a_killed_server_delays_but_never_doubles,
    a_platform_store_is_enough,
)


def main(url: str) -> None:
    """Set MLflow up as the daemon does, with short limits, and run all checks."""
    pipeline = {"table": "lake.bank.cards", "label": "fraud_trx"}
    limits = {"timeout": TIMEOUT, "retries": RETRIES}
    settings = Settings.model_validate({"mlflow": limits, "pipelines": {"cards": pipeline}})
    nowhere = Found("", "not used here")
    Machine(nowhere, nowhere, nowhere, Found(url, "given")).export(settings)
    print(f"MLflow {mlflow.__version__} and the server {url}")  # noqa: T201  a script for a log
    for check in CHECKS:
        began = monotonic()
        check(url)
        print(f"ok  {check.__name__} ({monotonic() - began:.1f} s)", flush=True)  # noqa: T201


if __name__ == "__main__":
    main(*sys.argv[1:])
