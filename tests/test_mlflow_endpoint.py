"""Any target of MLflow's deployments as an endpoint: a real one, and one with every bad habit."""

# ruff: noqa: ARG002, D102 (the stand-in's methods are MLflow's, with what they are documented to take)
from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import mlflow
import numpy as np
import pandas as pd
import pytest
from cloudera import given
from cloudera.serving import Loader
from cloudera.workbench import Workbench as Emulator
from endpoint_conformance import EndpointConformance, Models, Trained, make_rows, train_models
from mlflow.deployments import BaseDeploymentClient, PredictionsResponse, interface
from mlflow.exceptions import MlflowException

from config.endpoint import MlflowEndpoint as EndpointSettings
from config.loading import load
from config.settings import ConfigError, Settings
from daemon import composition
from daemon.deployments import TARGET
from handlers import scorer
from handlers.deploy import deploy
from handlers.endpoint import Endpoint
from handlers.facts import GiveUp, Model, TryLater
from handlers.mlflow_endpoint import MlflowEndpoint

ROWS = make_rows(6, seed=3)


# -- our own plugin on the emulated workbench ---------------------------------------------------


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Models:
    """Train, and have MLflow keep a run of each."""
    home = tmp_path_factory.mktemp("mlflow")
    mlflow.set_tracking_uri(f"sqlite:///{home}/mlflow.db")
    client, found = mlflow.MlflowClient(), {}
    experiment = client.create_experiment("cards", (home / "artifacts").as_uri())
    for version, trained in train_models(home / "models").items():
        run = client.create_run(experiment).info.run_id
        saved = home / version / "model"
        given.save_model(saved, trained.folder, Path(str(scorer.__file__)))
        client.log_artifacts(run, str(saved), "model")
        found[version] = Trained(Model(version, run), trained.folder, trained.scorer)
    return found


@pytest.fixture(scope="module")
def endpoint(models: Models, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Endpoint]:
    """Share one workbench."""
    interface.plugin_store.register(TARGET, "daemon.deployments")  # type: ignore[no-untyped-call]
    uri = mlflow.get_tracking_uri()
    assert models
    home = tmp_path_factory.mktemp("workbench")
    with (
        Loader() as loader,
        Emulator(home, tracking_uri=uri, loader=loader) as bench,
        pytest.MonkeyPatch.context() as environment,
    ):
        bench.client()  # from now on `cmlapi` is found
        for name, value in bench.workload_environment().items():
            if name.startswith(("CDSW_", "ML_RUNTIME_")):
                environment.setenv(name, value)
        settings = EndpointSettings(
            kind="mlflow", target=f"{TARGET}:/?modelservice={bench.model_url}",
            config={"look_every": 0.01, "cpu": 1},
        )  # fmt: skip
        yield MlflowEndpoint(settings, "cards", home / "endpoint", (uri, None))


class TestMlflowEndpoint(EndpointConformance):
    """It keeps the rules of every endpoint, but for the time in which a target changes over."""

    def test_swaps_under_load_without_a_seam(self, endpoint: Endpoint, models: Models) -> None:
        """No answer names a version that did not make it; while nobody can tell, answers wait."""
        pair = [models["1"], models["2"]]
        endpoint.deploy(pair[0].model, pair[0].folder)
        over = threading.Event()
        right = {one.model.version: one.scorer.score(ROWS) for one in pair}

        def ask() -> set[str]:
            seen = set()
            while not over.is_set():
                try:
                    answer = endpoint.predict(ROWS)
                except TryLater:
                    continue
                assert np.array_equal(answer.predictions, right[answer.version])
                seen.add(answer.version)
            return seen

        with ThreadPoolExecutor(2) as pool:
            asking = [pool.submit(ask) for _ in range(2)]
            try:
                for swap in range(1, 4):
                    endpoint.deploy(pair[swap % 2].model, pair[swap % 2].folder)
                    assert endpoint.serving() == pair[swap % 2].model.version
            finally:
                over.set()
            assert set().union(*(thread.result() for thread in asking)) <= {"1", "2"}
        assert pair[1].agrees(endpoint.predict(ROWS), ROWS)


# -- a target that fails as it is told to -----------------------------------------------------


@dataclass
class Target:
    """A platform: what is deployed there by name, and its habits."""

    models: Models
    deployed: dict[str, str] = field(default_factory=dict)
    calls: list[str] = field(default_factory=list)
    fails: str = ""
    """`before` or `after` the effect of a deployment, or the name of a method."""
    answers: Any = None
    """What it answers in place of predictions."""
    told: int = 0
    """How often a deployment was described, which each description mentions if it is `fickle`."""
    fickle: bool = False

    def bring(self, what: str, name: str, uri: str) -> dict[str, Any]:
        """Deploy the model of a run."""
        self.calls.append(what)
        if self.fails == "before":
            raise MlflowException("no capacity\nthe rest is for experts")
        self.deployed[name] = uri
        if self.fails == "after":
            raise KeyboardInterrupt
        return {"name": name, "flavor": None}


