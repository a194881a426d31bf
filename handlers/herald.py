"""The door to those who are told: the only place that knows Apprise.

Addresses hold secrets. They leave this module in no name, error or log; a target is called by its
place in the list and the service that it belongs to.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterable

import apprise

from handlers.facts import GiveUp, TryLater

# It logs addresses that it cannot read, and what servers answered.
logging.getLogger("apprise").disabled = True


class Target:
    """One address, made of Apprise's plugins; nothing is reached before it is told something."""

    def __init__(self, place: int, url: str) -> None:
        self._way = apprise.Apprise(asset=apprise.AppriseAsset(app_id="retraind"))
        self.known = bool(self._way.add(url))
        """Whether Apprise can make anything of the address."""
        service = self._way[0].service_name if self.known else "unknown"
        self.name = f"{place} ({service})"
        self.key = hashlib.sha256(url.encode()).hexdigest()[:16]
        """Tells it from others, also where the list is another tomorrow."""

    def tell(self, title: str, body: str) -> None:
        """Send one message, within the seconds that Apprise gives a server.

        Raises:
            GiveUp: the address is none.
            TryLater: it was not taken.
        """
        if not self.known:
            raise GiveUp(
                f"The target {self.name} of `notify.urls` is no address that Apprise reads.",
                "Its documentation has the form for each service.",
            )
        try:
            # As text: what services make of markup in it would be the rows' or the names' doing.
            taken = bool(
                self._way.notify(title=title, body=body, body_format=apprise.NotifyFormat.TEXT)
            )
        except Exception:  # noqa: BLE001 (of a plugin, whose words may hold the address)
            taken = False
        if not taken:
            raise TryLater(
                f"The target {self.name} of `notify.urls` did not take the message.",
                "Check that it can be reached from here, and that its secrets hold.",
            )


def targets(urls: Iterable[str]) -> tuple[Target, ...]:
    """Make a target of each address, in their order."""
    return tuple(Target(place, url) for place, url in enumerate(urls, 1))
