"""Deployments: builds in service, one of them active per model."""

from __future__ import annotations

import itertools
import json
from dataclasses import dataclass, field
from typing import Any

from cloudera.builds import Builds, ModelBuild
from cloudera.errors import Refused
from cloudera.models import Model, Models
from cloudera.registry import RegisteredModelVersion, Registry
from cloudera.serving import Loader, LoadFailed, Replicas
from cloudera.state import Call, Thing, World, alive, find, new_id, now_text, user

ACTIVE, GONE = ("deploying", "deployed", "stopping"), ("stopped", "failed")


@dataclass(eq=False)
class ModelDeployment(Thing):
    """A deployment; once it is up it has replicas that answer."""

    build: ModelBuild | None = None
    replicas: Replicas | None = None
    answers: RegisteredModelVersion | None = None
    """The version that is loaded: the build's, unless it was ordered otherwise."""
    environment: dict[str, str] = field(default_factory=dict)
    secrets: dict[str, str] = field(default_factory=dict)
    error: str = ""
    """Why it failed; the API has no field for it."""
    stuck: bool = False
    """Found no room, and does not look again when there is some [DSE-6886]."""

    @property
    def crn(self) -> str:
        """Give the name that answers and metrics know it by."""
        return str(self.body["crn"])

    def served(self) -> list[tuple[float, float]]:
        """Give the spans of time in which it was deployed; an open end is infinite."""
        ends = [step.at for step in self.history[1:]] + [float("inf")]
        return [
            (step.at, end)
            for step, end in zip(self.history, ends, strict=True)
            if step.status == "deployed"
        ]


