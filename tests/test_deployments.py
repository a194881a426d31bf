"""The plugin of MLflow's deployments, on an emulated workbench with runs that MLflow keeps."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pytest
from cloudera import given
from cloudera.serving import SITE, Loader
from cloudera.workbench import Workbench as Emulator
from endpoint_conformance import Models, make_rows, train_models
from mlflow.deployments import get_deploy_client, interface
from mlflow.exceptions import MlflowException
from mlflow.tracking import fluent

from daemon.deployments import TARGET
from handlers import scorer

ROOT = Path(__file__).parents[1]
ROWS = make_rows(6, seed=3)
QUICK = {"look_every": "0.01"}


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Models:
    """Train once for the whole module."""
    return train_models(tmp_path_factory.mktemp("models"))


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory, models: Models) -> dict[str, str]:
    """Log two models as anybody would, the second one as a registered version; gives their URIs."""
    home = tmp_path_factory.mktemp("mlflow")
    mlflow.set_tracking_uri(f"sqlite:///{home}/mlflow.db")
    client, found = mlflow.MlflowClient(), {}
    experiment = client.create_experiment("cards", (home / "artifacts").as_uri())
    for version in ("1", "2"):
        run = client.create_run(experiment).info.run_id
        saved = home / version / "clever"
        given.save_model(saved, models[version].folder, Path(str(scorer.__file__)))
        client.log_artifacts(run, str(saved), "clever")
        found[version] = f"runs:/{run}/clever"
    client.create_registered_model("cards")
    run_id = found["2"].split("/")[1]
    client.create_model_version("cards", found["2"], run_id)
    return {**found, "2": "models:/cards/1"}


@pytest.fixture
def bench(
    tmp_path: Path, runs: dict[str, str], environment: pytest.MonkeyPatch
) -> Iterator[Emulator]:
    """Stand in a workload of a workbench that reads MLflow's runs."""
    assert runs
    uri = mlflow.get_tracking_uri()
    with Loader() as loader, Emulator(tmp_path, tracking_uri=uri, loader=loader) as bench:
        bench.client()  # from now on `cmlapi` is found
        for name, value in bench.workload_environment().items():
            if name.startswith(("CDSW_", "ML_RUNTIME_")):
                environment.setenv(name, value)
        yield bench


@pytest.fixture
def environment() -> Iterator[pytest.MonkeyPatch]:
    """Change the environment for a test."""
    with pytest.MonkeyPatch.context() as patch:
        yield patch


@pytest.fixture(scope="module", autouse=True)
def installed() -> None:
    """Register the plugin, as its entry point does where the package is installed."""
    interface.plugin_store.register(TARGET, "daemon.deployments")  # type: ignore[no-untyped-call]


@pytest.fixture
def client(bench: Emulator) -> Any:
    """Open the target, as MLflow does."""
    target = f"{TARGET}:/?modelservice={bench.model_url}"
    return get_deploy_client(target)  # type: ignore[no-untyped-call]


def right(models: Models, version: str) -> np.ndarray[Any, Any]:
    """Give the offline scores."""
    found: np.ndarray[Any, Any] = models[version].scorer.score(ROWS)
    return found


def test_a_model_is_deployed_updated_asked_and_stopped(
    bench: Emulator, client: Any, runs: dict[str, str], models: Models
) -> None:
    """Any model of a run is served by name, and what is served can be told."""
    assert client.list_deployments() == []
    made = client.create_deployment("cards", runs["1"], config={**QUICK, "cpu": "2"})
    assert (made["name"], made["status"]) == ("cards", "deployed")
    assert made["run_id"] == runs["1"].split("/")[1]
    assert bench.deployments[0].body["cpu"] == 2
    answer = client.predict("cards", ROWS)
    assert np.array_equal(answer["predictions"].to_numpy(np.float32), right(models, "1"))
    client.update_deployment("cards", runs["2"], config=QUICK)
    assert client.get_deployment("cards")["version"] == "1"
    assert [one["name"] for one in client.list_deployments()] == ["cards"]
    answer = client.predict("cards", ROWS)
    assert np.array_equal(answer["predictions"].to_numpy(np.float32), right(models, "2"))
    client.delete_deployment("cards")
    bench.wait(bench.deployments[1], "stopped")
    client.delete_deployment("cards")
    assert client.list_deployments() == []
    assert not bench.dropped


