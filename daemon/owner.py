"""Decides whether this process may act on a state: at most one daemon ever does."""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable
from datetime import datetime, timedelta
from time import monotonic

import psutil

from config.workload import host
from daemon.store import Owner, Store, now
from handlers.facts import GiveUp
from handlers.licence import alive, born

BEAT_EVERY = 5.0
DEAD_AFTER = 30.0

Wait = Callable[[float], object]


def myself(url: str = "") -> Owner:
    """Describe this process."""
    pid = os.getpid()
    started = born(psutil.Process(pid))
    return Owner(secrets.token_hex(16), host(), pid, started, url, now())


def claim(store: Store, me: Owner, wait: Wait) -> Owner:
    """Become the owner, at once if the former one is gone, else refuse.

    An owner on this host is looked up among the processes. One on another host can only be
    watched: if its heartbeat stands still for `DEAD_AFTER` seconds it is gone.

    Raises:
        GiveUp: another process is alive and owns the state.
    """
    former = store.owner()
    if former is not None and former.host == me.host and alive(former.pid, former.started):
        raise _refusal(former)
    if former is not None and former.host != me.host:
        _watch(store, former, wait)
    if store.claim(me, instead_of=former):
        return me
    winner = store.owner()
    if winner is None:  # the former gave it up just now
        return claim(store, me, wait)
    raise _refusal(winner)


def _watch(store: Store, former: Owner, wait: Wait) -> None:
    """Wait until a heartbeat of another host proves dead; refuse as soon as it moves.

    Only this host's clock counts: the two may differ by more than `DEAD_AFTER`.
    """
    until = monotonic() + DEAD_AFTER
    while (left := until - monotonic()) > 0:
        wait(min(1.0, left))
        seen = store.owner()
        if seen is None:
            return
        if seen != former:
            raise _refusal(seen)


def living(store: Store, at: datetime | None = None) -> Owner | None:
    """Give the owner if it seems alive, for pages and commands."""
    owner = store.owner()
    if owner is None:
        return None
    if owner.host == host():
        return owner if alive(owner.pid, owner.started) else None
    age = (at or now()) - owner.beat_at
    return owner if age < timedelta(seconds=DEAD_AFTER) else None


def _refusal(owner: Owner) -> GiveUp:
    return GiveUp(
        f"Another retraind acts on this state: process {owner.pid} on {owner.host}, last heard "
        f"of at {owner.beat_at:%H:%M:%S} UTC.",
        "Stop it first, or give this one a `state_dir` of its own.",
    )
