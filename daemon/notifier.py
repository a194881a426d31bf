"""Tells people what happened, from a thread of its own: no tick waits for it, or fails by it.

It takes no event either: each round compares the ledger with what was told. So nothing is lost by
a kill, and after one in the moment between a delivery and its note that one message comes twice.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Sequence
from datetime import timedelta

import structlog

from config.notify import Notify
from daemon import news
from daemon.figures import Figures, Plotter
from daemon.news import Condition, Notice
from daemon.outbox import Outbox, Waiting
from daemon.reading import Reading
from daemon.store import NotOwner
from handlers.facts import RetraindError
from handlers.herald import Target

LOOK_EVERY = 5.0
"""Seconds between two rounds."""
FIRST_DELAY, LONGEST_DELAY = 10.0, 900.0
"""Seconds before what was not taken is sent again; doubles."""
MOST_ATTEMPTS = 12
"""About two hours, after which a target gets no more of it."""
HOUR = timedelta(hours=1)

log = structlog.get_logger(__name__)


class Notifier:
    """Tells the targets what happened to these pipelines. One thread at a time."""

    def __init__(
        self, wanted: Notify, names: Iterable[str], book: Reading, targets: Sequence[Target],
        link: str,
    ) -> None:  # fmt: skip
        self._wanted = wanted
        self._names = tuple(names)
        self._book = book
        self._targets = targets
        self._link = link.rstrip("/")
        self._outbox = Outbox(book)
        self._plotter = Plotter(book)
        self._trouble = ""

    def round(self) -> None:
        """Write down what is new, then send what waits.

        Raises:
            TryLater: the ledger cannot be read or written.
            NotOwner: another process acts on this state now.
        """
        for name, figures in self._plotter.read(self._names).items():
            self._collect(name, figures)
            self._send(name)

    def _collect(self, name: str, figures: Figures) -> None:
        moment = self._book.clock()
        mark = self._outbox.mark(name)
        since = mark or self._outbox.reached(name, moment)
        reached = self._outbox.reached(name, since.since)
        seen = self._outbox.conditions(name)
        work = self._book.pending(name)
        doing = self._book.standing(name).doing
        now = news.conditions(figures, work, seen, self._wanted, moment, doing)
        was = {condition.key: told for condition, told in seen}
        told = {c: was.get(c.key, False) or self._ripe(c) for c in now}
        notices = [
            *(n for r in self._outbox.closed(name, since)
              for n in news.of_decision(r, self._outbox.lost(name, r.sequence), self._wanted)),
            *(n for c in self._outbox.crowned(name, since) for n in news.of_champion(c)),
            *(Notice(c.event, c.name, c.text) for c in now if told[c] and not was.get(c.key)),
            *(Notice("recovered", f"{c.event}, {c.name}", c.over)
              for c, known in seen if known and c.key not in {one.key for one in now}),
        ]  # fmt: skip
        wanted = [notice for notice in notices if notice.event in self._wanted.events]
        if mark != reached or wanted or {c.key: t for c, t in told.items()} != was:
            self._outbox.keep(name, reached, wanted, told)

    def _ripe(self, condition: Condition) -> bool:
        lasted = (self._book.clock() - condition.since).total_seconds()
        return condition.event in self._wanted.events and lasted >= condition.patience

    def _send(self, name: str) -> None:
        waiting = self._outbox.waiting(name)
        if not waiting:
            return
        left = self._wanted.most_per_hour - self._outbox.sent(name, self._book.clock() - HOUR)
        for count in news.bundles(len(waiting), left):
            self._deliver(name, waiting[:count])
            waiting = waiting[count:]

    def _deliver(self, name: str, notices: Sequence[Waiting]) -> None:
        events = [notice.event for notice in notices]
        failed = [target.name for target in self._targets if not self._tell(target, name, notices)]
        attempts = 1 + max(notice.attempts for notice in notices)
        if not failed:
            self._outbox.ended(notices, "sent")
            log.info("notified", pipeline=name, events=events)
            return
        given_up = attempts >= MOST_ATTEMPTS
        log.warning(
            "not_notified", pipeline=name, events=events, targets=failed, attempt=attempts,
            given_up=given_up,
        )  # fmt: skip
        if given_up:
            self._outbox.ended(notices, "failed")
            return
        seconds = min(LONGEST_DELAY, FIRST_DELAY * 2.0 ** (attempts - 1))
        self._outbox.postponed(notices, self._book.clock() + timedelta(seconds=seconds))

    def _tell(self, target: Target, name: str, notices: Sequence[Waiting]) -> bool:
        """Tell a target what it does not have yet; says whether it has all of it then."""
        missing = [notice for notice in notices if target.key not in notice.told]
        if not missing:
            return True
        told = [(notice.event, notice.text) for notice in missing]
        try:
            target.tell(*news.message(name, told, self._link))
        except RetraindError:
            return False
        self._outbox.delivered(missing, target.key)
        return True

    def attempt(self) -> bool:
        """Go round once, whatever comes of it; says whether there is any use in going on."""
        try:
            self.round()
            self._trouble = ""
        except NotOwner:
            return False  # the daemon's own next write says what happened
        except RetraindError as error:
            if self._trouble != str(error):
                self._trouble = str(error)
                log.warning("notices_wait", trouble=self._trouble)
        except Exception:
            log.exception("notifier_failed")
        return True

    def run(self, done: threading.Event) -> None:
        """Go round until told to stop, or until another process acts on this state."""
        while self.attempt() and not done.wait(LOOK_EVERY):
            pass
