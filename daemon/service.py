"""The daemon: a clock per pipeline, a heartbeat, the pages, and an orderly end."""

from __future__ import annotations

import os
import secrets
import signal
import socket
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime, timezone
from time import monotonic
from types import FrameType
from typing import TYPE_CHECKING

import structlog
import uvicorn
from apscheduler.events import EVENT_JOB_ERROR, EVENT_JOB_EXECUTED, JobEvent
from apscheduler.executors.pool import ThreadPoolExecutor
from apscheduler.jobstores.base import JobLookupError
from apscheduler.schedulers.background import BackgroundScheduler
from fastapi import FastAPI

from daemon.owner import BEAT_EVERY
from daemon.store import NotOwner, Store
from daemon.tally import NOBODY, Tally
from handlers.facts import GiveUp, TryLater

if TYPE_CHECKING:  # it brings all that is slow, and the pages come before that
    from daemon.reconcile import Part, Reconciler

SIGNALS_WITHIN = 0.5

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Step:
    """What a pipeline does at this moment; `done` of `total` is 0 of 0 when it does nothing."""

    name: str = ""
    done: int = 0
    total: int = 0


class Activity:
    """Follows one pipeline's work and carries the wish to stop into it."""

    def __init__(self, stopping: threading.Event, tally: Tally = NOBODY) -> None:
        self.step = Step()
        self.tally = tally
        self._stopping = stopping
        self._began = 0.0

    def __call__(self, step: str, done: int, total: int) -> None:
        """Note progress; called between boosting rounds and between steps.

        Raises:
            TryLater: the daemon was asked to stop.
        """
        if step != self.step.name:
            self.rest()
            self._began = monotonic()
        self.step = Step(step, done, total)
        if self._stopping.is_set():
            raise TryLater(
                f"The daemon was asked to stop while {step}.", "It goes on when started."
            )

    def rest(self) -> None:
        """Note that the step ended, and that nothing is done for now."""
        if self.step.name:
            self.tally.stepped(self.step.name, monotonic() - self._began)
        self.step = Step()


@dataclass(frozen=True, slots=True)
class Clockwork:
    """One pipeline as the service runs it."""

    reconciler: Reconciler
    every: float
    activity: Activity
    busy: threading.Lock


