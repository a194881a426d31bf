"""What the ledger tells in figures, of all pipelines at once and fast enough to be asked often."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime

from daemon.reading import Reading
from daemon.reign import BY_HAND
from daemon.store import to_time
from handlers.facts import Live, Record, State

JUDGED = (State.PROMOTED.value, State.KEPT.value)


@dataclass(slots=True)
class Figures:
    """One pipeline in figures."""

    states: dict[str, int] = field(default_factory=dict)
    """Deltas by their state, the open ones as well."""
    parked: int = 0
    """Parked deltas that nobody took up again."""
    opened_at: datetime | None = None
    """When the oldest open delta was opened."""
    attempts: int = 0
    """Failed attempts at that one."""
    paused: bool = False
    halted: bool = False
    champion: str | None = None
    since: datetime | None = None
    how: str = ""
    deployed: str | None = None
    """The version of the last deployment, if it was proven."""
    judged: Record | None = None
    """The newest decision with a verdict."""

    @property
    def live(self) -> Live | None:
        """How what served did on the newest delta that was judged."""
        return self.judged.live if self.judged else None

    @property
    def alarmed(self) -> bool:
        """Whether the champion of today does worse than it promised."""
        live, judged = self.live, self.judged
        if live is None or judged is None or live.version != self.champion:
            return False
        # What was seen of its first reign does not count against it, as in `reign`.
        again = self.how in BY_HAND and self.since is not None and judged.closed_at <= self.since
        return live.alarmed and not again


class Plotter:
    """Reads the figures; remembers the newest decisions, which are long texts."""

    def __init__(self, book: Reading) -> None:
        self._book = book
        self._judged: dict[str, Record] = {}

    def read(self, names: Iterable[str]) -> Mapping[str, Figures]:
        """Give the figures of these pipelines.

        Raises:
            TryLater: the ledger cannot be read.
        """
        found = {name: Figures() for name in names}
        newest: dict[str, int] = {}
        for row in self._rows(
            "SELECT pipeline, state, count(*) AS count, max(sequence) AS last FROM deltas "
            "GROUP BY pipeline, state",
            found,
        ):
            name = row["pipeline"]
            found[name].states[row["state"]] = row["count"]
            if row["state"] in JUDGED:
                newest[name] = max(newest.get(name, 0), row["last"])
        self._stand(found)
        self._serve(found)
        for name, sequence in newest.items():
            found[name].judged = self._decision(name, sequence)
        return found

    def _stand(self, found: Mapping[str, Figures]) -> None:
        for row in self._rows("SELECT name AS pipeline, paused, halted_id FROM pipelines", found):
            figures = found[row["pipeline"]]
            figures.paused = row["paused"] is not None
            figures.halted = row["halted_id"] is not None
        for row in self._rows(
            "SELECT pipeline, count(*) AS count FROM deltas AS d WHERE state = 'parked' "
            "AND NOT EXISTS "
            "(SELECT 1 FROM deltas WHERE pipeline = d.pipeline AND retry_of = d.sequence) "
            "GROUP BY pipeline",
            found,
        ):
            found[row["pipeline"]].parked = row["count"]
        for row in self._rows(
            "SELECT pipeline, opened_at, attempts FROM deltas WHERE state = 'open' "
            "ORDER BY sequence DESC",
            found,
        ):
            figures = found[row["pipeline"]]  # the oldest comes last
            figures.opened_at, figures.attempts = to_time(row["opened_at"]), row["attempts"]

    def _serve(self, found: Mapping[str, Figures]) -> None:
        for row in self._rows(
            "SELECT pipeline, version, since, how FROM champions "
            "WHERE id IN (SELECT max(id) FROM champions GROUP BY pipeline)",
            found,
        ):
            figures = found[row["pipeline"]]
            figures.champion, figures.how = row["version"], row["how"]
            figures.since = to_time(row["since"])
        for row in self._rows(
            "SELECT pipeline, version FROM deployments WHERE outcome = 'deployed' "
            "AND id IN (SELECT max(id) FROM deployments GROUP BY pipeline)",
            found,
        ):
            found[row["pipeline"]].deployed = row["version"]

    def _decision(self, name: str, sequence: int) -> Record | None:
        known = self._judged.get(name)
        if known is None or known.sequence != sequence:
            known = self._book.closed(name, sequence)
            if known is not None:
                self._judged[name] = known
        return known

    def _rows(self, sql: str, names: Mapping[str, object]) -> Iterable[sqlite3.Row]:
        """Read rows; a ledger may know pipelines that are configured no more."""
        return (row for row in self._book.all(sql) if row["pipeline"] in names)
