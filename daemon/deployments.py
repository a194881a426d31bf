"""A plugin of MLflow's deployments: `mlflow deployments create -t cloudera-ai --name N -m URI`.

The endpoint of the daemon for those who do without it: any model that a run keeps is registered,
built and deployed on a Cloudera AI workbench, which is found as the daemon finds it. Deployments
are the workbench's models; a name that is in use already is updated by `update`, never by `create`.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from tempfile import gettempdir
from threading import Event
from time import monotonic
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import mlflow
import numpy as np
import pandas as pd
from mlflow.deployments import BaseDeploymentClient
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import INVALID_PARAMETER_VALUE, TEMPORARILY_UNAVAILABLE
from pydantic import ValidationError

from config import machine
from config.endpoint import Cloudera, ClouderaEndpoint
from config.settings import ConfigError
from handlers.asked import Asked, Underway
from handlers.facts import Model, RetraindError, TryLater
from handlers.modelservice import Access, Modelservice
from handlers.rollout import Rollout
from handlers.shelf import Deployment, Shelf
from handlers.workbench import Workbench

TARGET = "cloudera-ai"
SETTINGS = ("cpu", "memory", "replicas", "build_within", "deploy_within", "look_every", "authorize",
            "modelservice")  # fmt: skip
"""What `-C NAME=VALUE` may set, beside the workbench's own settings."""
PATIENCE = 3600.0
"""Seconds that a deployment may take in all."""


def target_help() -> str:
    """Say how the target is used, for `mlflow deployments help`."""
    workbench = ", ".join(name for name in Cloudera.model_fields if name != "addons")
    return f"""{TARGET}: models of a Cloudera AI workbench.

Inside a workload nothing has to be said. Elsewhere set CDSW_APIV2_KEY, and the workbench by
CDSW_DOMAIN and CDSW_PROJECT_ID or by -C url=... -C project_id=...

-m runs:/RUN/PATH or models:/NAME/VERSION; the run must be on the workbench's own MLflow.
-C NAME=VALUE: {", ".join(SETTINGS)}, {workbench}; where there is no
-C, in the target: -t '{TARGET}:/?url=...&project_id=...'
`delete` stops the deployment and keeps the model: its name could not be used again."""


def run_local(name: str, model_uri: str, flavor: str | None = None, config: Any = None) -> None:  # noqa: ANN401, ARG001 (MLflow's contract)
    """Refuse: MLflow's own server does it."""
    raise MlflowException(f"To try a model on this machine: mlflow models serve -m {model_uri}")


class ClouderaClient(BaseDeploymentClient):
    """Deploys to the workbench; what goes wrong is an `MlflowException` with its remedy."""

    def create_deployment(
        self, name: str, model_uri: str, flavor: str | None = None,
        config: Mapping[str, Any] | None = None, endpoint: str | None = None,
    ) -> dict[str, Any]:  # fmt: skip
        """Register, build and deploy a model under a new name, and wait until it is up."""
        _alone(endpoint)
        with _Told():
            place = _Place(self.target_uri, name, config)
            if place.shelf.serving():
                raise MlflowException(f"Something serves as {name!r} already; `update` it.")
            return {**place.bring(model_uri), "flavor": flavor}

    def update_deployment(
        self, name: str, model_uri: str | None = None, flavor: str | None = None,
        config: Mapping[str, Any] | None = None, endpoint: str | None = None,
    ) -> dict[str, Any]:  # fmt: skip
        """Deploy another model under a name; the old one serves until the new one is up."""
        _alone(endpoint)
        if model_uri is None:
            raise MlflowException("Say which model: -m runs:/RUN/PATH or models:/NAME/VERSION")
        with _Told():
            place = _Place(self.target_uri, name, config)
            place.found()
            return {**place.bring(model_uri), "flavor": flavor}

    def delete_deployment(
        self, name: str, config: Mapping[str, Any] | None = None, endpoint: str | None = None
    ) -> None:
        """Stop what serves under a name; nothing happens if nothing does."""
        _alone(endpoint)
        with _Told():
            place = _Place(self.target_uri, name, config)
            for one in place.shelf.deployments():
                if one.done or one.going:
                    ids = place.bench.project_id, place.shelf.model().id, one.build.id, one.id
                    place.bench.call("stop_model_deployment", *ids)

    def list_deployments(self, endpoint: str | None = None) -> list[dict[str, Any]]:
        """List the models of the project that something serves for."""
        _alone(endpoint)
        with _Told():
            bench = _Place(self.target_uri, "any").bench
            names = [str(one.name) for one in bench.pages("list_models", bench.project_id)]
            shelves = {name: Shelf(bench, name, name).serving() for name in names}
            return [_view(name, up) for name, up in shelves.items() if up]

    def get_deployment(self, name: str, endpoint: str | None = None) -> dict[str, Any]:
        """Say what serves under a name."""
        _alone(endpoint)
        with _Told():
            place = _Place(self.target_uri, name)
            place.found()
            return _view(name, place.up())

    def predict(
        self, deployment_name: str | None = None, inputs: Any = None, endpoint: str | None = None  # noqa: ANN401 (MLflow's contract)
    ) -> pd.DataFrame:  # fmt: skip
        """Score rows: a table, or what makes one. Gives a column, or one to each class."""
        _alone(endpoint)
        with _Told():
            place = _Place(self.target_uri, str(deployment_name))
            model = place.found()
            scores = place.service().ask(place.access(model), pd.DataFrame(inputs)).predictions
            columns = ["predictions"] if np.ndim(scores) == 1 else None
            table: pd.DataFrame = pd.DataFrame(scores, columns=columns)
        return table


