"""Whatever happens in whatever order, the promises hold: the tick against a model of the world.

Hypothesis drives the real reconciler, with its real ledger, training and judging, through random
stories of commits, outages, crashes and operators; `oracle` checks every decision. The table, the
registry and the endpoint are in memory (`world`, `lake`).

`pytest tests/test_model.py` tells the same stories each time. A longer search for new ones is

    pytest tests/test_model.py --hypothesis-profile search

It prints a story that breaks a promise as statements, the shortest it finds, and keeps it: the next
search begins with it. What was found so becomes a test of its own, such as those in `test_pieces`.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping, MutableMapping
from contextlib import contextmanager, suppress
from itertools import count
from pathlib import Path
from typing import Any

import pytest
import structlog
from builders import TABLE
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from lake import Lake, Row
from oracle import Oracle
from world import NAME, Daemon, Fuse, Killed, World, later

from config.settings import Pipeline
from daemon import operate
from daemon.ledger import Ledger
from handlers.facts import GiveUp, TryLater

DAY = 86_400.0
EFFECTS = st.integers(0, 40)
SEEDS = st.integers(0, 9)
DOORS = st.sampled_from(["table", "registry", "endpoint", "ledger"])
THEMES = {
    "arrivals": ("append_poison", "append_again", "append_uncounted", "insert", "commit_nothing"),
    "rewrites": ("insert", "merge", "delete", "truncate", "upsert", "overwrite", "compact"),
    "history": ("roll_back", "roll_to", "cherry_pick", "stage", "delete", "merge"),
    "replaced": ("expire", "create_or_replace", "recreate", "roll_back", "merge"),
    "schema": ("alter", "merge", "recreate", "append_poison", "retry"),
    "damage": ("damage", "repair", "append_poison", "expire", "retry", "roll_back", "roll_to"),
    "operators": ("pause", "resume", "retry", "release", "drop", "append_poison", "merge"),
    "models": ("endpoint_dies", "spoil", "force 2", "roll model back", "roll model back to 1"),
    "ledger": ("lose_ledger", "append_poison", "retry", "roll model back", "roll_back", "merge"),
}
"""What a story is about: happenings that may have to do with each other."""
COMMANDS: Mapping[str, Callable[[Ledger], object]] = {
    "pause": lambda book: operate.pause(book, NAME, "a reason"),
    "resume": lambda book: operate.resume(book, NAME),
    "roll model back": lambda book: operate.rollback(book, NAME, None, "a reason"),
    "roll model back to 1": lambda book: operate.rollback(book, NAME, "1", "a reason"),
    "force 2": lambda book: operate.promote(book, NAME, "2", "a reason"),
    "retry": lambda book: operate.retry(book, NAME, None),
    "release": lambda book: operate.retry(book, NAME, None, release=True),
    "drop": lambda book: [
        operate.drop(book, NAME, record.sequence, "a reason") for record in book.parked(NAME)[:1]
    ],
}
EVENTS = st.runner().flatmap(lambda story: st.sampled_from(story.events))
POLICIES = st.fixed_dictionaries(
    {
        "min_rows": st.sampled_from([1, 1, 10, 30]),
        "max_wait": st.sampled_from([None, 3600.0]),
        "quiet_for": st.sampled_from([None, 60.0]),
        "cooldown": st.sampled_from([None, 120.0]),
        "coalesce": st.sampled_from(["all", "each"]),
        "rewrites": st.sampled_from(["added", "added", "full", "skip", "halt"]),
        "history": st.sampled_from(["full", "full", "halt"]),
        "forget": st.sampled_from(["record", "record", "full"]),
    }
)


def pipeline(policy: Mapping[str, Any], *, named: bool, full: bool) -> Pipeline:
    """Give a pipeline that trains in milliseconds and promotes often."""
    return Pipeline.model_validate(
        {
            "table": TABLE,
            "label": "label",
            "task": "regression",
            "row_key": ["key"],
            "features": ["x", "z"] if named else None,
            "delta": policy,
            "train": {
                "rounds": 1, "holdout": 0.3, "strategy": "full" if full else "fresh",
                "parameters": {"eta": 1.0, "min_child_weight": 0.0, "max_depth": 2},
            },
            "promote": {"min_held_out": 1},
        }
    )  # fmt: skip


class Story(RuleBasedStateMachine):
    """One random story; each rule is something that can happen."""

    def __init__(self) -> None:
        super().__init__()
        self.home = Path(tempfile.mkdtemp(dir=SCRATCH))
        self.world = World(self.home)
        self.keys = count(1)
        self.unforeseen: list[str] = []
        self.begun = False

    @initialize(
        policy=POLICIES, named=st.booleans(), full=st.booleans(),
        themes=st.lists(st.sampled_from(sorted(THEMES)), min_size=1, max_size=2, unique=True),
    )  # fmt: skip
    def begin(
        self, policy: dict[str, Any], themes: list[str], *, named: bool = False, full: bool = False
    ) -> None:
        """Choose the configuration and what the story is about, and start the daemon."""
        self.events = [what for theme in themes for what in THEMES[theme]]
        self.pipeline = pipeline(policy, named=named, full=full)
        self.daemon = Daemon(self.world, self.pipeline)
        self.operator = self._ledger()
        self.oracle = Oracle(self.world, self.pipeline.delta.rewrites)
        self.begun = True

    def _ledger(self) -> Ledger:
        book = Ledger(self.home / "ledger.db", clock=lambda: self.world.now)
        book._db.execute("PRAGMA synchronous = OFF")
        return book

    @property
    def lake(self) -> Lake:
        """Give the table as producers see it."""
        return self.world.lake

    # -- producers ---------------------------------------------------------------------------

    def rows(self, number: int, label: float | None = None, *, poison: bool = False) -> list[Row]:
        """Make new rows with labels that a model can learn, or all with the same."""
        keys = [next(self.keys) for _ in range(number)]
        return [
            Row(key, key % 7 + key / 1e6, label if poison else self._label(key), key * 7.0 % 5,
                self.lake.column or 0)
            for key in keys
        ]  # fmt: skip

    def _label(self, key: int) -> float:
        return key % 7 * (-1.0) ** (key // 40)  # what the labels follow turns over now and then

    def changed(self, old: list[Row]) -> list[Row]:
        """Make new images of rows."""
        return [row._replace(x=row.x + next(self.keys), field=self.lake.column or 0) for row in old]

    def some(self, seed: int) -> list[Row]:
        """Choose rows of the table."""
        return [row for at, row in enumerate(self.lake.rows) if (at + seed) % 4 == 0]

    @rule(number=st.sampled_from([3, 12, 14, 16]))
    def append(self, number: int = 14) -> None:
        """Append good rows, sometimes too few to act on."""
        self.lake.append(self.rows(number))

    @rule(
        events=st.lists(st.tuples(EVENTS, SEEDS), min_size=1, max_size=3), then_tick=st.booleans()
    )
    def happens(self, events: list[tuple[str, int]], *, then_tick: bool = False) -> None:
        """Let some of the things happen that this story is about."""
        for what, seed in events:
            self.event(what, seed)
        if then_tick:
            self.tick()

    def event(self, what: str, seed: int = 0) -> None:
        """Let one thing happen."""
        if what in COMMANDS:
            with suppress(GiveUp):  # a refusal is an answer
                COMMANDS[what](self.operator)
        else:
            getattr(self, what)(seed)

    def append_poison(self, seed: int) -> None:
        """Append rows without labels, or all with the same."""
        self.lake.append(self.rows(6, [None, 0.0, 1.0][seed % 3], poison=True))

    def append_again(self, seed: int) -> None:
        """Append rows that are there already, or were."""
        if commits := sorted(self.lake.commits):
            old = self.lake.state(commits[seed % len(commits)])
            self.lake.append(sorted(old, key=str)[:8])

    def append_uncounted(self, seed: int) -> None:
        """Append as a writer that does not count."""
        self.lake.append_uncounted(self.rows(10 + seed))

    def insert(self, seed: int) -> None:
        """Insert by a merge-on-read MERGE."""
        self.lake.insert(self.rows(10 + seed))

    def merge(self, seed: int) -> None:
        """Change some rows, and perhaps insert others."""
        old, more = self.some(seed), self.rows(12 * (seed // 2 % 2))
        self.lake.rewrite(old, [*self.changed(old), *more], in_place=seed % 2 == 0)

    def delete(self, seed: int) -> None:
        """Delete some rows."""
        self.lake.rewrite(self.some(seed), [], in_place=seed % 2 == 0)

    def truncate(self, seed: int) -> None:
        """Delete whole files."""
        self.lake.truncate(1 + seed % 3)

    def upsert(self, seed: int) -> None:
        """Delete rows and append them again beside new ones, in one go, as PyIceberg does."""
        old = self.some(seed)
        self.lake.rewrite(old, [], in_place=False)
        self.lake.append([*old, *self.rows(12 * (seed % 2))])

    def overwrite(self, seed: int) -> None:
        """Replace all rows, perhaps with many that were there."""
        self.lake.overwrite([*(self.lake.rows[::2] if seed % 2 else []), *self.rows(14)])

    def compact(self, seed: int = 0) -> None:  # noqa: ARG002 (all writes look alike)
        """Rewrite the files."""
        if self.lake.rows:
            self.lake.compact()

    def commit_nothing(self, seed: int) -> None:  # noqa: ARG002 (see above)
        """Commit without a change."""
        self.lake.empty()

    def stage(self, seed: int) -> None:
        """Stage an append for audit."""
        self.lake.append(self.rows(10 + seed), staged=True)

    # -- the log -----------------------------------------------------------------------------

    def roll_back(self, seed: int) -> None:
        """Roll back to an ancestor."""
        if past := self.lake.history()[1:]:
            self.lake.set_head(past[seed % len(past)])

    def roll_to(self, seed: int) -> None:
        """Make a snapshot outside the branch its head, such as one that was rolled back."""
        if others := sorted(self.lake.kept - set(self.lake.history())):
            self.lake.set_head(others[seed % len(others)])

    def cherry_pick(self, seed: int) -> None:
        """Publish a staged or rolled back append."""
        if others := self.lake.pickable():
            self.lake.pick(others[seed % len(others)])

    def expire(self, seed: int) -> None:
        """Expire old snapshots, sometimes as PyIceberg does."""
        self.lake.expire(1 + seed // 2, cut=seed % 2 == 1)

    def create_or_replace(self, seed: int) -> None:
        """Replace the table's content and lineage."""
        self.lake.replace_table(self.rows(10 + seed))

    def recreate(self, seed: int) -> None:  # noqa: ARG002 (see above)
        """Drop the table and make another."""
        self.lake.recreate()

    def alter(self, seed: int) -> None:
        """Drop a feature's column, or add it anew."""
        self.lake.alter(wanted=seed % 2 == 0)

    def damage(self, seed: int) -> None:
        """Damage a data file."""
        if files := list(self.lake.files):
            self.lake.damaged.add(files[-1 - seed % len(files)])

    def repair(self, seed: int) -> None:  # noqa: ARG002 (see above)
        """Repair what was damaged."""
        self.lake.damaged.clear()

    # -- the machine room --------------------------------------------------------------------

    def endpoint_dies(self, seed: int) -> None:  # noqa: ARG002 (see above)
        """End the scoring server."""
        self.world.endpoint.model = None

    def spoil(self, seed: int) -> None:  # noqa: ARG002 (see above)
        """Let the version that will be registered next answer wrongly once it is served."""
        versions = [int(r.model.version) for r in self.oracle.records.values() if r.model]
        self.world.endpoint.spoilt.add(str(max(versions, default=0) + 1))

    @rule(seconds=st.sampled_from([1.0, 30.0, 61.0, 400.0, 4000.0, 3 * DAY, -100.0, -5000.0]))
    def time_passes(self, seconds: float = 400.0) -> None:
        """Let time pass, or set the clock back."""
        later(self.world, seconds)

    # -- the daemon --------------------------------------------------------------------------

    @rule()
    def tick(self) -> None:
        """Let the daemon look."""
        with listening(self.unforeseen):
            try:
                self.daemon.reconciler.tick()
            except Killed:
                self.restart()
            finally:
                self.world.fuse = None

    @rule()
    def restart(self) -> None:
        """Start the daemon anew on what lasts."""
        self.daemon.close()
        self.daemon = Daemon(self.world, self.pipeline)

    @rule(effects=EFFECTS)
    def tick_killed(self, effects: int = 0) -> None:
        """Kill the daemon at some effect of a tick."""
        self.world.fuse = Fuse(effects, _die)
        self.tick()

    @rule(effects=EFFECTS)
    def tick_hindered(self, effects: int = 0) -> None:
        """Let one effect of a tick fail, or its answer get lost."""
        self.world.fuse = Fuse(effects, _fail)
        self.tick()

    @rule(effects=EFFECTS, what=EVENTS, seed=SEEDS)
    def tick_disturbed(self, effects: int, what: str, seed: int = 0) -> None:
        """Let something else happen in the middle of a tick."""
        self.world.fuse = Fuse(effects, lambda door: self._disturb(door, what, seed))
        self.tick()

    def _disturb(self, door: str, what: str, seed: int) -> None:
        alone = door.startswith("ledger")  # its file is locked in the middle of a transaction
        if not alone and what != "lose_ledger":
            self.event(what, seed)

    @rule(doors=st.sets(DOORS, min_size=1))
    def tick_without(self, doors: set[str]) -> None:
        """Let the daemon look while doors are out of reach, the table or its catalog missing."""
        self.world.out = set(doors)
        self.tick()
        self.world.out.clear()

    def lose_ledger(self, seed: int) -> None:  # noqa: ARG002 (see above)
        """Delete the ledger's file while the daemon is down."""
        self.daemon.close()
        self.operator.close()
        (self.home / "ledger.db").unlink()
        self.daemon = Daemon(self.world, self.pipeline)
        self.operator = self._ledger()

    # -- promises ----------------------------------------------------------------------------

    @invariant()
    def keeps_its_promises(self) -> None:
        """Check all that must hold at any time."""
        assert not self.unforeseen, self.unforeseen[0]
        if self.begun:
            self.oracle.check(self.operator)

    @precondition(lambda self: self.begun)
    @rule(mend=st.booleans())
    def settle(self, *, mend: bool = True) -> None:
        """End all trouble and let time pass: all is dealt with and the champion serves."""
        if self.pipeline.features:
            self.lake.alter(wanted=True)
        if mend:
            self.lake.damaged.clear()
        if self.lake.head is None:
            self.append()
        quiet, before = 0, self._signature()
        for _ in range(40 + 12 * len(self.lake.commits)):
            self.event("resume")
            later(self.world, DAY)
            self.tick()
            self.keeps_its_promises()
            after = self._signature()
            quiet, before = (quiet + 1 if after == before else 0), after
            if quiet == 2:
                break
        else:
            pytest.fail(f"does not settle: {before}")
        policy = self.pipeline.delta
        self.oracle.check_settled(self.operator, policy.min_rows, waits=policy.max_wait is None)
        assert not self.daemon.reconciler.troubled

    def _signature(self) -> list[object]:
        standing = self.operator.standing(NAME)
        deltas = self.operator.all("SELECT sequence, state, attempts FROM deltas")
        deployments = self.operator.one("SELECT count(*) FROM deployments")
        model = self.world.endpoint.model
        return [
            standing.cursor, standing.paused, [tuple(row) for row in deltas],
            tuple(deployments or ()), model and model.version,
        ]  # fmt: skip

    def teardown(self) -> None:
        """End the story well."""
        try:
            if self.begun:
                self.settle(mend=False)
                self.settle()
        finally:
            self.close()

    def close(self) -> None:
        """Leave nothing behind."""
        if self.begun:
            self.daemon.close()
            self.operator.close()
        shutil.rmtree(self.home)


