"""The AI Registry: versions are copied out of an experiment's run, in their own time."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cloudera.errors import Refused
from cloudera.state import Call, Thing, World, find, new_id, now_text, user

Artifacts = Callable[[str, str, str, Path], Path]
"""Finds a run's artifacts: (experiment, run, path, scratch folder) -> the folder of that path."""


@dataclass(eq=False)
class RegisteredModelVersion(Thing):
    """A version; `folder` is the registry's own copy of the model."""

    folder: Path = Path()

    @property
    def id(self) -> str:
        """Give the identifier."""
        return str(self.body["model_version_id"])

    @property
    def number(self) -> int:
        """Give the number, counted from 1."""
        return int(self.body["number"])


@dataclass(eq=False)
class RegisteredModel(Thing):
    """A name with its versions."""

    versions: list[RegisteredModelVersion] = field(default_factory=list)
    made: int = 0
    """How many versions there ever were: a number is never given twice."""

    @property
    def id(self) -> str:
        """Give the identifier."""
        return str(self.body["model_id"])

    def details(self) -> dict[str, Any]:
        """Give it without its versions."""
        return {**self.body, "count": sum(not one.deleted for one in self.versions)}

    def shown(self) -> list[dict[str, Any]]:
        """Give its versions, the newest first, as the samples rely on."""
        return [dict(one.body) for one in reversed(self.versions) if not one.deleted]


class Registry:
    """The operations on registered models."""

    def __init__(self, world: World, artifacts: Artifacts) -> None:
        self._world = world
        self._artifacts = artifacts
        self.models: list[RegisteredModel] = []

    def create_registered_model(self, call: Call) -> dict[str, Any]:
        """Make a model, or one more version of the one with that name."""
        name = call.body["model_name"]
        model = next((m for m in self.models if m.body["name"] == name and not m.deleted), None)
        if model is None:
            model = RegisteredModel({
                "model_id": new_id(), "name": name, "owner": user(call.user),
                "permission": "OWNER", "visibility": call.body.get("visibility", "PRIVATE"),
                "created_at": now_text(), **call.pick("description"),
            })  # fmt: skip
            self.models.append(model)
        model.body["updated_at"] = now_text()
        self._register(model, call)
        return {**model.details(), "model_versions": model.shown(), "next_page_token": ""}

    def _register(self, model: RegisteredModel, call: Call) -> None:
        model.made += 1
        tags = call.body.get("tags", []) if self._world.habits.keep_version_tags else []
        version = RegisteredModelVersion({
            "model_id": model.id, "model_version_id": new_id(), "number": model.made,
            "version_name": f"v{model.made}", "notes": call.body.get("notes", ""),
            "user": user(call.user), "created_at": now_text(), "tags": tags,
            "model_version_metadata": {
                "mlops_type": "MLFLOW", "project_id": call.body["project_id"],
                "owner": user(call.user), "mlflow_metadata": call.pick("experiment_id", "run_id"),
            },
        }, faults=call.ordered())  # fmt: skip
        version.folder = self._world.home / "registry" / version.id
        model.versions.append(version)
        where = call.body["experiment_id"], call.body["run_id"], call.body["model_path"]
        self._world.pass_through(
            version,
            [("REGISTERING", self._world.pace.registering)],
            lambda: self._world.clock.aside(lambda: self._copy(version, *where)),
        )

    def _copy(self, version: RegisteredModelVersion, experiment: str, run: str, path: str) -> None:
        """Take the model out of the run; what goes wrong shows in the version's state only."""
        fault = version.fault("fail")
        message = fault.message if fault else ""
        if not message:
            try:
                scratch = version.folder.with_suffix(".part")
                scratch.mkdir(parents=True)
                shutil.copytree(self._artifacts(experiment, run, path, scratch), version.folder)
                if not (version.folder / "MLmodel").is_file():
                    message = f"{path} holds no MLmodel"
            except Exception as error:  # noqa: BLE001 (whatever the hook of a test may raise)
                message = f"cannot read {path} of run {run}: {error}"
        with self._world.lock:
            if message:
                failure = fault.state if fault else ""
                version.enter(failure or "REGISTRATION_FAILED", error_message=message)
            else:
                version.enter("READY")

    def list_registered_models(self, _: Call) -> list[dict[str, Any]]:
        """List the models without their versions."""
        return [model.details() for model in self.models if not model.deleted]

    def get_registered_model(self, call: Call) -> tuple[dict[str, Any], list[dict[str, Any]]]:
        """Read a model with a page of its versions."""
        model = self._model(call.ids["model_id"])
        return model.details(), model.shown()

    def update_registered_model(self, call: Call) -> dict[str, Any]:
        """Change a model."""
        model = self._model(call.body["model_id"])
        model.body |= {**call.pick("description", "visibility"), "updated_at": now_text()}
        return model.details()

    def delete_registered_model(self, call: Call) -> dict[str, Any]:
        """Remove a model with its versions."""
        self._model(call.ids["model_id"]).deleted = True
        return {}

    def update_registered_model_version(self, call: Call) -> dict[str, Any]:
        """Change a version, which the body names."""
        version = self.version(call.body["model_version_id"], call.ids["model_id"])
        version.body |= {**call.pick("notes"), "updated_at": now_text()}
        if self._world.habits.keep_version_tags:
            version.body |= call.pick("tags")
        return dict(version.body)

    def get_registered_model_version(self, call: Call) -> dict[str, Any]:
        """Read a version."""
        return dict(self.version(call.ids["version_id"], call.ids["model_id"]).body)

    def delete_registered_model_version(self, call: Call) -> dict[str, Any]:
        """Remove a version."""
        self.version(call.ids["version_id"], call.ids["model_id"]).deleted = True
        return {}

    def version(self, identifier: str, model: str | None = None) -> RegisteredModelVersion:
        """Give a version, of this model if one is named.

        Raises:
            Refused: there is none.
        """
        ours = [one for one in self.versions() if model in (None, one.body["model_id"])]
        return find(ours, "model version", identifier)

    def versions(self) -> list[RegisteredModelVersion]:
        """Give all versions of all models."""
        return [version for model in self.models for version in model.versions]

    def of_run(self, run: str) -> list[dict[str, Any]]:
        """Give the versions that were made of a run, as the run shows them."""
        found = []
        for model in self.models:
            for one in model.versions:
                about = one.body["model_version_metadata"]["mlflow_metadata"]
                if about["run_id"] == run and not one.deleted:
                    found.append({
                        "model_name": model.body["name"], "model_id": model.id, "run_id": run,
                        "model_version_id": one.id, "version_number": one.number,
                        "created_at": one.body["created_at"],
                    })  # fmt: skip
        return found

    def _model(self, identifier: str) -> RegisteredModel:
        return find(self.models, "registered model", identifier)

    def existing(self, identifier: str) -> RegisteredModel:
        """Give the model that a request's body names.

        Raises:
            Refused: there is none; as the body is at fault, with 400.
        """
        try:
            return self._model(identifier)
        except Refused as error:
            raise Refused(400, error.message) from error
