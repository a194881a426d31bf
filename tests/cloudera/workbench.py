"""The emulator as a test sees it: start it, set its pace and faults, look at its world."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from time import monotonic, sleep
from typing import Any

from cloudera.applications import Application, Applications
from cloudera.artifacts import in_project, of_mlflow
from cloudera.builds import Builds, ModelBuild
from cloudera.catalogue import Catalogue
from cloudera.deployments import Deployments, ModelDeployment
from cloudera.experiments import Experiments
from cloudera.faults import Fault, Kind
from cloudera.front import Front
from cloudera.gateway import Dropped, Gateway, Request
from cloudera.habits import Habits, Pace
from cloudera.identity import Identity
from cloudera.jobs import Job, JobRun, Jobs
from cloudera.keys import API, APPLICATION, Key
from cloudera.models import Model, Models
from cloudera.modelservice import OPERATION, ModelCall, Modelservice
from cloudera.proxy import Proxy
from cloudera.registry import Artifacts, RegisteredModel, RegisteredModelVersion, Registry
from cloudera.serving import SITE, Loader, basics
from cloudera.state import USER, Thing, World, find, new_id
from cloudera.workloads import Site, Workloads


class Workbench:
    """A workbench with one project, on loopback.

    `home` holds what it keeps; `project` is the folder that workloads run in (in `home` if none is
    given). Models are registered from the runs of `tracking_uri`, else from the project's disk
    (`.experiments/<experiment>/<run>/artifacts`), or from wherever `artifacts` finds them. A
    `loader` that is given is shared and outlives the workbench, which saves seconds.
    """

    def __init__(
        self, home: Path, *, project: Path | None = None, tracking_uri: str | None = None,
        artifacts: Artifacts | None = None, loader: Loader | None = None, port: int = 0,
    ) -> None:  # fmt: skip
        self.project = project or home / "project"
        self.project.mkdir(parents=True, exist_ok=True)
        self.world = World(home, Pace(), Habits())
        self.identity = Identity("retraind", USER)
        self.site = Site(self.project, home / "logs")
        if tracking_uri:
            self.site.environment["MLFLOW_TRACKING_URI"] = tracking_uri
        where = of_mlflow(tracking_uri) if tracking_uri else in_project(self.project)
        used = loader or Loader()
        self._own_loader = None if loader else used
        self._assemble(artifacts or where, used)
        self._api = Front(self.gateway.answer, port)
        self._models = Front(self.modelservice.answer)
        self.url = self.site.url = self._api.url
        self.site.modelservice = self._models.url
        self.key = self.issue(API, APPLICATION)

    def _assemble(self, artifacts: Artifacts, loader: Loader) -> None:
        world = self.world
        self.catalogue = Catalogue()
        self.registry = Registry(world, artifacts)
        self._model_part = Models(world, self.registry)
        self._build_part = Builds(
            world, self._model_part, self.registry, self.catalogue, self.project
        )
        self._deployment_part = Deployments(
            world, self.registry, self._model_part, self._build_part, loader
        )
        self._workloads = Workloads(world, self.site, self.identity, self.catalogue)
        self._job_part = Jobs(world, self._workloads, self.catalogue)
        self._application_part = Applications(world, self._workloads, self.catalogue)
        self.experiments = Experiments(self.project / ".experiments", self.registry.of_run)
        self.modelservice = Modelservice(world, self._model_part, self._deployment_part)
        self._proxy = Proxy(world)
        parts = [
            self.identity, self.catalogue, self.registry, self._deployment_part, self._build_part,
            self._model_part, self._job_part, self._application_part, self.experiments,
        ]  # fmt: skip
        self.gateway = Gateway(world, parts, self.identity.check)

    # -- what a test sets ----------------------------------------------------------------------

    @property
    def pace(self) -> Pace:
        """Give the seconds that states last; assign to its fields at any time."""
        return self.world.pace

    @property
    def habits(self) -> Habits:
        """Give how it acts where workbenches differ; assign to its fields at any time."""
        return self.world.habits

    @property
    def environment(self) -> dict[str, str]:
        """Give the variables that all workloads get, beside those of the platform."""
        return self.site.environment

    @property
    def project_environment(self) -> dict[str, str]:
        """Give the variables of the project."""
        return self.identity.environment

    def quota(self, cores: float | None) -> None:
        """Limit the virtual cores that all workloads may hold together."""
        self.world.quota = cores

    def fault(self, operation: str, kind: Kind, *, times: int | None = 1, **how: Any) -> Fault:
        """Order something to go wrong; `faults.Fault` has the fields, `faults.Kind` the kinds.

        `operation` is that of the contract (`CreateModelBuild`), `modelservice`, or `*` for all.
        """
        if operation not in ("*", OPERATION, *self.world.contract.operations):
            raise ValueError(f"the contract has no operation {operation}")
        return self.world.faults.add(Fault(operation, kind, times, **how))

    def lift(self) -> None:
        """Let nothing more go wrong; what was hit already stays hit."""
        self.world.faults.lift()

    def issue(self, *audiences: str, user: str = USER, lives: float | None = None) -> Key:
        """Hand out a key; `key.expire()` ends it."""
        return self.world.keys.issue(user, *audiences, lives=lives)

    # -- how a program gets in -----------------------------------------------------------------

    @property
    def project_id(self) -> str:
        """Give the identifier of the project."""
        return str(self.identity.project["id"])

    @property
    def runtime(self) -> str:
        """Give the identifier of the runtime that workloads have."""
        return str(self.catalogue.own["image_identifier"])

    @property
    def model_url(self) -> str:
        """Give the address that models answer at."""
        return f"{self._models.url}/model"

    def client(self, key: Key | None = None) -> Any:
        """Give a client of API v2, by the stand-in for `cmlapi`."""
        if str(SITE) not in sys.path:
            sys.path.append(str(SITE))
        import cmlapi  # noqa: PLC0415 (it is found only now)

        return cmlapi.default_client(self.url, (key or self.key).text)

    def workload_environment(self, **more: str) -> dict[str, str]:
        """Give the environment of a workload, for a process that the test starts by itself."""
        body: Mapping[str, Any] = {"runtime_identifier": self.runtime}
        platform = self._workloads.platform(new_id(), body, self.key)
        return {**basics(), **platform, **self._workloads.common, **more}

    def application_url(self, identifier: str) -> str:
        """Give the address of an application behind the login proxy."""
        return self._proxy.url(find(self.applications, "application", identifier))

    # -- its world -----------------------------------------------------------------------------

    @property
    def requests(self) -> list[Request]:
        """Give all requests of API v2, with the status of their answer (0: none was sent)."""
        return self.gateway.requests

    @property
    def dropped(self) -> list[Dropped]:
        """Give the fields that were passed over in silence."""
        return self.gateway.dropped

    @property
    def calls(self) -> list[ModelCall]:
        """Give all calls to models, with the version that answered."""
        return self.modelservice.calls

    @property
    def registered(self) -> list[RegisteredModel]:
        """Give the registered models, deleted ones too, as in all that follows."""
        return self.registry.models

    @property
    def versions(self) -> list[RegisteredModelVersion]:
        """Give the versions of all registered models."""
        return self.registry.versions()

    @property
    def models(self) -> list[Model]:
        """Give the models."""
        return self._model_part.things

    @property
    def builds(self) -> list[ModelBuild]:
        """Give the builds."""
        return self._build_part.things

    @property
    def deployments(self) -> list[ModelDeployment]:
        """Give the deployments."""
        return self._deployment_part.things

    @property
    def jobs(self) -> list[Job]:
        """Give the jobs."""
        return self._job_part.things

    @property
    def runs(self) -> list[JobRun]:
        """Give the runs of jobs."""
        return self._job_part.runs

    @property
    def applications(self) -> list[Application]:
        """Give the applications."""
        return self._application_part.things

    def overlaps(self) -> list[tuple[ModelDeployment, ModelDeployment]]:
        """Give the pairs of deployments of one model that were deployed at the same time."""
        return [pair for model in self.models for pair in self._deployment_part.overlaps(model)]

    def gaps(self) -> list[tuple[float, float]]:
        """Give the spans of time in which a model that had been deployed was not."""
        return [gap for model in self.models for gap in self._deployment_part.gaps(model)]

    def wait(self, thing: Thing, *statuses: str, within: float = 20) -> str:
        """Wait until a thing is in one of these states, and say in which."""
        limit = monotonic() + within
        while monotonic() < limit:
            with self.world.lock:  # so that all that comes with the state is there as well
                if thing.status in statuses:
                    return thing.status
            sleep(0.005)
        raise TimeoutError(f"still {thing.status} and not {statuses}: {thing.statuses}")

    # -- its end -------------------------------------------------------------------------------

    def close(self) -> None:
        """Leave nothing running."""
        with ExitStack() as last_first:
            if self._own_loader:
                last_first.callback(self._own_loader.close)
            for part in (
                self._deployment_part, self._application_part, self._workloads, self._proxy,
                self._models, self._api, self.world.clock,
            ):  # fmt: skip
                last_first.callback(part.close)

    def __enter__(self) -> Workbench:  # noqa: PYI034 (Self needs Python 3.11)
        """Be closed at the end of a block."""
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        """Close, and say so if the emulator itself made a mistake."""
        self.close()
        wrong = [*self.gateway.complaints, *self.world.clock.errors]
        if wrong and kind is None:
            raise AssertionError("\n".join(wrong))
