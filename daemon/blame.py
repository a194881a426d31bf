"""Says which door a failure came through, from where it was raised. Pure."""

from __future__ import annotations

from typing import Literal

from handlers.facts import GiveUp, RetraindError, TryLater
from handlers.scorer import BadInput

Door = Literal["table", "registry", "endpoint", "ledger", "delta", "daemon"]
Kind = Literal["try_later", "give_up", "unforeseen"]

DOORS: dict[str, Door] = {
    "handlers.table": "table",
    "handlers.spark": "table",
    "handlers.registry": "registry",
    "handlers.evidence": "registry",
    "handlers.deploy": "endpoint",
    "handlers.endpoint": "endpoint",
    "handlers.cloudera_endpoint": "endpoint",
    "handlers.mlflow_endpoint": "endpoint",
    "daemon.ledger": "ledger",
    "daemon.store": "ledger",
}
"""The modules through which the daemon reaches each outside system."""


def door(error: BaseException) -> Door:
    """Name the first door on the way to where it was raised.

    A foreseen failure that went through none is the rows' own (`delta`), any other is ours.
    """
    at = error.__traceback__
    while at is not None:
        if found := DOORS.get(at.tb_frame.f_globals.get("__name__", "")):
            return found
        at = at.tb_next
    return "delta" if isinstance(error, RetraindError | BadInput) else "daemon"


def kind(error: BaseException) -> Kind:
    """Name what follows from a failure."""
    if isinstance(error, TryLater):
        return "try_later"
    return "give_up" if isinstance(error, GiveUp | BadInput) else "unforeseen"
