"""Remembers what was asked for until the answer is there, so that nothing is ever made twice.

Two ways lead to a second build or deployment: an answer that is lost although the work goes on, and
a process that is killed between its request and the answer. A note on disk, written before the
request, covers both: what may be under way is looked for, and only much later asked for again.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from time import time
from typing import TypeVar

from handlers import note
from handlers.facts import RetraindError, TryLater
from handlers.workbench import Unsure

T = TypeVar("T")
NOTE = "asked.json"


class Underway(TryLater):
    """Nothing is wrong: something goes on, and looking again is all there is to do."""


class Asked:
    """The one request of an endpoint whose effect is not known."""

    def __init__(self, home: Path, within: float) -> None:
        """Keep the note in `home`; what was asked for shows up `within` seconds, or never will."""
        self._file = home / NOTE
        self._within = within

    def once(self, what: str, ask: Callable[[], T]) -> T:
        """Ask, unless the same was asked for a short while ago and may still show up.

        Raises:
            Underway: it was; or the answer to this request is lost.
            RetraindError: what `ask` raises else: the request had no effect.
        """
        if self._left(what) > 0:
            raise Underway(
                f"{what} was asked for, and no answer came.",
                f"It is looked for {self._within:.0f} s before it is asked for again.",
            )
        self._note(what)
        try:
            made = ask()
        except Unsure as error:
            raise Underway(error.what, error.remedy) from error
        except RetraindError:
            self.settle()
            raise
        self.settle()
        return made

    def settle(self) -> None:
        """Forget what was asked for: it was found, or is known to have had no effect."""
        self._file.unlink(missing_ok=True)

    def _left(self, what: str) -> float:
        """Give the seconds for which it may still show up; a clock that was set back counts none.

        A note that cannot be read was torn by a crash of the machine: as it may have been about
        this very request, its time is that of the file.
        """
        try:
            since = self._file.stat().st_mtime
            noted = json.loads(self._file.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return 0.0
        except ValueError:
            noted = what
        left = self._within - (time() - since)
        return left if noted == what and left <= self._within else 0.0

    def _note(self, what: str) -> None:
        try:
            note.write(self._file, what)
        except OSError as error:
            raise TryLater(
                f"{self._file} cannot be written: {error}.",
                "Check the free space and the permissions of state_dir.",
            ) from error
