"""The embedded endpoint's server: MLflow's scoring protocol for one model, swapped while it runs.

Run by `handlers.endpoint` as `python -m handlers.serve --home FOLDER`. The folder's licence names
the address to bind and the token that the admin route asks for; models are loaded from the
folder's `models` alone.
"""

from __future__ import annotations

import sys

if __name__ == "__main__":
    # XGBoost imports scikit-learn where it is installed. Scoring has no use for it, and it makes
    # the start, during which nobody serves, twice as long.
    sys.modules["sklearn"] = None  # type: ignore[assignment]

import argparse
import asyncio
import hmac
import json
import logging
import socket
from collections.abc import Awaitable, Callable, MutableMapping
from dataclasses import dataclass, replace
from http import HTTPStatus
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import pandas as pd
import psutil
import uvicorn
from fastapi import FastAPI, Request, Response
from starlette.requests import ClientDisconnect

from handlers.gauge import Gauge
from handlers.licence import LICENCE, MODELS, STOP_WITHIN, Licence, born
from handlers.scorer import BadInput, Scorer
from handlers.wire import VERSION_HEADER, Refusal, read

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

LARGEST_BODY = 32 * 1024 * 1024
SCORED_AT_ONCE = 16 * 1024
"""Bytes up to which scoring on the event loop is over sooner than a hop to a thread pays off."""
GONE = 499
"""Status under which a request is counted whose client did not wait for the answer."""

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Served:
    """One loaded model and the name it answers under."""

    version: str
    run_id: str
    scorer: Scorer

    def answer(self, content_type: str, body: bytes) -> tuple[bytes, int]:
        """Score a request's body; the predictions are exactly the model's float32 scores.

        Gives the answer's body, and how many rows it is about.
        """
        rows = read(content_type, body, self.scorer)
        try:
            encoded = self.scorer.matrix(rows)
        except BadInput as error:
            raise Refusal(HTTPStatus.BAD_REQUEST, str(error).split("\n")[0]) from error
        # XGBoost refuses to score no rows.
        scores = self.scorer.score_matrix(encoded) if len(encoded) else encoded[:, :0]
        values: list[Any] = scores.astype(np.float64).tolist()
        if not np.isfinite(scores).all():
            # JSON has no infinity; an objective with an exponent can reach it.
            values = json.loads(json.dumps(values), parse_constant=lambda _: None)
        if self.scorer.task == "multiclass":
            values = [dict(zip(self.scorer.classes, row, strict=True)) for row in values]
        said = json.dumps({"predictions": values, "model_version": self.version})
        return said.encode(), len(values)


