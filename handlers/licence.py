"""The file that ties a scoring server to its endpoint: who may serve for a home, and who does."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path

import psutil

from handlers.facts import TryLater

LICENCE, MODELS = "server.json", "models"
STOP_WITHIN = 10.0
"""Seconds that a server may take to finish its running requests before it is killed."""


@dataclass(frozen=True, slots=True)
class Licence:
    """What entitles one process to serve for a home, and who that process is once it listens."""

    token: str
    host: str
    port: int
    pid: int | None = None
    created: float | None = None

    @property
    def instance(self) -> str:
        """Identify the holder in public: it proves the token without giving it away."""
        return hashlib.sha256(self.token.encode()).hexdigest()[:16]

    @property
    def process(self) -> psutil.Process | None:
        """Give the live process that holds this licence, never another that got its pid."""
        if self.pid is None or self.created is None:
            return None
        try:
            process = psutil.Process(self.pid)
            # Two readers may see the boot time, from which this is computed, a tick apart.
            same = abs(process.create_time() - self.created) < 1
            return process if same and process.status() != psutil.STATUS_ZOMBIE else None
        except psutil.NoSuchProcess:
            return None

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
        descriptor, temporary = tempfile.mkstemp(dir=home, prefix=f".{LICENCE}.")
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            json.dump(asdict(self), file)
        Path(temporary).replace(home / LICENCE)


def end(process: psutil.Process) -> None:
    """Ask a process to leave, then make it."""
    for ask in (process.terminate, process.kill):
        with contextlib.suppress(psutil.NoSuchProcess):
            ask()  # psutil does not signal a pid that has changed hands.
        if not psutil.wait_procs([process], STOP_WITHIN)[1]:
            return
    raise TryLater(f"The scoring server's process {process.pid} cannot be ended.")
