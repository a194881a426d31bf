"""What a workbench holds of one model: registered versions, builds, deployments. It only looks.

A build says in its comment which of our versions it holds and which run made that, and a registered
version names its run, so that all is found again by whoever comes next. Should a platform lose one
mark, there is a second one: nothing may be made over and over because it is not recognised.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Any

from handlers.facts import Model
from handlers.workbench import Missing, Workbench

COMMENT = "retraind: version {version} of run {run}"
NOTES = "retraind: run {run}"
MADE = re.compile(COMMENT.format(version=r"(?P<version>.+)", run=r"(?P<run>\S+)"))


@dataclass(frozen=True, slots=True)
class Stage:
    """Something that the platform makes in its own time."""

    id: str
    status: str
    created: datetime

    @property
    def done(self) -> bool:
        """Whether it came to its end as it should."""
        return self.status in {"ready", "built", "succeeded", "deployed"}

    @property
    def failed(self) -> bool:
        """Whether it came to a bad end."""
        return "fail" in self.status or self.status == "timedout"

    @property
    def going(self) -> bool:
        """Whether it goes on, also in a state that nobody told us of."""
        over = self.status in {"stopping", "stopped"}
        return not (self.done or self.failed or over)

    def younger(self, seconds: float) -> bool:
        """Whether it was made less than so many seconds ago."""
        return (datetime.now(timezone.utc) - self.created).total_seconds() < seconds


@dataclass(frozen=True, slots=True)
class Version(Stage):
    """A registered version."""

    model_id: str
    trouble: str


@dataclass(frozen=True, slots=True)
class Build(Stage):
    """A build; `holds` is our model in it, None if it holds something else."""

    holds: Model | None
    ours: bool
    """Whether we made it."""


@dataclass(frozen=True, slots=True)
class Deployment(Stage):
    """A deployment of a build; at most one of a model is `done`, and that one answers."""

    build: Build
    crn: str

    @property
    def version(self) -> str:
        """Name what answers; a build of somebody else has a name that no version has."""
        return self.build.holds.version if self.build.holds else f"build {self.build.id}"


class Shelf:
    """What there is of one model."""

    def __init__(self, workbench: Workbench, name: str, registered: str) -> None:
        """Look at the model `name`, whose versions are in the registered model `registered`."""
        self.name = name
        self.registered = registered
        self._workbench = workbench
        self._model: Any = None
        self._serving: Deployment | None = None
        self._known: dict[str, Deployment] = {}
        self._learnt: dict[str, Model] = {}

    def model(self) -> Any:  # noqa: ANN401 (the client's objects are made at run time)
        """Give the model, None if there is none of this name; its id never changes."""
        if self._model is None:
            of = self._workbench.project_id
            found = self._workbench.named("list_models", of, field="name", value=self.name)
            self._model = found[0] if found else None
        return self._model

    def forget(self) -> None:
        """Look anew for everything: somebody deleted the model, or gave it another key."""
        self._model = self._serving = None

    def learn(self, version: Version, model: Model) -> None:
        """Remember which registered version a model is: builds of it hold that model."""
        self._learnt[version.id] = model

    def versions(self, run_id: str) -> list[Version]:
        """Give the registered versions of a run, the oldest first."""
        models = self._workbench.named(
            "list_registered_models", field="name", value=self.registered, key="model_name"
        )
        found = []
        for model in models:
            for one in self._workbench.pages("get_registered_model", model.model_id):
                about = getattr(one.model_version_metadata, "mlflow_metadata", None)
                named = getattr(about, "run_id", None) == run_id
                if named or one.notes == NOTES.format(run=run_id):
                    stage = str(one.model_version_id), _state(one), _moment(one)
                    found.append(Version(*stage, model.model_id, one.error_message or ""))
        return sorted(found, key=_created)

    def builds(self) -> list[Build]:
        """Give all builds, the oldest first."""
        if self.model() is None:
            return []
        ids = self._workbench.project_id, self.model().id
        try:
            found = list(self._workbench.pages("list_model_builds", *ids))
        except Missing:
            self.forget()
            return []
        return sorted((self._build(one) for one in found), key=_created)

    def _build(self, one: Any) -> Build:  # noqa: ANN401 (see `model`)
        made = MADE.fullmatch(one.comment or "")
        holds = Model(made["version"], made["run"]) if made else None
        holds = holds or self._learnt.get(str(one.registered_model_version_id))
        return Build(str(one.id), _state(one), _moment(one), holds, made is not None)

    def deployments(self, builds: list[Build] | None = None) -> list[Deployment]:
        """Give all deployments of these builds (None: of all), the oldest first."""
        found = [
            deployment
            for build in (self.builds() if builds is None else builds)
            for deployment in self._of(build)
        ]
        self._known |= {one.crn: one for one in found}
        return sorted(found, key=_created)

    def _of(self, build: Build) -> Iterator[Deployment]:
        ids = self._workbench.project_id, self.model().id, build.id
        try:
            for one in self._workbench.pages("list_model_deployments", *ids):
                yield Deployment(str(one.id), _state(one), _moment(one), build, str(one.crn))
        except Missing:  # the build was deleted since it was listed
            return

    def serving(self) -> Deployment | None:
        """Give the deployment that answers; one request as long as it is the same one."""
        if self._serving is not None and self._serves_on(self._serving):
            return self._serving
        for _ in range(2):
            every = self.deployments()
            if up := [one for one in every if one.done]:
                self._serving = up[-1]
                return up[-1]
            # One request per build: the new one may have come up after it was looked at.
            if not any(one.going or one.status == "stopping" for one in every):
                break
        self._serving = None
        return None

    def _serves_on(self, known: Deployment) -> bool:
        ids = self._workbench.project_id, self.model().id, known.build.id, known.id
        try:
            return _state(self._workbench.call("get_model_deployment", *ids)) == known.status
        except Missing:
            self.forget()
            return False

    def by_crn(self, crn: str) -> Deployment | None:
        """Give the deployment that an answer names."""
        if crn not in self._known:
            self.deployments()
        return self._known.get(crn)

    def former(self, holds: Model) -> Build | None:
        """Give the build that served last among those that hold another model."""
        served = [one for one in self.deployments() if not one.failed and one.build.done]
        others = [one.build for one in served if one.build.holds not in (None, holds)]
        return others[-1] if others else None


def _state(one: Any) -> str:  # noqa: ANN401 (see `Shelf.model`)
    """States are texts that no list settles, in capitals here and small letters there."""
    return str(one.status or "").strip().lower()


def _moment(one: Any) -> datetime:  # noqa: ANN401 (see `Shelf.model`)
    made = one.created_at
    if not isinstance(made, datetime):
        return datetime.now(timezone.utc)
    return made if made.tzinfo else made.replace(tzinfo=timezone.utc)


def _created(stage: Stage) -> tuple[datetime, str]:
    return stage.created, stage.id
