"""Carries out `simulate`: the decisions on record are made once more, under another policy.

The real `Decider` works on the recorded deltas with a scratch ledger and a scratch registry. What
was decided live is only read.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path

from config.settings import Pipeline
from daemon import owner
from daemon.decide import Decider
from daemon.decided import Decided, decisions, first, lost
from daemon.doors import Access
from daemon.ledger import Ledger
from daemon.reading import Reading, Work
from daemon.scratch import Desk, Shelf, Then
from daemon.served import Scale, Served
from handlers import cut
from handlers.facts import Delta, Expired, Model, Record, State, TryLater, Unreadable


@dataclass(frozen=True, slots=True)
class Step:
    """A decision on record, and what the policy makes of it."""

    was: Decided
    made: tuple[Record, ...]
    """Empty if it was left out; several if the delta was taken apart here, and was not then."""
    after: str | None
    """The version that would serve; a model has that of the live one of the same delta."""
    hole: str = ""
    """Why it was not simulated."""
    lacks: tuple[str, ...] = ()
    """Columns that it was learnt from then, and that the table has no more."""
    live: Served | None = None
    simulated: Served | None = None

    @property
    def same(self) -> bool:
        """Say whether the decision is the live one."""
        made = [(record.state, _made_version(record)) for record in self.made]
        live = self.was.record
        return made == [(live.state, _made_version(live))] and self.after == self.was.after


@dataclass(frozen=True, slots=True)
class Replayed:
    """A history, and the same under the policy."""

    steps: tuple[Step, ...]
    turns: tuple[str, ...]
    """What became of the changes of champion that no verdict made."""


def replay(
    name: str, live: Pipeline, policy: Pipeline, doors: Access, book: Reading,
    since: int | None, home: Path,
) -> Replayed:  # fmt: skip
    """Make the decisions on record once more, from the delta of a snapshot on.

    Raises:
        GiveUp: there are none, or none is about that snapshot.
        TryLater: the table or MLflow does not answer, or a delta would wait for ever.
    """
    past = decisions(book, name)
    start = first(past, name, since)
    with closing(Ledger(home / "ledger.db")) as scratch:
        scratch.claim(owner.myself(), scratch.owner())
        run = Replay(name, live, policy, doors, scratch, home)
        for one in past[:start]:
            run.take_over(one)
        steps = tuple(run.step(one) for one in past[start:])
        champion = book.champion(name)
        run.turn(champion.model.version if champion else None)
    return Replayed(steps, tuple(run.turns))


class Replay:
    """Replays one pipeline's history, decision by decision."""

    def __init__(
        self, name: str, live: Pipeline, policy: Pipeline, doors: Access, scratch: Ledger,
        home: Path,
    ) -> None:  # fmt: skip
        self.name = name
        self.live = live
        self.policy = policy
        self.doors = doors
        self.scratch = scratch
        self.home = home
        self.turns: list[str] = []
        self._shelf = Shelf(home / "shelf", doors.registry)
        self._closed: dict[int, Record] = {}
        self._serving: str | None = None
        self._apart = False

    def take_over(self, was: Decided) -> None:
        """Leave a decision as it was."""
        self._follow(was)
        self.scratch.restore([was.record], None)
        self._closed[was.work.sequence] = was.record

    def step(self, was: Decided) -> Step:
        """Make one decision once more."""
        try:
            self._follow(was)
            return self._step(was)
        except TryLater as error:
            raise TryLater(
                f"Delta {was.work.sequence} cannot be simulated: {error.what}",
                "If that does not pass, begin with a later one by `--since`.",
            ) from error

    def _step(self, was: Decided) -> Step:
        champion = self.scratch.champion(self.name)
        readable = self._readable(was)
        decider = self._decider(was, readable)
        step = self._made(was, decider)
        self._apart |= not step.same
        if step.hole:
            return step
        scale = Scale(decider, self._desk(was), self.policy, self.home / "models")
        theirs = champion.model if champion else None
        live, simulated = scale.both(was.record, step.made, was.before, theirs)
        lacks = tuple(name for name in self._learnt(was) if name not in readable)
        return replace(step, live=live, simulated=simulated, lacks=lacks)

    def _follow(self, was: Decided) -> None:
        """Come to the moment of a decision; a champion is older than what it is compared with."""
        self.turn(was.before.version if was.before else None)
        self._serving = was.after
        moment = was.record.closed_at
        self.scratch.clock = lambda: moment

    def turn(self, to: str | None) -> None:
        """Follow a rollback, or a fall back, from a model that serves here, too."""
        was, self._serving = self._serving, to
        if was == to:
            return
        mine = self.scratch.champion(self.name)
        if mine and mine.model.version == was:
            self._crown(mine.model, to)
        if (here := self._champion()) != to:
            self._apart = True
            self.turns.append(
                f"A rollback or a refused deployment made {_version(to)} champion instead of "
                f"{_version(was)}; under the simulated policy {_version(here)} served then."
            )

    def _crown(self, mine: Model, to: str | None) -> None:
        if to is None:
            self.scratch.refuse(self.name, mine, "as it was then")
            return
        model = self.scratch.promoted(self.name, to) or self.scratch.before(self.name, mine.version)
        if model is not None:
            self.scratch.rollback(self.name, "simulation", model, "as it was then")

    def _champion(self) -> str | None:
        found = self.scratch.champion(self.name)
        return found.model.version if found else None

    def _parked(self, sequence: int) -> bool:
        decided = self._closed.get(sequence)
        return decided is not None and decided.state is State.PARKED

    def _made(self, was: Decided, decider: Decider) -> Step:
        """Decide, and where that cannot be repeated, say why."""
        if was.work.retry_of is not None and not self._parked(was.work.retry_of):
            return Step(was, (), self._champion())
        work = self._open(was.work, was.work.delta)
        self._shelf.version = _named(was)
        record = self._decide(decider, work)
        hole = record.reason if lost(record) and not lost(was.record) else ""
        if hole and not self._apart:  # so far all was as it was then
            record = replace(was.record, sequence=work.sequence, retry_of=work.retry_of)
        made = [self._settled(record)]
        if record.state is State.SPLIT and was.record.state is not State.SPLIT:
            made += self._pieces(was, decider)
        self._closed[was.work.sequence] = record
        return Step(was, tuple(made), self._champion(), hole)

    def _open(self, work: Work, delta: Delta) -> Work:
        """Open the work in the scratch ledger, whose numbers may run ahead of the live ones."""
        former = self._closed[work.retry_of].sequence if work.retry_of is not None else None
        opened = self.scratch.open(self.name, delta, former)
        return replace(work, sequence=opened.sequence, delta=delta, retry_of=former)

    def _learnt(self, was: Decided) -> tuple[str, ...]:
        """Name the columns that were learnt from, unless the policy names others."""
        learnt, policy = was.record.learnt, self.policy
        same = policy.features is None and policy.ignore == self.live.ignore
        return learnt.features if learnt and same else ()

    def _readable(self, was: Decided) -> tuple[str, ...]:
        """Name those of them that the table still has, so that all models read the same columns."""
        table = self.doors.table
        try:
            there = {*table.schema(was.work.delta)} & {*table.schema()}
        except Expired:  # which is met and told again where the rows are read
            there = {*table.schema()}
        return tuple(name for name in self._learnt(was) if name in there)

    def _decider(self, was: Decided, features: tuple[str, ...]) -> Decider:
        """Give the decider as it would have been: same moment, same history, same columns."""
        policy = self.policy.model_copy(update={"features": features or self.policy.features})
        return Decider(
            self.name, policy, self._desk(was), self.scratch, self.home / "models",
            lambda *_: None, lambda: was.record.closed_at,
        )  # fmt: skip

    def _desk(self, was: Decided) -> Desk:
        contained = was.record.state is not State.ABANDONED
        return Desk(Then(self.doors.table, contained), self._shelf)

    def _decide(self, decider: Decider, work: Work) -> Record:
        """Decide at once where the daemon would try again, and then give the delta up."""
        try:
            return decider.decide(work)
        except Exception as error:
            if isinstance(error, TryLater) and not isinstance(error, Unreadable):
                raise
            return decider.give_up(work, error)

    def _settled(self, record: Record) -> Record:
        self.scratch.settle(record)
        return record

    def _pieces(self, was: Decided, decider: Decider) -> Iterator[Record]:
        """Take a delta one snapshot at a time, as the reconciler does."""
        left: Delta | None = replace(was.work.delta, way="appended", changes=None)
        while left is not None:
            piece = self._piece(left)
            work = self._open(replace(was.work, attempts=0, wish=""), piece)
            self._shelf.version = f"{_named(was)}.{work.sequence}"
            yield self._settled(self._decide(decider, work))
            left = _after(left, piece)

    def _piece(self, left: Delta) -> Delta:
        dealt = self.scratch.dealt(self.name)
        if passed := cut.turn(left) or cut.familiar(left, dealt):
            return passed
        piece = cut.first(cut.unfamiliar(left, dealt))
        cursor = self.scratch.standing(self.name).cursor
        # Whatever a policy stopped was let pass then.
        planned = cut.plan(piece, cursor, self.policy.delta, piece.end_id)
        return planned if isinstance(planned, Delta) else piece


def _after(left: Delta, piece: Delta) -> Delta | None:
    snapshots = left.snapshots[len(piece.snapshots) :]
    rest = replace(left, start_id=piece.end_id, snapshots=snapshots, note="", gone=())
    return rest if snapshots else None


def _named(was: Decided) -> str:
    """Name a model as the live one of the same delta, else after the delta."""
    return was.record.model.version if was.record.model else f"d{was.record.sequence}"


def _made_version(record: Record) -> str | None:
    return record.model.version if record.model else None


def _version(version: str | None) -> str:
    return f"version {version}" if version else "nothing"
