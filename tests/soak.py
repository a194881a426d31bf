"""Soak: the real daemon for some minutes, under commits of every kind and with faults injected.

    python tests/soak.py --minutes 20

Another process than the daemon, this one, commits at random and injects faults at random, both
drawn from a seed. In the end the daemon is left in peace until it has caught up; then everything
that it decided is held against everything that was committed. The exit status is 1 if a promise
was broken, and then the folder with all logs is kept. A Ctrl-C ends the storm before its time, a
second one ends everything.
"""

from __future__ import annotations

import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from threading import Event
from types import FrameType
from typing import Annotated, Literal

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import typer
from soak_commits import KINDS, Writer
from soak_faults import FAULTS, GENTLE, Faults
from soak_site import TABLE, Site, World
from soak_table import Book, Chronicle
from soak_verdict import Finding, reckon
from soak_watch import Prober, Watch

from daemon import composition

WARM_UP = 120.0
"""Seconds after which a process has all that it needs; what it takes more is growth."""
STORM = 0.6
"""Share of the time in which the daemon is killed; then it must live on, to be measured."""
FAULT_SHARE = 0.25
"""Share of the steps that are faults."""
SETTLE_WITHIN = 300.0
PAUSES = (0.0, 0.0, 0.5, 1.5, 3.0, 6.0)
"""Seconds between two steps."""
FOLLOWERS = {
    "rollback": ("roll forward", 0.5, 3),
    "staged append": ("cherry-pick", 0.7, 3),
    "operator: pause": ("operator: resume", 1.0, 5),
}
"""What follows a step, how likely, and within how many steps."""


class Deck:
    """Draws each name as often as its weight says before it begins again."""

    def __init__(
        self, weights: Mapping[str, int], chance: Random, first: Sequence[str] = ()
    ) -> None:
        self._weights = weights
        self._chance = chance
        self._left = list(reversed(first))

    def draw(self) -> str:
        """Draw a name."""
        if not self._left:
            self._left = [name for name, weight in self._weights.items() for _ in range(weight)]
            self._chance.shuffle(self._left)
        return self._left.pop()


@dataclass(frozen=True, slots=True)
class Plan:
    """What is drawn from the seed, whatever the time it takes."""

    seed: int
    minutes: float

    def decks(self) -> dict[str, Deck]:
        """Shuffle what will happen; the faults begin with a kill."""
        weights = {
            "commits": {name: weight for name, (weight, _) in KINDS.items()},
            "faults": {name: weight for name, (weight, _) in FAULTS.items()},
            "gentle": {name: weight for name, (weight, _) in GENTLE.items()},
        }
        first = {"faults": ["daemon killed"]}
        return {
            name: Deck(cards, Random(f"{self.seed}/{name}"), first.get(name, ()))
            for name, cards in weights.items()
        }

    def chance(self, step: int, what: str = "") -> Random:
        """Give the randomness of one step."""
        return Random(f"{self.seed}/{step}{what}")


