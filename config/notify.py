"""Whom the daemon tells what happened, and of what."""

from __future__ import annotations

import os
import re
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, SecretStr

from config.section import Duration, Section

Event = Literal["promoted", "kept", "parked", "degraded", "rolled_back", "stuck", "recovered"]
VARIABLE = re.compile(r"\$\{(\w+)\}")


def _filled(value: object) -> object:
    """Put variables of the environment in where `${NAME}` stands."""
    if not isinstance(value, str):
        return value
    for name in VARIABLE.findall(value):
        if name not in os.environ:
            msg = f"the variable {name} that it names is not set"
            raise ValueError(msg)
    return VARIABLE.sub(lambda found: os.environ[found[1]], value)


class Notify(Section):
    """Who is told what happened, by chat, mail or whatever else Apprise reaches."""

    urls: tuple[Annotated[SecretStr, BeforeValidator(_filled)], ...] = ()
    """Addresses as Apprise writes them, e.g. `slack://...` or `mailtos://...`. They are secrets:
    give them as `RETRAIND_NOTIFY__URLS`, or write `${NAME}` for a variable."""
    events: tuple[Event, ...] = (
        "promoted", "kept", "parked", "degraded", "rolled_back", "stuck", "recovered",
    )  # fmt: skip
    """What is told: `promoted`, `kept` (several in a row), `parked`, `degraded` (the champion does
    worse than it promised), `rolled_back`, `stuck`, and `recovered` from the last two troubles."""
    kept_in_row: int = Field(5, ge=1)
    """Challengers that must have lost one after the other before `kept` is told, and told again."""
    stuck_after: Duration = 1800.0
    """Time for which a delta or a deployment may fail before that is told."""
    link: str | None = Field(None, pattern=r"^https?://\S+$")
    """Address of the pages that messages point at, e.g. `https://retraind.example.com`; default
    the daemon's own."""
    most_per_hour: int = Field(20, ge=1)
    """Messages of one pipeline within an hour; what is more waits, and comes as one message."""
