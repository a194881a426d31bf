"""The file that ties a scoring server to its endpoint: who may serve for a home, and who does."""

from __future__ import annotations

import contextlib
import hashlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path

import psutil

from handlers import note
from handlers.facts import TryLater

LICENCE, MODELS = "server.json", "models"
STOP_WITHIN = 10.0
"""Seconds that a server may take to finish its running requests before it is killed."""
CLOCK_TICK = 0.01
"""Seconds: the grain in which the birth of a process is told."""


@dataclass(frozen=True, slots=True)
class Licence:
    """What entitles one process to serve for a home, and who that process is once it listens."""

    token: str
    host: str
    port: int
    pid: int | None = None
    created: float | None = None
    """As `born` tells it."""

    @property
    def instance(self) -> str:
        """Identify the holder in public: it proves the token without giving it away."""
        return hashlib.sha256(self.token.encode()).hexdigest()[:16]

    @property
    def process(self) -> psutil.Process | None:
        """Give the live process that holds this licence, never another that got its pid."""
        if self.pid is None or self.created is None:
            return None
        return alive(self.pid, self.created)

    @classmethod
    def read(cls, home: Path) -> Licence | None:
        """Read the licence of a home, None if there is none."""
        try:
            return cls(**json.loads((home / LICENCE).read_text(encoding="utf-8")))
        except FileNotFoundError:
            return None
        except (ValueError, TypeError):
            # The rename is atomic: only a crash of the machine tears it, and no server lives on.
            return None

    def write(self, home: Path) -> None:
        """Write the licence in one step, readable by its owner alone."""
        note.write(home / LICENCE, asdict(self))


def born(process: psutil.Process) -> float:
    """Say when a process started, in seconds since the machine did: setting its clock changes both.

    The boot time is asked first, as an older psutil computes with the one that was asked for last.
    """
    boot = psutil.boot_time()
    return process.create_time() - boot


def alive(pid: int, since: float) -> psutil.Process | None:
    """Find the very process that was born then: another program that got its pid does not count."""
    try:
        process = psutil.Process(pid)
        same = abs(born(process) - since) < CLOCK_TICK / 2
        return process if same and process.status() != psutil.STATUS_ZOMBIE else None
    except psutil.NoSuchProcess:
        return None


def end(process: psutil.Process) -> None:
    """Ask a process to leave, then make it."""
    for ask in (process.terminate, process.kill):
        with contextlib.suppress(psutil.NoSuchProcess):
            ask()  # psutil does not signal a pid that has changed hands.
        if not psutil.wait_procs([process], STOP_WITHIN)[1]:
            return
    raise TryLater(f"The scoring server's process {process.pid} cannot be ended.")