class Storm:
    """Goes through a soak."""

    def __init__(self, plan: Plan, site: Site, writer: Writer) -> None:
        self.plan = plan
        self.site = site
        self.writer = writer
        self.over = Event()
        """Set to end the storm before its time."""
        self.faults = Faults(site, writer, self.over)
        self.watch = Watch(site)
        self.done: Counter[str] = Counter()
        """How often each kind of commit was done."""
        self.refused: Counter[str] = Counter()
        """How often one was refused: it lost a race against another writer, say."""
        self._decks = plan.decks()
        self._due: dict[int, str] = {}
        self._log = (site.home / "soak.log").open("w", encoding="utf-8", buffering=1)

    def run(self) -> None:
        """Go through all of it, until the daemon has stopped."""
        self.writer.create(self.site.world.format)
        self.site.start()
        with self.watch:
            self._until(60 * self.plan.minutes * STORM, calm=False)
            self._until(60 * self.plan.minutes * (1 - STORM), calm=True)
            self._settle()
            if self._check_alive() and (status := self.site.terminate()):
                self.site.broken.append(f"the daemon stopped with status {status}")

    def _until(self, seconds: float, *, calm: bool) -> None:
        end = time.monotonic() + seconds
        while time.monotonic() < end and not self.over.is_set():
            self._step(calm=calm)
            self.over.wait(self.plan.chance(self.writer.rows.step, "pause").choice(PAUSES))
            if not self._check_alive():
                self.site.start()

    def _step(self, *, calm: bool) -> None:
        """Do one thing: what is due, a fault, or a commit."""
        self.writer.rows.step += 1
        step = self.writer.rows.step
        chance = self.plan.chance(step)
        name = self._due.pop(step, "")
        if not name:
            deck = "commits" if chance.random() >= FAULT_SHARE else "gentle" if calm else "faults"
            name = self._decks[deck].draw()
        self._do(name, chance)
        follower, likely, within = FOLLOWERS.get(name, ("", 0.0, 1))
        if chance.random() < likely:
            at = step + chance.randint(1, within)
            while at in self._due:
                at += 1
            self._due[at] = follower

    def _do(self, name: str, chance: Random) -> None:
        from py4j.protocol import Py4JError  # noqa: PLC0415 (comes with pyspark)
        from pyspark.errors import PySparkException  # noqa: PLC0415 (slow to import)

        began = time.monotonic()
        try:
            if name in KINDS:
                told = KINDS[name][1](self.writer, chance)
                self.done[name] += bool(told)
                self.writer.tidy()
            else:
                told = self.faults.do(name, chance)
        except (PySparkException, Py4JError) as error:
            told = f"refused: {str(getattr(error, 'java_exception', error)).splitlines()[0]}"
            self.refused[name] += 1
        self.writer.chronicle.look()
        took, head = time.monotonic() - began, self.writer.chronicle.head
        self._tell(f"{name}: {told} ({took:.1f} s), head {head}")

    def _check_alive(self) -> bool:
        """See that the daemon did not leave by itself."""
        if not self.site.running:
            status = self.site.life.process.returncode
            self.site.broken.append(f"the daemon left by itself with status {status}")
        return self.site.running

    def _settle(self) -> None:
        """Leave the daemon in peace until it has caught up."""
        self._tell("the storm is over")
        self.faults.do("operator: resume", Random(0))
        self.site.run("retry")
        end = time.monotonic() + SETTLE_WITHIN
        while not (level := self._level()) and time.monotonic() < end:
            time.sleep(0.5)
        self._tell(f"settled: {level}")
        if not level:
            doing = self.site.ask("SELECT doing, cursor_id FROM pipelines")
            self.site.broken.append(
                f"it does not catch up with {self.writer.chronicle.head}: {doing}"
            )

    def _level(self) -> bool:
        site = self.site
        work = site.ask("SELECT sequence FROM deltas WHERE state = 'open'")
        level = site.cursor() == self.writer.chronicle.head and not work
        return level and site.serves() == site.champion()

    def _tell(self, what: str) -> None:
        self._log.write(f"{time.strftime('%H:%M:%S')} {self.writer.rows.step} {what}\n")


def play(plan: Plan, site: Site) -> tuple[Storm, Finding]:
    """Run a soak, and leave no process behind."""
    session = composition.sessions(site.settings)()
    chronicle = Chronicle(session, TABLE)
    storm = Storm(plan, site, Writer(session, chronicle, site.cursor))

    def interrupted(number: int, _: FrameType | None) -> None:
        if storm.over.is_set():
            raise KeyboardInterrupt(number)
        storm.over.set()

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, interrupted)
    finding = Finding(site.broken)
    try:
        storm.run()
        reckon(site, chronicle, storm.watch.prober, finding)
    finally:
        if left := site.close():
            finding.broken.append(f"these processes had to be killed: {left}")
        session.stop()
    return storm, finding


