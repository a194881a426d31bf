"""Watches a soak from outside: what the endpoint answers, and what memory the processes take."""

from __future__ import annotations

import time
from collections import Counter, defaultdict
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from threading import Event, Thread

import httpx
import numpy as np
import psutil
from soak_rows import EXTRAS, FEATURES
from soak_site import Site
from typing_extensions import Self

MEGABYTE = 1 << 20
SAMPLE_EVERY = 2.0
ANSWER_WITHIN = 10.0
PROBES = [dict.fromkeys(FEATURES, value) for value in (0.0, 1.0, 2.5, -3.0)]
"""The rows that are asked for; the columns that come and go are null in all of them."""


@dataclass(slots=True)
class Outage:
    """A time in which no request was answered."""

    began: float
    ended: float
    requests: int = 0
    said: str = ""
    """What the first request met."""


class Prober:
    """A client that asks for predictions once a second."""

    def __init__(self, port: int) -> None:
        self.answers: defaultdict[str, Counter[tuple[float, ...]]] = defaultdict(Counter)
        """How often which version gave which predictions."""
        self.refused = self.unanswered = 0
        self.outages: list[Outage] = []
        self._url = f"http://127.0.0.1:{port}/invocations"
        rows = [dict.fromkeys(EXTRAS) | row for row in PROBES]
        self._body = {"dataframe_records": rows}
        self._down = False

    @property
    def answered(self) -> int:
        """Count the answers."""
        return sum(sum(answers.values()) for answers in self.answers.values())

    def probe(self) -> None:
        """Ask once. What comes before the first answer does not count."""
        began = time.monotonic()
        said = self._ask()
        if said and self.answers:
            if not self._down:
                self.outages.append(Outage(began, began, said=said))
            self.outages[-1].requests += 1
        self._down = bool(said and self.answers)
        if self._down:
            self.outages[-1].ended = time.monotonic()

    def _ask(self) -> str:
        """Ask once; gives what went wrong."""
        try:
            answer = httpx.post(
                self._url, json=self._body, timeout=ANSWER_WITHIN, trust_env=False
            ).raise_for_status()
        except httpx.HTTPStatusError as error:
            self.refused += bool(self.answers)
            return str(error)
        except httpx.HTTPError as error:
            self.unanswered += bool(self.answers)
            return f"{type(error).__name__}: {error}"
        found = answer.json()
        self.answers[found["model_version"]][tuple(found["predictions"])] += 1
        return ""


@dataclass(slots=True)
class Memory:
    """What one process took; with a new process it begins anew."""

    times: list[float] = field(default_factory=list)
    sizes: list[float] = field(default_factory=list)
    pid: int = 0

    def note(self, process: psutil.Process) -> None:
        """Take a sample, in megabytes."""
        if process.pid != self.pid:
            self.pid, self.times, self.sizes = process.pid, [], []
        self.times.append(time.monotonic())
        self.sizes.append(process.memory_info().rss / MEGABYTE)

    def tell(self, warm_up: float) -> str:
        """Tell the sizes after warm-up and at the end, and the growth in an hour."""
        kept = [(t, s) for t, s in zip(self.times, self.sizes, strict=True)
                if t > self.times[0] + warm_up]  # fmt: skip
        if len(kept) < 10:
            return "did not live long enough to say"
        times, sizes = np.array(kept).T
        slope = float(np.polyfit(times - times[0], sizes, 1)[0]) * 3600
        first, last = float(np.median(sizes[:5])), float(np.median(sizes[-5:]))
        minutes = (times[-1] - times[0]) / 60
        return f"{first:.0f} to {last:.0f} MB in {minutes:.1f} min ({slope:+.0f} MB/h)"


class Watch:
    """Probes and samples from threads of its own while the body of `with` runs."""

    def __init__(self, site: Site) -> None:
        self.prober = Prober(site.endpoint)
        self.memory = {"daemon": Memory(), "JVM": Memory(), "endpoint": Memory()}
        """Of the processes that live last."""
        self._site = site
        self._over = Event()
        self._threads = [
            Thread(target=self._every, args=[1.0, self.prober.probe], daemon=True),
            Thread(target=self._every, args=[SAMPLE_EVERY, self._sample], daemon=True),
        ]

    def __enter__(self) -> Self:
        """Begin."""
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """End."""
        self._over.set()
        for thread in self._threads:
            thread.join()

    def _every(self, seconds: float, do: Callable[[], None]) -> None:
        while not self._over.wait(seconds):
            do()

    def _sample(self) -> None:
        """Look at the memory of whatever lives just now."""
        with suppress(psutil.NoSuchProcess):
            if self._site.running:
                self.memory["daemon"].note(psutil.Process(self._site.life.process.pid))
            if driver := self._site.driver:
                self.memory["JVM"].note(driver)
            if server := self._site.server:
                self.memory["endpoint"].note(server)
