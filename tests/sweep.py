"""Sweep: the real daemon is killed at every outside effect of a story, started again, and compared.

    python tests/sweep.py                             # every crash point, and a table of them
    python tests/sweep.py --sample                    # one for each kind of effect
    python tests/sweep.py --chapter "no drift"        # those of one chapter
    python tests/sweep.py --point "no drift/12/after" # one, as the table names it

Each effect is a crash point before it, one after it, and, where it copies several files, one in
between. The table tells what the restart found undone, and whether in the end all was as if nothing
had happened: the same decisions with the same models, one run of MLflow per delta, one deployment
per promotion, the champion served by one server, each row accounted for, nothing left lying about.
The exit status is 1 if not, be it for one point.
"""

from __future__ import annotations

import json
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Annotated, Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import typer
from sweep_effects import Effect, Moment, Point, known
from sweep_story import STORY, Chapter, World, warm
from sweep_witness import Seen, Witness

ONCE = (
    "endpoint: order the deployment", "ledger: deployed", "ledger: open", "ledger: refuse",
    "ledger: settle", "mlflow: set_tag retraind.run_key", "table: set and release tags",
)  # fmt: skip
"""What is never done a second time once it was done."""
TOLD = {
    "ledger: restore": "restore",
    "ledger: open": "open",
    "mlflow: create_run": "decide",
    "ledger: settle": "settle",
    "endpoint: start the server": "start",
    "endpoint: order the deployment": "deploy",
    "ledger: refuse": "refuse",
    "endpoint: end the server": "withdraw",
    "ledger: deployed": "prove",
    "table: set and release tags": "pin",
}
"""What a restart did, in a word each; it found just this undone."""
PASSING = ("ledger: beat", "ledger: claim", "ledger: looked", "ledger: release")
"""What each start does again, and nobody minds."""


@dataclass(frozen=True, slots=True)
class Crash:
    """A crash point: where in the story, and at which effect."""

    chapter: Chapter
    effect: Effect
    moment: Moment

    @property
    def name(self) -> str:
        """Name the point, as `--point` takes it."""
        return f"{self.chapter.name}/{self.effect.number}/{self.moment}"

    @property
    def kind(self) -> str:
        """Name the kind of effect; being killed in its midst is one of its own."""
        return f"during {self.effect.name}" if self.moment == "during" else self.effect.name


@dataclass(frozen=True, slots=True)
class Healing:
    """What became of a crash."""

    crash: Crash
    undone: str
    wrong: list[str]
    seconds: float


@dataclass(slots=True)
class Sweep:
    """One world, and the undisturbed run of each chapter in it."""

    world: World
    undisturbed: dict[str, tuple[list[Effect], Seen]] = field(default_factory=dict)

    def tell(self, chapter: Chapter) -> None:
        """Run a chapter undisturbed, after those before it, and keep what it did and led to."""
        for former in STORY:
            if former.name == chapter.after and former.name not in self.undisturbed:
                self.tell(former)
        self.world.put_back(chapter.after and f"{chapter.after}: end")
        for happens in chapter.before:
            happens(self.world)
        self.world.save(f"{chapter.name}: start")
        self.world.put_back(f"{chapter.name}: start")
        code = self.world.look()
        assert code == 0, f"{chapter.name}: status {code}: {self.world.log.read_text()[-3000:]}"
        seen = self._seen()
        states = tuple(decision["state"] for decision in seen["decisions"])
        assert states == chapter.states, f"{chapter.name}: {states}"
        assert seen["adds up"], chapter.name
        assert not seen["litter"], seen["litter"]
        self.undisturbed[chapter.name] = self.world.effects(), seen
        self.world.save(f"{chapter.name}: end")
        strays = self.world.strays()
        assert not strays, f"{chapter.name}: name these in sweep_effects.py: {strays}"

    def crashes(self, chapter: Chapter) -> Iterator[Crash]:
        """Give all crash points of a chapter, in order."""
        for effect in self.undisturbed[chapter.name][0]:
            yield Crash(chapter, effect, "before")
            if effect.files > 1:
                yield Crash(chapter, effect, "during")
            yield Crash(chapter, effect, "after")

    def heal(self, crash: Crash) -> Healing:
        """Kill the daemon there, start it once, and compare with the run that was not killed."""
        began = time.monotonic()
        effects, expected = self.undisturbed[crash.chapter.name]
        self.world.put_back(f"{crash.chapter.name}: start")
        killed = self.world.look(Point(crash.effect.number, crash.moment))
        before = len(self.world.effects())
        started = self.world.look()
        did = self.world.effects()
        wrong = [f"it stands: {stray}" for stray in self.world.strays()]
        if killed != -signal.SIGKILL:
            wrong.append(f"it was not killed: status {killed}")
        if started == 0:
            wrong += _differences(expected, self._seen())
        else:
            wrong.append(f"status {started}: {self.world.log.read_text()[-1000:]}")
        wrong += _doubled(effects, did)
        return Healing(crash, _undone(did[before:]), wrong, time.monotonic() - began)

    def _seen(self) -> Seen:
        answer = self.world.home / "seen.json"
        self.world.do(lambda world: _testify(world, answer))
        seen: Seen = json.loads(answer.read_text(encoding="utf-8"))
        return seen


def _testify(world: World, answer: Path) -> None:
    world.attach()
    answer.write_text(json.dumps(Witness(world).testify()), encoding="utf-8")


