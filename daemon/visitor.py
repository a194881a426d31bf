"""Who looks at the pages, and whether they may act: the platform's proxy says so, nobody else.

The proxy of Cloudera AI asks for a login and adds who came. The pages listen on loopback, where
only the proxy of their own pod reaches them, so its headers can be believed. Elsewhere they can be
sent by anyone, and are not read.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass

USER, PERMISSION, WRITER = "remote-user", "remote-user-perm", "RW"


@dataclass(frozen=True, slots=True)
class Visitor:
    """Somebody at the pages; `told` says what keeps them from acting, if anything does."""

    name: str = ""
    told: str = ""

    @property
    def may_act(self) -> bool:
        """Whether they may change anything."""
        return not self.told

    def as_dict(self) -> dict[str, str | bool]:
        """Give who it is ready for JSON."""
        return {**asdict(self), "may_act": self.may_act}


def visitor(headers: Mapping[str, str], *, proxied: bool) -> Visitor:
    """Say who sent a request."""
    if not proxied:
        return Visitor(told="There is no login here; use the commands instead.")
    name = headers.get(USER, "")
    if not name:
        return Visitor(told="Nobody is logged in, so nobody could be made answerable.")
    if headers.get(PERMISSION) != WRITER:
        return Visitor(name, f"{name} may look at this project, but not change it.")
    return Visitor(name)
