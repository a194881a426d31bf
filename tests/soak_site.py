"""The soak's site: a scratch folder with a configuration, and the real daemon as a process."""

from __future__ import annotations

import signal
import sqlite3
import subprocess
import sys
import time
from contextlib import closing, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import httpx
import psutil
import yaml
from conftest import free_port
from soak_rows import LARGEST_A

from config.loading import load
from config.settings import Settings
from daemon import composition
from handlers.licence import Licence

ROOT = Path(__file__).resolve().parent.parent
NAME, TABLE = "soak", "lake.soak.rows"
STOP_WITHIN = 60
"""Seconds; a cold start of Spark, which nothing interrupts, takes long on a busy machine."""
MIN_GAIN = 0.01


@dataclass(frozen=True, slots=True)
class World:
    """What can be different from one soak to another."""

    rewrites: str
    coalesce: str
    pin: bool
    format: int

    def __str__(self) -> str:
        """Tell it in a line."""
        return ", ".join(f"{name} {value}" for name, value in asdict(self).items())


@dataclass(slots=True)
class Life:
    """One process of the daemon."""

    process: subprocess.Popen[bytes]
    log: Path

    @property
    def started(self) -> bool:
        """Say whether it came up."""
        return '"event": "started"' in self.log.read_text(encoding="utf-8")


