"""The door to MLflow, on a real SQLite store: what is kept, found again, and tidied."""

from __future__ import annotations

import shutil
import subprocess
import sys
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pandas as pd
import pytest
from mlflow import MlflowClient

from config.settings import Pipeline
from handlers import registry as module
from handlers.account import account
from handlers.cards import Recipe, cards
from handlers.evidence import PROOF, read_proof, write_proof
from handlers.facts import (
    Decision,
    Delta,
    Fate,
    GiveUp,
    Learnt,
    Live,
    Look,
    Model,
    Record,
    Snapshot,
    State,
    TryLater,
    Verdict,
)
from handlers.registry import SCORER, Registry
from handlers.rows import Split, choose, split
from handlers.scorer import Scorer
from handlers.train import train

pytestmark = pytest.mark.real
WHEN = datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=timezone.utc)


@pytest.fixture(scope="module")
def uri(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Give an SQLite store of this module's own."""
    return f"sqlite:///{tmp_path_factory.mktemp('mlflow')}/mlflow.db"


@pytest.fixture
def registry(uri: str, request: pytest.FixtureRequest, tmp_path: Path) -> Registry:
    """Give a registry with an experiment of its own."""
    return Registry(uri, None, request.node.name, "test", tmp_path / "artifacts", "1+abc")


@pytest.fixture(scope="module")
def trained() -> tuple[Scorer, Split]:
    """Give a small model and its rows."""
    schema = {"transaction_id": "string", "event_time": "timestamp", "fraud_trx": "int"}
    schema |= {"age": "int", "transaction_amount": "double", "bank_account_balance": "double"}
    pipeline = Pipeline(table="a.b", label="fraud_trx", row_key=("transaction_id",))
    columns = choose(schema, pipeline)
    rows = cards(Recipe(600)).select(columns.to_read)
    parts = split(rows, columns, "binary", pipeline.train)
    return train(parts.train, columns, "binary", pipeline.train, lambda *_: None), parts


def decided(name: str, sequence: int = 1, state: State = State.PROMOTED) -> Record:
    """Give a decision with every field filled."""
    snapshot = Snapshot(12, 11, WHEN, "append", {"added-records": "600"})
    delta = Delta("lake.a.b", "main", "uuid-1", 11, 12 + sequence, (snapshot,))
    verdict = Verdict(
        Decision.PROMOTE, "promoted: because", "log_loss", 120, {"log_loss": 0.2, "auc": 0.9},
        {"log_loss": 0.3}, {"log_loss": 0.4}, 0.1, "7", evidence=7.0, interval=(0.05, 0.15),
        gathered=240, detectable=0.02,
    )  # fmt: skip
    live = Live("7", 600, {"log_loss": 0.31}, Look(600, 0.31, 0.01), 2.0, alarmed=False)
    learnt = Learnt("fresh", {"eta": 0.1, "max_depth": 4}, ("age",), 480, 120, 0, 0.2, "salt")
    return Record(
        name, sequence, delta, state, "promoted: because", WHEN, WHEN,
        account(delta, Fate.TRAINED, "why"), learnt=learnt, verdict=verdict, live=live,
    )  # fmt: skip


def test_a_record_comes_back_as_it_went(
    registry: Registry, trained: tuple[Scorer, Split], request: pytest.FixtureRequest
) -> None:
    """What is kept is found by its run key, equal in every field, and named by a version."""
    scorer, parts = trained
    record = decided(request.node.name)
    assert registry.find(record.key) is None
    kept = registry.record(record, scorer, parts.held_out.rows.head(20))
    assert kept.model is not None
    assert registry.find(record.key) == kept
    assert registry.history() == [kept]


def test_the_run_tells_the_decision(
    registry: Registry, uri: str, trained: tuple[Scorer, Split], request: pytest.FixtureRequest
) -> None:
    """Parameters, both models' metrics and the tags of the public lab stand in the run."""
    scorer, parts = trained
    kept = registry.record(decided(request.node.name), scorer, parts.held_out.rows.head(20))
    assert kept.model is not None
    run = MlflowClient(uri).get_run(kept.model.run_id)
    assert run.info.status == "FINISHED"
    assert run.data.metrics["challenger_log_loss"] == 0.2
    assert run.data.metrics["champion_log_loss"] == 0.3
    assert run.data.metrics["gain"] == 0.1
    assert run.data.metrics["evidence"] == 7.0
    assert (run.data.metrics["gain_low"], run.data.metrics["gain_high"]) == (0.05, 0.15)
    assert (run.data.metrics["live_log_loss"], run.data.metrics["live_loss"]) == (0.31, 0.31)
    assert run.data.metrics["alarm"] == 2.0
    assert run.data.params["max_depth"] == "4"
    tags = run.data.tags
    assert tags["iceberg_snapshot_id"] == "13"
    assert tags["iceberg_parent_id"] == "11"
    assert tags["row_count"] == "600"
    assert tags["retraind.operations"] == "append"
    assert tags["retraind.holdout_buckets"] == "0..1999 of 10000"
    assert tags["retraind.code_version"] == "1+abc"
    assert tags["retraind.verdict"] == "promoted"


def test_the_logged_model_scores_like_the_trained_one(
    registry: Registry, uri: str, trained: tuple[Scorer, Split], request: pytest.FixtureRequest
) -> None:
    """Anyone with MLflow loads the version by its alias and gets the very same predictions."""
    scorer, parts = trained
    kept = registry.record(decided(request.node.name), scorer, parts.held_out.rows.head(20))
    assert kept.model is not None
    assert registry.point("champion", kept.model.version)
    assert registry.pointed("champion") == kept.model.version
    mlflow.set_tracking_uri(uri)
    loaded = mlflow.pyfunc.load_model(f"models:/{registry.model_name}@champion")
    rows = parts.held_out.rows
    np.testing.assert_array_equal(loaded.predict(rows[scorer.columns]), scorer.score(rows))
    # With a schema MLflow would cast what clients send: a missing truth value would become false.
    assert loaded.metadata.get_input_schema() is None
    assert loaded.metadata.get_output_schema() is not None
    requirements = Path(
        mlflow.artifacts.download_artifacts(f"runs:/{kept.model.run_id}/model/requirements.txt")
    ).read_text(encoding="utf-8")
    assert {line.split("==")[0] for line in requirements.split()} >= {"xgboost", "numpy", "pandas"}


def test_fetching_gives_the_same_model_and_its_proof(
    registry: Registry,
    trained: tuple[Scorer, Split],
    request: pytest.FixtureRequest,
    tmp_path: Path,
) -> None:
    """A fetched version has the trained model's bytes, and a proof that its scores reproduce."""
    scorer, parts = trained
    kept = registry.record(decided(request.node.name), scorer, parts.held_out.rows.head(20))
    assert kept.model is not None
    folder = registry.fetch(kept.model, tmp_path / "models")
    scorer.save(tmp_path / "offline")
    for file in (tmp_path / "offline").iterdir():
        assert (folder / SCORER / file.name).read_bytes() == file.read_bytes()
    rows, expected = read_proof(folder / PROOF)
    assert len(rows) == 20
    np.testing.assert_array_equal(Scorer.load(folder / SCORER).score(rows), expected)
    assert registry.fetch(kept.model, tmp_path / "models") == folder


def test_members_of_a_pool_are_fetched_or_said_to_be_gone(
    registry: Registry,
    trained: tuple[Scorer, Split],
    request: pytest.FixtureRequest,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What a run made on its way comes back; what MLflow keeps no more is given up, not awaited."""
    scorer, parts = trained
    record, sample = decided(request.node.name), parts.held_out.rows.head(20)
    model = registry.record(record, scorer, sample, made={"window": scorer}).model
    assert model is not None
    for kind in ("window", None):
        again = Scorer.load(registry.fetch_member(model, kind, tmp_path))
        np.testing.assert_array_equal(again.score(sample), scorer.score(sample))
    monkeypatch.setattr(module, "KEPT", 1)
    shutil.rmtree(tmp_path / f"{model.run_id}.window")
    fetched = registry.fetch_member(model, "window", tmp_path)
    assert list(tmp_path.iterdir()) == [fetched], "what was fetched first is dropped"
    with pytest.raises(GiveUp, match="does not keep its members/full"):
        registry.fetch_member(model, "full", tmp_path)
    with pytest.raises(GiveUp, match="does not keep the run"):
        registry.fetch_member(Model("7", "0" * 32), "window", tmp_path)


def test_an_interrupted_record_is_never_found_and_is_tidied(
    registry: Registry,
    uri: str,
    trained: tuple[Scorer, Split],
    request: pytest.FixtureRequest,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The run key is written last: half a run does not count, and the next attempt tidies it."""
    scorer, parts = trained
    record, sample = decided(request.node.name), parts.held_out.rows.head(20)
    write = MlflowClient.set_tag

    def dies(self: MlflowClient, run_id: str, key: str, value: Any, *rest: Any) -> None:
        if key == module.KEY:
            raise OSError("killed here")
        write(self, run_id, key, value, *rest)

    monkeypatch.setattr(MlflowClient, "set_tag", dies)
    with pytest.raises(TryLater, match="killed here"):
        registry.record(record, scorer, sample)
    monkeypatch.undo()
    assert registry.find(record.key) is None
    assert registry.history() == []
    kept = registry.record(record, scorer, sample)
    client = MlflowClient(uri)
    experiment = client.get_experiment_by_name(registry.model_name)
    assert experiment is not None
    runs = client.search_runs([experiment.experiment_id])
    assert sorted(run.info.status for run in runs) == ["FINISHED", "KILLED"]
    versions = client.search_model_versions(f"name = '{registry.model_name}'")
    assert kept.model is not None
    assert [str(version.version) for version in versions] == [kept.model.version]


def test_history_is_complete_and_in_order(
    registry: Registry, request: pytest.FixtureRequest
) -> None:
    """Decisions without a model are runs too, and all come back in the order they were taken."""
    states = [State.SKIPPED, State.PARKED, State.SPLIT, State.ABANDONED]
    for sequence in (3, 1, 2):
        record = decided(request.node.name, sequence, states[sequence])
        registry.record(record, None, None)
    assert [record.sequence for record in registry.history()] == [1, 2, 3]
    assert [record.state for record in registry.history()] == states[1:]


def test_an_unreachable_server_is_an_outage() -> None:
    """A tracking server that does not answer delays the work, and says so within seconds."""
    code = (
        "import os; os.environ['MLFLOW_HTTP_REQUEST_MAX_RETRIES']='0'\n"
        "from handlers.registry import Registry\n"
        "from handlers.facts import TryLater\n"
        "try: Registry('http://127.0.0.1:9', None, 'x', 'y', None, '1').find('k')\n"
        "except TryLater as error: print('later:', error)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=True,
        cwd=Path(__file__).parent.parent,
    )  # fmt: skip
    assert "later: MLflow at http://127.0.0.1:9 failed" in done.stdout
    assert "Nothing is lost" in done.stdout


def test_rows_of_every_kind_survive_the_proof(registry: Registry, tmp_path: Path) -> None:
    """Booleans, categories and times with gaps are kept for the proof exactly."""
    import xgboost as xgb  # noqa: PLC0415 (only this test fits by hand)

    from handlers.scorer import Feature  # noqa: PLC0415

    rows = pd.DataFrame(
        {
            "flag": [True, None, False, True],
            "shop": ["a", None, "b", "zz"],
            "when": pd.to_datetime(
                pd.Series(["2026-01-01", None, "2026-01-03", "2026-01-04"]), utc=True
            ),
            "n": [1.5, None, 3.0, 4.0],
        }
    )
    features = (
        Feature("flag", "boolean"), Feature("shop", "category", ("a", "b")),
        Feature("when", "time"), Feature("n", "number"),
    )  # fmt: skip
    blank = Scorer("regression", features, (), xgb.Booster())
    matrix = xgb.DMatrix(
        blank.matrix(rows), [0.0, 1.0, 2.0, 3.0], feature_names=blank.columns,
        feature_types=blank.feature_types, enable_categorical=True,
    )  # fmt: skip
    booster = xgb.train({"min_child_weight": 0, "max_depth": 3}, matrix, 5)
    scorer = Scorer("regression", features, (), booster)
    write_proof(scorer, rows, tmp_path / PROOF)
    again, expected = read_proof(tmp_path / PROOF)
    np.testing.assert_array_equal(scorer.score(again), expected)
    assert len(set(expected.tolist())) > 1
    kept = registry.record(decided("kinds"), scorer, rows)
    assert kept.model is not None


def test_a_store_that_was_killed_while_it_was_made_is_made_anew(tmp_path: Path) -> None:
    """A `kill -9` amid MLflow's first migrations leaves no store that can never be opened."""
    code = (
        "import os, sys; from sqlalchemy import event; from sqlalchemy.engine import Engine\n"
        "def die(c, cursor, statement, *_):\n"
        "    if 'ADD COLUMN' in statement: os._exit(9)\n"
        "event.listen(Engine, 'after_cursor_execute', die)\n"
        "from handlers.registry import Registry\n"
        "Registry(sys.argv[1], None, 'x', 'y', None, '1').find('k')\n"
    )
    uri = f"sqlite:///{tmp_path}/state/mlflow.db"
    done = subprocess.run([sys.executable, "-c", code, uri], check=False, capture_output=True)
    assert done.returncode == 9, done.stderr
    assert Registry(uri, None, "x", "y", tmp_path / "artifacts", "1").find("k") is None
    assert [path.name for path in (tmp_path / "state").iterdir()] == ["mlflow.db"]


def test_a_store_that_cannot_be_opened_is_an_outage(tmp_path: Path) -> None:
    """What SQLite throws past MLflow at the first look delays the work, as any outage does."""
    (tmp_path / "mlflow.db").write_bytes(b"not a database, or a disk that fails")
    registry = Registry(f"sqlite:///{tmp_path}/mlflow.db", None, "x", "y", tmp_path, "1")
    with pytest.raises(TryLater, match="MLflow at sqlite"):
        registry.find("k")