class Client(BaseDeploymentClient):
    """MLflow's side of it."""

    target: Target

    def create_deployment(
        self, name: str, model_uri: str, flavor: Any = None, config: Any = None,
        endpoint: Any = None,
    ) -> dict[str, Any]:  # fmt: skip
        if name in self.target.deployed:
            raise MlflowException(f"{name} exists")
        return self.target.bring(f"create {flavor} {config}", name, model_uri)

    def update_deployment(
        self, name: str, model_uri: Any = None, flavor: Any = None, config: Any = None,
        endpoint: Any = None,
    ) -> dict[str, Any]:  # fmt: skip
        assert name in self.target.deployed
        return self.target.bring(f"update {flavor} {config}", name, model_uri)

    def delete_deployment(self, name: str, config: Any = None, endpoint: Any = None) -> None:
        del self.target.deployed[name]

    def list_deployments(self, endpoint: Any = None) -> list[dict[str, Any]]:
        if self.target.fails == "list":
            raise ConnectionError
        return [{"name": name} for name in self.target.deployed]

    def get_deployment(self, name: str, endpoint: Any = None) -> dict[str, Any]:
        self.target.told += 1
        seen = self.target.told if self.target.fickle else 0
        return {"name": name, "model": self.target.deployed[name], "seen": seen}

    def predict(self, deployment_name: Any = None, inputs: Any = None, endpoint: Any = None) -> Any:
        if self.target.answers is not None:
            return self.target.answers
        run_id = self.target.deployed[deployment_name].split("/")[1]
        mine = next(one for one in self.target.models.values() if one.model.run_id == run_id)
        return pd.DataFrame(mine.scorer.score(inputs)).to_numpy().tolist()


@pytest.fixture
def target(models: Models, monkeypatch: pytest.MonkeyPatch) -> Target:
    """Install the platform's plugin."""
    target = Target(models)
    opened = type("Opened", (Client,), {"target": target})
    plugin = SimpleNamespace(target_help=str, run_local=str, Opened=opened)
    monkeypatch.setitem(interface.plugin_store.registry, "stand-in", plugin)
    return target


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """Keep the note of what was deployed."""
    return tmp_path / "endpoint"


def start(home: Path, name: str = "cards", **changes: Any) -> MlflowEndpoint:
    """Start anew: nothing is known but what is on the target and on the disk."""
    settings = EndpointSettings(kind="mlflow", target="stand-in:/?key=secret", **changes)
    return MlflowEndpoint(settings, name, home, (mlflow.get_tracking_uri(), None))


def up(home: Path, models: Models, version: str) -> MlflowEndpoint:
    """Have a version serve."""
    endpoint = start(home)
    endpoint.deploy(models[version].model, models[version].folder)
    return endpoint


def test_the_target_is_told_what_is_configured(target: Target, home: Path, models: Models) -> None:
    """The first deployment creates, all others update, with flavor and configuration."""
    endpoint = start(home, flavor="python_function", config={"region": "west", "size": 2})
    for version in ("1", "2"):
        mine = models[version]
        told = deploy(endpoint, mine.model, mine.folder, ROWS, mine.scorer.score(ROWS))
        assert told.startswith(f"answers as version {version}; 6 held-out")
    wanted = "python_function {'region': 'west', 'size': 2}"
    assert target.calls == [f"create {wanted}", f"update {wanted}"]
    assert target.deployed == {"cards": f"runs:/{models['2'].model.run_id}/model"}
    assert start(home).serving() == "2"
    assert endpoint.where == "the deployment cards of stand-in:/"
    start(home).stop()
    start(home).stop()
    assert target.deployed == {}
    assert start(home).serving() is None


@pytest.mark.parametrize("fickle", [False, True])
def test_what_fails_is_told_and_tried_again(
    target: Target, home: Path, models: Models, *, fickle: bool
) -> None:
    """The old version counts as serving only while the target describes it as it did before."""
    up(home, models, "1")
    target.fails, target.fickle = "before", fickle
    with pytest.raises(TryLater, match=r"does not deploy version 2: no capacity\.") as told:
        up(home, models, "2")
    assert "secret" not in str(told.value)
    assert start(home).serving() == (None if fickle else "1")
    target.fails = ""
    assert up(home, models, "2").serving() == "2"


def test_what_was_interrupted_is_deployed_again(target: Target, home: Path, models: Models) -> None:
    """Killed between the deployment and its note, nobody knows what answers: so nothing does."""
    up(home, models, "1")
    target.fails = "after"
    with pytest.raises(KeyboardInterrupt):
        up(home, models, "2")
    target.fails = ""
    assert start(home).serving() is None
    with pytest.raises(TryLater, match="Nothing known serves"):
        start(home).predict(ROWS)
    assert models["2"].agrees(up(home, models, "2").predict(ROWS), ROWS)
    assert len(target.calls) == 3


