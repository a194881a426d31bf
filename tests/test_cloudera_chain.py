"""The lab's chain and the whole story in the emulated workbench: Hive, Spark, MLflow, a model.

Nothing is stubbed. Every job and the application is a process of its own that finds Spark and the
catalog by configuration alone; the chain's table is created through a data connection, and all else
uses the session made by hand.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import closing
from http import HTTPStatus
from pathlib import Path
from threading import Event, Thread

import httpx
import pytest
import yaml
from cloudera import given
from cloudera.serving import SITE
from cloudera.workbench import Workbench
from hive_metastore import Metastore
from sites import until
from workplace import ENDS, RUNNING, check_out, run_job, start_application

from config import machine
from config.loading import load
from daemon.__main__ import main
from daemon.ledger import Ledger
from handlers.cards import Recipe, cards
from handlers.spark import properties
from handlers.wire import split

pytestmark = [pytest.mark.real, pytest.mark.timeout(280)]
CHAIN = ["New Batch", "Retrain XGBoost", "API Redeployment"]


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Workbench]:
    """Give a workbench whose project is this checkout."""
    with Workbench(tmp_path, tracking_uri=f"sqlite:///{tmp_path}/mlflow.db") as bench:
        check_out(bench.project)
        yield bench


def configure(bench: Workbench, lake: Path, uri: str) -> Path:
    """Write the project's settings, as config/cloudera.yaml has them."""
    settings = {
        "state_dir": str(bench.project / "state"),
        "spark": {
            "catalog": "spark_catalog", "data_lake": str(lake),
            "conf": {
                "spark.sql.warehouse.dir": str(lake / "warehouse"),
                "spark.hadoop.hive.metastore.uris": uri,
            },
        },
        "pipelines": {"cards": {
            "table": "card_transactions", "label": "fraud_trx", "row_key": ["transaction_id"],
            "ignore": ["event_time"], "train": {"rounds": 20}, "poll_every": "1s",
            "endpoint": {"kind": "cloudera", "modelservice": bench.model_url, "look_every": 0.1},
        }},
    }  # fmt: skip
    path = bench.project / "retraind.yaml"
    path.write_text(yaml.safe_dump(settings), encoding="utf-8")
    return path


@pytest.fixture
def config(bench: Workbench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Give the project's settings, in a workload of a workbench beside a metastore."""
    lake = tmp_path / "lake"
    lake.mkdir()
    bench.environment["DBNAME"] = "bank"  # as the lab's projects have it
    for name, value in {
        "DBNAME": "bank", "CDSW_ENGINE_ID": "here", "CDSW_API_URL": f"{bench.url}/api/v1",
        "CDSW_PROJECT_ID": bench.project_id, "CDSW_APIV2_KEY": bench.key.text,
        "MLFLOW_TRACKING_URI": bench.environment["MLFLOW_TRACKING_URI"],
    }.items():  # fmt: skip
        monkeypatch.setenv(name, value)
    nowhere = configure(bench, lake, "thrift://127.0.0.1:1")
    metastore = Metastore(lake, machine.look(load(nowhere)))
    metastore.start()
    yield configure(bench, lake, metastore.uri)
    metastore.kill()


def append(bench: Workbench, rows: int, **environment: str) -> None:
    """Append a batch, as a job of the project."""
    done = run_job(
        bench, "daemon/cloudera_job.py", RETRAIND_CONFIG="retraind.yaml",
        RETRAIND_COMMAND=f"append --rows {rows}", **environment,
    )  # fmt: skip
    assert done.status == "ENGINE_SUCCEEDED", done.log


def test_the_chain_goes_from_a_batch_to_a_deployment(
    bench: Workbench, config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Triggering the first job is all that a person does; what it appended is served at the end."""
    settings = load(config)
    found = properties(machine.look(settings), settings)
    bench.environment["EMULATED_CONNECTIONS"] = json.dumps({"lake": found})
    append(bench, 1500, CONNECTION_NAME="lake")
    monkeypatch.syspath_prepend(str(SITE))
    words = ["cloudera", "jobs", "--rows", "1200", "--start", "--project-config", "retraind.yaml"]
    monkeypatch.setattr(sys, "argv", ["retraind", *words, "--config", str(config)])
    with pytest.raises(SystemExit):
        main()
    until(lambda: len(bench.runs) == 4, "the chain goes on to its end")
    bench.wait(bench.runs[-1], *ENDS, within=120)
    runs = {job.body["name"]: run for job, run in zip(bench.jobs[1:], bench.runs[1:], strict=True)}
    assert list(runs) == CHAIN
    assert {run.status for run in runs.values()} == {"ENGINE_SUCCEEDED"}, bench.runs[-1].log
    assert "deployed" not in runs["Retrain XGBoost"].log
    assert '"event": "deployed"' in runs["API Redeployment"].log
    with closing(Ledger(bench.project / "state" / "ledger.db")) as book:
        (record,) = book.history("cards")
        assert (record.state.value, record.delta.rows) == ("promoted", 2700)
        (deployment,) = book.deployments("cards")
        assert (deployment.version, deployment.outcome) == ("1", "deployed")
        assert book.owner() is None
    (served,) = bench.deployments
    assert served.status == "deployed"


def test_appending_is_all_that_a_team_does(bench: Workbench, config: Path) -> None:
    """The application follows the table: each batch is decided, and its model is what answers.

    The first batch is small, so that the second one's model wins; clients ask all the while.
    """
    append(bench, 600)
    app = start_application(bench, RETRAIND_CONFIG=config.name)
    bench.wait(app, RUNNING)
    until(lambda: _serving(bench) == [1], "the first model is deployed")
    (model,) = bench.models
    rows = cards(Recipe(20)).drop_columns(["fraud_trx"]).to_pandas()
    request = {"dataframe_split": split(rows)}
    failed, over = [], Event()

    def ask() -> None:
        while not over.wait(0.1):
            answer = given.ask(bench, model, request)
            busy = answer.status_code == HTTPStatus.TOO_MANY_REQUESTS  # the daemon asks, too
            if not busy and len(_answers(answer)) != len(rows):
                failed.append(answer.text)

    client = Thread(target=ask)
    client.start()
    try:
        append(bench, 6000)
        until(lambda: _serving(bench) == [2], "the second model takes its place")
    finally:
        over.set()
        client.join()
    assert failed == []
    with closing(Ledger(bench.project / "state" / "ledger.db")) as book:
        until(lambda: len(book.deployments("cards")) == 2, "the second deployment is proven")
        history = reversed(book.history("cards"))
        assert [(one.delta.rows, one.state.value) for one in history] == [
            (600, "promoted"), (6000, "promoted"),
        ]  # fmt: skip
        assert [one.outcome for one in book.deployments("cards")] == ["deployed"] * 2
    page = httpx.get(f"http://127.0.0.1:{app.port}/", trust_env=False)
    assert "the workbench&#39;s model retraind-cards" in page.text
    assert [len(found) for found in (bench.models, bench.builds, bench.deployments)] == [1, 2, 2]


def _serving(bench: Workbench) -> list[int]:
    """Count from 1 which deployments are up."""
    return [n for n, one in enumerate(bench.deployments, 1) if one.status == "deployed"]


def _answers(answer: httpx.Response) -> list[float]:
    found = answer.json().get("response", [])
    predictions: list[float] = found.get("prediction", []) if isinstance(found, dict) else found
    return predictions