def _die(door: str) -> None:
    raise Killed(door)


def _fail(door: str) -> None:
    if door != "ledger, committed":
        raise TryLater(f"The {door} fails.")


@contextmanager
def listening(unforeseen: list[str]) -> Iterator[None]:
    """Collect the errors that the daemon did not foresee: they are faults of its own."""

    def hear(logger: object, method: str, event: MutableMapping[str, Any]) -> str:  # noqa: ARG001 (structlog's contract)
        if event.get("exc_info"):
            structlog.processors.format_exc_info(None, "", event)
            unforeseen.append(str(event.get("exception")))
        raise structlog.DropEvent

    former = structlog.get_config()["processors"]
    structlog.configure(processors=[hear])
    try:
        yield
    finally:
        structlog.configure(processors=former)


SCRATCH = "/dev/shm" if Path("/dev/shm").is_dir() else None  # noqa: S108 (each story has a folder of its own)


@pytest.mark.timeout(0)  # finding the shortest story takes a while
def test_no_story_breaks_a_promise() -> None:
    """Whatever happens in whatever order, each promise holds at each step, and all ends well."""
    usual = settings(
        stateful_step_count=50, deadline=None, suppress_health_check=list(HealthCheck),
        report_multiple_bugs=False,
    )  # fmt: skip
    run_state_machine_as_test(Story, settings=usual)
