"""One thread that does what is due, so that states pass by the wall clock, asked or not."""

from __future__ import annotations

import heapq
import itertools
import traceback
from collections.abc import Callable
from contextlib import AbstractContextManager
from threading import Condition, Thread
from time import monotonic
from typing import Any

Act = Callable[[], None]


class Clock:
    """Acts that are due at a time; they run one at a time and hold the world's lock."""

    def __init__(self, lock: AbstractContextManager[Any]) -> None:
        self.errors: list[str] = []
        self._lock = lock
        self._due: list[tuple[float, int, Act]] = []
        self._numbers = itertools.count()
        self._turn = Condition()
        self.closed = False
        self._thread = Thread(target=self._run, daemon=True, name="workbench clock")
        self._thread.start()

    def after(self, seconds: float, act: Act) -> None:
        """Do something later."""
        with self._turn:
            heapq.heappush(self._due, (monotonic() + seconds, next(self._numbers), act))
            self._turn.notify()

    def aside(self, act: Act) -> None:
        """Do something that takes its time in a thread of its own, without the lock."""
        Thread(target=self._guarded, args=(act,), daemon=True).start()

    def close(self) -> None:
        """Forget what is due."""
        with self._turn:
            self.closed = True
            self._due.clear()
            self._turn.notify()
        self._thread.join(5)

    def _run(self) -> None:
        while True:
            with self._turn:
                while not self.closed and (not self._due or self._due[0][0] > monotonic()):
                    self._turn.wait(self._due[0][0] - monotonic() if self._due else None)
                if self.closed:
                    return
                _, _, act = heapq.heappop(self._due)
            with self._lock:
                self._guarded(act)

    def _guarded(self, act: Act) -> None:
        try:
            act()
        except Exception:  # noqa: BLE001 (the emulator's own mistakes are shown when it closes)
            if not self.closed:
                self.errors.append(traceback.format_exc())
