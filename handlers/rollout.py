"""Brings a model into service on a workbench, one step at a time: register, build, deploy.

Each call looks at what is there, takes the next step that lacks, and says what goes on. So whoever
calls next, after a kill at any point, goes on where the other ended. Registrations and builds that
fail are the platform's fault, as the model was loaded and has scored before: they are made again,
less and less often, while the old model serves on. A model whose deployments fail is given up.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from time import monotonic
from typing import Any

import structlog

from config.endpoint import ClouderaEndpoint as Settings
from handlers.asked import Asked, Underway
from handlers.facts import MODEL_PATH, GiveUp, Model, TryLater
from handlers.shelf import COMMENT, NOTES, Build, Deployment, Shelf, Stage, Version
from handlers.workbench import Refused, Workbench

LONGEST_WAIT = 3600.0
DEPLOYMENTS = 2
"""Deployments of a model that may fail before it is given up."""

log = structlog.get_logger(__name__)


class Rollout:
    """The steps of one model's way into service."""

    def __init__(
        self, workbench: Workbench, shelf: Shelf, settings: Settings, asked: Asked,
        experiment: Callable[[], str], path: str = MODEL_PATH,
    ) -> None:  # fmt: skip
        """`experiment` gives the id of the experiment that the runs are in, which keep `path`."""
        self._workbench = workbench
        self._shelf = shelf
        self._settings = settings
        self._asked = asked
        self._experiment = experiment
        self._path = path
        self._since: dict[str, tuple[int, float]] = {}
        self._dealt: dict[str, str] = {}
        """By build: the newest deployment whose end was dealt with, or happened before our time."""
        self._failures: dict[str, int] = {}
        self._stuck: dict[str, int] = {}

    def step(self, model: Model) -> None:
        """Take the next step; return once the model's deployment is up.

        Raises:
            Underway: something goes on, and has to be looked at again.
            TryLater: the platform failed, or refuses what it is asked for.
            GiveUp: the model's deployments fail.
        """
        self._deploy(model, self._built(model))
        self._asked.settle()
        for counts in (self._failures, self._stuck):
            counts.pop(model.run_id, None)

    def _registered(self, model: Model) -> Version:
        """Give the registered version of a run; registering the run if there is none."""
        found = self._shelf.versions(model.run_id)
        if ready := [one for one in found if one.done]:
            self._shelf.learn(ready[0], model)
            return ready[0]
        what = f"The registration of version {model.version}"
        if any(one.going for one in found):
            self._asked.settle()
        self._wait_for(found, self._settings.register_within, what)
        if failed := [one for one in found if one.failed]:
            self._hold(what, len(failed), failed[-1].trouble or failed[-1].status)
        body = {
            "project_id": self._workbench.project_id, "experiment_id": self._experiment(),
            "run_id": model.run_id, "model_path": self._path,
            "model_name": self._shelf.registered, "notes": NOTES.format(run=model.run_id),
        }  # fmt: skip
        self._ask(what, "create_registered_model", body)
        raise Underway(f"{what} has begun.")

    def _model(self, version: Version) -> Any:  # noqa: ANN401 (the client's objects are made at run time)
        """Give the platform's model, making it at first use."""
        name = self._shelf.name
        if self._shelf.model() is None:
            body = {
                "project_id": self._workbench.project_id, "name": name,
                "description": "Kept up to date by retraind.",
                "registered_model_id": version.model_id,
            }  # fmt: skip
            remedy = (
                "If the name is that of a deleted model, it cannot be used again: set another one "
                "as `endpoint.model`."
            )
            ids = (self._workbench.project_id,)
            self._ask(f"The model {name}", "create_model", body, *ids, remedy=remedy)
        made = self._shelf.model()
        if made is None:
            raise Underway(f"The model {name} is being made.")
        if made.registered_model_id != version.model_id:
            raise TryLater(
                f"The model {name} does not serve the registered model {self._shelf.registered}.",
                "Somebody else made it, or it outlived its versions: set another name as "
                "`endpoint.model`.",
            )
        return made

    def _built(self, model: Model) -> Build:
        """Give a build of the model; making one if there is none, or a fresh one if it hangs."""
        found = [build for build in self._shelf.builds() if build.holds == model]
        if not found:
            version = self._registered(model)
            found = [build for build in self._shelf.builds() if build.holds == model]
        if ready := [build for build in found if build.done]:
            return ready[-1]
        what = f"The build of version {model.version}"
        if any(build.going for build in found):
            self._asked.settle()
        self._wait_for(found, self._settings.build_within, what)
        if failed := [build for build in found if build.failed]:
            self._hold(what, len(failed), failed[-1].status)
        version = self._registered(model)
        made = self._model(version)
        body = {
            "project_id": self._workbench.project_id, "model_id": made.id,
            "registered_model_version_id": version.id,
            "runtime_identifier": self._workbench.runtime(),
            "runtime_addon_identifiers": list(self._workbench.site.addons),
            "comment": COMMENT.format(version=model.version, run=model.run_id),
        }  # fmt: skip
        self._ask(what, "create_model_build", body, self._workbench.project_id, made.id)
        raise Underway(f"{what} has begun.")

    def _deploy(self, model: Model, build: Build) -> None:
        """Return once a deployment of the build is up; make one where none comes up."""
        every = self._shelf.deployments()
        last = next((one for one in reversed(every) if one.build.id == build.id), None)
        what = f"The deployment of version {model.version}"
        if last and last.done:
            return
        if last and last.going:
            self._asked.settle()
        # What failed before this daemon started may have been another trouble, long ago.
        dealt = self._dealt.setdefault(build.id, last.id if last and not last.going else "")
        if last and last.failed and last.id != dealt:
            self._dealt[build.id] = last.id
            self._failed(model, every)
        self._wait_for(every, self._settings.deploy_within, what)
        for stuck in [one for one in every if one.going]:
            self._unstick(model, stuck, every)
        for counts, told in ((self._failures, "failed"), (self._stuck, "found no room")):
            if count := counts.get(model.run_id):
                self._hold(what, count, told)
        self._make(build, what)
        raise Underway(f"{what} has begun.")

    def _make(self, build: Build, what: str) -> None:
        """Ask for a deployment of a build; the platform takes the old one out of service itself."""
        wanted = self._settings
        body = {
            "cpu": wanted.cpu, "memory": wanted.memory, "replicas": wanted.replicas,
            "environment": dict(wanted.environment),
        }  # fmt: skip
        self._ask(f"{what} (build {build.id})", "create_model_deployment", body, *self._ids(build))

    def _ids(self, build: Build) -> tuple[str, str, str]:
        return self._workbench.project_id, self._shelf.model().id, build.id

    def _failed(self, model: Model, every: Sequence[Deployment]) -> None:
        """A deployment came to a bad end: have something serve, and try but once more."""
        count = self._failures.get(model.run_id, 0) + 1
        self._failures[model.run_id] = count
        what = f"Version {model.version} does not come up on {self._workbench.site.url}"
        if count >= DEPLOYMENTS:
            del self._failures[model.run_id]
            raise GiveUp(f"{what}: {count} deployments of it failed.", "See their logs there.")
        self._restore(model, every)
        raise TryLater(f"{what}: a deployment of it failed.", "It is tried once more.")

    def _unstick(self, model: Model, stuck: Deployment, every: Sequence[Deployment]) -> None:
        """Stop what does not come up: what found no room does not look again when there is some."""
        self._call("stop_model_deployment", *self._ids(stuck.build), stuck.id)
        self._stuck[model.run_id] = self._stuck.get(model.run_id, 0) + 1
        log.warning("deployment_stuck", deployment=stuck.id, version=stuck.version)
        self._restore(model, [one for one in every if one.id != stuck.id])
        raise TryLater(
            f"A deployment of version {stuck.version} did not come up on "
            f"{self._workbench.site.url} within {self._settings.deploy_within:.0f} s.",
            "It was stopped and is tried again; the project's quota may be exhausted.",
        )

    def _restore(self, model: Model, every: Sequence[Deployment]) -> None:
        """Where nothing serves any more, bring back what did: some platforms stop it first."""
        if any(one.done or one.going for one in every):
            return
        if former := self._shelf.former(model):
            self._make(former, "The deployment of what served before")
            log.warning("restored", version=former.holds.version if former.holds else former.id)

    def _wait_for(self, found: Sequence[Stage], within: float, what: str) -> None:
        """Leave it for now if something goes on, and not for too long."""
        for one in found:
            if one.going and one.younger(within):
                raise Underway(f"{what} waits: {type(one).__name__.lower()} is {one.status}.")

    def _hold(self, what: str, count: int, told: str) -> None:
        """Leave it for a while after each failure, ever longer."""
        known, since = self._since.get(what, (0, 0.0))
        if known != count:
            since = monotonic()
            self._since[what] = count, since
            log.warning("platform_failed", what=what, told=told, times=count)
        wait = min(LONGEST_WAIT, self._settings.retry_after * 2 ** min(count - 1, 16))
        if monotonic() - since < wait:
            raise TryLater(
                f"{what} failed on {self._workbench.site.url}: {told}.",
                f"It is tried again after {wait:.0f} s; see its log there.",
            )

    def _ask(self, what: str, name: str, *args: Any, remedy: str = "") -> Any:  # noqa: ANN401 (see `_model`)
        """Have something made, once; that it is refused is never the model's own fault."""
        return self._asked.once(what, lambda: self._call(name, *args, remedy=remedy))

    def _call(self, name: str, *args: Any, remedy: str = "") -> Any:  # noqa: ANN401 (see `_model`)
        try:
            return self._workbench.call(name, *args)
        except Refused as error:
            self._shelf.forget()
            raise TryLater(error.what, remedy or "Check `cloudera` and `endpoint`.") from error
