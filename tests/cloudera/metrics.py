"""The store of Model Metrics. Its addresses are our own: only the `cml` package knows the real."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from threading import Lock
from time import time
from typing import Any

from cloudera.front import Received, Sent


@dataclass
class Metrics:
    """What was tracked, by deployment."""

    entries: list[dict[str, Any]] = field(default_factory=list)
    _lock: Any = field(default_factory=Lock)

    def answer(self, received: Received) -> Sent:
        """Answer a request of the `cml` package."""
        asked = json.loads(received.content or b"{}")
        act = {"track": self.track, "aggregate": self.aggregate, "read": self.read}.get(
            received.path.rpartition("/")[2]
        )
        if act is None:
            return Sent(404, {"error": "Not Found"})
        with self._lock:
            return Sent(200, act(asked))

    def track(self, asked: dict[str, Any]) -> dict[str, Any]:
        """Add metrics to a prediction, at once or long afterwards."""
        entry = next((e for e in self.entries if e["predictionUuid"] == asked["uuid"]), None)
        if entry is None:
            now = int(time() * 1000)
            entry = {
                "modelDeploymentCrn": asked.get("model_deployment_crn"), "metrics": {},
                "predictionUuid": asked["uuid"], "startTimeStampMs": now, "endTimeStampMs": now,
            }  # fmt: skip
            self.entries.append(entry)
        entry["metrics"] |= asked["metrics"]
        return {}

    def aggregate(self, asked: dict[str, Any]) -> dict[str, Any]:
        """Add metrics of a span of time."""
        self.entries.append({
            "modelDeploymentCrn": asked["model_deployment_crn"], "metrics": asked["metrics"],
            "predictionUuid": None, "startTimeStampMs": asked["start_ms"],
            "endTimeStampMs": asked["end_ms"],
        })  # fmt: skip
        return {}

    def read(self, asked: dict[str, Any]) -> dict[str, Any]:
        """Give what was tracked for a deployment within a span of time."""
        start, end = asked.get("start_ms") or 0, asked.get("end_ms") or float("inf")
        found = [
            entry
            for entry in self.entries
            if entry["modelDeploymentCrn"] == asked["model_deployment_crn"]
            and entry["endTimeStampMs"] >= start
            and entry["startTimeStampMs"] <= end
        ]
        return {"metrics": found}
