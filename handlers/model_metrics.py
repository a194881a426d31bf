"""The platform's store of Model Metrics, where a workload has the package for it."""

from __future__ import annotations

from collections.abc import Mapping

from handlers.facts import TryLater


def track(crn: str, metrics: Mapping[str, float], start_ms: int, end_ms: int) -> None:
    """Keep metrics of a span of time beside a deployment; without effect where there is no store.

    Raises:
        TryLater: the store does not take them.
    """
    try:
        from cml import metrics_v1  # noqa: PLC0415 (only workloads have it)
    except ImportError:
        return
    try:
        # The names of its parameters are not documented, their order is.
        metrics_v1.track_aggregate_metrics(
            dict(metrics), start_ms, end_ms, model_deployment_crn=crn
        )
    except Exception as error:  # nothing is published about what it throws
        told = str(error).strip().splitlines() or [type(error).__name__]
        raise TryLater(
            f"Model Metrics does not take the metrics of {crn}: {told[0][:300].rstrip('.')}.",
            "Decisions go on without; an administrator may have to enable Model Metrics.",
        ) from error
