"""Carries out `run` and `once`."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import structlog

from config.settings import Settings
from daemon import composition, dashboard, owner, service
from daemon.ledger import Ledger

PATIENCE = 3600.0
"""Seconds for which `once` waits for a slow deployment: nobody ticks again soon."""

log = structlog.get_logger(__name__)


def run(settings: Settings) -> None:
    """Run the daemon until it is told to stop."""
    with running(settings) as daemon:
        daemon.run()


@contextmanager
def running(settings: Settings) -> Iterator[service.Service]:
    """Own the state, serve the pages, and give the service, ready to start."""
    stopping = threading.Event()
    bound = service.bind(settings.http.host, settings.http.port)
    host, port = bound.getsockname()[:2]
    with _owned(settings, stopping, f"http://{host}:{port}") as book:
        works = composition.clockworks(settings, book, stopping)
        daemon = service.Service(works, book, stopping, settings.stop_within)
        pages = dashboard.app(settings, book, daemon.activity, daemon.unready)
        with service.pages(pages, bound):
            log.info("serving_pages", url=f"http://{host}:{port}", state=str(settings.state_dir))
            yield daemon
    for name, pipeline in settings.pipelines.items():
        if not pipeline.endpoint.outlive:
            composition.endpoint(settings, name).stop()


@contextmanager
def _owned(settings: Settings, stopping: threading.Event, url: str = "") -> Iterator[Ledger]:
    """Own the state while the body runs."""
    book = composition.ledger(settings)
    owner.claim(book, owner.myself(url), stopping.wait)
    try:
        yield book
    finally:
        book.release()


def once(settings: Settings) -> Sequence[str]:
    """Tick every pipeline once; gives the names of those that did not get through."""
    stopping = threading.Event()
    with _owned(settings, stopping) as book:
        return service.once(composition.clockworks(settings, book, stopping, PATIENCE))
