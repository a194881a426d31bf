"""Model Metrics."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from typing import Any

from cml.ds import post


def track_metric(key: str, value: Any) -> None:
    """Add a metric to the prediction that is being made; without effect elsewhere."""
    made = json.loads(os.environ.get("EMULATED_PREDICTION", "{}"))  # noqa: TID251
    if made:
        post("metrics/track", {**made, "metrics": {key: value}})


def track_delayed_metrics(metrics: Mapping[str, Any], prediction_uuid: str) -> None:
    """Add metrics to a prediction that was made before."""
    post("metrics/track", {"uuid": prediction_uuid, "metrics": dict(metrics)})


def track_aggregate_metrics(
    metrics: Mapping[str, Any],
    start_timestamp_ms: int,
    end_timestamp_ms: int,
    model_deployment_crn: str | None = None,
) -> None:
    """Add metrics of a span of time."""
    body = {
        "metrics": dict(metrics), "start_ms": start_timestamp_ms, "end_ms": end_timestamp_ms,
        "model_deployment_crn": model_deployment_crn,
    }  # fmt: skip
    post("metrics/aggregate", body)


def read_metrics(
    model_deployment_crn: str | None = None,
    start_timestamp_ms: int | None = None,
    end_timestamp_ms: int | None = None,
) -> dict[str, Any]:
    """Give what was tracked for a deployment."""
    body = {
        "model_deployment_crn": model_deployment_crn, "start_ms": start_timestamp_ms,
        "end_ms": end_timestamp_ms,
    }  # fmt: skip
    found: dict[str, Any] = post("metrics/read", body)
    return found