class Service:
    """Runs the pipelines until told to stop."""

    def __init__(
        self, clockworks: Mapping[str, Clockwork], store: Store, stopping: threading.Event,
        stop_within: float,
    ) -> None:  # fmt: skip
        self._clockworks = clockworks
        self._store = store
        self._stopping = stopping
        self._stop_within = stop_within
        self._looked: set[str] = set()
        self._asked: set[str] = set()
        self._scheduler = BackgroundScheduler(
            executors={"default": ThreadPoolExecutor(len(clockworks) + 1)},
            job_defaults={"coalesce": True, "max_instances": 1, "misfire_grace_time": None},
            timezone=timezone.utc,
        )

    def run(self) -> None:
        """Start, wait for a signal, stop."""
        with self._signals():
            self.start()
            # Not for ever: the kernel may hand a signal to another thread, and its handler runs
            # only when this one wakes.
            while not self._stopping.wait(SIGNALS_WITHIN):
                pass
            self.stop()

    def start(self) -> None:
        """Set the clocks; the first look is taken at once."""
        at_once = datetime.now(timezone.utc)
        self._scheduler.add_job(self._beat, "interval", seconds=BEAT_EVERY)
        for name, clockwork in self._clockworks.items():
            self._scheduler.add_job(
                self._tick, "interval", args=[name, clockwork], seconds=clockwork.every,
                id=name, next_run_time=at_once,
            )  # fmt: skip
        self._scheduler.add_listener(self._ended, EVENT_JOB_EXECUTED | EVENT_JOB_ERROR)
        self._scheduler.start()
        log.info("started", pipelines=sorted(self._clockworks), pid=os.getpid())

    def stop(self) -> None:
        """Go down the ladder: stop looking, let the work notice, wait, and leave at the last rung.

        Whatever is left behind is found open at the next start, as after a crash.
        """
        self._stopping.set()
        log.info("stopping", within=self._stop_within)
        self._scheduler.shutdown(wait=False)
        until = monotonic() + self._stop_within
        late = [
            name
            for name, clockwork in self._clockworks.items()
            if not clockwork.busy.acquire(timeout=max(0.0, until - monotonic()))
        ]
        try:
            self._store.release()
        except TryLater as error:
            log.warning("not_released", trouble=str(error))
        if late:
            log.error("left_at_last_rung", pipelines=late, waited=self._stop_within)
            os._exit(1)
        log.info("stopped")

    def look(self, name: str) -> None:
        """Have a pipeline look now instead of at its next poll; while it does, once more after.

        Cheap, and harmless however often it is called: looks that wait are one.

        Raises:
            TryLater: the daemon was asked to stop.
        """
        if self._stopping.is_set():
            raise TryLater("The daemon is being stopped.", "It looks at once when it is started.")
        self._asked.add(name)
        # While its tick runs, the scheduler would pass this one over: `_ended` sees to it then.
        if self._scheduler.running and not self._clockworks[name].busy.locked():
            self._at_once(name)

    def activity(self) -> dict[str, Step]:
        """Say what each pipeline does at this moment."""
        return {name: clockwork.activity.step for name, clockwork in self._clockworks.items()}

    def unready(self) -> list[str]:
        """Name the pipelines that have not finished their first look."""
        return sorted(set(self._clockworks) - self._looked)

    def _tick(self, name: str, clockwork: Clockwork) -> None:
        bound = structlog.contextvars.bound_contextvars(pipeline=name, tick=secrets.token_hex(4))
        outcome = "failed"
        with clockwork.busy, bound:
            self._asked.discard(name)  # this tick does it
            try:
                deeds = clockwork.reconciler.tick()
                kept = "waiting" if clockwork.reconciler.troubled else "idle"
                outcome = "acted" if deeds else kept
            except NotOwner as error:
                log.error("ownership_lost", trouble=str(error))  # noqa: TRY400 (foreseen: no trace)
                self._stopping.set()
            except Exception:
                log.exception("tick_failed")
            finally:
                clockwork.activity.rest()
                clockwork.activity.tally.ticked(outcome)
                self._looked.add(name)

    def _ended(self, event: JobEvent) -> None:
        """Take the look that was asked for while a tick ran; called once its job may run again."""
        if event.job_id in self._asked and not self._stopping.is_set():
            self._at_once(event.job_id)

    def _at_once(self, name: str) -> None:
        with suppress(JobLookupError):  # the scheduler was shut down in the meantime
            self._scheduler.modify_job(name, next_run_time=datetime.now(timezone.utc))

    def _beat(self) -> None:
        try:
            self._store.beat()
        except NotOwner as error:
            log.error("ownership_lost", trouble=str(error))  # noqa: TRY400 (foreseen: no trace)
            self._stopping.set()
        except TryLater as error:
            log.warning("heartbeat_missed", trouble=str(error))

    @contextmanager
    def _signals(self) -> Iterator[None]:
        """Stop at the first SIGTERM or SIGINT, leave at the second; then restore the handlers."""

        def received(number: int, frame: FrameType | None) -> None:  # noqa: ARG001 (signal's contract)
            if self._stopping.is_set():
                os._exit(128 + number)
            self._stopping.set()

        former = {
            number: signal.signal(number, received) for number in (signal.SIGTERM, signal.SIGINT)
        }
        try:
            yield
        finally:
            for number, handler in former.items():
                signal.signal(number, handler)


@contextmanager
def pages(app: FastAPI, bound: socket.socket) -> Iterator[None]:
    """Serve the pages from a thread of their own while the body runs."""
    config = uvicorn.Config(app, log_config=None, access_log=False, lifespan="off")
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [bound]}, daemon=True)
    thread.start()
    try:
        yield
    finally:
        if closing := getattr(app.state, "closing", None):
            closing.set()
        server.should_exit = True
        thread.join(timeout=5)


def bind(host: str, port: int) -> socket.socket:
    """Take the port before anything else is started.

    Raises:
        GiveUp: the port is taken, or not ours to take.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # Named, because asyncio sends small answers at once only where it sees that this is TCP.
    bound = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        bound.bind((host, port))
        bound.listen()
    except OSError as error:
        bound.close()
        raise GiveUp(
            f"The pages cannot be served on {host}:{port}: {error.strerror}.",
            "Set `http.port` (or RETRAIND_HTTP__PORT) to a free port.",
        ) from error
    return bound


def once(clockworks: Mapping[str, Clockwork], part: Part = "all") -> Sequence[str]:
    """Tick every pipeline until it is level; gives the names of those that did not get through."""
    failed = []
    for name, clockwork in clockworks.items():
        with structlog.contextvars.bound_contextvars(pipeline=name, tick=secrets.token_hex(4)):
            while clockwork.reconciler.tick(part):
                pass
        if clockwork.reconciler.troubled:
            failed.append(name)
    return failed
