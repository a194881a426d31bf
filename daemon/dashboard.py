"""The web application: pages for people, JSON for programs, health checks, what the pages need."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from fastapi import FastAPI, Request
from fastapi.responses import PlainTextResponse
from fastapi.staticfiles import StaticFiles
from starlette.middleware.base import RequestResponseEndpoint
from starlette.responses import Response

from config import __version__
from config.settings import Settings
from daemon.api import join
from daemon.ledger import Ledger
from daemon.metrics import Meter
from daemon.pages import Explain, pages
from daemon.scrape import scrape
from daemon.service import Step
from handlers.facts import TryLater

STATIC = Path(__file__).with_name("static")
SECURITY = {
    "Content-Security-Policy": (
        "default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; "
        "img-src 'self' data:; base-uri 'none'; form-action 'none'; frame-ancestors 'self'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
}


def app(
    settings: Settings,
    ledger: Ledger,
    activity: Callable[[], Mapping[str, Step]],
    unready: Callable[[], list[str]],
    look: Callable[[str], None] = lambda _: None,
    *,
    explain: Explain | None = None,
    proxied: bool = False,
    meter: Meter | None = None,
) -> FastAPI:
    """Make the web application; everything it shows is read at the moment it is asked.

    `explain` fetches what was kept to explain the model of a run; `proxied` says that the
    platform's login stands before it, so that people may act here.
    """
    web = FastAPI(title="retraind", version=__version__, docs_url=None, redoc_url=None)
    join(web, settings, ledger, activity, unready, look, proxied=proxied)
    web.include_router(pages(settings, ledger, activity, explain))
    web.include_router(scrape(meter or Meter(settings.pipelines, ledger)))
    web.mount("/static", StaticFiles(directory=STATIC), name="static")

    @web.middleware("http")
    async def secure(request: Request, answer: RequestResponseEndpoint) -> Response:
        """Let no page run or fetch what is not ours."""
        response = await answer(request)
        for name, value in SECURITY.items():
            response.headers.setdefault(name, value)
        return response

    @web.exception_handler(TryLater)
    def out_of_reach(_: Request, error: Exception) -> PlainTextResponse:
        """Say what keeps the ledger from being read."""
        return PlainTextResponse(str(error), 503)

    return web
