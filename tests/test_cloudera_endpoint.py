"""The endpoint on Cloudera AI, on an emulated workbench: the conformance suite, and every fault."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from threading import Event, Thread
from typing import Any

import pytest
from cloudera import given
from cloudera.serving import Loader
from cloudera.workbench import Workbench as Emulator
from endpoint_conformance import EndpointConformance, Models, make_rows, train_models

from config.endpoint import ClouderaEndpoint as Settings
from handlers import scorer
from handlers.cloudera_endpoint import ClouderaEndpoint, Waiting
from handlers.shelf import Shelf
from handlers.workbench import Workbench

NAME = "retraind-cards"
FAST: dict[str, Any] = {
    "kind": "cloudera", "look_every": 0.005, "settle_within": 0.25, "retry_after": 0.05,
    "answer_within": 5.0,
}  # fmt: skip
CREATIONS = ("CreateRegisteredModel", "CreateModel", "CreateModelBuild", "CreateModelDeployment")
ROWS = make_rows(5, seed=4)


@pytest.fixture(scope="module")
def loader() -> Iterator[Loader]:
    """Share the process that loads models: its imports take seconds, so they begin at once."""
    with Loader() as loader:
        Thread(target=lambda: loader.connect().close(), daemon=True).start()
        yield loader


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Models:
    """Train once for the whole module."""
    return train_models(tmp_path_factory.mktemp("models"))


@pytest.fixture(scope="module")
def logged(tmp_path_factory: pytest.TempPathFactory, models: Models) -> dict[str, Path]:
    """Log every model as its run would have."""
    home, code = tmp_path_factory.mktemp("logged"), Path(str(scorer.__file__))
    for version, trained in models.items():
        given.save_model(home / version / "model", trained.folder, code)
    return {trained.model.run_id: home / v / "model" for v, trained in models.items()}


def open_endpoint(
    bench: Emulator, home: Path, patience: float = 20.0, name: str = NAME, **changes: Any
) -> ClouderaEndpoint:
    """Open the door to a model, as a daemon would that has just started."""
    settings = Settings.model_validate({**FAST, "modelservice": bench.model_url, **changes})
    door = Workbench(given.site(bench))
    waiting = Waiting(patience, Event().wait)
    shelf = Shelf(door, name, name)
    return ClouderaEndpoint(settings, door, shelf, home, lambda: given.EXPERIMENT, waiting)


@pytest.fixture(scope="module")
def endpoint(
    tmp_path_factory: pytest.TempPathFactory, loader: Loader, logged: dict[str, Path]
) -> Iterator[ClouderaEndpoint]:
    """Share one workbench, whose platform replaces the old deployment by the new one."""
    home = tmp_path_factory.mktemp("workbench")
    with Emulator(home, loader=loader) as bench:
        for run, model in logged.items():
            given.keep(bench, model, run)
        yield open_endpoint(bench, home / "endpoint")


class TestClouderaEndpoint(EndpointConformance):
    """A model of a workbench keeps the rules of every endpoint, where the platform has no gap."""

    swaps = 6
