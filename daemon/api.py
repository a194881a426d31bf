"""The JSON API under `/api`: one application of its own, with one document and one error shape.

Its document is `/api/openapi.json`. There are no pages that show it, as those that the framework
brings are fetched from elsewhere.
"""

from __future__ import annotations

import threading
from collections.abc import Callable

from fastapi import FastAPI

from config import __version__
from config.settings import Settings
from daemon.access import describe, guard
from daemon.actions import actions
from daemon.health import health
from daemon.ledger import Ledger
from daemon.problem import tell
from daemon.resources import Activity, Unready, resources
from daemon.stream import changes
from daemon.visitor import Rules
from daemon.watch import Watch


def join(
    pages: FastAPI, settings: Settings, ledger: Ledger, activity: Activity, unready: Unready,
    look: Callable[[str], None], *, proxied: bool,
) -> None:  # fmt: skip
    """Put API and health checks beside the pages, and a guard before all of them.

    Raises:
        ConfigError: the file of the token cannot be read.
    """
    programs = FastAPI(
        title="retraind", version=__version__, summary="What the pages show and do, as JSON.",
        docs_url=None, redoc_url=None, redirect_slashes=False,
        servers=[{"url": "/api"}], root_path_in_servers=False,
    )  # fmt: skip
    programs.include_router(resources(settings, ledger, activity, unready))
    programs.include_router(actions(settings, ledger, look))
    # Streams would keep the server from stopping; `service.pages` sets this before it asks it to.
    pages.state.closing = closing = threading.Event()
    programs.include_router(changes(Watch(ledger, activity, unready), closing))
    tell(programs)
    describe(programs.openapi())
    guard(pages, Rules.of(settings.http, proxied=proxied))
    pages.include_router(health(unready))
    pages.mount("/api", programs)