def test_a_first_deployment_that_was_interrupted_is_updated(
    target: Target, home: Path, models: Models
) -> None:
    """It is there under its name, so it cannot be created once more."""
    target.fails = "after"
    with pytest.raises(KeyboardInterrupt):
        up(home, models, "1")
    target.fails = ""
    assert up(home, models, "1").serving() == "1"
    assert [call.split()[0] for call in target.calls] == ["create", "update"]


def test_what_somebody_deleted_comes_back(target: Target, home: Path, models: Models) -> None:
    """A name that the target does not know any more serves nothing; the next tick creates it."""
    endpoint = up(home, models, "1")
    target.deployed.clear()
    assert endpoint.serving() is None
    assert up(home, models, "1").serving() == "1"


def test_another_place_has_another_story(target: Target, home: Path, models: Models) -> None:
    """After a change of the name, what serves under the old one is not taken for the new one's."""
    up(home, models, "1")
    target.deployed["other"] = "runs:/somebody/else"
    assert start(home, "other").serving() is None


def test_a_target_out_of_reach_delays(target: Target, home: Path, models: Models) -> None:
    """That is told as such, and is not taken for a deployment that is gone."""
    endpoint = up(home, models, "1")
    target.fails = "list"
    with pytest.raises(TryLater, match="list its deployments: ConnectionError"):
        endpoint.serving()


def test_a_target_without_a_plugin_is_told(home: Path, models: Models) -> None:
    """With MLflow's own words."""
    settings = EndpointSettings(kind="mlflow", target="nowhere")
    endpoint = MlflowEndpoint(settings, "cards", home, (mlflow.get_tracking_uri(), None))
    with pytest.raises(TryLater, match=r'No plugin found for .* "nowhere"'):
        endpoint.deploy(models["1"].model, models["1"].folder)


@pytest.mark.parametrize(
    "answer", ["text", [1.0], {"predictions": [[1.0, 2.0]]}, {"other": 1}, [["a"]] * 6]
)
def test_answers_that_are_no_predictions_are_given_up(
    target: Target, home: Path, models: Models, answer: Any
) -> None:
    """One value to each row, or one to each class and row, is all that counts."""
    endpoint = up(home, models, "1")
    target.answers = answer
    with pytest.raises(GiveUp, match=r"answers .* to 6 row"):
        endpoint.predict(ROWS)


@pytest.mark.parametrize("shape", ["frame", "column", "dictionary", "response"])
def test_predictions_come_in_many_shapes(
    target: Target, home: Path, models: Models, shape: str
) -> None:
    """As tables, lists, columns or MLflow's own responses."""
    endpoint = up(home, models, "1")
    scores = models["1"].scorer.score(ROWS)
    target.answers = {
        "frame": pd.DataFrame({"fraud": scores}),
        "column": [[score] for score in scores.tolist()],
        "dictionary": {"predictions": scores.tolist()},
        "response": PredictionsResponse(predictions=scores.tolist()),
    }[shape]
    assert models["1"].agrees(endpoint.predict(ROWS), ROWS)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ("", "pipelines.cards.endpoint.target: is required"),
        ("target: a, config: {b: [c]}", "pipelines.cards.endpoint.config.b"),
        ("target: a, port: 5001", "pipelines.cards.endpoint.port: unknown setting"),
    ],
)
def test_wrong_settings_are_mistakes(tmp_path: Path, changes: str, told: str) -> None:
    """Each is told by its name, as everywhere."""
    with pytest.raises(ConfigError) as error:
        configured(tmp_path, changes)
    assert told in str(error.value)


def test_it_is_a_kind_of_endpoint(tmp_path: Path) -> None:
    """It is chosen by its kind, and two pipelines cannot share one deployment."""
    settings = configured(tmp_path, "target: sagemaker:/eu-west-1")
    opened = composition.endpoint(settings, "cards")
    assert opened.where == "the deployment retraind-cards of sagemaker:/eu-west-1"
    with pytest.raises(ConfigError, match=r"is already pipelines\.cards\.endpoint\.deployment"):
        configured(tmp_path, "target: sagemaker, deployment: fraud", "more")


def configured(home: Path, endpoint: str, *others: str) -> Settings:
    """Read a configuration of pipelines with such endpoints."""
    mine = f"{{table: a.b.c, label: d, endpoint: {{kind: mlflow, {endpoint}}}}}"
    path = home / "retraind.yaml"
    lines = [f"  {name}: {mine}\n" for name in ("cards", *others)]
    path.write_text("pipelines:\n" + "".join(lines), encoding="utf-8")
    return load(path)
