"""A real MLflow server on loopback over SQLite, and a line to it that fails at chosen requests."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable
from contextlib import closing
from http.client import HTTPConnection, HTTPException
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Event, Lock, Thread
from typing import Literal, TypeAlias
from urllib.parse import urlsplit

PATIENCE = 20.0
"""Seconds that a request through the line, and any answer to it, may take."""
STARTS_WITHIN = 180

Lot: TypeAlias = Literal[
    "answered", "answer lost", "answered late", "failed", "lost", "kept waiting"
]
"""What becomes of a request. The server does its work where the name begins with "answer"."""
Fault: TypeAlias = Callable[[int, str], Lot]
"""Gives the lot of a request by its number and its path."""


class MlflowServer:
    """A server over a folder and a port, both of which outlast its processes."""

    def __init__(self, home: Path, port: int) -> None:
        self.url = f"http://127.0.0.1:{port}"
        self._home = home
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start the server and its one worker; `wait` tells when it answers."""
        self._home.mkdir(parents=True, exist_ok=True)
        where = urlsplit(self.url)
        # Its job runner would start seven more processes, for nothing here.
        without = {
            "MLFLOW_DISABLE_TELEMETRY": "true",
            "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
        }
        command = [
            sys.executable, "-m", "mlflow", "server", "--workers", "1",
            "--host", str(where.hostname), "--port", str(where.port),
            "--backend-store-uri", f"sqlite:///{self._home}/runs.db",
            "--artifacts-destination", str(self._home / "artifacts"),
        ]  # fmt: skip
        with (self._home / "log").open("ab") as log:
            self._process = subprocess.Popen(
                command, env={**os.environ, **without}, start_new_session=True,  # noqa: TID251 (passed on as it is)
                stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT,
            )  # fmt: skip

    def wait(self) -> None:
        """Wait until the server answers."""
        end = time.monotonic() + STARTS_WITHIN
        while not self._answers():
            left = self._process is None or self._process.poll() is not None
            told = (self._home / "log").read_text(encoding="utf-8")[-3000:]
            assert not left, told
            assert time.monotonic() < end, told
            time.sleep(0.1)

    def kill(self) -> None:
        """End the server and its worker with SIGKILL; harmless if they are gone."""
        if self._process is not None and self._process.poll() is None:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()

    def _answers(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.url}/health", timeout=PATIENCE) as answer:  # noqa: S310 (our own URL)
                return bool(answer.status == 200)
        except OSError:
            return False


class Line(ThreadingHTTPServer):
    """A way to the server that fails at chosen requests."""

    daemon_threads = True

    def __init__(self, url: str) -> None:
        super().__init__(("127.0.0.1", 0), Relay)
        self.far = urlsplit(url)
        self.url = f"http://127.0.0.1:{self.server_port}"
        self.fault: Fault = all_well
        self.paths: list[str] = []
        self.failed = 0
        self.waiting = Event()
        self._lock = Lock()
        Thread(target=self.serve_forever, args=(0.05,), daemon=True).start()

    def fate(self, path: str) -> Lot:
        """Note a request and say what becomes of it."""
        with self._lock:
            self.paths.append(path)
            lot = self.fault(len(self.paths), path)
            self.failed += lot != "answered"
            return lot

    def close(self) -> None:
        """Let go of who waits, and of the port."""
        self.waiting.set()
        self.shutdown()
        self.server_close()


def all_well(number: int, path: str) -> Lot:  # noqa: ARG001 (a fault's arguments)
    """Fail at no request."""
    return "answered"


class Relay(BaseHTTPRequestHandler):
    """Passes one request on, and its answer back, if that is its lot."""

    protocol_version = "HTTP/1.1"
    server: Line

    def relay(self) -> None:
        """Serve any method."""
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        lot = self.server.fate(self.path)
        self.close_connection = True
        if lot == "failed":
            self.send_response_only(500)
            self.send_header("Content-Length", "0")
            self.end_headers()
        if lot.startswith("answer"):
            self._pass_on(body, answers=lot == "answered")
        if lot in ("kept waiting", "answered late"):
            self.server.waiting.wait(10 * PATIENCE)

    def _pass_on(self, body: bytes, *, answers: bool) -> None:
        """Have the server do its work; where it is down, its line is dead, too."""
        far = self.server.far
        try:
            with closing(HTTPConnection(far.hostname or "", far.port, timeout=PATIENCE)) as way:
                way.request(self.command, self.path, body, dict(self.headers.items()))
                answer = way.getresponse()
                content = answer.read()
        except (OSError, HTTPException):
            return
        if not answers:
            return
        self.send_response_only(answer.status)
        for name, value in answer.getheaders():
            if name.lower() in ("content-type", "content-encoding"):
                self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(content)

    do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = relay  # noqa: N815  http.server's names

    def log_message(self, *_: object) -> None:
        """Say nothing."""
