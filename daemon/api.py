"""What the pages show, as JSON, and health checks. What people do is in `daemon.actions`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import Any

from fastapi import APIRouter
from fastapi.responses import JSONResponse, PlainTextResponse

from config.settings import Settings
from daemon import views
from daemon.ledger import Ledger
from daemon.service import Step

RECENT = 60
"""Deltas that a trend goes back."""


def api(
    settings: Settings,
    ledger: Ledger,
    activity: Callable[[], Mapping[str, Step]],
    unready: Callable[[], list[str]],
) -> APIRouter:
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

    @router.get("/api/status")
    def api_status() -> dict[str, Any]:
        """Say where each pipeline stands and what it does at this moment."""
        steps = {name: asdict(step) for name, step in activity().items()}
        return {**views.status(settings, ledger), "activity": steps}

    @router.get("/api/history")
    def api_history(pipeline: str | None = None, limit: int = 50) -> list[dict[str, Any]]:
        """Give the decisions taken, newest first."""
        records = ledger.history(pipeline, min(max(limit, 1), 1000))
        return views.history(records, ledger.forced(pipeline))

    @router.get("/api/trend")
    def api_trend(limit: int = RECENT) -> dict[str, Any]:
        """Say for each pipeline how what was served did over its deltas, and what moved."""
        most = min(max(limit, 1), 1000)
        return {name: views.trend(ledger.history(name, most)) for name in settings.pipelines}

    return router
