"""Notices, at little cost, that anything changed which a page shows."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from hashlib import blake2b
from time import monotonic
from typing import Any

from daemon.ledger import Ledger
from daemon.service import Step

FRESH = 0.25
"""Seconds for which what was seen is good enough, however many ask."""
WORK = (
    "SELECT pipeline, sequence, attempts, trouble, next_try_at, wish FROM deltas "
    "WHERE state = 'open'"
)
TOLD = (
    "SELECT * FROM pipelines",
    WORK,
    "SELECT count(*) FROM deltas",  # with the line above: a delta closes by leaving the open ones
    "SELECT max(id) FROM champions",
    # Not its id alone: one that goes on is deleted when it ends, and its id used again.
    "SELECT id, at, outcome FROM deployments ORDER BY id DESC LIMIT 1",
    "SELECT max(id) FROM audit",
    "SELECT token, url FROM owner",  # and not its heartbeat, which nobody is shown
)
"""Small queries of which one answers differently after any write that is shown."""


@dataclass(frozen=True, slots=True)
class Seen:
    """How everything stood at a moment."""

    ledger: str
    activity: Mapping[str, Mapping[str, Any]]
    waiting: tuple[str, ...]

    @property
    def version(self) -> str:
        """Give a text that differs where anything differs."""
        return _digest([self.ledger, self.activity, self.waiting])


class Watch:
    """What all who wait for changes ask; safe to share between threads."""

    def __init__(
        self, ledger: Ledger, activity: Callable[[], Mapping[str, Step]],
        unready: Callable[[], list[str]],
    ) -> None:  # fmt: skip
        self._ledger, self._activity, self._unready = ledger, activity, unready
        self._lock = threading.Lock()
        self._until = 0.0
        self._seen: Seen | None = None
        self._counts: tuple[int, ...] = ()
        self._stamp = ""

    def now(self) -> Seen:
        """Say how everything stands, or stood `FRESH` seconds ago.

        Raises:
            TryLater: the ledger cannot be read.
        """
        with self._lock:
            if self._seen is None or monotonic() >= self._until:
                steps = {name: asdict(step) for name, step in self._activity().items()}
                self._seen = Seen(self._ledgers(), steps, tuple(self._unready()))
                self._until = monotonic() + FRESH
            return self._seen

    def _ledgers(self) -> str:
        """Give what the ledger's file holds, read again only after somebody wrote to it."""
        others, ours = "PRAGMA data_version", "SELECT total_changes()"
        counts = tuple(row[0] for sql in (others, ours) for row in self._ledger.all(sql))
        if counts != self._counts:
            self._stamp = _digest([[tuple(row) for row in self._ledger.all(sql)] for sql in TOLD])
            self._counts = counts
        return self._stamp


def _digest(facts: object) -> str:
    return blake2b(repr(facts).encode(errors="backslashreplace"), digest_size=12).hexdigest()
