"""Doors to what answers predictions, and the embedded one: a scoring server on this machine.

The server is a process of its own (`handlers.serve`) that outlives the daemon. One file, the
*licence* (`server.json` in the endpoint's home), ties the two together: its token proves to each
side who the other is, and a server whose licence is gone leaves. So a daemon that was killed at
any point of a start finds its server again, and no two servers of one home can both go on.
"""

from __future__ import annotations

import hashlib
import json
import secrets
import shutil
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import httpx
import numpy as np
import pandas as pd
import psutil

from handlers.facts import GiveUp, Model, TryLater
from handlers.licence import LICENCE, MODELS, Licence, end
from handlers.wire import VERSION_HEADER, split

if TYPE_CHECKING:
    from config.endpoint import LocalEndpoint as LocalSettings

REPOSITORY = Path(__file__).resolve().parents[1]
LOG = "server.log"
NO_TLS = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
"""An empty one: the default costs every client 35 ms to load certificates that http never asks."""
ANSWER_WITHIN = 10.0
"""Seconds that a healthy server may take to say who it is, however busy it and its machine are."""


@dataclass(frozen=True, slots=True)
class Answer:
    """Predictions and the version of the one model that made all of them."""

    version: str
    predictions: np.ndarray[Any, np.dtype[np.float32]]
    """As `Scorer.score` gives them: shape (n,), or (n, classes) for several classes."""


class Endpoint(Protocol):
    """What serves the champion. All methods raise `TryLater` when the endpoint is out of reach."""

    @property
    def where(self) -> str:
        """Address for people."""

    def serving(self) -> str | None:
        """Name the version that answers now; None when nothing answers or no model is loaded."""

    def deploy(self, model: Model, folder: Path) -> None:
        """Return once the endpoint answers as `model`; the old one serves on if that fails.

        Raises:
            GiveUp: the model in `folder` cannot be loaded.
        """

    def predict(self, rows: pd.DataFrame) -> Answer:
        """Score rows through the endpoint, the way its clients do.

        Raises:
            GiveUp: the served model refuses the rows.
        """

    def stop(self) -> None:
        """Stop answering; without effect when nothing runs."""


@runtime_checkable
class Metered(Protocol):
    """An endpoint that keeps metrics beside what serves; not every one does."""

    def track(self, version: str, metrics: Mapping[str, float], start_ms: int, end_ms: int) -> None:
        """Keep metrics of a span of time (milliseconds since 1970) of a version, if that serves.

        Raises:
            TryLater: they cannot be kept.
        """


