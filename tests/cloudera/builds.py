"""Builds: a registered version, or a function of the project, becomes an image."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cloudera.catalogue import Catalogue
from cloudera.errors import Refused
from cloudera.models import Model, Models
from cloudera.registry import RegisteredModelVersion, Registry
from cloudera.state import Call, Thing, World, alive, find, new_id, now_text, user

RECORDED = (
    "comment", "file_path", "function_name", "kernel", "runtime_identifier",
    "runtime_addon_identifiers", "registered_model_version_id", "model_root_dir",
    "build_script_path",
)  # fmt: skip
Finished = Callable[["ModelBuild"], None]


@dataclass(eq=False)
class ModelBuild(Thing):
    """A build; `folder` is what the image holds of the project or the registry."""

    version: RegisteredModelVersion | None = None
    folder: Path = Path()
    then: Finished | None = None
    """What follows when it is built, if the request asked for a deployment as well."""


class Builds:
    """The operations on builds."""

    def __init__(
        self, world: World, models: Models, registry: Registry, catalogue: Catalogue, project: Path
    ) -> None:
        self._world = world
        self._models = models
        self._registry = registry
        self._catalogue = catalogue
        self._project = project
        self.things: list[ModelBuild] = []

    def make(self, call: Call, model: Model, then: Finished | None = None) -> ModelBuild:
        """Start a build.

        Raises:
            Refused: it names no runtime or nothing to build, or not what the model is made of.
        """
        self._catalogue.check(call.body)
        identifier = new_id()
        build = ModelBuild({
            "id": identifier, "model_id": model.id, "creator": user(call.user),
            "created_at": now_text(), "deletion_status": "",
            "crn": f"crn:cdp:ml:us-west-1:emulator:workspace:modelbuild/{identifier}",
            **call.pick(*RECORDED),
        }, faults=call.ordered(), then=then)  # fmt: skip
        wanted = call.body.get("registered_model_version_id")
        if wanted:
            build.version = self._version(wanted, model)
        elif not (call.body.get("file_path") and call.body.get("function_name")):
            raise Refused(400, "a build needs a registered_model_version_id or file and function")
        build.folder = self._world.home / "images" / build.id
        self.things.append(build)
        pace = self._world.pace
        states = [("queued", pace.queued), ("building", pace.building), ("pushing", pace.pushing)]
        self._world.pass_through(
            build, states, lambda: self._world.clock.aside(lambda: self._finish(build))
        )
        return build

    def _version(self, identifier: str, model: Model) -> RegisteredModelVersion:
        try:
            return self._registry.version(identifier, model.body.get("registered_model_id", "none"))
        except Refused as error:
            raise Refused(400, f"{error.message} in the model's registered model") from error

    def _finish(self, build: ModelBuild) -> None:
        """Put into the image what belongs there; it stays as it is now, whatever happens later."""
        fault = build.fault("fail")
        failed = fault is not None
        if build.version is None:
            failed = failed or not self._snapshot(build)
        elif build.version.status == "READY":
            shutil.copytree(build.version.folder, build.folder)
        else:
            failed = True
        with self._world.lock:
            if failed:
                build.enter((fault.state if fault else "") or "build failed")
            else:
                build.enter("built")
                build.body["built_at"] = now_text()
                if build.then:
                    build.then(build)

    def _snapshot(self, build: ModelBuild) -> bool:
        root = self._project / build.body.get("model_root_dir", "")
        if not (root / build.body["file_path"]).is_file():
            return False
        hidden = shutil.ignore_patterns(".*", "__pycache__")
        shutil.copytree(root, build.folder, ignore=hidden)
        return True

    def list_model_builds(self, call: Call) -> list[dict[str, Any]]:
        """List the builds of a model."""
        model = self._models.of(call)
        return alive(self.things, lambda build: build.body["model_id"] == model.id)

    def get_model_build(self, call: Call) -> dict[str, Any]:
        """Read a build."""
        return dict(self.of(call).body)

    def delete_model_build(self, call: Call) -> dict[str, Any]:
        """Remove a build."""
        self.of(call).deleted = True
        return {}

    def of(self, call: Call) -> ModelBuild:
        """Give the build that a path names."""
        model = self._models.of(call)
        ours = [build for build in self.things if build.body["model_id"] == model.id]
        return find(ours, "model build", call.ids["build_id"])
