"""The page that Prometheus scrapes; as open as the other pages, and as closed."""

from __future__ import annotations

from fastapi import APIRouter, Request, Response

from daemon.metrics import Meter


def scrape(meter: Meter) -> APIRouter:
    """Make the route `/metrics`."""
    routes = APIRouter()

    @routes.get("/metrics", include_in_schema=False)
    def metrics(request: Request) -> Response:
        """Give all metrics of the daemon, in the format that is asked for."""
        body, kind = meter.exposition(request.headers.get("accept", ""))
        return Response(body, headers={"Content-Type": kind})

    return routes