def _differences(expected: Any, found: Any, path: str = "") -> Iterator[str]:
    """Name what is not as it should be, by its path in what was seen."""
    if isinstance(expected, dict) and isinstance(found, dict):
        for key in expected | found:
            yield from _differences(expected.get(key), found.get(key), f"{path}/{key}")
    elif expected != found and isinstance(expected, list) and isinstance(found, list):
        lacks = str([item for item in expected if item not in found])[:300]
        beside = str([item for item in found if item not in expected])[:300]
        sizes = f"{len(found)} items instead of {len(expected)}"
        yield f"{path} has {sizes}, lacks {lacks}, has {beside} beside"
    elif expected != found:
        yield f"{path} is {str(found)[:300]} instead of {str(expected)[:300]}"


def _doubled(undisturbed: Iterable[Effect], did: Iterable[Effect]) -> Iterator[str]:
    """Name what was done more often than without the crash."""
    wanted, found = (Counter(effect.name for effect in run) for run in (undisturbed, did))
    for name in ONCE:
        if found[name] > wanted[name]:
            yield f"{name}: done {found[name]} times instead of {wanted[name]}"


def _undone(effects: Sequence[Effect]) -> str:
    """Tell in a few words what the restart had to do."""
    names = {effect.name for effect in effects}
    rest = names - set(TOLD) - set(PASSING)
    found = [words for name, words in TOLD.items() if name in names]
    return ", ".join(found or sorted(rest)) or "nothing"


def sample(crashes: Sequence[Crash], seed: int) -> list[Crash]:
    """Draw a point of each kind, in the shortest chapter that has it, and one of each chapter.

    What must not be done twice is killed right after it, before the ledger knows, where a champion
    is at stake.
    """
    drawn = list(crashes)
    Random(seed).shuffle(drawn)
    length = Counter(crash.chapter.name for crash in crashes)

    def worth(crash: Crash) -> tuple[bool, int]:
        doubled = crash.effect.name in ONCE and crash.moment == "after"
        crowned = crash.chapter.states[-1:] == ("promoted",)
        return doubled and crowned, -length[crash.chapter.name]

    drawn.sort(key=worth)
    chosen = list({crash.kind: crash for crash in drawn}.values())  # the last of a kind stays
    met = {crash.chapter.name for crash in chosen}
    chosen += {c.chapter.name: c for c in drawn if c.chapter.name not in met}.values()
    return [crash for crash in crashes if crash in chosen]


def unmet(crashes: Iterable[Crash]) -> set[str]:
    """Name the effects that the daemon is able of and the story does not meet."""
    names = {crash.effect.name for crash in crashes}
    return {
        name
        for name in known()
        if not any(met == name or met.startswith(f"{name} ") for met in names)
    }


COLUMNS = "{:<46}  {:<47}  {:<58}  {:<6}  {:>4}"
HEAD = COLUMNS.format("killed at", "effect", "found undone", "healed", "s")


def _row(healing: Healing) -> str:
    crash, healed = healing.crash, "NO" if healing.wrong else "yes"
    row = COLUMNS.format(
        crash.name, crash.effect.name, healing.undone, healed, f"{healing.seconds:.1f}"
    )
    return "\n".join([row, *(f"    {wrong}" for wrong in healing.wrong)])


def try_all(sweep: Sweep, crashes: Sequence[Crash]) -> int:
    """Kill the daemon at each of these points, tell of each, and count those that do not heal."""
    typer.echo(HEAD)
    ill = []
    for crash in crashes:
        healing = sweep.heal(crash)
        typer.echo(_row(healing))
        sys.stdout.flush()
        if healing.wrong:
            ill.append(crash)
    for crash in ill:
        typer.echo(f'not healed; try it alone: python tests/sweep.py --point "{crash.name}"')
    return len(ill)


def main(
    chapter: Annotated[str | None, typer.Option(help="Only the points of this chapter.")] = None,
    point: Annotated[str | None, typer.Option(help="Only this one, as the table names it.")] = None,
    seed: Annotated[int, typer.Option(help="Which sample.")] = 0,
    *,
    some: Annotated[bool, typer.Option("--sample", help="A point of each kind of effect.")] = False,
) -> None:
    """Kill the daemon at every outside effect of a story, and see whether a restart heals it.

    A line for each crash point tells what the restart found undone, and what is not as it was
    without the kill. The exit status is 1 if anything is not.
    """
    began = time.monotonic()
    alone = chapter or (point and point.split("/")[0])
    story = [its for its in STORY if alone in (None, its.name)]
    if not story:
        raise typer.BadParameter(f"the chapters are {', '.join(its.name for its in STORY)}")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that nothing is left behind
    warm()
    with tempfile.TemporaryDirectory() as home, closing(World(Path(home).resolve())) as world:
        sweep = Sweep(world)
        for its in story:
            if its.name not in sweep.undisturbed:
                sweep.tell(its)
        crashes = [crash for its in story for crash in sweep.crashes(its)]
        forgotten = set() if alone else unmet(crashes)
        chosen = sample(crashes, seed) if some else crashes
        chosen = [crash for crash in chosen if point in (None, crash.name)]
        told = time.monotonic() - began
        typer.echo(f"{_count(crashes)}, {len(chosen)} to be tried; told in {told:.0f} s")
        ill = try_all(sweep, chosen)
    if forgotten:
        typer.echo(f"the story never meets: {', '.join(sorted(forgotten))}")
    took = time.monotonic() - began
    typer.echo(f"{_count(chosen)}: {len(chosen) - ill} healed, {ill} not; {took:.0f} s")
    raise typer.Exit(1 if ill or forgotten or not chosen else 0)


def _count(crashes: Sequence[Crash]) -> str:
    return f"{len(crashes)} crash points at {len({c.kind for c in crashes})} kinds of effects"


if __name__ == "__main__":
    typer.run(main)
