"""The emulator's end of the processes in which deployed models are loaded (`replica.py`)."""

from __future__ import annotations

import json
import os
import queue
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from threading import Event, Lock
from time import monotonic
from typing import Any

SCRIPT = Path(__file__).parent / "replica.py"
SITE = Path(__file__).parent / "site"
STARTS_WITHIN = 120


class LoadFailed(Exception):
    """A model that cannot be loaded; the text is the model's own."""


class Late(Exception):
    """A model that did not answer in time."""


class Leaving(Exception):
    """A deployment that takes no more requests: another one has taken its place."""


class Loader:
    """The process that forks replicas; started at first use; workbenches can share one."""

    def __init__(self) -> None:
        self._home = Path(tempfile.mkdtemp(prefix="replicas-"))
        self._lock = Lock()
        self._process: subprocess.Popen[str] | None = None

    def connect(self) -> socket.socket:
        """Give a connection to a new replica.

        Raises:
            LoadFailed: the process does not start.
        """
        path = str(self._home / "socket")
        with self._lock:
            if self._process is None:
                self._process = self._start(path)
        connection = socket.socket(socket.AF_UNIX)
        connection.connect(path)
        return connection

    def _start(self, path: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, str(SCRIPT), path],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True,
            stderr=(self._home / "log").open("w"), cwd=self._home, env=basics(),
        )  # fmt: skip
        if process.stdout is None or process.stdout.readline() != "ready\n":
            raise LoadFailed((self._home / "log").read_text())
        return process

    def close(self) -> None:
        """End it and all its replicas."""
        with self._lock:
            if self._process is not None:
                with suppress(ProcessLookupError):
                    os.killpg(self._process.pid, signal.SIGKILL)
                self._process.communicate()
                self._process = None
        shutil.rmtree(self._home, ignore_errors=True)

    def __enter__(self) -> Loader:  # noqa: PYI034 (Self needs Python 3.11)
        """Be closed at the end of a block."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close."""
        self.close()


def basics() -> dict[str, str]:
    """Give what every process of the workbench finds in its environment."""
    inherited = ("PATH", "LANG", "TMPDIR", "LD_LIBRARY_PATH", "JAVA_HOME", "SPARK_HOME")
    found = {name: os.environ[name] for name in inherited if name in os.environ}  # noqa: TID251
    return {**found, "PYTHONPATH": str(SITE), "PYTHONUNBUFFERED": "1", "OMP_NUM_THREADS": "1"}


class Replica:
    """One process with one loaded model."""

    def __init__(self, connection: socket.socket, pid: int) -> None:
        self._connection = connection
        self._pid = pid

    @classmethod
    def start(
        cls, loader: Loader, source: Mapping[str, str], environment: Mapping[str, str]
    ) -> Replica:
        """Load a model.

        Raises:
            LoadFailed: it cannot be loaded.
        """
        connection = loader.connect()
        connection.settimeout(STARTS_WITHIN)
        found = _exchange(connection, {**source, "environment": dict(environment)})
        if "error" in found:
            connection.close()
            raise LoadFailed(found["error"])
        return cls(connection, found["pid"])

    def ask(self, request: Any, about: Mapping[str, str], within: float) -> dict[str, Any]:
        """Have one request answered: `value`, or the model's `error`.

        Raises:
            Late: it takes too long.
        """
        self._connection.settimeout(within)
        try:
            return _exchange(self._connection, {"request": request, "about": dict(about)})
        except TimeoutError:
            raise Late from None

    def close(self) -> None:
        """End the process, whatever it does."""
        self._connection.close()
        with suppress(ProcessLookupError):
            os.kill(self._pid, signal.SIGKILL)


def _exchange(connection: socket.socket, message: Mapping[str, Any]) -> dict[str, Any]:
    connection.sendall(json.dumps(message).encode() + b"\n")
    parts: list[bytes] = []
    while not parts or not parts[-1].endswith(b"\n"):
        part = connection.recv(1 << 20)
        if not part:
            return {"error": "the process of the model has died"}
        parts.append(part)
    answer: dict[str, Any] = json.loads(b"".join(parts))
    return answer


class Replicas:
    """The replicas of a deployment, each of which answers one request at a time."""

    def __init__(self, replicas: list[Replica], again: Any) -> None:
        self._all = replicas
        self._again = again
        self._idle: queue.Queue[Replica] = queue.Queue()
        self._lock = Lock()
        self._waiting = 0
        self._closed = self._leaving = False
        for replica in replicas:
            self._idle.put(replica)

    @classmethod
    def start(
        cls, loader: Loader, source: Mapping[str, str], environment: Mapping[str, str], count: int
    ) -> Replicas:
        """Load a model as often as is asked for.

        Raises:
            LoadFailed: it cannot be loaded.
        """

        def again() -> Replica:
            return Replica.start(loader, source, environment)

        return cls([again() for _ in range(count)], again)

    def ask(
        self, request: Any, about: Mapping[str, str], within: float, waiting: int
    ) -> dict[str, Any] | None:
        """Have a request answered in turn; None if too many wait already.

        Raises:
            Late: it takes too long; the replica is replaced.
            Leaving: it is to be asked of the deployment that took the place of this one.
        """
        with self._lock:
            if self._leaving:
                raise Leaving
            if self._waiting >= waiting and self._idle.empty():
                return None
            self._waiting += 1
        try:
            replica = self._idle.get(timeout=within)
        except queue.Empty:
            raise Late from None
        finally:
            with self._lock:
                self._waiting -= 1
        try:
            answer = replica.ask(request, about, within)
        except Late:
            self._replace(replica)
            raise
        self._idle.put(replica)
        return answer

    def _replace(self, replica: Replica) -> None:
        replica.close()
        with self._lock:
            self._all.remove(replica)
            if self._closed:
                return
        new = self._again()
        with self._lock:
            self._all.append(new)
        self._idle.put(new)

    def drain(self, within: float = 30) -> None:
        """End once all requests that came before are answered."""
        with self._lock:
            self._leaving = True
        until = monotonic() + within
        while self._waiting and monotonic() < until:
            Event().wait(0.005)
        for _ in range(len(self._all)):
            with suppress(queue.Empty):
                self._idle.get(timeout=within)
        self.close()

    def close(self) -> None:
        """End all at once."""
        with self._lock:
            self._closed = True
            for replica in self._all:
                replica.close()
