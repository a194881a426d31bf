"""Workloads: the processes of jobs and applications, and what they find in their environment."""

from __future__ import annotations

import os
import random
import select
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from threading import Event, Thread
from time import monotonic
from typing import Any

import psutil

from cloudera.catalogue import Catalogue
from cloudera.identity import Identity
from cloudera.keys import API, APPLICATION, Key
from cloudera.serving import basics
from cloudera.state import World, new_id

KERNEL = Path(__file__).parent / "kernel.py"
LOOK = 0.02
PORTS = random.SystemRandom()


def free_port() -> int:
    """Give a port that nobody listens on, below those that outgoing connections take."""
    while True:
        port = PORTS.randrange(20_000, 32_000)
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port


@dataclass
class Site:
    """What workloads are told about the workbench; the addresses are known once it listens."""

    project: Path
    logs: Path
    url: str = ""
    modelservice: str = ""
    environment: dict[str, str] = field(default_factory=dict)
    """Variables that the test adds to all workloads, such as MLFLOW_TRACKING_URI."""


class Workloads:
    """Starts processes, and makes sure that none is left."""

    def __init__(self, world: World, site: Site, identity: Identity, catalogue: Catalogue) -> None:
        self._world = world
        self.site = site
        self._identity = identity
        self._catalogue = catalogue
        self._running: list[Workload] = []

    def start(
        self, body: Mapping[str, Any], arguments: Sequence[str], on_end: Callable[[str], None],
        own: Mapping[str, str],
    ) -> Workload:  # fmt: skip
        """Run the script of a job or an application; `own` goes before all other variables."""
        engine, audiences = new_id(), (API, APPLICATION)
        owner = self._identity.project["owner"]["username"]
        lives = self._world.habits.workload_key_lives
        key = self._world.keys.issue(owner, *audiences, lives=lives)
        environment = {
            **basics(), **self.platform(engine, body, key), **self.common, **own,
        }  # fmt: skip
        path = self.site.logs / f"{engine}.log"
        workload = Workload(engine, key, path)
        workload.start(body["script"], arguments, self.site.project, environment, on_end)
        self._running = [one for one in self._running if not one.ended.is_set()] + [workload]
        return workload

    def platform(self, engine: str, body: Mapping[str, Any], key: Key) -> dict[str, str]:
        """Give the variables that the platform sets."""
        site, project = self.site, self._identity.project
        image = body["runtime_identifier"]
        runtime = next(r for r in self._catalogue.runtimes if r["image_identifier"] == image)
        owner = project["owner"]["username"]
        return {
            "HOME": str(site.project), "USER": "cdsw", "HADOOP_USER_NAME": owner,
            "PROJECT_OWNER": owner, "CDSW_PROJECT": project["name"], "CDSW_PROJECT_NUM": "1",
            "CDSW_PROJECT_ID": project["id"], "CDSW_PROJECT_URL": f"{site.url}/{project['slug']}",
            "CDSW_DOMAIN": site.url.partition("//")[2], "CDSW_API_URL": f"{site.url}/api/v1",
            "CDSW_APIV2_KEY": key.text, "CDSW_DS_API_URL": f"{site.modelservice}/ds",
            "CDSW_ENGINE_ID": engine, "CDSW_MASTER_ID": engine, "CDSW_IP_ADDRESS": "127.0.0.1",
            "CDSW_MASTER_IP": "127.0.0.1",
            "CDSW_CPU_MILLICORES": str(int(body.get("cpu", 1) * 1000)),
            "CDSW_MEMORY_MB": str(int(body.get("memory", 1) * 1024)),
            "ML_RUNTIME_KERNEL": runtime["kernel"], "ML_RUNTIME_EDITION": runtime["edition"],
            "ML_RUNTIME_EDITOR": runtime["editor"],
            "ML_RUNTIME_FULL_VERSION": runtime["full_version"],
        }  # fmt: skip

    @property
    def common(self) -> dict[str, str]:
        """Give the variables of the test and of the project."""
        return {**self.site.environment, **self._identity.environment}

    def close(self) -> None:
        """Kill them all."""
        for workload in self._running:
            workload.kill()


class Workload:
    """One process with its descendants."""

    def __init__(self, engine: str, key: Key, log: Path) -> None:
        self.engine = engine
        self.key = key
        self.log = log
        self.ended = Event()
        self._process: subprocess.Popen[bytes] | None = None
        self._deadline: float | None = None

    def start(
        self, script: str, arguments: Sequence[str], folder: Path,
        environment: Mapping[str, str], on_end: Callable[[str], None],
    ) -> None:  # fmt: skip
        """Start it; `on_end` hears `succeeded` or `failed` when the kernel is gone."""
        told, tells = os.pipe()
        self.log.parent.mkdir(parents=True, exist_ok=True)
        with self.log.open("wb") as log:
            self._process = subprocess.Popen(
                [sys.executable, str(KERNEL), str(tells), script, *arguments],
                cwd=folder, env=dict(environment), stdin=subprocess.DEVNULL, stdout=log,
                stderr=subprocess.STDOUT, start_new_session=True, pass_fds=[tells],
            )  # fmt: skip
        os.close(tells)
        Thread(target=self._watch, args=(told, on_end), daemon=True).start()

    def _watch(self, told: int, on_end: Callable[[str], None]) -> None:
        """Wait until the kernel reports, dies, or has become another program."""
        process, outcome = self._process, ""
        while process is not None:
            readable, _, _ = select.select([told], [], [], LOOK)
            gone = process.poll() is not None
            if readable:  # an empty report: the pipe closed, and its writer is no kernel any more
                outcome = os.read(told, 100).decode()
            if readable or gone:
                break
            if self._deadline is not None and monotonic() > self._deadline:
                break
        os.close(told)
        self.kill()
        on_end(outcome or "failed")

    def terminate(self, grace: float, *, group: bool) -> None:
        """Ask it to end, and kill it after a grace."""
        self._deadline = monotonic() + grace
        if self._process is not None:
            send = os.killpg if group else os.kill
            with suppress(ProcessLookupError):
                send(self._process.pid, signal.SIGTERM)

    def kill(self) -> None:
        """Kill it with all that it started, also what left its session: a pod ends as a whole."""
        if self._process is None or self.ended.is_set():
            return
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        for process in psutil.process_iter():
            with suppress(psutil.Error, OSError):
                if process.environ().get("CDSW_ENGINE_ID") == self.engine:
                    process.kill()
        self.ended.set()
