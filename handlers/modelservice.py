"""Asks a deployed model of a workbench for predictions, over HTTP as its clients do."""

from __future__ import annotations

import json
import re
import ssl
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from time import monotonic
from typing import TYPE_CHECKING, Any

import httpx
import numpy as np
import pandas as pd

from handlers.facts import GiveUp, TryLater
from handlers.wire import split

if TYPE_CHECKING:
    from config.endpoint import ClouderaEndpoint
    from config.machine import Site

LARGEST_BODY = 4_500_000
"""Bytes of a request; the platform takes 5 MB."""
FIRST_PAUSE, LONGEST_PAUSE = 0.1, 2.0
BUSY, UNAUTHORIZED = (429,), (401, 403)
RAISED = re.compile(r"(?<!\w)(?!\w*(?:Server|Gateway|Timeout|Connection))\w+"
                    r"(?:Error|Exception|Conversion|Input): ")  # fmt: skip
"""How a model's own exception looks in an answer, where other failures have the same status."""


class NotAccepted(TryLater):
    """The access key of the model, or the API key beside it, is not taken."""


@dataclass(frozen=True, slots=True)
class Access:
    """What opens a model."""

    access_key: str
    api_key: str | None

    @classmethod
    def of(cls, model: Any, settings: ClouderaEndpoint, site: Site) -> Access:  # noqa: ANN401 (the client's objects are made at run time)
        """Give the keys of a platform's model."""
        wanted = settings.authorize
        authorize = bool(model.auth_enabled) if wanted is None else wanted
        return cls(str(model.access_key), site.key if authorize else None)


@dataclass(frozen=True, slots=True)
class Reply:
    """Predictions, and the deployments that say they made them; none where answers are bare."""

    predictions: np.ndarray[Any, np.dtype[np.float32]]
    crns: frozenset[str]


class Modelservice:
    """The address that all models of a workbench answer at."""

    def __init__(self, url: str, tls: ssl.SSLContext | bool, within: float) -> None:  # noqa: FBT001 (as httpx takes it)
        """Answers may take `within` seconds, the time in which a model is busy included."""
        self.url = url
        self._within = within
        # The client of the API asks no proxy of the environment either.
        self._client = httpx.Client(verify=tls, timeout=within, trust_env=False)

    @classmethod
    def of(cls, settings: ClouderaEndpoint, site: Site) -> Modelservice:
        """Open the way to the models of a workbench."""
        tls = ssl.create_default_context(cafile=str(site.ca_bundle)) if site.ca_bundle else True
        return cls(settings.modelservice or site.modelservice, tls, settings.answer_within)

    def ask(self, access: Access, rows: pd.DataFrame) -> Reply:
        """Have rows scored, in as many requests as their size needs.

        Raises:
            NotAccepted: the keys are not taken.
            TryLater: nothing answers, or not in time.
            GiveUp: the model refuses the rows, or its answers are no predictions.
        """
        found = [(count, self._answer(access, body)) for count, body in _bodies(rows)]
        values = [one for count, answer in found for one in _values(answer, count, self.url)]
        crns = {str(answer["model_deployment_crn"]) for _, answer in found if _wrapped(answer)}
        bare = any(not _wrapped(answer) for _, answer in found)
        if bare and crns:
            raise TryLater(f"{self.url} is changing over.", "It is asked again later.")
        return Reply(np.array(values, dtype=np.float32), frozenset(crns))

    def _answer(self, access: Access, request: str) -> Any:  # noqa: ANN401 (whatever the model answers)
        """Send one request until the model is not busy; gives what it answered."""
        body = f'{{"accessKey": {json.dumps(access.access_key)}, "request": {request}}}'
        headers = {"Content-Type": "application/json"}
        if access.api_key:
            headers["Authorization"] = f"Bearer {access.api_key}"
        until, pause, rest = monotonic() + self._within, FIRST_PAUSE, threading.Event()
        while True:
            try:
                answer = self._client.post(self.url, content=body, headers=headers)
            except httpx.RequestError as error:
                raise TryLater(
                    f"{self.url} does not answer: {str(error) or type(error).__name__}.",
                    "Check the network, `endpoint.modelservice` and `cloudera.ca_bundle`.",
                ) from error
            if answer.status_code not in BUSY or monotonic() + pause > until:
                return self._read(answer)
            rest.wait(pause)  # Each replica answers one request at a time.
            pause = min(2 * pause, LONGEST_PAUSE)

    def _read(self, answer: httpx.Response) -> Any:  # noqa: ANN401 (see `_answer`)
        """Take the answer out of its envelope."""
        try:
            document = answer.json()
        except ValueError:
            document = None
        told = _told(document, answer)
        if answer.status_code in UNAUTHORIZED:
            raise NotAccepted(
                f"{self.url} does not accept the key: {told}.",
                "The API key needs the audience Application; see `endpoint.authorize`.",
            )
        good = answer.is_success and isinstance(document, dict) and "response" in document
        if good and document.get("success", True):
            return document["response"]
        if RAISED.search(told):
            raise GiveUp(f"The model at {self.url} refuses the rows: {told}.")
        raise TryLater(
            f"{self.url} answers {answer.status_code}: {told}.", "It is asked again later."
        )


def _bodies(rows: pd.DataFrame) -> Iterator[tuple[int, str]]:
    """Write rows as MLflow's requests, none of them too large; gives the number of rows in each."""
    document = split(rows)
    head = f'{{"dataframe_split": {{"columns": {json.dumps(document["columns"])}, "data": ['
    part: list[str] = []
    size = 0
    for row in document["data"]:
        text = json.dumps([_sendable(cell) for cell in row], allow_nan=False)
        if part and size + len(text) > LARGEST_BODY:
            yield len(part), f"{head}{','.join(part)}]}}}}"
            part, size = [], 0
        part.append(text)
        size += len(text) + 1
    yield len(part), f"{head}{','.join(part)}]}}}}"


def _sendable(cell: object) -> object:
    """Leave out what UTF-8 cannot carry: no model knows it, so it counts as missing anyway."""
    if isinstance(cell, str):
        try:
            cell.encode()
        except UnicodeEncodeError:
            return None
    return cell


def _wrapped(answer: object) -> bool:
    """Whether an answer names the deployment that made it, as with Model Metrics."""
    return isinstance(answer, Mapping) and "model_deployment_crn" in answer


def _values(answer: Any, count: int, url: str) -> list[Any]:  # noqa: ANN401 (see `_answer`)
    """Give one value per row, or one per class and row.

    Raises:
        GiveUp: the answer is something else.
    """
    if isinstance(answer, Mapping):
        answer = answer.get("prediction", answer.get("predictions"))
    rows = answer if isinstance(answer, list) else [None]
    values = [list(row.values()) if isinstance(row, Mapping) else row for row in rows]
    try:
        shape = np.array(values, dtype=np.float32).shape
    except (ValueError, TypeError):
        shape = ()
    if not isinstance(answer, list) or shape[:1] != (count,):
        raise GiveUp(f"The model at {url} answers {str(answer)[:100]!r} to {count} row(s).")
    return values


def _told(document: object, answer: httpx.Response) -> str:
    """Give what the answer says went wrong, on one line."""
    said: object = None
    if isinstance(document, Mapping):
        names = ("error", "errors", "message")
        said = next((document[name] for name in names if document.get(name)), None)
    text = said or answer.text or answer.reason_phrase
    return " ".join(str(text).split())[:300].rstrip(".")