def figures(storm: Storm, found: Finding) -> dict[str, object]:
    """Give what is to be told."""
    book, lives, watch = storm.writer.chronicle, storm.site.lives, storm.watch
    up = sum(life.started for life in lives[1:])
    seen = found.named & book.been
    warm_up = min(WARM_UP, 60 * storm.plan.minutes * 0.1)
    return {
        "commits seen": f"{len(seen)} of {len(book.been)}; {len(book.been - seen)} were rolled "
        f"back or expired before it looked, {len(book.known) - len(book.been)} beside the branch",
        "commits by kind": _counts(storm.done),
        "commits refused": _counts(storm.refused),
        "rows accounted for": _rows(book, found),
        "rows lost": len(found.lost),
        "deltas trained twice": len(found.twice),
        "decisions": _counts(found.states),
        "restarts survived": f"{up} of {len(lives) - 1}; others were killed before they were up",
        "faults": _counts(storm.faults.done),
        **{f"memory, {name}": one.tell(warm_up) for name, one in watch.memory.items()},
        "scoring requests": _requests(watch.prober, found),
    }


def _rows(book: Book, found: Finding) -> str:
    ever = {one for number in book.been for one in book.state(number)}
    aside = (found.aside - found.trained) & ever
    gone = ever - found.trained - aside - found.back - found.lost
    return (
        f"{len(ever - found.lost):,} of {len(ever):,}: {len(found.trained & ever):,} trained on or "
        f"held out, {len(aside):,} set aside, {len(gone):,} gone before they were read, "
        f"{len(found.back):,} back by a rollback into a delta"
    )


def _requests(prober: Prober, found: Finding) -> str:
    down = [outage.ended - outage.began for outage in prober.outages]
    return (
        f"{prober.answered} answered by versions {', '.join(prober.answers)}; {found.wrong} wrong, "
        f"{prober.refused} refused, {prober.unanswered} unanswered in {len(down)} outages of "
        f"{sum(down):.0f} s, {max(down, default=0):.0f} s at most"
    )


def _counts(counts: dict[str, int]) -> str:
    told = (f"{count} {name}" for name, count in sorted(counts.items()) if count)
    return ", ".join(told) or "none"


def main(
    minutes: Annotated[float, typer.Option(min=0.1, help="How long to commit and to kill.")] = 20,
    seed: Annotated[int | None, typer.Option(help="Of the plan; default drawn anew.")] = None,
    rewrites: Annotated[
        Literal["added", "full", "skip"], typer.Option(help="The policy `delta.rewrites`.")
    ] = "added",
    coalesce: Annotated[
        Literal["all", "each"], typer.Option(help="The policy `delta.coalesce`.")
    ] = "all",
    *,
    keep: Annotated[bool, typer.Option("--keep", help="Keep the folder in any case.")] = False,
) -> None:
    """Run the daemon under commits and faults of every kind, and hold it to its promises."""
    seed = int(time.time()) % 100_000 if seed is None else seed
    chance = Random(seed)
    world = World(rewrites, coalesce, pin=chance.random() < 0.5, format=chance.choice((2, 3)))
    home = Path(tempfile.mkdtemp(prefix="soak-"))
    typer.echo(f"soak of {minutes:g} min, seed {seed}: {world}; in {home}")
    storm, finding = play(Plan(seed, minutes), Site(home, world))
    for name, value in figures(storm, finding).items():
        typer.echo(f"{name:<24}{value}")
    for sentence in finding.broken:
        typer.echo(f"BROKEN: {sentence}")
    if finding.broken or keep:
        typer.echo(f"seed {seed}; everything is kept in {home}")
    else:
        shutil.rmtree(home)
    raise typer.Exit(bool(finding.broken))


if __name__ == "__main__":
    typer.run(main)