class Site:
    """A configuration, the processes that run on it, and what they left behind."""

    def __init__(self, home: Path, world: World) -> None:
        self.home = home
        self.world = world
        self.state = home / "state"
        self.pages, self.endpoint = free_port(), free_port()
        self.lives: list[Life] = []
        self.broken: list[str] = []
        """Promises that were seen broken on the way."""
        self.struck: list[float] = []
        """When the endpoint was killed, stopped, or let go on, by our own hand."""
        self._offspring: list[psutil.Process] = []
        self._config = home / "soak.yaml"
        pipeline = {
            "table": TABLE,
            "label": "label",
            "row_key": ["id"],
            "poll_every": "1s",
            "delta": {
                "min_rows": 50, "max_wait": "10s", "rewrites": world.rewrites,
                "coalesce": world.coalesce, "pin": world.pin,
            },
            "validate": {"columns": {"a": {"max": LARGEST_A}}, "max_duplicates": 0},
            "train": {"rounds": 10, "holdout": 0.3},
            "promote": {"min_gain": MIN_GAIN, "confidence": 0},
            # All held-out rows, so that each delta's proof names them all.
            "endpoint": {"port": self.endpoint, "verify_rows": 1_000_000},
        }  # fmt: skip
        settings = {
            "state_dir": str(self.state),
            "stop_within": STOP_WITHIN,
            "spark": {"driver_memory": "512m"},
            "http": {"port": self.pages},
            "pipelines": {NAME: pipeline},
        }
        self._config.write_text(yaml.safe_dump(settings), encoding="utf-8")

    @property
    def settings(self) -> Settings:
        """Read the configuration as the daemon does."""
        return load(self._config)

    # -- the daemon --------------------------------------------------------------------------

    @property
    def life(self) -> Life:
        """Give the present life, or the last one."""
        return self.lives[-1]

    @property
    def table_home(self) -> Path:
        """Give the folder of the table, which the embedded catalog names after it."""
        return self.state.joinpath(*TABLE.split("."))

    def strike(self) -> None:
        """Note that the endpoint is not answerable for what follows."""
        self.struck.append(time.monotonic())

    @property
    def running(self) -> bool:
        """Say whether the daemon's process lives."""
        return bool(self.lives) and self.life.process.poll() is None

    def start(self) -> None:
        """Start the daemon, in a session of its own: a Ctrl-C is not meant for it."""
        path = self.home / f"daemon-{len(self.lives):03}.log"
        with path.open("wb") as log:
            process = subprocess.Popen(
                self._command("run"), cwd=ROOT, start_new_session=True,
                stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT,
            )  # fmt: skip
        self.lives.append(Life(process, path))

    def kill(self) -> None:
        """Kill the daemon with SIGKILL."""
        if self.running:
            self._remember_offspring()
            self.life.process.kill()
            self.life.process.wait()

    def terminate(self) -> int:
        """Ask the daemon to stop, and wait until it has; gives its exit status."""
        self._remember_offspring()
        self.life.process.send_signal(signal.SIGTERM)
        return self.life.process.wait(STOP_WITHIN + 40)

    @property
    def driver(self) -> psutil.Process | None:
        """Give the JVM of the daemon's Spark."""
        with suppress(psutil.NoSuchProcess, ValueError):
            if self.running:
                children = psutil.Process(self.life.process.pid).children()
                return next((child for child in children if "java" in child.name()), None)
        return None

    @property
    def server(self) -> psutil.Process | None:
        """Give the endpoint's process."""
        licence = Licence.read(self.state / "endpoints" / NAME)
        return licence.process if licence else None

    def serves(self) -> str | None:
        """Ask the endpoint which version answers."""
        with suppress(httpx.HTTPError):
            url = f"http://127.0.0.1:{self.endpoint}/version"
            found: str | None = httpx.get(url, timeout=5, trust_env=False).json()["model_version"]
            return found
        return None

    # -- commands ----------------------------------------------------------------------------

    def _command(self, *words: str) -> list[str]:
        return [sys.executable, "-m", "daemon", *words, "--config", str(self._config)]

    def run(self, *words: str) -> subprocess.CompletedProcess[str]:
        """Run a command to its end."""
        return subprocess.run(
            self._command(*words), cwd=ROOT, capture_output=True, text=True, check=False,
            timeout=300, start_new_session=True,
        )  # fmt: skip

    # -- the ledger --------------------------------------------------------------------------

    @property
    def ledger(self) -> Path:
        """Give the ledger's file."""
        return self.state / "ledger.db"

    def ask(self, sql: str, *values: object) -> list[dict[str, Any]]:
        """Ask the ledger's file, past the program; nothing where there is none yet."""
        return asked(self.ledger, sql, *values)

    def cursor(self) -> int | None:
        """Give the snapshot that was dealt with last."""
        found = self.ask("SELECT cursor_id FROM pipelines")
        return found[0]["cursor_id"] if found else None

    def champion(self) -> str | None:
        """Give the version that should serve."""
        found = self.ask("SELECT version FROM champions ORDER BY id DESC LIMIT 1")
        return found[0]["version"] if found else None

    def parked(self) -> list[int]:
        """Name the parked deltas that wait for an operator."""
        found = self.ask(
            "SELECT sequence FROM deltas WHERE state = 'parked' AND sequence NOT IN "
            "(SELECT retry_of FROM deltas WHERE retry_of IS NOT NULL)"
        )
        return [row["sequence"] for row in found]

    # -- the end -----------------------------------------------------------------------------

    def close(self) -> list[str]:
        """Leave no process behind; gives those that had to be killed for it."""
        self.kill()
        composition.endpoint(self.settings, NAME).stop()
        # A driver leaves by itself once its daemon is gone.
        _, stubborn = psutil.wait_procs(self._offspring, 15)
        for process in stubborn:
            process.kill()
        return [f"process {process.pid}" for process in stubborn]

    def _remember_offspring(self) -> None:
        with suppress(psutil.NoSuchProcess):
            found = psutil.Process(self.life.process.pid).children(recursive=True)
            self._offspring += [child for child in found if child not in self._offspring]


def asked(path: Path, sql: str, *values: object) -> list[dict[str, Any]]:
    """Ask an SQLite file that other processes write to."""
    if not path.exists():
        return []
    with closing(sqlite3.connect(path, timeout=20)) as db:
        db.row_factory = sqlite3.Row
        try:
            return [dict(row) for row in db.execute(sql, values)]
        except sqlite3.OperationalError as error:
            if "no such table" in str(error):  # it is being made
                return []
            raise
