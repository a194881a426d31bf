"""A daemon's whole life in an empty folder: its configuration, its processes, what they tell."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import httpx
import yaml
from conftest import free_port

from config.loading import load
from daemon import composition

ROOT = Path(__file__).resolve().parent.parent
PATIENCE = 240.0


class Site:
    """A configuration of one's own in an empty folder, and the commands run on it."""

    def __init__(self, home: Path, conf: Mapping[str, str] | None = None, **tables: str) -> None:
        self.home = home
        self.tables = tables or {"payments": "lake.shop.payments"}
        self.conf = dict(conf or {})
        self.port = free_port()
        self.endpoints = {pipeline: free_port() for pipeline in self.tables}
        self.config = home / "retraind.yaml"
        self.processes: list[subprocess.Popen[str]] = []
        self.configure()

    def configure(self, rounds: int = 30) -> None:
        """Write the configuration: a pipeline for each table."""
        pipelines = {
            name: {
                "table": table,
                "label": "fraud_trx",
                "row_key": ["transaction_id"],
                "ignore": ["event_time"],
                "poll_every": "1s",
                "train": {"rounds": rounds},
                "endpoint": {"port": self.endpoints[name]},
            }
            for name, table in self.tables.items()
        }
        settings = {
            "state_dir": str(self.home / "state"),
            "stop_within": "30s",
            "spark": {"conf": self.conf},
            "http": {"port": self.port},
            "pipelines": pipelines,
        }
        self.config.write_text(yaml.safe_dump(settings), encoding="utf-8")

    def command(self, *words: str) -> list[str]:
        """Give a command line."""
        return [sys.executable, "-m", "daemon", *words, "--config", str(self.config)]

    def run(self, *words: str, code: int = 0) -> str:
        """Run a command to its end."""
        done = subprocess.run(
            self.command(*words), cwd=ROOT, capture_output=True, text=True, check=False, timeout=300
        )
        assert done.returncode == code, done.stdout + done.stderr
        return done.stdout if code == 0 else done.stderr

    def ask(self, *words: str) -> Any:
        """Run a command that reports, and read its JSON."""
        return json.loads(self.run(*words, "--json"))

    def start(self) -> subprocess.Popen[str]:
        """Start the daemon and wait until it answers."""
        log = (self.home / f"daemon{len(self.processes)}.log").open("w", encoding="utf-8")
        process = subprocess.Popen(
            self.command("run"), cwd=ROOT, stdout=log, stderr=subprocess.STDOUT, text=True
        )
        self.processes.append(process)
        until(lambda: self.get("/healthz") == "ok", "the daemon answers")
        return process

    def get(self, path: str) -> Any:
        """Get a page of the daemon, None while it does not answer."""
        try:
            answer = httpx.get(f"http://127.0.0.1:{self.port}{path}", timeout=5, trust_env=False)
        except httpx.TransportError:
            return None
        return answer.json() if "json" in answer.headers["content-type"] else answer.text

    def step(self) -> dict[str, Any]:
        """Say what the pipeline does at this moment."""
        found: dict[str, Any] = (self.get("/api/status") or {}).get("activity", {})
        step: dict[str, Any] = found.get("payments", {})
        return step

    def decisions(self) -> list[dict[str, Any]]:
        """Give what was decided, newest first, as the daemon's pages tell it."""
        found: list[dict[str, Any]] = self.get("/api/history") or []
        return found

    def version(self, pipeline: str = "payments") -> str | None:
        """Ask the endpoint which version answers."""
        try:
            url = f"http://127.0.0.1:{self.endpoints[pipeline]}/version"
            found: str | None = httpx.get(url, timeout=5, trust_env=False).json()["model_version"]
        except httpx.TransportError:
            return None
        return found

    def log(self) -> str:
        """Give what the last daemon logged."""
        return (self.home / f"daemon{len(self.processes) - 1}.log").read_text(encoding="utf-8")

    def close(self) -> None:
        """Leave nothing behind."""
        for process in self.processes:
            if process.poll() is None:
                process.kill()
                process.wait()
        self.configure()
        settings = load(self.config)
        for pipeline in settings.pipelines:
            composition.endpoint(settings, pipeline).stop()


def until(true: Callable[[], Any], what: str, patience: float = PATIENCE) -> None:
    """Wait for a state of the world."""
    end = time.monotonic() + patience
    while not true():
        assert time.monotonic() < end, f"waited {patience:.0f} s in vain: {what}"
        time.sleep(0.1)
