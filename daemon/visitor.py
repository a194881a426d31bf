"""Who looks at the pages, and whether they may act: the platform's proxy says so, or a token.

The proxy of Cloudera AI asks for a login and adds who came. The pages listen on loopback, where
only the proxy of their own pod reaches them, so its headers can be believed. Elsewhere they can be
sent by anyone, and are not read: there a token opens, and who shows it says who they are.
"""

from __future__ import annotations

import re
from base64 import b64decode
from collections.abc import Mapping
from dataclasses import dataclass, field
from secrets import compare_digest

from config.access import token
from config.http import Http

USER, PERMISSION, WRITER = "remote-user", "remote-user-perm", "RW"
CALLED = "x-user"
"""The header by which who shows the token as a bearer says who they are."""
UNFIT = re.compile(r"[^\w .@+-]")
LONGEST = 64


@dataclass(frozen=True, slots=True)
class Visitor:
    """Somebody at the pages; `told` says what keeps them from acting, if anything does."""

    name: str = ""
    told: str = ""
    known: bool = False
    """Whether they proved that they belong here."""
    wrong: bool = False
    """Whether they tried to, in vain."""

    @property
    def may_act(self) -> bool:
        """Whether they may change anything."""
        return not self.told

    def as_dict(self) -> dict[str, str | bool]:
        """Give who it is ready for JSON."""
        return {"name": self.name, "told": self.told, "may_act": self.may_act}


@dataclass(frozen=True, slots=True)
class Rules:
    """Who gets in, and who may act."""

    proxied: bool
    """Whether the platform's login stands before the pages; then it decides, not the token."""
    loopback: bool
    read_only: bool
    hosts: frozenset[str]
    token: str | None = field(repr=False)

    @classmethod
    def of(cls, http: Http, *, proxied: bool) -> Rules:
        """Take the rules from the settings.

        Raises:
            ConfigError: the token's file cannot be read.
        """
        hosts = frozenset(host.lower() for host in http.hosts)
        secret = None if proxied else token(http)
        return cls(proxied, http.loopback, http.read_only, hosts, secret)

    def visitor(self, headers: Mapping[str, str]) -> Visitor:
        """Say who sent a request."""
        found = self._logged_in(headers) if self.proxied else self._with_token(headers)
        if self.read_only and not found.wrong:
            told = "Nothing can be changed here: `http.read_only` is set."
            return Visitor(found.name, told, found.known)
        return found

    def _logged_in(self, headers: Mapping[str, str]) -> Visitor:
        name = headers.get(USER, "")
        if not name:
            return Visitor(told="Nobody is logged in, so nobody could be made answerable.")
        if headers.get(PERMISSION) != WRITER:
            told = f"{name} may look at this project, but not change it."
            return Visitor(name, told, known=True)
        return Visitor(name, known=True)

    def _with_token(self, headers: Mapping[str, str]) -> Visitor:
        if self.token is None:
            return Visitor(told="There is no login here; use the commands instead.")
        shown = credentials(headers)
        if shown is None:
            return Visitor(told="Log in with the token to act.")
        name, secret = shown
        if not compare_digest(secret.encode(errors="replace"), self.token.encode()):
            return Visitor(told="That is not the token.", wrong=True)
        name = UNFIT.sub("", name)[:LONGEST].strip()
        # Whoever knows the token may give any name: the audit trail does not hide that.
        return Visitor(f"{name} (by token)" if name else "token", known=True)


def credentials(headers: Mapping[str, str]) -> tuple[str, str] | None:
    """Give the name and the secret that a request shows; None if it shows none."""
    scheme, _, rest = headers.get("authorization", "").partition(" ")
    if scheme.lower() == "bearer":
        return headers.get(CALLED, ""), rest.strip()
    if scheme.lower() != "basic":
        return None
    try:
        name, _, secret = b64decode(rest, validate=True).decode().partition(":")
    except ValueError:  # not base64, or no text
        return "", ""
    return name, secret
