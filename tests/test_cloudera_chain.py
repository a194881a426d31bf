"""The lab's chain in the emulated workbench, nothing stubbed: Hive, Spark, MLflow, a model.

Every job is a process of its own that finds Spark and the catalog by configuration alone, the table
is created through a data connection, and the rest use the session made by hand.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
import yaml
from cloudera.serving import SITE
from cloudera.workbench import Workbench
from hive_metastore import Metastore
from sites import until
from workplace import ENDS, check_out, run_job

from config import machine
from config.loading import load
from daemon.__main__ import main
from daemon.ledger import Ledger
from handlers.spark import properties

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
            "ignore": ["event_time"], "train": {"rounds": 20},
            "endpoint": {"kind": "cloudera", "modelservice": bench.model_url, "look_every": 0.1},
        }},
    }  # fmt: skip
    path = bench.project / "retraind.yaml"
    path.write_text(yaml.safe_dump(settings), encoding="utf-8")
    return path


def test_the_chain_goes_from_a_batch_to_a_deployment(
    bench: Workbench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Triggering the first job is all that a person does; what it appended is served at the end."""
    lake = tmp_path / "lake"
    lake.mkdir()
    bench.environment["DBNAME"] = "bank"  # as the lab's projects have it
    for name, value in {
        "DBNAME": "bank", "CDSW_ENGINE_ID": "here", "CDSW_API_URL": f"{bench.url}/api/v1",
        "CDSW_PROJECT_ID": bench.project_id, "CDSW_APIV2_KEY": bench.key.text,
        "MLFLOW_TRACKING_URI": bench.environment["MLFLOW_TRACKING_URI"],
    }.items():  # fmt: skip
        monkeypatch.setenv(name, value)
    config = configure(bench, lake, "thrift://127.0.0.1:1")
    metastore = Metastore(lake, machine.look(load(config)))
    metastore.start()
    config = configure(bench, lake, metastore.uri)
    try:
        _chain(bench, config, monkeypatch)
    finally:
        metastore.kill()


def _chain(bench: Workbench, config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = load(config)
    found = properties(machine.look(settings), settings)
    bench.environment["EMULATED_CONNECTIONS"] = json.dumps({"lake": found})
    created = run_job(
        bench, "daemon/cloudera_job.py", RETRAIND_CONFIG="retraind.yaml",
        RETRAIND_COMMAND="append --rows 1500", CONNECTION_NAME="lake",
    )  # fmt: skip
    assert created.status == "ENGINE_SUCCEEDED", created.log
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
