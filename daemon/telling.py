"""Tells what a pipeline does: in the ledger for `status`, in the log for those who read along."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from time import monotonic

import structlog

from daemon import blame
from daemon.ledger import Ledger
from daemon.store import NotOwner
from daemon.tally import NOBODY, Tally
from handlers.facts import RetraindError, TryLater

log = structlog.get_logger(__name__)


class Telling:
    """What one pipeline does or waits for, and the troubles that go on beside it."""

    def __init__(self, name: str, ledger: Ledger, tally: Tally = NOBODY) -> None:
        self.deeds = 0
        self.troubles: dict[str, str] = {}
        self._name = name
        self._ledger = ledger
        self._tally = tally

    def say(self, doing: str, next_at: datetime | None = None) -> None:
        """Tell what is done or waited for, and until when, where only time is missing."""
        told = "; ".join([doing, *self.troubles.values()])
        self._ledger.looked(self._name, None, told, next_at)

    def done(self) -> None:
        """Count a deed: something changed in the world."""
        self.deeds += 1
        self.say("idle")

    def failed(self, error: Exception) -> None:
        """Count a failure that is dealt with."""
        self._tally.failed(blame.door(error), blame.kind(error))

    @contextmanager
    def timed(self, step: str) -> Iterator[None]:
        """Count how long a step takes, however it ends."""
        began = monotonic()
        try:
            yield
        finally:
            self._tally.stepped(step, monotonic() - began)

    @contextmanager
    def outages(self, side: str) -> Iterator[None]:
        """Tell trouble once when it begins and once when it ends; the next tick tries again."""
        try:
            yield
        except NotOwner:
            raise
        except Exception as error:  # one side's trouble, foreseen or not, leaves the other be
            self.failed(error)
            if self.troubles.get(side) != str(error):
                self.troubles[side] = str(error)
                with suppress(TryLater):  # where the ledger itself fails, only the log can tell
                    self.say("waiting")
                unforeseen = not isinstance(error, RetraindError)
                log.warning("waiting", side=side, trouble=str(error), exc_info=unforeseen)
        else:
            if self.troubles.pop(side, None):
                log.info("recovered", side=side)
