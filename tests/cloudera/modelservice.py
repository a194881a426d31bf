"""`modelservice.<domain>`: calls to deployed models, and the store of their metrics."""

from __future__ import annotations

import json
from dataclasses import dataclass
from time import monotonic, time
from typing import Any
from urllib.parse import parse_qs
from uuid import uuid4

from cloudera.deployments import Deployments, ModelDeployment
from cloudera.errors import Refused
from cloudera.faults import Fault
from cloudera.front import Received, Sent
from cloudera.gateway import go_wrong_after, go_wrong_before
from cloudera.keys import APPLICATION
from cloudera.metrics import Metrics
from cloudera.models import Model, Models
from cloudera.serving import Late, Leaving
from cloudera.state import World

LARGEST = 5_000_000
OPERATION = "modelservice"


@dataclass
class ModelCall:
    """A call to a model, and which version answered it."""

    at: float
    model_id: str = ""
    deployment_id: str = ""
    version_id: str = ""
    version: int = 0
    status: int = 0
    seconds: float = 0.0


class Modelservice:
    """Answers `POST /model`, and below `/ds` what workloads reach as CDSW_DS_API_URL."""

    def __init__(self, world: World, models: Models, deployments: Deployments) -> None:
        self._world = world
        self._models = models
        self._deployments = deployments
        self.metrics = Metrics()
        self.calls: list[ModelCall] = []

    def answer(self, received: Received) -> Sent:
        """Answer a request."""
        if received.path.startswith("/ds/metrics/"):
            return self.metrics.answer(received)
        if received.path.removeprefix("/ds") != "/model" or received.verb != "POST":
            return Sent(404, {"error": "Not Found"})
        call = ModelCall(time())
        self.calls.append(call)
        began = monotonic()
        try:
            sent = self._model(received, call)
        except Refused as error:
            named = {"code": "model.busy"} if error.status == 429 else {}
            sent = Sent(error.status, {"success": False, "error": error.message, **named})
        call.status, call.seconds = sent.status, monotonic() - began
        return sent

    def _model(self, received: Received, call: ModelCall) -> Sent:
        faults = self._world.faults.take(OPERATION)
        authorization = received.headers.get("authorization")
        go_wrong_before(faults, lambda: self._world.keys.check(authorization, None))
        if len(received.content) > LARGEST:
            raise Refused(413, "request entity too large")
        body, access_key = _read(received)
        model = self._models.by_access_key(access_key)
        if model is None or any(fault.kind == "refused key" for fault in faults):
            raise Refused(self._world.habits.bad_access_key, "the access key is not valid")
        call.model_id = model.id
        if model.body["auth_enabled"]:
            self._check(authorization)
        answer = self._ask(model, body.get("request"), call, faults)
        go_wrong_after(faults)
        return answer

    def _check(self, authorization: str | None) -> None:
        """Let pass who has a key for applications; all others hear the same."""
        try:
            self._world.keys.check(authorization, APPLICATION)
        except Refused as error:
            raise Refused(401, error.message) from error

    def _ask(self, model: Model, request: Any, call: ModelCall, faults: list[Fault]) -> Sent:
        if any(fault.kind == "busy" for fault in faults):
            raise Refused(429, "model.busy")
        with self._world.lock:
            deployment = self._deployments.serving(model)
            replicas = deployment.replicas if deployment else None
        if deployment is None or replicas is None:
            raise Refused(self._world.habits.no_deployment, "no deployment of the model serves")
        call.deployment_id = deployment.id
        about = {"uuid": str(uuid4()), "model_deployment_crn": deployment.crn}
        patience = self._world.pace.model_timeout
        try:
            found = replicas.ask(request, about, patience, self._world.habits.model_queue)
        except Leaving:
            return self._ask(model, request, call, faults)
        except Late:
            raise Refused(504, "the model did not answer in time") from None
        if found is None:
            raise Refused(429, "model.busy")
        return self._reply(deployment, found, about, call)

    def _reply(
        self, deployment: ModelDeployment, found: dict[str, Any], about: dict[str, str],
        call: ModelCall,
    ) -> Sent:  # fmt: skip
        habits, success = self._world.habits, {"success": "error" not in found}
        if "error" in found:
            return Sent(habits.model_error, {**success, "error": found["error"]})
        garbage = deployment.fault("garbage")
        value = garbage.value if garbage else found["value"]
        registered = deployment.answers
        if registered:
            call.version_id, call.version = registered.id, registered.number
            if habits.wrapped_answers:
                value = {"prediction": value, **about}
        return Sent(200, {"response": value, **(success if habits.success_key else {})})


def _read(received: Received) -> tuple[dict[str, Any], str]:
    """Read the request, and the access key, which may also be in the query."""
    try:
        body = json.loads(received.content)
    except ValueError:
        body = None
    if not isinstance(body, dict):
        raise Refused(400, "the body must be a JSON object")
    key = body.get("accessKey") or parse_qs(received.query).get("accessKey", [""])[0]
    return body, key
