"""Who calls, and the project that all happens in."""

from __future__ import annotations

import json
from typing import Any

from cloudera.errors import Refused, missing
from cloudera.keys import AUDIENCES
from cloudera.state import Call, new_id, now_text, user


class Identity:
    """The operations on keys and projects."""

    def __init__(self, name: str, owner: str) -> None:
        self.environment: dict[str, str] = {}
        self.project: dict[str, Any] = {
            "id": new_id(), "name": name, "slug": name, "owner": user(owner),
            "creator": user(owner), "visibility": "private", "default_engine_type": "ml_runtime",
            "created_at": now_text(), "updated_at": now_text(), "creation_status": "success",
            "permissions": {"read": True, "write": True, "admin": True},
        }  # fmt: skip

    def validate_api_key(self, call: Call) -> dict[str, Any]:
        """Say whether a key is good for an audience."""
        audience = call.body["audience"]
        if audience not in AUDIENCES:
            raise Refused(400, f"there is no audience {audience!r}")
        if call.key is None or audience not in call.key.audiences:
            raise Refused(403, f"the API key is not for the audience {audience}")
        return {"valid": True, "username": call.user, "message": ""}

    def get_project(self, call: Call) -> dict[str, Any]:
        """Read the project."""
        self.check(call)
        return {**self.project, "environment": json.dumps(self.environment)}

    def check(self, call: Call) -> None:
        """Let pass what happens in this project.

        Raises:
            Refused: the path names another one.
        """
        if call.ids.get("project_id", self.project["id"]) != self.project["id"]:
            raise missing("project", call.ids["project_id"])
