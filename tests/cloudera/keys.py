"""API v2 keys: an audience, an expiry, and whose they are."""

from __future__ import annotations

import secrets
from dataclasses import dataclass, field
from time import time

from cloudera.errors import Refused

API, APPLICATION = "API", "Application"
AUDIENCES = (API, APPLICATION)


@dataclass(eq=False)
class Key:
    """One key."""

    user: str
    audiences: tuple[str, ...] = (API,)
    expires_at: float | None = None
    text: str = field(default_factory=lambda: secrets.token_hex(16))

    def expire(self) -> None:
        """Be good for nothing from now on."""
        self.expires_at = time()

    @property
    def expired(self) -> bool:
        """Whether its time is over."""
        return self.expires_at is not None and self.expires_at <= time()


@dataclass
class Keys:
    """The keys that were handed out."""

    known: list[Key] = field(default_factory=list)

    def issue(self, user: str, *audiences: str, lives: float | None = None) -> Key:
        """Hand out a key."""
        expires_at = None if lives is None else time() + lives
        key = Key(user, audiences or (API,), expires_at)
        self.known.append(key)
        return key

    def check(self, header: str | None, audience: str | None = API) -> Key:
        """Give the key that a request carries.

        Raises:
            Refused: there is none, it has expired (401), or it is for another audience (403).
        """
        kind, _, text = (header or "").partition(" ")
        key = next((key for key in self.known if key.text == text), None)
        if kind.lower() != "bearer" or key is None:
            raise Refused(401, "authentication is required: no valid API key was given")
        if key.expired:
            raise Refused(401, "the API key has expired")
        if audience is not None and audience not in key.audiences:
            raise Refused(403, f"the API key is not for the audience {audience}")
        return key
