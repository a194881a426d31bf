"""Stands before pages and API: whose request goes through, and what is told to the others."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast
from urllib.parse import SplitResult, urlsplit

import structlog
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, RedirectResponse, Response
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from config.http import is_loopback
from daemon.problem import WANTED, told
from daemon.visitor import Rules, Visitor

OPEN = frozenset({"/healthz", "/readyz", "/metrics"})
"""What is read without a token, by programs that have none."""
SAFE = frozenset({"GET", "HEAD", "OPTIONS"})
CHALLENGES = ('Basic realm="retraind", charset="UTF-8"', "Bearer")
SHOW_IT = "Send `Authorization: Bearer TOKEN`, or log in: any name, the token as password."
SCHEMES = {
    "bearer": {"type": "http", "scheme": "bearer", "description": "The token of `http.token`."},
    "basic": {
        "type": "http", "scheme": "basic", "description": "Any name, the token as the password.",
    },
}  # fmt: skip

log = structlog.get_logger(__name__)


class Access:
    """Lets a request through, with who sent it, or answers it."""

    def __init__(self, app: ASGIApp, rules: Rules) -> None:
        self._app = app
        self._rules = rules

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Judge a request of HTTP; there are no others."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        visits = self._rules.visitor(headers)
        if visits.wrong:
            log.warning("login_failed", client=(scope.get("client") or ("",))[0])
        scope.setdefault("state", {})["visitor"] = visits
        refusal = self._refusal(scope["method"], scope["path"], headers, visits)
        await (refusal or self._app)(scope, receive, send)

    def _refusal(
        self, method: str, path: str, headers: Mapping[str, str], visits: Visitor
    ) -> Response | None:
        rules, host = self._rules, headers.get("host", "")
        if rules.loopback and not rules.proxied and not self._ours(host):
            remedy = "Ask for localhost, or name it in `http.hosts`."
            return told(421, f"Nothing is served here under the name {host!r}.", remedy)
        if not path.isprintable():  # a line break would get past the routes, to other answers
            return told(404, "There is nothing at this path.", WANTED)
        if method not in SAFE:
            return self._may_not_act(headers, visits)
        hidden = not rules.proxied and not rules.loopback and not visits.known
        return self.asked(visits) if path not in OPEN and (visits.wrong or hidden) else None

    def _may_not_act(self, headers: Mapping[str, str], visits: Visitor) -> Response | None:
        rules = self._rules
        if from_elsewhere(headers, proxied=rules.proxied):
            return told(403, "This comes from a page of another site.", "Use our own pages.")
        if visits.may_act:
            return None
        ask = rules.token is not None and not visits.known and not rules.read_only
        return self.asked(visits) if ask else told(403, visits.told)

    def _ours(self, host: str) -> bool:
        """Say whether a request was meant for this address.

        The page of another site may give itself a name that leads here; then the browser takes us
        for that site.
        """
        name = _parts(f"//{host}").hostname
        return name is not None and (is_loopback(name) or name in self._rules.hosts)

    @staticmethod
    def asked(visits: Visitor) -> JSONResponse:
        """Ask for the token; a browser then asks its user."""
        answer = told(401, visits.told or "A token is needed.", SHOW_IT)
        for challenge in CHALLENGES:  # a browser that finds two in one line understands neither
            answer.headers.append("WWW-Authenticate", challenge)
        return answer


def _parts(url: str) -> SplitResult:
    try:
        return urlsplit(url)
    except ValueError:  # brackets that hold no address
        return urlsplit("")


def from_elsewhere(headers: Mapping[str, str], *, proxied: bool) -> bool:
    """Say whether a browser sends this for a page that is not ours; programs say nothing of it.

    Applications of the platform are neighbours on one site, so that is not near enough.
    """
    if site := headers.get("sec-fetch-site"):
        return site not in {"same-origin", "none"}
    origin = headers.get("origin")
    # Behind the platform's proxy our own name is another one, and browsers tell the former header.
    return origin is not None and not proxied and _parts(origin).netloc != headers.get("host")


def visiting(request: Request) -> Visitor:
    """Give who sent a request that was let through."""
    return cast("Visitor", request.state.visitor)


def guard(pages: FastAPI, rules: Rules) -> None:
    """Stand before an application, and give its pages a way to log in."""
    pages.add_middleware(Access, rules=rules)

    @pages.get("/login", include_in_schema=False)
    def login(request: Request) -> Response:
        """Have the browser ask for the token, and go back to the pages."""
        visits = visiting(request)
        if rules.token is None or visits.known:
            return RedirectResponse("./", 303)
        return Access.asked(visits)


def describe(document: dict[str, Any]) -> None:
    """Say in the API's document how to show the token, and that acting takes it."""
    document["components"]["securitySchemes"] = SCHEMES
    for operations in document["paths"].values():
        for method, operation in operations.items():
            needed: list[dict[str, list[str]]] = [{"bearer": []}, {"basic": []}]
            operation["security"] = needed if method == "post" else [{}, *needed]