def test_what_cannot_be_done_is_told_with_its_remedy(
    bench: Emulator, client: Any, runs: dict[str, str]
) -> None:
    """Names that are there or are not, models that nobody has, options that nobody knows."""
    with pytest.raises(MlflowException, match=r"no model 'cards'.*`create`"):
        client.update_deployment("cards", runs["1"])
    with pytest.raises(MlflowException, match="no model 'cards'"):
        client.get_deployment("cards")
    with pytest.raises(MlflowException, match="neither runs:/RUN/PATH nor models:/"):
        client.create_deployment("cards", "s3://bucket/model")
    with pytest.raises(MlflowException, match="Unknown: -C cpus"):
        client.create_deployment("cards", runs["1"], config={"cpus": "2"})
    with pytest.raises(MlflowException, match="memory: Input should be greater than 0"):
        client.create_deployment("cards", runs["1"], config={"memory": "0"})
    with pytest.raises(MlflowException, match="into endpoints"):
        client.list_deployments(endpoint="west")
    client.create_deployment("cards", runs["1"], config=QUICK)
    with pytest.raises(MlflowException, match="already; `update` it"):
        client.create_deployment("cards", runs["2"], config=QUICK)
    bench.key.expire()
    with pytest.raises(MlflowException, match="CDSW_APIV2_KEY"):
        client.get_deployment("cards")


def test_a_run_is_found_on_a_platform_that_looks_in_one_experiment(
    client: Any, runs: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The platform's store finds a run only in the experiment that was set last."""
    get_run = mlflow.MlflowClient.get_run
    monkeypatch.setattr(fluent, "_active_experiment_id", None)  # afterwards it is again as before
    mlflow.set_experiment("another")

    def picky(self: mlflow.MlflowClient, run_id: str) -> Any:
        run = get_run(self, run_id)
        if run.info.experiment_id != fluent._get_experiment_id():
            raise MlflowException("Missing the required parameter `experiment_id`")
        return run

    monkeypatch.setattr(mlflow.MlflowClient, "get_run", picky)
    made = client.create_deployment("cards", runs["1"], config=QUICK)
    assert made["run_id"] == runs["1"].split("/")[1]
    with pytest.raises(MlflowException, match="nobody"):
        client.update_deployment("cards", "runs:/nobody/model")


def test_mlflow_finds_the_plugin_by_its_entry_point(
    bench: Emulator, runs: dict[str, str], tmp_path: Path
) -> None:
    """Once the package is installed, the command `mlflow deployments` knows the target."""
    line = f'{TARGET} = "daemon.deployments"'
    assert line in (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    about = tmp_path / "site" / "retraind-1.dist-info"
    about.mkdir(parents=True)
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: retraind\nVersion: 1\n")
    (about / "entry_points.txt").write_text(
        f"[mlflow.deployments]\n{TARGET} = daemon.deployments\n"
    )
    path = os.pathsep.join([str(ROOT), str(about.parent), str(SITE)])
    environment = bench.workload_environment(
        PYTHONPATH=path, MLFLOW_TRACKING_URI=mlflow.get_tracking_uri()
    )
    rows = tmp_path / "rows.json"
    ROWS.drop(columns="seen").assign(seen=None).to_json(rows)

    def call(*words: str) -> str:
        command = [sys.executable, "-m", "mlflow", "deployments", *words]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout

    target = f"{TARGET}:/?modelservice={bench.model_url}"
    assert TARGET in call("help", "-t", TARGET)
    told = call("create", "-t", target, "--name", "cards", "-m", runs["1"], "-C", "look_every=0.01")
    assert "cards" in told
    answer = json.loads(call("predict", "-t", target, "--name", "cards", "-I", str(rows)))
    assert len(answer["predictions"]) == len(ROWS)


def test_mlflow_accepts_the_module_as_a_plugin() -> None:
    """It has what a plugin must have, and one client."""
    plugin = interface.plugin_store[TARGET]
    assert plugin.target_help().startswith(TARGET)
    with pytest.raises(MlflowException, match="mlflow models serve"):
        plugin.run_local("cards", "runs:/1/model")