class LocalEndpoint:
    """The embedded endpoint: one server process per home, taken over by whoever comes next."""

    def __init__(self, settings: LocalSettings, home: Path) -> None:
        """Nothing is started here; `home` is created by the first deployment."""
        self._settings = settings
        self._home = home.resolve()
        self._child: subprocess.Popen[bytes] | None = None
        # Who listens on every address is reached through loopback.
        self._host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(settings.host, settings.host)  # noqa: S104 (nothing is bound here)
        name = f"[{self._host}]" if ":" in self._host else self._host
        self._url = f"http://{name}:{settings.port}"

    @property
    def where(self) -> str:
        """Address for people."""
        return self._url

    def serving(self) -> str | None:
        """Name the version that answers now; None when nothing answers or no model is loaded.

        Raises:
            TryLater: another program holds the port.
        """
        about = self._about()
        return about["model_version"] if about else None

    def deploy(self, model: Model, folder: Path) -> None:
        """Bring the server to `model`, starting the server if none runs.

        Raises:
            TryLater: the server cannot be started or reached, or the disk refuses the copy.
            GiveUp: the model in `folder` cannot be loaded.
        """
        about = self._about()
        if about and (about["model_version"], about["run_id"]) == (model.version, model.run_id):
            return
        copy = self._take_in(model, folder)
        if about is None:
            self._start()
        self._order(model, copy)
        for other in copy.parent.iterdir():
            if other != copy:
                shutil.rmtree(other, ignore_errors=True)  # Litter, and the next one tries again.

    def predict(self, rows: pd.DataFrame) -> Answer:
        """Score rows over HTTP, as any client would.

        Raises:
            TryLater: nothing answers, or no model is loaded.
            GiveUp: the served model refuses the rows, or they cannot be sent.
        """
        body = json.dumps({"dataframe_split": split(rows)}, allow_nan=False)
        try:
            with self._client(self._settings.start_within) as client:
                answer = client.post(
                    "/invocations", content=body, headers={"Content-Type": "application/json"}
                )
        except httpx.RequestError as error:
            raise self._silence(error) from error
        if answer.status_code in (httpx.codes.BAD_REQUEST, httpx.codes.REQUEST_ENTITY_TOO_LARGE):
            raise GiveUp(f"{self._url} refuses the rows: {_message(answer)}.")
        if answer.status_code != httpx.codes.OK or VERSION_HEADER not in answer.headers:
            raise TryLater(
                f"{self._url} answered {answer.status_code}: {_message(answer)}.",
                self._remedy,
            )
        found = answer.json()
        values = [list(p.values()) if isinstance(p, dict) else p for p in found["predictions"]]
        return Answer(found["model_version"], np.array(values, dtype=np.float32))

    def stop(self) -> None:
        """Let the server finish its running requests and leave, then withdraw its licence.

        Raises:
            TryLater: the server's process cannot be ended.
        """
        if (licence := Licence.read(self._home)) and (process := licence.process):
            end(process)
        if self._child and self._child.poll() is None:
            end(psutil.Process(self._child.pid))  # It did not get as far as to listen.
            self._child.wait()
        for torn in self._home.glob(f".{LICENCE}.*"):  # by a write that was killed
            torn.unlink(missing_ok=True)
        # Last, because without it a `stop` that was killed could never be finished.
        (self._home / LICENCE).unlink(missing_ok=True)

    def _about(self) -> dict[str, Any] | None:
        """Ask our server who it is; None when it does not run or does not answer."""
        mine = self._licence()
        try:
            with self._client(ANSWER_WITHIN) as client:
                about: dict[str, Any] = client.get("/version").json()
            if mine and about.get("instance") == mine.instance:
                return about
        except (httpx.RequestError, ValueError, AttributeError):
            pass  # Silence, or not our protocol: whose silence it is, is decided below.
        if (mine and mine.process) or not self._listened():
            return None
        raise TryLater(
            f"Port {self._settings.port} of {self._settings.host} is taken by another program.",
            "Stop that program or give this pipeline's endpoint another port.",
        )

    def _listened(self) -> bool:
        """Whether any program accepts connections at the address."""
        try:
            socket.create_connection((self._host, self._settings.port), ANSWER_WITHIN).close()
        except OSError:
            return False
        return True

    def _licence(self) -> Licence | None:
        """Give the licence if it is for the address that is configured now."""
        licence = Licence.read(self._home)
        address = (self._settings.host, self._settings.port)
        return licence if licence and (licence.host, licence.port) == address else None

    def _take_in(self, model: Model, folder: Path) -> Path:
        """Copy the model into the home, the only place from which the server loads."""
        name = hashlib.sha256(f"{model.version} {model.run_id}".encode()).hexdigest()[:16]
        copy = self._home / MODELS / name
        try:
            self._home.mkdir(mode=0o700, parents=True, exist_ok=True)
            return Path(shutil.copytree(folder, copy, dirs_exist_ok=True))
        except (FileNotFoundError, NotADirectoryError) as error:
            raise GiveUp(f"There is no model in {folder}: {error}.") from error
        except OSError as error:
            raise TryLater(
                f"The model in {folder} cannot be copied to {copy}: {error}.",
                "Check the free space and the permissions of state_dir.",
            ) from error

    def _start(self) -> None:
        """Start the server, or wait for the one that is starting, until it answers."""
        licence = self._licence()
        if licence is None:
            self.stop()  # It may serve at an address that is no longer configured.
            token = secrets.token_urlsafe(32)
            licence = Licence(token, self._settings.host, self._settings.port)
            licence.write(self._home)
        if licence.process is None and (self._child is None or self._child.poll() is not None):
            self._spawn()
        deadline = time.monotonic() + self._settings.start_within
        pause = threading.Event()
        while True:
            late = time.monotonic() > deadline
            left = self._child is not None and self._child.poll() is not None
            if self._about():
                return
            if left:
                raise TryLater(f"The scoring server left: {self._last_words()}", self._remedy)
            if late:
                # The next tick starts another: whatever this one waits for, it will not come.
                self.stop()
                within = f"{self._settings.start_within:g} s"
                raise TryLater(f"{self._url} did not answer within {within}.", self._remedy)
            # A server that a killed daemon started is not our child: only asking tells.
            pause.wait(0.05)

    def _spawn(self) -> None:
        """Start a server in a session of its own, so that no Ctrl-C meant for us reaches it."""
        command = [sys.executable, "-m", "handlers.serve", "--home", str(self._home)]
        with (self._home / LOG).open("wb") as log:
            self._child = subprocess.Popen(  # noqa: S603 (our own module, our own interpreter)
                command, cwd=REPOSITORY, start_new_session=True,
                stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT,
            )  # fmt: skip

    def _last_words(self) -> str:
        lines = (self._home / LOG).read_text(encoding="utf-8", errors="replace").split("\n")
        return next((line for line in reversed(lines) if line.strip()), "it said nothing.")

    @property
    def _remedy(self) -> str:
        return f"See {self._home / LOG}."

    def _order(self, model: Model, copy: Path) -> None:
        """Tell the server to load the model and to serve it from then on."""
        licence = self._licence()
        order = {"version": model.version, "run_id": model.run_id, "folder": str(copy)}
        headers = {"Authorization": f"Bearer {licence.token if licence else ''}"}
        try:
            with self._client(self._settings.start_within) as client:
                answer = client.post("/admin/deploy", json=order, headers=headers)
        except httpx.RequestError as error:
            raise self._silence(error) from error
        if answer.status_code == httpx.codes.UNPROCESSABLE_ENTITY:
            raise GiveUp(
                f"{self._url} cannot load version {model.version}: {_message(answer)}.",
                "What served before serves on.",
            )
        if answer.status_code != httpx.codes.OK:
            raise TryLater(
                f"{self._url} did not take version {model.version}: {_message(answer)}.",
                self._remedy,
            )

    def _client(self, timeout: float) -> httpx.Client:
        # A proxy of the environment must not be asked for a server on this very machine.
        return httpx.Client(base_url=self._url, timeout=timeout, trust_env=False, verify=NO_TLS)

    def _silence(self, error: httpx.RequestError) -> TryLater:
        return TryLater(f"{self._url} does not answer: {error}.", self._remedy)


def _message(answer: httpx.Response) -> str:
    """Give what the server says went wrong."""
    try:
        return str(answer.json()["message"])
    except (ValueError, TypeError, KeyError):
        return answer.text[:200] or answer.reason_phrase