class Deployments:
    """The operations on deployments, and those that make a model, a build and one in one call."""

    def __init__(
        self, world: World, registry: Registry, models: Models, builds: Builds, loader: Loader
    ) -> None:
        self._world = world
        self._registry = registry
        self._models = models
        self._builds = builds
        self._loader = loader
        self.things: list[ModelDeployment] = []
        world.holders.append(self._held)

    def create_model(self, call: Call) -> dict[str, Any]:
        """Make a model, and if asked its first build and deployment."""
        model = self._models.make(call)
        if call.body.get("auto_build_model"):
            of = Call(call.ids, {}, call.body.get("auto_build_config", {}), call.user, call.faults)
            try:
                self._builds.make(of, model, self._follow_up(call, model))
            except Refused:
                self._models.things.remove(model)
                raise
        return dict(model.body)

    def create_model_build(self, call: Call) -> dict[str, Any]:
        """Start a build, and if asked its deployment once it is built."""
        model = self._models.of(call)
        return dict(self._builds.make(call, model, self._follow_up(call, model)).body)

    def _follow_up(self, call: Call, model: Model) -> Any:
        if not call.body.get("auto_deploy_model"):
            return None
        body = call.body.get("auto_deployment_config", {})
        of = Call(call.ids, {}, body, call.user, call.faults)
        return lambda build: self._make(of, model, build)

    def create_model_deployment(self, call: Call) -> dict[str, Any]:
        """Deploy a build; one that is not built yet, or failed, ends as a failure."""
        model, build = self._models.of(call), self._builds.of(call)
        if self._world.habits.refuse_second_deployment and any(
            one.status == "deploying" for one in self.of_model(model)
        ):
            raise Refused(400, "a deployment of this model is in progress")
        return dict(self._make(call, model, build).body)

    def _make(self, call: Call, model: Model, build: ModelBuild) -> ModelDeployment:
        body, identifier = call.body, new_id()
        environment = body.get("environment", {})
        deployment = ModelDeployment({
            "id": identifier, "project_id": call.ids["project_id"], "model_id": model.id,
            "build_id": build.id, "cpu": body.get("cpu", 1.0), "memory": body.get("memory", 2.0),
            "nvidia_gpu": body.get("nvidia_gpus", 0), "replicas": body.get("replicas", 1),
            "environment": json.dumps(environment), "created_at": now_text(),
            "crn": f"crn:cdp:ml:us-west-1:emulator:workspace:modeldeployment/{identifier}",
            "deployer": user(call.user),
        }, faults=call.ordered(), build=build, environment=environment,
            secrets=body.get("deployment_secrets", {}))  # fmt: skip
        if self._world.habits.stop_old_first:
            self._stop_others(model, deployment)
        cores = deployment.body["cpu"] * deployment.body["replicas"]
        deployment.stuck = not self._world.fits(cores)
        self.things.append(deployment)
        self._deploy(deployment, model)
        return deployment

    def _deploy(self, deployment: ModelDeployment, model: Model) -> None:
        if deployment.stuck:
            deployment.enter("deploying")
            return
        states = [("deploying", self._world.pace.deploying)]
        self._world.pass_through(
            deployment,
            states,
            lambda: self._world.clock.aside(lambda: self._load(deployment, model)),
        )

    def _load(self, deployment: ModelDeployment, model: Model) -> None:
        """Start the replicas, then let the new deployment take over from the old one."""
        replicas: Replicas | None = None
        source = self._source(deployment)
        if source and not deployment.fault("fail"):
            try:
                replicas = Replicas.start(
                    self._loader, source, deployment.environment, deployment.body["replicas"]
                )
            except LoadFailed as error:
                deployment.error = str(error)
        with self._world.lock:
            if deployment.status != "deploying" or self._world.clock.closed:  # stopped meanwhile
                if replicas:
                    replicas.close()
            elif replicas is None:
                deployment.enter("failed")
            else:
                moment = self._stop_others(model, deployment)
                deployment.replicas = replicas
                deployment.enter("deployed", at=moment)

    def _source(self, deployment: ModelDeployment) -> dict[str, str] | None:
        """Say what the replicas load; None if there is no image."""
        build = deployment.build
        if build is None or build.status != "built":
            return None
        if build.version is None:
            names = ("file_path", "function_name")
            return {"folder": str(build.folder), **{name: build.body[name] for name in names}}
        deployment.answers = self._other(deployment, build.version) or build.version
        mine = deployment.answers is build.version
        return {"folder": str(build.folder if mine else deployment.answers.folder)}

    def _other(
        self, deployment: ModelDeployment, version: RegisteredModelVersion
    ) -> RegisteredModelVersion | None:
        """Give the version that answers in the place of this one, if that was ordered."""
        fault = deployment.fault("other version")
        if fault is None:
            return None
        if fault.version:
            return self._registry.version(fault.version)
        siblings = [
            one
            for one in self._registry.versions()
            if one.body["model_id"] == version.body["model_id"]
        ]
        earlier = [one for one in siblings if one.number < version.number]
        return earlier[-1] if earlier else None

    def _stop_others(self, model: Model, new: ModelDeployment) -> float | None:
        """Take the old ones out of service; gives the moment at which the last one went."""
        moment = None
        for one in self.of_model(model):
            if one is not new and one.status == "deployed":
                self._stop(one)
                moment = one.history[-1].at
        return moment

    def _stop(self, deployment: ModelDeployment) -> None:
        def stopped() -> None:
            deployment.enter("stopped", stopped_at=now_text())
            replicas, deployment.replicas = deployment.replicas, None
            if replicas:
                self._world.clock.aside(replicas.drain)

        self._world.pass_through(deployment, [("stopping", self._world.pace.stopping)], stopped)

    def list_model_deployments(self, call: Call) -> list[dict[str, Any]]:
        """List the deployments of a build."""
        build = self._builds.of(call)
        return alive(self.things, lambda one: one.build is build)

    def get_model_deployment(self, call: Call) -> dict[str, Any]:
        """Read a deployment."""
        return dict(self._of(call).body)

    def stop_model_deployment(self, call: Call) -> dict[str, Any]:
        """Stop a deployment; nothing happens to one that has stopped."""
        deployment = self._of(call)
        if deployment.status in ("deploying", "deployed"):
            self._stop(deployment)
        return dict(deployment.body)

    def restart_model_deployment(self, call: Call) -> dict[str, Any]:
        """Start a deployment afresh, also a stopped one."""
        deployment, model = self._of(call), self._models.of(call)
        replicas, deployment.replicas = deployment.replicas, None
        if replicas:
            self._world.clock.aside(replicas.drain)
        deployment.stuck = False
        self._deploy(deployment, model)
        return dict(deployment.body)

    def _of(self, call: Call) -> ModelDeployment:
        build = self._builds.of(call)
        ours = [one for one in self.things if one.build is build]
        return find(ours, "model deployment", call.ids["deployment_id"])

    def of_model(self, model: Model) -> list[ModelDeployment]:
        """Give all deployments of a model, oldest first."""
        return [one for one in self.things if one.body["model_id"] == model.id]

    def serving(self, model: Model) -> ModelDeployment | None:
        """Give the deployment that answers for a model."""
        up = [one for one in self.of_model(model) if one.status == "deployed"]
        return up[-1] if up else None

    def overlaps(self, model: Model) -> list[tuple[ModelDeployment, ModelDeployment]]:
        """Give the pairs of deployments of a model that were deployed at the same time."""
        return [
            (one, other)
            for one, other in itertools.combinations(self.of_model(model), 2)
            if any(a < d and c < b for a, b in one.served() for c, d in other.served())
        ]

    def gaps(self, model: Model) -> list[tuple[float, float]]:
        """Give the spans of time between two deployments in which none was deployed."""
        spans = sorted(span for one in self.of_model(model) for span in one.served())
        found, until = [], float("inf")
        for start, end in spans:
            if start > until:
                found.append((until, start))
            until = end if until == float("inf") else max(until, end)
        return found

    def close(self) -> None:
        """End all replicas."""
        for deployment in self.things:
            if deployment.replicas:
                deployment.replicas.close()

    def _held(self) -> float:
        held = [one for one in self.things if one.status in ACTIVE and not one.stuck]
        return float(sum(one.body["cpu"] * one.body["replicas"] for one in held))
