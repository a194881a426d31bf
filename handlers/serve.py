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
import io
import json
import logging
import socket
from collections import Counter
from collections.abc import Awaitable, Callable, MutableMapping
from dataclasses import dataclass, replace
from http import HTTPStatus
from itertools import repeat
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import psutil
import uvicorn
from fastapi import FastAPI, Request, Response
from starlette.requests import ClientDisconnect

from handlers.endpoint import LICENCE, MODELS, STOP_WITHIN, VERSION_HEADER, Licence
from handlers.scorer import BadInput, Scorer

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

LARGEST_BODY = 32 * 1024 * 1024
SCORED_AT_ONCE = 16 * 1024
"""Bytes up to which scoring on the event loop is over sooner than a hop to a thread pays off."""
MISSING = ["", "NA", "N/A", "NaN", "nan", "None", "NULL", "null"]

log = logging.getLogger(__name__)


class Refusal(Exception):
    """A request that is answered with a status and a sentence instead of predictions."""

    def __init__(self, status: HTTPStatus, message: str) -> None:
        """Take the status and the sentence."""
        super().__init__(message)
        self.status = status

    @property
    def response(self) -> Response:
        """Give the body that MLflow gives."""
        body = json.dumps({"error_code": self.status.name, "message": str(self)})
        return Response(body, self.status, media_type="application/json")


@dataclass(frozen=True, slots=True)
class Served:
    """One loaded model and the name it answers under."""

    version: str
    run_id: str
    scorer: Scorer

    def answer(self, content_type: str, body: bytes) -> bytes:
        """Score a request's body; the predictions are exactly the model's float32 scores."""
        frame = read(content_type, body, self.scorer)
        try:
            # Without rows there is nothing to score, but columns can still be missing.
            scores = self.scorer.score(frame) if len(frame) else self.scorer.matrix(frame)[:, :0]
        except BadInput as error:
            raise Refusal(HTTPStatus.BAD_REQUEST, str(error).split("\n")[0]) from error
        values: list[Any] = scores.astype(np.float64).tolist()
        if not np.isfinite(scores).all():
            # JSON has no infinity; an objective with an exponent can reach it.
            values = json.loads(json.dumps(values), parse_constant=lambda _: None)
        if self.scorer.task == "multiclass":
            values = [dict(zip(self.scorer.classes, row, strict=True)) for row in values]
        return json.dumps({"predictions": values, "model_version": self.version}).encode()


def read(content_type: str, body: bytes, scorer: Scorer) -> pd.DataFrame:
    """Read the model's columns from a body in any of the protocol's forms.

    The cells stay as the client gave them: only the scorer knows what they mean.
    """
    media = content_type.partition(";")[0].strip().lower()
    if media == "text/csv":
        return _csv(body, scorer)
    if media != "application/json":
        raise Refusal(
            HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
            f"Content-Type must be application/json or text/csv, not {media!r}",
        )
    try:
        document = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise Refusal(HTTPStatus.BAD_REQUEST, f"the body is not valid JSON: {error}") from error
    forms = [name for name in FORMS if isinstance(document, dict) and name in document]
    if len(forms) != 1:
        known = ", ".join(FORMS)
        raise Refusal(HTTPStatus.BAD_REQUEST, f"the body must be an object with one of: {known}")
    columns = FORMS[forms[0]](document[forms[0]], scorer.columns)
    for name, cells in columns.items():
        if {list, dict}.intersection(map(type, cells)):
            raise Refusal(HTTPStatus.BAD_REQUEST, f"column {name!r} must hold single values")
    frame: pd.DataFrame = pd.DataFrame(columns, dtype=object)
    return frame


def _csv(body: bytes, scorer: Scorer) -> pd.DataFrame:
    """Read CSV without guessing at text: `007` and `NA` are categories like any other."""
    texts = {f.name for f in scorer.features if f.kind in ("category", "time")}
    missing = {name: [""] if name in texts else MISSING for name in scorer.columns}
    try:
        frame: pd.DataFrame = pd.read_csv(
            io.BytesIO(body), dtype=dict.fromkeys(texts, "object"), na_values=missing,
            keep_default_na=False, low_memory=False, float_precision="round_trip",
        )  # fmt: skip
    except ValueError as error:
        raise Refusal(HTTPStatus.BAD_REQUEST, f"the body is not valid CSV: {error}") from error
    if not isinstance(frame.index, pd.RangeIndex):
        # pandas takes the cells that no column is named for as an index.
        raise Refusal(HTTPStatus.BAD_REQUEST, "the CSV has more cells in a row than columns")
    return frame


