"""Health checks, for whoever looks after the process; they ask nobody who they are."""

from __future__ import annotations

from collections.abc import Callable

from fastapi import APIRouter
from fastapi.responses import JSONResponse, PlainTextResponse


def health(unready: Callable[[], list[str]]) -> APIRouter:
    """Make the routes; everything they tell is read at the moment it is asked."""
    router = APIRouter()

    @router.get("/healthz", response_class=PlainTextResponse)
    def healthz() -> str:
        """Say that the process answers."""
        return "ok"

    @router.get("/readyz")
    def readyz() -> JSONResponse:
        """Say whether every pipeline has finished its first look."""
        waiting = unready()
        return JSONResponse({"ready": not waiting, "waiting": waiting}, 503 if waiting else 200)

    return router