class _Place:
    """One name on the workbench."""

    def __init__(
        self, target: str, name: str, config: Mapping[str, Any] | None = None
    ) -> None:  # fmt: skip
        given = {**dict(parse_qsl(urlsplit(target).query)), **(config or {})}
        site = {key: given.pop(key) for key in list(given) if key in Cloudera.model_fields}
        if unknown := [key for key in given if key not in SETTINGS]:
            raise MlflowException(f"Unknown: -C {', '.join(unknown)}.\n\n{target_help()}")
        wanted = {"kind": "cloudera", "model": name, **given}
        self.settings = ClouderaEndpoint.model_validate(wanted)
        self.bench = Workbench(machine.site(Cloudera.model_validate(site)))
        self.shelf = Shelf(self.bench, name, name)

    def found(self) -> Any:  # noqa: ANN401 (the client's objects are made at run time)
        """Give the model, which must be there."""
        model = self.shelf.model()
        if model is None:
            msg = f"There is no model {self.shelf.name!r} in this project; `create` makes one."
            raise MlflowException(msg)
        return model

    def up(self) -> Deployment:
        """Give what serves."""
        if serving := self.shelf.serving():
            return serving
        raise MlflowException(f"Nothing serves as {self.shelf.name!r}; `update` deploys a model.")

    def bring(self, uri: str) -> dict[str, Any]:
        """Take every step until the model is up, or the time is."""
        model, experiment, path = _origin(uri)
        # A note of what was asked for must outlive a command that is interrupted.
        home = Path(gettempdir()) / "retraind-deployments" / self.shelf.name
        asked = Asked(home, self.settings.settle_within)
        rollout = Rollout(self.bench, self.shelf, self.settings, asked, lambda: experiment, path)
        until, pause = monotonic() + PATIENCE, Event()
        while True:
            try:
                rollout.step(model)
                return _view(self.shelf.name, self.up())
            except Underway:
                if monotonic() >= until:
                    raise
            pause.wait(self.settings.look_every)

    def service(self) -> Modelservice:
        """Open the way to what serves."""
        return Modelservice.of(self.settings, self.bench.site)

    def access(self, model: Any) -> Access:  # noqa: ANN401 (see `found`)
        """Give the model's keys."""
        return Access.of(model, self.settings, self.bench.site)


class _Told:
    """Has MLflow tell what the program's own errors say."""

    def __enter__(self) -> None:
        return

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, ValidationError):
            found = [f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors()]
            raise MlflowException("; ".join(found)) from error
        if isinstance(error, TryLater):
            raise MlflowException(str(error), TEMPORARILY_UNAVAILABLE) from error
        if isinstance(error, RetraindError | ConfigError):
            raise MlflowException(str(error), INVALID_PARAMETER_VALUE) from error


def _origin(uri: str) -> tuple[Model, str, str]:
    """Give the model of a URI, the experiment of its run and its path there."""
    client = mlflow.MlflowClient()
    scheme, _, rest = uri.partition(":/")
    name, _, path = rest.strip("/").partition("/")
    if scheme == "models":
        version = client.get_model_version(name, path)
        run_id, label = str(version.run_id), str(version.version)
        path = str(version.source).rstrip("/").rpartition("/")[2]
    elif scheme == "runs" and path:
        run_id, label = name, name[:8]
    else:
        raise MlflowException(f"{uri!r} is neither runs:/RUN/PATH nor models:/NAME/VERSION.")
    return Model(label, run_id), _experiment_of(client, run_id), path


def _experiment_of(client: mlflow.MlflowClient, run_id: str) -> str:
    """Give the id of a run's experiment; the platform looks only in the one that was set last."""
    try:
        return str(client.get_run(run_id).info.experiment_id)
    except MlflowException:
        for experiment in client.search_experiments():
            mlflow.set_experiment(experiment_id=experiment.experiment_id)
            with suppress(MlflowException):
                return str(client.get_run(run_id).info.experiment_id)
        raise


def _view(name: str, up: Deployment) -> dict[str, Any]:
    held = up.build.holds
    return {
        "name": name, "version": up.version, "run_id": held.run_id if held else None,
        "status": up.status, "deployment_id": up.id, "build_id": up.build.id,
        "created": up.created.isoformat(), "crn": up.crn,
    }  # fmt: skip


def _alone(endpoint: str | None) -> None:
    if endpoint is not None:
        raise MlflowException(f"{TARGET} groups no deployments into endpoints.")