class Server:
    """The ASGI application: `/invocations` by the shortest way, the rest through FastAPI."""

    def __init__(self, licence: Licence, models: Path) -> None:
        """Serve nothing yet; models are loaded from under `models` only."""
        self._licence = licence
        self._models = models.resolve()
        self._served: Served | None = None
        self._gauge = Gauge()
        self._one_at_a_time = asyncio.Lock()
        self._pages = FastAPI(openapi_url=None)
        self._pages.add_api_route("/ping", self.ping)
        self._pages.add_api_route("/health", self.ping)
        self._pages.add_api_route("/version", self.version)
        self._pages.add_api_route("/metrics", self.metrics)
        self._pages.add_api_route("/admin/deploy", self.deploy, methods=["POST"])

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Answer one request; an unforeseen exception goes to uvicorn, which logs it: 500."""
        if scope["type"] != "http" or scope["path"] != "/invocations":
            await self._pages(scope, receive, send)
            return
        began, rows, status = perf_counter(), 0, int(HTTPStatus.INTERNAL_SERVER_ERROR)
        try:
            response, rows = await self._invocations(Request(scope, receive))
            status = response.status_code
        except Refusal as refusal:
            response = _said(refusal)
            status = response.status_code
        except ClientDisconnect:
            status = GONE
            return
        finally:
            self._gauge.answered(status, rows, perf_counter() - began)
        await response(scope, receive, send)

    async def _invocations(self, request: Request) -> tuple[Response, int]:
        served = self._served  # Taken once: the whole answer comes from this one model.
        if request.method != "POST":
            raise Refusal(HTTPStatus.METHOD_NOT_ALLOWED, "rows to score must be POSTed")
        if served is None:
            raise Refusal(HTTPStatus.SERVICE_UNAVAILABLE, "no model is loaded yet")
        body = await _body(request)
        kind = request.headers.get("content-type", "")
        if len(body) <= SCORED_AT_ONCE:
            content, rows = served.answer(kind, body)
        else:
            content, rows = await asyncio.to_thread(served.answer, kind, body)
        headers = {VERSION_HEADER: served.version}
        return Response(content, headers=headers, media_type="application/json"), rows

    async def metrics(self, request: Request) -> Response:
        """Give the metrics that Prometheus scrapes."""
        body, kind = self._gauge.exposition(request.headers.get("accept", ""))
        return Response(body, headers={"Content-Type": kind})

    async def ping(self) -> Response:
        """Say whether rows can be scored."""
        return Response(status_code=200 if self._served else 503)

    async def version(self) -> dict[str, Any]:
        """Say which model answers, what it asks for, and which server this is."""
        served = self._served
        return {
            "model_version": served.version if served else None,
            "run_id": served.run_id if served else None,
            "columns": served.scorer.columns if served else [],
            "task": served.scorer.task if served else None,
            "instance": self._licence.instance,
        }

    async def deploy(self, request: Request) -> Response:
        """Load a model beside the one that serves, then swap the two."""
        wanted, given = f"Bearer {self._licence.token}", request.headers.get("authorization", "")
        if not hmac.compare_digest(wanted.encode(), given.encode()):
            return _said(Refusal(HTTPStatus.UNAUTHORIZED, "the token is missing or wrong"))
        order = await request.json()
        try:
            async with self._one_at_a_time:
                self._served = served = await asyncio.to_thread(self._load, order)
        except Refusal as refusal:
            return _said(refusal)
        self._gauge.loaded(served.version, served.run_id)
        log.info("serving version %s of run %s", served.version, served.run_id)
        return Response(json.dumps({"model_version": served.version}))

    def _load(self, order: dict[str, str]) -> Served:
        """Load the model, and score one empty row: what does not work must not get to serve."""
        folder = Path(order["folder"]).resolve()
        if not folder.is_relative_to(self._models):
            raise Refusal(HTTPStatus.FORBIDDEN, f"{folder} is not under {self._models}")
        try:
            scorer = Scorer.load(folder)
            scorer.score(pd.DataFrame({name: [None] for name in scorer.columns}))
        except OSError as error:
            if not isinstance(error, FileNotFoundError | NotADirectoryError):
                raise Refusal(HTTPStatus.SERVICE_UNAVAILABLE, str(error)) from error
            raise Refusal(HTTPStatus.UNPROCESSABLE_ENTITY, str(error)) from error
        except (ValueError, KeyError, TypeError) as error:
            message = f"{type(error).__name__}: {error}".split("\n")[0]
            raise Refusal(HTTPStatus.UNPROCESSABLE_ENTITY, message) from error
        return Served(order["version"], order["run_id"], scorer)


def _said(refusal: Refusal) -> Response:
    """Give a refusal the body that MLflow gives it."""
    body = json.dumps({"error_code": refusal.status.name, "message": str(refusal)})
    return Response(body, refusal.status, media_type="application/json")


async def _body(request: Request) -> bytes:
    """Read a body, and hold no more of it than is allowed, whatever its header says.

    uvicorn reads and forgets the rest: a client that cannot send it never sees the refusal.
    """
    declared = request.headers.get("content-length", "")
    size, chunks = int(declared) if declared.isdecimal() else 0, []
    if size <= LARGEST_BODY:
        size = 0
        async for chunk in request.stream():
            size += len(chunk)
            if size > LARGEST_BODY:
                break
            chunks.append(chunk)
    if size > LARGEST_BODY:
        message = f"the body exceeds {LARGEST_BODY >> 20} MiB; send the rows in several requests"
        raise Refusal(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, message)
    return b"".join(chunks)


def serve(home: Path, licence: Licence, listening: socket.socket) -> None:
    """Answer until told to stop by a signal or by the loss of the licence."""

    async def look() -> None:
        # Without its licence nobody could find this server to stop it: it would hold the port
        # for ever, for example after its state_dir was deleted.
        try:
            held = Licence.read(home)
        except OSError:  # out of file descriptors, say: no proof that it is gone
            return
        server.should_exit = server.should_exit or held is None or held.token != licence.token

    config = uvicorn.Config(
        Server(licence, home / MODELS), lifespan="off", log_config=None, access_log=False,
        server_header=False, date_header=False, callback_notify=look, timeout_notify=1,
        timeout_keep_alive=60, timeout_graceful_shutdown=int(STOP_WITHIN) - 2,
    )  # fmt: skip
    server = uvicorn.Server(config)
    server.run(sockets=[listening])


def main() -> None:
    """Listen, sign the licence, serve."""
    parser = argparse.ArgumentParser(prog="handlers.serve", description="A scoring server.")
    parser.add_argument("--home", type=Path, required=True, help="folder with server.json")
    home = parser.parse_args().home.resolve()
    logging.basicConfig(format="%(asctime)s %(levelname)s %(message)s", level=logging.INFO)
    licence = Licence.read(home)
    if licence is None:
        parser.error(f"there is no {LICENCE} in {home}")
    family = socket.AF_INET6 if ":" in licence.host else socket.AF_INET
    try:
        # Listening at once makes the port ours alone; connections wait until uvicorn answers.
        listening = socket.create_server((licence.host, licence.port), family=family, backlog=2048)
    except OSError as error:
        parser.error(f"cannot listen on {licence.host} port {licence.port}: {error.strerror}")
    # Accepted connections inherit it. asyncio would set it, but not where a socket's protocol is
    # left open, as here; without it an answer in two packets takes 40 ms instead of one.
    listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    held = Licence.read(home)
    if held is None or held.token != licence.token:
        parser.error("the licence was withdrawn")
    me = psutil.Process()
    replace(licence, pid=me.pid, created=born(me)).write(home)
    serve(home, licence, listening)


if __name__ == "__main__":
    main()
