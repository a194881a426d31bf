"""Runs our commands as children of a Cloudera AI kernel, for the entry scripts beside this module.

A kernel executes a script's text in itself: `sys.exit` is a failure there whatever its status,
`os.exec` ends the kernel, and only what goes through its `sys.stdout` is sure to reach the log. So
each command is a child with a pipe. Needs nothing but the standard library: one of the scripts
installs the rest.
"""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from time import monotonic
from types import FrameType

from config import workload

FIRST_DELAY, LONGEST_DELAY = 1.0, 60.0
"""Seconds before a daemon that died is started again; they double with each death."""
STEADY_AFTER = 300.0
"""A daemon that lived so long died of something new."""
LEAVE_WITHIN = 30.0
"""Seconds that a child may take to leave, beyond the daemon's own `stop_within` by default."""
WRONG_CONFIGURATION = 2
LAST_WORDS = 20


class Child:
    """A Python process whose output goes to the kernel's, with its last words kept.

    It has a session of its own: a signal that the platform sends to the whole group would reach it
    a second time through us, and a second one makes the daemon leave at once.
    """

    def __init__(self, words: Sequence[str]) -> None:
        self._process = subprocess.Popen(  # noqa: S603 (our own command, our own interpreter)
            [sys.executable, *words], env=workload.environment(), stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, encoding="utf-8", errors="replace",
            start_new_session=True,
        )  # fmt: skip
        self._lines: deque[str] = deque(maxlen=LAST_WORDS)
        self._reader = threading.Thread(target=self._pass_on, daemon=True)
        self._reader.start()

    def _pass_on(self) -> None:
        for line in self._process.stdout or ():
            self._lines.append(line)
            sys.stdout.write(line)
            sys.stdout.flush()

    def wait(self) -> int:
        """Wait for its end; gives its status."""
        status = self._process.wait()
        self._reader.join(1)  # not for ever: a grandchild may hold the pipe
        return status

    def terminate(self) -> None:
        """Ask it to end."""
        with suppress(ProcessLookupError):
            self._process.terminate()

    def end(self) -> None:
        """Ask it to end, then make it."""
        self.terminate()
        try:
            self._process.wait(LEAVE_WITHIN)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def last_words(self) -> str:
        """Give what it said at its end, without events."""
        said = [line for line in self._lines if line.strip() and not line.startswith("{")]
        return "".join(said).strip() or "it said nothing."


class Kernel:
    """One kernel that runs children, one after the other, and passes the wish to stop on."""

    def __init__(self) -> None:
        self.stopping = threading.Event()
        self._child: Child | None = None

    def run(self, words: Sequence[str]) -> tuple[int, str]:
        """Run a child to its end; gives its status and last words."""
        self._child = child = Child(words)
        try:
            if self.stopping.is_set():  # it came before there was a child to tell
                child.terminate()
            return child.wait(), child.last_words()
        finally:  # a kernel that is interrupted leaves nothing behind
            self._child = None
            child.end()

    @contextmanager
    def passing_on(self) -> Iterator[None]:
        """Pass SIGTERM on while the body runs; outside of the main thread nobody can."""

        def received(number: int, frame: FrameType | None) -> None:  # noqa: ARG001 (signal's contract)
            self.stopping.set()
            if self._child:
                self._child.terminate()

        if threading.current_thread() is not threading.main_thread():
            yield
            return
        former = signal.signal(signal.SIGTERM, received)
        try:
            yield
        finally:
            signal.signal(signal.SIGTERM, former)


def keep(words: Sequence[str]) -> None:
    """Keep a command running: start it again, with growing delays, until the kernel is stopped.

    Raises:
        RuntimeError: the configuration is wrong; starting again would not help.
    """
    kernel, delay = Kernel(), FIRST_DELAY
    with kernel.passing_on():
        while True:
            began = monotonic()
            status, said = kernel.run(words)
            if kernel.stopping.is_set():
                return
            if status == WRONG_CONFIGURATION:
                raise RuntimeError(said)
            delay = FIRST_DELAY if monotonic() - began > STEADY_AFTER else delay
            _tell(f"{' '.join(words)} ended with status {status}; again in {delay:g} s")
            if kernel.stopping.wait(delay):
                return
            delay = min(2 * delay, LONGEST_DELAY)


def carry_out(words: Sequence[str]) -> None:
    """Run a command once.

    Raises:
        RuntimeError: it failed; with what it said.
    """
    kernel = Kernel()
    with kernel.passing_on():
        status, said = kernel.run(words)
    if status:
        raise RuntimeError(f"{' '.join(words)} ended with status {status}: {said}")


def _tell(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()
