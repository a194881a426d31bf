"""What Prometheus scrapes of a scoring server: the only place here that knows its client."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Histogram, Info
from prometheus_client.exposition import choose_encoder

BUCKETS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 10)
"""Seconds: a row is scored within a millisecond, the largest body within some seconds."""


class Gauge:
    """Counts the requests for predictions of one process, in a registry of its own."""

    def __init__(self) -> None:
        self._registry = mine = CollectorRegistry()
        self._requests = Counter(
            "retraind_scoring_requests", "Requests for predictions, by the answer's status.",
            ["status"], registry=mine,
        )  # fmt: skip
        self._seconds = Histogram(
            "retraind_scoring_duration_seconds", "How long they took, their bodies' way included.",
            registry=mine, buckets=BUCKETS,
        )  # fmt: skip
        self._rows = Counter("retraind_scoring_rows", "Rows that were scored.", registry=mine)
        self._model = Info("retraind_scoring_model", "The model that is loaded.", registry=mine)

    def answered(self, status: int, rows: int, seconds: float) -> None:
        """Count an answer, and the rows that it scored."""
        self._requests.labels(str(status)).inc()
        self._seconds.observe(seconds)
        self._rows.inc(rows)

    def loaded(self, version: str, run_id: str) -> None:
        """Note which model answers from now on."""
        self._model.info({"version": version, "run_id": run_id})

    def exposition(self, accept: str) -> tuple[bytes, str]:
        """Give all metrics in the format that the scraper accepts, and the format's name."""
        encode, kind = choose_encoder(accept)
        return encode(self._registry), kind
