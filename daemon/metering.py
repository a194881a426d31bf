"""Sends how a served model does on live rows to where its endpoint keeps metrics, if it does."""

from __future__ import annotations

from math import isfinite
from threading import Thread

import structlog

from handlers.endpoint import Metered
from handlers.facts import Live, Record, RetraindError

log = structlog.get_logger(__name__)


class Metering:
    """The metrics of one pipeline. They are an extra: no decision waits for them, or on them."""

    def __init__(self, pipeline: str, endpoint: object) -> None:
        """Send to this endpoint, if it keeps metrics at all."""
        self._pipeline = pipeline
        self._endpoint = endpoint if isinstance(endpoint, Metered) else None
        self._sending: Thread | None = None
        self._told = ""

    def tell(self, record: Record) -> None:
        """Send the live record of a decision, from a thread of its own; one at a time."""
        if self._endpoint is None or record.live is None:
            return
        if self._sending is not None and self._sending.is_alive():
            self._trouble("the metrics before are still being sent")
            return
        self._sending = Thread(target=self._send, args=[record, record.live], daemon=True)
        self._sending.start()

    def wait(self, seconds: float) -> None:
        """Wait until the last ones are sent."""
        if self._sending is not None:
            self._sending.join(seconds)

    def _send(self, record: Record, live: Live) -> None:
        span = [int(at.timestamp() * 1000) for at in (record.opened_at, record.closed_at)]
        try:
            if self._endpoint is not None:
                self._endpoint.track(live.version, figures(live), span[0], span[1])
        except RetraindError as error:
            self._trouble(str(error))
        else:
            self._told = ""

    def _trouble(self, told: str) -> None:
        """Tell trouble once, until it is over or another one."""
        if told != self._told:
            self._told = told
            log.warning("metrics_not_sent", pipeline=self._pipeline, trouble=told)


def figures(live: Live) -> dict[str, float]:
    """Name what is sent: scores on the delta before anything learnt from it, loss and alarm."""
    found = {f"live_{name}": value for name, value in live.scores.items()}
    found |= {"live_loss": live.loss.gain, "live_rows": float(live.rows), "alarm": live.alarm}
    return {name: float(value) for name, value in found.items() if isfinite(value)}
