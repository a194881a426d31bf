"""Errors of the JSON API: one shape, with a remedy, whatever went wrong."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fastapi import FastAPI, HTTPException, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException as Unrouted

from daemon.schema import Problem
from handlers.facts import GiveUp, TryLater

WHAT: Mapping[int, str] = {
    400: "The body cannot be read.",
    401: "A token is asked for.",
    403: "You may not do that, or it came from another site.",
    404: "There is no such pipeline or delta.",
    409: "It cannot be done as things stand.",
    421: "Nothing of that host name is here.",
    422: "The request is not understood.",
    503: "The ledger is out of reach, or the daemon is being stopped.",
}
WANTED = "/api/openapi.json tells which paths there are, and what they expect."
AGAIN = {"Retry-After": "5"}


def problems(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Document the errors that a route may answer with."""
    return {status: {"model": Problem, "description": WHAT[status]} for status in statuses}


class Refused(HTTPException):
    """A request that is not carried out, and what helps."""

    def __init__(self, status: int, detail: str, remedy: str = "") -> None:
        super().__init__(status, detail)
        self.remedy = remedy


def told(
    status: int, detail: str, remedy: str = "", headers: Mapping[str, str] | None = None
) -> JSONResponse:
    """Give the answer that tells a problem."""
    return JSONResponse(Problem(detail=detail, remedy=remedy).model_dump(), status, headers)


def tell(app: FastAPI) -> None:
    """Have an application tell every problem in that shape."""

    @app.exception_handler(Unrouted)
    def refused(_: Request, error: Unrouted) -> JSONResponse:
        remedy = (
            error.remedy if isinstance(error, Refused) else "/api/openapi.json lists the paths."
        )
        return told(error.status_code, str(error.detail), remedy, error.headers)

    @app.exception_handler(RequestValidationError)
    def misunderstood(_: Request, error: RequestValidationError) -> JSONResponse:
        mistakes = (
            f"{'.'.join(str(part) for part in item['loc'])}: {item['msg']}"
            for item in error.errors()
        )
        return told(422, "; ".join(mistakes), WANTED)

    @app.exception_handler(TryLater)
    def out_of_reach(_: Request, error: TryLater) -> JSONResponse:
        return told(503, error.what, error.remedy, AGAIN)

    @app.exception_handler(GiveUp)
    def impossible(_: Request, error: GiveUp) -> JSONResponse:
        return told(409, error.what, error.remedy)
