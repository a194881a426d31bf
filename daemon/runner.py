"""Carries out `run` and `once`."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING

import structlog

from config import workload
from config.settings import Settings
from daemon import composition, dashboard, owner, service
from daemon.ledger import Ledger
from daemon.metrics import Meter
from daemon.pages import Models
from daemon.service import Step
from daemon.store import NotOwner
from handlers.facts import TryLater

if TYPE_CHECKING:  # it brings all that is slow, and the pages come before that
    from daemon.notifier import Notifier
    from daemon.reconcile import Part

PATIENCE = 3600.0
"""Seconds for which `once` waits for a slow deployment: nobody ticks again soon."""
LAST_MESSAGE = 5.0
"""Seconds that a stop waits for a message that is on its way."""

log = structlog.get_logger(__name__)


class Opening:
    """What the pages tell of the service, also before there is one."""

    def __init__(self, settings: Settings) -> None:
        self._names = sorted(settings.pipelines)
        self.service: service.Service | None = None

    def activity(self) -> Mapping[str, Step]:
        """Say what each pipeline does at this moment."""
        return self.service.activity() if self.service else dict.fromkeys(self._names, Step())

    def unready(self) -> list[str]:
        """Name the pipelines that have not finished their first look."""
        return self.service.unready() if self.service else list(self._names)

    def look(self, pipeline: str) -> None:
        """Have a pipeline look now; the first look, which comes at the start, is one."""
        if self.service:
            self.service.look(pipeline)


def run(settings: Settings) -> None:
    """Run the daemon until it is told to stop."""
    with running(settings) as daemon:
        daemon.run()


@contextmanager
def running(settings: Settings) -> Iterator[service.Service]:
    """Serve the pages, own the state, and give the service, ready to start.

    The pages come first: whoever looks after the process asks them from the first second, while
    the state's former owner may have to be watched and the libraries take their time to load.
    """
    stopping, opening = threading.Event(), Opening(settings)
    bound = service.bind(settings.http.host, settings.http.port)
    host, port = bound.getsockname()[:2]
    url = f"http://{host}:{port}"
    book = composition.ledger(settings)
    proxied = workload.is_application()
    meter = Meter(settings.pipelines, book)
    pages = dashboard.app(
        settings, book, opening.activity, opening.unready, opening.look,
        models=Models(
            partial(composition.explanation, settings, book),
            partial(composition.what_if, settings, book),
        ),
        proxied=proxied,
        meter=meter,
    )  # fmt: skip
    with service.pages(pages, bound):
        log.info("serving_pages", url=url, state=str(settings.state_dir))
        with _owned(book, stopping, url):
            with _beating(book, stopping):
                works = composition.clockworks(settings, book, stopping, counted=meter.tally)
            opening.service = service.Service(works, book, stopping, settings.stop_within)
            with _telling(composition.notifier(settings, book, url)):
                yield opening.service
    for name, pipeline in settings.pipelines.items():
        if not pipeline.endpoint.outlive:
            composition.endpoint(settings, name).stop()


@contextmanager
def _owned(book: Ledger, stopping: threading.Event, url: str = "") -> Iterator[None]:
    """Own the state while the body runs."""
    owner.claim(book, owner.myself(url), stopping.wait)
    try:
        yield
    finally:
        book.release()


@contextmanager
def _telling(notifier: Notifier | None) -> Iterator[None]:
    """Tell people while the body runs; in the end, what is being sent is waited for a little."""
    if notifier is None:
        yield
        return
    done = threading.Event()
    thread = threading.Thread(target=notifier.run, args=[done], daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join(timeout=LAST_MESSAGE)


@contextmanager
def _beating(book: Ledger, stopping: threading.Event) -> Iterator[None]:
    """Tell that the owner is alive while the body runs; it stops where another one took over.

    Otherwise a job in another pod would take a training, or slow imports, for a dead owner.
    """
    done = threading.Event()

    def beat() -> None:
        while not done.wait(owner.BEAT_EVERY):
            try:
                book.beat()
            except NotOwner:
                stopping.set()  # the next write of the body says what happened
                return
            except TryLater as error:
                log.warning("heartbeat_missed", trouble=str(error))

    thread = threading.Thread(target=beat, daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


def once(settings: Settings, part: Part = "all") -> Sequence[str]:
    """Tick every pipeline until it is level; gives the names of those that did not get through."""
    stopping = threading.Event()
    book = composition.ledger(settings)
    with _owned(book, stopping), _beating(book, stopping):
        works = composition.clockworks(settings, book, stopping, PATIENCE, warm=part != "deploy")
        failed = service.once(works, part)
        if notifier := composition.notifier(settings, book):
            notifier.attempt()
        return failed
