"""What the daemon counts as it goes; by itself it forgets all of it. `metrics` keeps it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from handlers.facts import Delta


@dataclass(frozen=True, slots=True)
class Lag:
    """What the table has beyond the cursor, as it was last looked at."""

    snapshots: int = 0
    rows: int = 0
    """At most: what is new among rewritten rows is found out later."""
    since: datetime | None = None
    """When the oldest of these commits was made."""


class Tally:
    """The counts of one pipeline. This one counts nothing, for those whom nobody asks."""

    def ticked(self, outcome: str) -> None:
        """Count a tick: `acted`, `idle`, `waiting`, where something keeps it, or `failed`."""

    def stepped(self, step: str, seconds: float) -> None:
        """Count a step that ended, and how long it took."""

    def failed(self, door: str, kind: str) -> None:
        """Count a failure that became an outcome; see `blame` for the words."""

    def looked(self) -> None:
        """Note that the table was looked at just now."""

    def lags(self, delta: Delta | None) -> None:
        """Note what the table has beyond the cursor; None if the two are level."""


NOBODY = Tally()