def _split(value: object, names: list[str]) -> dict[str, Any]:
    """Read `{"columns": [...], "data": [[...], ...]}`."""
    if not isinstance(value, dict) or not {"columns", "data"} <= value.keys():
        raise Refusal(HTTPStatus.BAD_REQUEST, "dataframe_split must have `columns` and `data`")
    columns, data = value["columns"], value["data"]
    if not isinstance(columns, list) or not all(isinstance(name, str) for name in columns):
        raise Refusal(HTTPStatus.BAD_REQUEST, "`columns` must be a list of names")
    if len(set(columns)) < len(columns):
        twice = [name for name, count in Counter(columns).items() if count > 1]
        raise Refusal(HTTPStatus.BAD_REQUEST, f"column(s) given twice: {twice}")
    return _table(columns, data, names)


def _table(columns: list[str], data: object, names: list[str]) -> dict[str, Any]:
    """Turn rows into the model's columns."""
    if not isinstance(data, list):
        raise Refusal(HTTPStatus.BAD_REQUEST, "the rows must be a list")
    for position, row in enumerate(data):
        if not isinstance(row, list) or len(row) != len(columns):
            message = f"row {position} must be a list of {len(columns)} values, one per column"
            raise Refusal(HTTPStatus.BAD_REQUEST, message)
    cells = zip(*data, strict=True) if data else repeat((), len(columns))
    found = dict(zip(columns, cells, strict=True))
    return {name: found[name] for name in names if name in found}


def _records(value: object, names: list[str]) -> dict[str, Any]:
    """Read `[{column: value, ...}, ...]`; a key that some rows lack is missing there."""
    if not isinstance(value, list) or not all(isinstance(row, dict) for row in value):
        raise Refusal(HTTPStatus.BAD_REQUEST, "the records must be a list of objects")
    present = [name for name in names if not value or any(name in row for row in value)]
    return {name: [row.get(name) for row in value] for name in present}


def _inputs(value: object, names: list[str]) -> dict[str, Any]:
    """Read columns, records, or rows in the model's order of features."""
    if isinstance(value, list):
        records = bool(value) and isinstance(value[0], dict)
        return _records(value, names) if records else _table(names, value, names)
    if not isinstance(value, dict) or not all(isinstance(cells, list) for cells in value.values()):
        raise Refusal(HTTPStatus.BAD_REQUEST, "the inputs must be rows, or a list per column")
    if len({len(cells) for cells in value.values()}) > 1:
        raise Refusal(HTTPStatus.BAD_REQUEST, "the columns must all have the same length")
    return {name: value[name] for name in names if name in value}


FORMS: dict[str, Callable[[object, list[str]], dict[str, Any]]] = {
    "dataframe_split": _split,
    "dataframe_records": _records,
    "inputs": _inputs,
    "instances": _inputs,
}


class Server:
    """The ASGI application: `/invocations` by the shortest way, the rest through FastAPI."""

    def __init__(self, licence: Licence, models: Path) -> None:
        """Serve nothing yet; models are loaded from under `models` only."""
        self._licence = licence
        self._models = models.resolve()
        self._served: Served | None = None
        self._one_at_a_time = asyncio.Lock()
        self._pages = FastAPI(openapi_url=None)
        self._pages.add_api_route("/ping", self.ping)
        self._pages.add_api_route("/health", self.ping)
        self._pages.add_api_route("/version", self.version)
        self._pages.add_api_route("/admin/deploy", self.deploy, methods=["POST"])

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Answer one request; an unforeseen exception goes to uvicorn, which logs it: 500."""
        if scope["type"] != "http" or scope["path"] != "/invocations":
            await self._pages(scope, receive, send)
            return
        try:
            response = await self._invocations(Request(scope, receive))
        except Refusal as refusal:
            response = refusal.response
        except ClientDisconnect:
            return
        await response(scope, receive, send)

    async def _invocations(self, request: Request) -> Response:
        served = self._served  # Taken once: the whole answer comes from this one model.
        if request.method != "POST":
            raise Refusal(HTTPStatus.METHOD_NOT_ALLOWED, "rows to score must be POSTed")
        if served is None:
            raise Refusal(HTTPStatus.SERVICE_UNAVAILABLE, "no model is loaded yet")
        body = await _body(request)
        kind = request.headers.get("content-type", "")
        if len(body) <= SCORED_AT_ONCE:
            content = served.answer(kind, body)
        else:
            content = await asyncio.to_thread(served.answer, kind, body)
        headers = {VERSION_HEADER: served.version}
        return Response(content, headers=headers, media_type="application/json")

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
            return Refusal(HTTPStatus.UNAUTHORIZED, "the token is missing or wrong").response
        order = await request.json()
        try:
            async with self._one_at_a_time:
                self._served = served = await asyncio.to_thread(self._load, order)
        except Refusal as refusal:
            return refusal.response
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
        except (OSError, ValueError, KeyError, TypeError) as error:
            message = f"{type(error).__name__}: {error}".split("\n")[0]
            raise Refusal(HTTPStatus.UNPROCESSABLE_ENTITY, message) from error
        return Served(order["version"], order["run_id"], scorer)


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
        held = Licence.read(home)
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
    replace(licence, pid=me.pid, created=me.create_time()).write(home)
    serve(home, licence, listening)


if __name__ == "__main__":
    main()
