"""Models: a name, an access key, and what belongs to them."""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from typing import Any

from cloudera.errors import Refused
from cloudera.registry import Registry
from cloudera.state import Call, Thing, World, alive, find, new_id, now_text, user

LONGEST_NAME = 63
"""Characters of a Kubernetes label, which names become."""
PROJECT = {"public_identifier": "", "name": "retraind", "default_project_engine": "ml_runtime"}
RESOURCES = ("run_as", "accelerator_label_id", "resource_group_id", "resource_profile_id")


@dataclass(eq=False)
class Model(Thing):
    """A model. Its access key and address outlive its deployments."""

    @property
    def access_key(self) -> str:
        """Give the key that its callers send."""
        return str(self.body["access_key"])


class Models:
    """The operations on models."""

    def __init__(self, world: World, registry: Registry) -> None:
        self._world = world
        self._registry = registry
        self.things: list[Model] = []

    def make(self, call: Call) -> Model:
        """Make a model.

        Raises:
            Refused: its name is taken, also by a deleted model, or too long.
        """
        name = check_name(call.body["name"])
        if any(model.body["name"] == name for model in self.things):
            raise Refused(400, f"the project already has a model with that name: {name}")
        registered = call.body.get("registered_model_id")
        if registered:
            self._registry.existing(registered)
        identifier = new_id()
        authentic = self._world.habits.model_authentication
        model = Model({
            "id": identifier, "name": name, "creator": user(call.user), "created_at": now_text(),
            "access_key": "m" + secrets.token_hex(16), "updated_at": now_text(),
            "auth_enabled": authentic and not call.body.get("disable_authentication", False),
            "crn": f"crn:cdp:ml:us-west-1:emulator:workspace:model/{identifier}",
            "project": {**PROJECT, "public_identifier": call.ids["project_id"]},
            "default_resources": {"cpu_millicores": "1000", "memory_mb": "2048"},
            "default_replication_policy": {"type": "fixed", "num_replicas": "1"},
            "visibility": call.body.get("visibility", "private"),
            **call.pick("description", "registered_model_id", *RESOURCES),
        })  # fmt: skip
        self.things.append(model)
        return model

    def list_models(self, call: Call) -> list[dict[str, Any]]:
        """List the models of a project."""
        project = call.ids["project_id"]
        return alive(self.things, lambda m: m.body["project"]["public_identifier"] == project)

    def list_all_models(self, _: Call) -> list[dict[str, Any]]:
        """List the models of all projects."""
        return alive(self.things)

    def get_model(self, call: Call) -> dict[str, Any]:
        """Read a model."""
        return dict(self.of(call).body)

    def update_model(self, call: Call) -> dict[str, Any]:
        """Change a model; the registry link is not among what can be changed."""
        model = self.of(call)
        names = ("name", "description", "visibility", "default_resources")
        changes = call.pick(*names, "default_replication_policy", *RESOURCES)
        if "name" in changes:
            check_name(changes["name"])
        model.body |= {**changes, "updated_at": now_text()}
        return dict(model.body)

    def delete_model(self, call: Call) -> dict[str, Any]:
        """Remove a model; what is deployed of it serves on, unseen."""
        self.of(call).deleted = True
        return {}

    def of(self, call: Call) -> Model:
        """Give the model that a path names."""
        return find(self.things, "model", call.ids["model_id"])

    def by_access_key(self, key: object) -> Model | None:
        """Give the model that callers mean."""
        return next((model for model in self.things if model.access_key == key), None)


def check_name(name: str) -> str:
    """Let a name pass that is fit for a Kubernetes label.

    Raises:
        Refused: it is too long or empty.
    """
    if not name or len(name) > LONGEST_NAME:
        raise Refused(400, f"the name must have 1 to {LONGEST_NAME} characters: {name}")
    return name
