"""The web application: pages for people, JSON for programs, health checks, what the pages need."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from fastapi import FastAPI, Request
from fastapi.responses import PlainTextResponse
from fastapi.staticfiles import StaticFiles
from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from config import __version__
from config.settings import Settings
from daemon.api import join
from daemon.ledger import Ledger
from daemon.metrics import Meter
from daemon.pages import Models, pages
from daemon.scrape import scrape
from daemon.service import Step
from handlers.facts import TryLater

STATIC = Path(__file__).with_name("static")
SECURITY = {
    "Content-Security-Policy": (
        "default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; "
        "img-src 'self' data:; base-uri 'none'; form-action 'self'; frame-ancestors 'self'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
}


class Secure:
    """Lets no page run or fetch what is not ours."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Add the headers that tell browsers so; streams go on as they come."""

        async def secured(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in SECURITY.items():
                    headers.setdefault(name, value)
            await send(message)

        await self._app(scope, receive, secured)


def app(
    settings: Settings,
    ledger: Ledger,
    activity: Callable[[], Mapping[str, Step]],
    unready: Callable[[], list[str]],
    look: Callable[[str], None] = lambda _: None,
    *,
    models: Models | None = None,
    proxied: bool = False,
    meter: Meter | None = None,
) -> FastAPI:
    """Make the web application; everything it shows is read at the moment it is asked.

    `proxied` says that the platform's login stands before it, so that people may act here.
    """
    web = FastAPI(title="retraind", version=__version__, docs_url=None, redoc_url=None)
    join(web, settings, ledger, activity, unready, look, proxied=proxied)
    meter = meter or Meter(settings.pipelines, ledger)
    web.include_router(pages(settings, ledger, activity, models, meter.lags))
    web.include_router(scrape(meter))
    web.mount("/static", StaticFiles(directory=STATIC), name="static")

    web.add_middleware(Secure)

    @web.exception_handler(TryLater)
    def out_of_reach(_: Request, error: Exception) -> PlainTextResponse:
        """Say what keeps the ledger from being read."""
        return PlainTextResponse(str(error), 503)

    return web
