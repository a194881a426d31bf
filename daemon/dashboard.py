"""The pages, for people; `daemon.api` gives the same facts as JSON."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from fastapi import FastAPI, Request
from fastapi.responses import HTMLResponse, PlainTextResponse
from fastapi.templating import Jinja2Templates
from markupsafe import Markup

from config import __version__
from config.settings import Settings
from daemon import views
from daemon.actions import actions
from daemon.api import RECENT, api
from daemon.chart import Point, chart
from daemon.ledger import Ledger
from daemon.service import Step
from daemon.visitor import visitor
from handlers.facts import TryLater

TEMPLATES = Path(__file__).with_name("templates")
SECURITY = {
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; img-src data:",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
}


def drawn(trend: views.View) -> str:
    """Draw how what was served did, as SVG; empty if it was never measured."""
    points = [
        Point(
            str(item["delta"]), item["value"], item["low"], item["high"],
            promoted=f"v{item['promoted']}" if item["promoted"] else "", alarm=item["alarm"],
            told=_told(item),
        )
        for item in trend["points"]
    ]  # fmt: skip
    return chart(points, f"{trend['metric']} of the version served")


def _told(item: views.View) -> str:
    value = "not measured" if item["value"] is None else f"{item['value']:.4g}"
    interval = f" ({item['low']:.4g} to {item['high']:.4g})" if item["low"] is not None else ""
    promoted = f"; version {item['promoted']} was promoted" if item["promoted"] else ""
    return (
        f"delta {item['delta']}: version {item['served']}, {value}{interval}"
        f"{', alarm' if item['alarm'] else ''}{promoted}"
    )


def app(
    settings: Settings,
    ledger: Ledger,
    activity: Callable[[], Mapping[str, Step]],
    unready: Callable[[], list[str]],
    *,
    proxied: bool = False,
) -> FastAPI:
    """Make the web application; everything it shows is read at the moment it is asked.

    `proxied` says that the platform's login stands before it, so that people may act here.
    """
    pages = FastAPI(title="retraind", version=__version__, docs_url=None, redoc_url=None)
    pages.include_router(api(settings, ledger, activity, unready))
    pages.include_router(actions(settings, ledger, proxied=proxied))
    templates = Jinja2Templates(TEMPLATES)

    @pages.exception_handler(TryLater)
    def out_of_reach(_: Request, error: Exception) -> PlainTextResponse:
        """Say what keeps the ledger from being read."""
        return PlainTextResponse(str(error), 503)

    @pages.get("/", response_class=HTMLResponse)
    def home(request: Request) -> HTMLResponse:
        """Show the status page."""
        trends = {name: views.trend(ledger.history(name, RECENT)) for name in settings.pipelines}
        context = {
            "version": __version__,
            "status": views.status(settings, ledger),
            "trends": trends,
            "charts": {name: Markup(drawn(trend)) for name, trend in trends.items()},  # noqa: S704 (its texts are escaped)
            "activity": activity(),
            "visitor": visitor(request.headers, proxied=proxied),
            "history": views.history(ledger.history(limit=50), ledger.forced()),
            "outcome": views.outcome,
        }
        return templates.TemplateResponse(request, "status.html", context, headers=SECURITY)

    return pages
