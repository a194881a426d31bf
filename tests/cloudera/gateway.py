"""API v2: who may come in, what the contract makes of a request, and what goes wrong on the way."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from time import sleep, time
from typing import Any
from urllib.parse import parse_qsl, unquote

from cloudera.contract import Operation
from cloudera.errors import Refused
from cloudera.faults import Fault
from cloudera.front import Lost, Received, Sent
from cloudera.keys import Key
from cloudera.listing import page
from cloudera.schema import Misfit, Reading, complaints
from cloudera.state import Call, World

Act = Callable[[Call], Any]
KEY_IS_CHECKED_THERE = "ValidateAPIKey"


@dataclass
class Request:
    """A request as it came, and how it was answered; status 0 if it was not."""

    at: float
    operation: str
    verb: str
    path: str
    query: dict[str, str]
    body: Any
    status: int = 0
    user: str = ""


@dataclass(frozen=True)
class Dropped:
    """A field that the platform passed over in silence: a mistake that no error shows."""

    operation: str
    field: str


class Gateway:
    """Takes requests of API v2 to the parts of the workbench."""

    def __init__(
        self, world: World, parts: Iterable[object], check: Callable[[Call], None]
    ) -> None:
        self._world = world
        self._check = check
        self.requests: list[Request] = []
        self.dropped: list[Dropped] = []
        self.complaints: list[str] = []
        """What is wrong with answers of the emulator itself."""
        self._acts: dict[str, Act] = {}
        everyone = list(parts)
        for operation in world.contract.operations.values():
            part = next(part for part in everyone if hasattr(part, operation.call))
            self._acts[operation.id] = getattr(part, operation.call)

    def answer(self, received: Received) -> Sent:
        """Answer a request."""
        found = self._world.contract.find(received.verb, received.path)
        operation, ids = found or (None, {})
        ids = {name: unquote(value) for name, value in ids.items()}
        request = Request(
            time(), operation.id if operation else "", received.verb, received.path,
            dict(parse_qsl(received.query)), _json(received.content),
        )  # fmt: skip
        self.requests.append(request)
        try:
            sent = Sent(200, self._handle(operation, ids, request, received))
        except Refused as error:
            sent = Sent(error.status, error.body())
        request.status = sent.status
        return sent

    def _handle(
        self, operation: Operation | None, ids: dict[str, str], request: Request, received: Received
    ) -> Any:
        if operation is None:
            raise Refused(404, "Not Found")
        faults = self._world.faults.take(operation.id)
        authorization = received.headers.get("authorization")
        go_wrong_before(faults, lambda: self._world.keys.check(authorization, None))
        audience = None if operation.id == KEY_IS_CHECKED_THERE else "API"
        key = self._world.keys.check(authorization, audience)
        request.user = key.user
        body = self._body(operation, ids, request, received)
        query = self._query(operation, request.query)
        call = Call(ids, query, body, key.user, faults, key)
        self._check(call)
        with self._world.lock:
            made = self._acts[operation.id](call)
        answer = self._shape(operation, received.path, query, made)
        go_wrong_after(faults)
        return answer

    def _body(
        self, operation: Operation, ids: Mapping[str, str], request: Request, received: Received
    ) -> dict[str, Any]:
        """Read the body as the contract has it; the ids of the path take the place of its own."""
        if operation.body is None:
            return {}
        if not isinstance(request.body, dict):
            raise Refused(400, f"the body is no JSON object: {received.content[:80]!r}")
        schema = self._world.contract.schemas[operation.body]
        reading = Reading(self._world.contract)
        try:
            body = reading.read(schema, request.body)
        except Misfit as error:
            raise Refused(400, f"cannot read the body: {error}") from error
        self.dropped += [Dropped(operation.id, name) for name in reading.dropped]
        if reading.dropped and self._world.habits.refuse_unknown_fields:
            raise Refused(400, f"unknown fields: {reading.dropped}")
        body |= {name: given for name, given in ids.items() if name in schema["properties"]}
        if missing := [n for n in self._world.contract.required(operation.body) if not body.get(n)]:
            raise Refused(400, f"missing in the body: {', '.join(missing)}")
        return dict(body)

    def _query(self, operation: Operation, given: Mapping[str, str]) -> dict[str, str]:
        for name, value in given.items():
            schema = operation.query.get(name)
            if schema is None:
                self.dropped.append(Dropped(operation.id, f"?{name}"))
            elif schema["type"] == "integer" and not value.lstrip("-").isdigit():
                raise Refused(400, f"{name} must be a whole number: {value!r}")
        return {name: value for name, value in given.items() if name in operation.query}

    def _shape(
        self, operation: Operation, path: str, query: Mapping[str, str], made: Any
    ) -> dict[str, Any]:
        """Make the answer, and hold it against the contract."""
        field = self._world.contract.items_of(operation.answer)
        if field and isinstance(made, list | tuple):
            head, items = made if isinstance(made, tuple) else ({}, made)
            if self._world.habits.newest_first and not isinstance(made, tuple):
                items = items[::-1]
            some, token = page(operation, path, query, items)
            made = {**head, field: some, "next_page_token": token}
        schema = self._world.contract.schemas[operation.answer]
        wrong = complaints(self._world.contract, schema, made)
        if wrong:
            self.complaints += [f"{operation.id}: {one}" for one in wrong]
            raise Refused(500, f"the emulator is wrong: {wrong}")
        return dict(made)


def _json(content: bytes) -> Any:
    try:
        return json.loads(content)
    except ValueError:
        return None


def go_wrong_before(faults: Iterable[Fault], key: Callable[[], Key]) -> None:
    """Do what was ordered to go wrong with a request before it has any effect."""
    for fault in faults:
        if fault.kind == "slow":
            sleep(fault.seconds)
        elif fault.kind == "drop before":
            raise Lost
        elif fault.kind == "error":
            raise Refused(500, "Internal Server Error")
        elif fault.kind == "too many":
            raise Refused(429, "Too Many Requests")
        elif fault.kind == "expired key":
            key().expire()


def go_wrong_after(faults: Iterable[Fault]) -> None:
    """Do what was ordered to go wrong with a request when its effect is there."""
    for fault in faults:
        if fault.kind == "deadline":
            sleep(fault.seconds)
            raise Refused(500, "context deadline exceeded", 4)
        if fault.kind == "drop after":
            raise Lost
