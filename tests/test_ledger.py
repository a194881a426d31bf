"""The ledger: verdict, champion and cursor move together, and only as they may."""

from __future__ import annotations

import itertools
import math
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import get_args

import pytest
from builders import (
    PIPELINE,
    UUID,
    close,
    delta,
    delta_of,
    dump,
    ledger,
    model,
    moment,
    park,
    promote,
    record,
    snapshot,
    verdict,
)
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from daemon import owner
from daemon.ledger import Ledger, Wish
from daemon.reading import Standing
from daemon.store import VERSION
from handlers.facts import Cursor, Delta, Fate, GiveUp, Record, State, TryLater

ROOT = Path(__file__).resolve().parent.parent
JUDGED = (State.PROMOTED, State.KEPT)
UNJUDGED = (State.SKIPPED, State.PARKED, State.ABANDONED)
WISHES: tuple[Wish, ...] = get_args(Wish)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Give the place of a ledger."""
    return tmp_path / "state" / "ledger.db"


@pytest.fixture
def book(path: Path) -> Iterator[Ledger]:
    """Give a ledger that this process owns."""
    with closing(ledger(path)) as book:
        yield book


def champion(book: Ledger) -> str | None:
    """Give the version that should serve."""
    found = book.champion(PIPELINE)
    return found.model.version if found else None


def cursor(book: Ledger) -> int | None:
    """Give the snapshot at which the cursor stands."""
    found = book.standing(PIPELINE).cursor
    return found.snapshot_id if found else None


# -- against a model -----------------------------------------------------------------------------


@dataclass
class Known:
    """What the model knows of one delta."""

    delta: Delta
    state: State = State.OPEN
    retry_of: int | None = None
    attempts: int = 0
    waits: bool = False
    wish: str = ""


class LedgerMachine(RuleBasedStateMachine):
    """Any order of the daemon's and the operator's doings, against plain lists."""

    @initialize()
    def begin(self) -> None:
        """Start with an empty ledger."""
        self.home = Path(tempfile.mkdtemp())
        self.book = ledger(self.home / "ledger.db")
        self.cursor: int | None = None
        self.until: int | None = None
        self.deltas: dict[int, Known] = {}
        self.records: list[Record] = []
        self.crowned: list[str | None] = []
        self.refused: set[str] = set()
        self.proven: str | None = None
        self.paused: str | None = None
        self.halted: int | None = None
        self.passed: int | None = None
        self.head: int | None = None
        self.audits: list[str] = []
        self.versions = itertools.count(1)

    def teardown(self) -> None:
        """Rebuild the ledger from its records, then throw it away."""
        if not hasattr(self, "book"):
            return
        with closing(self.book):
            self._restores()
        shutil.rmtree(self.home)

    # What may be asked of the model.

    @property
    def champion(self) -> str | None:
        """Give the version that should serve."""
        return self.crowned[-1] if self.crowned else None

    def _open(self) -> list[int]:
        return [number for number, known in self.deltas.items() if known.state is State.OPEN]

    def _parked(self) -> list[int]:
        retried = {known.retry_of for known in self.deltas.values()}
        return [
            number
            for number, known in self.deltas.items()
            if known.state is State.PARKED and number not in retried
        ]

    def _good(self, crowned: list[str | None]) -> str | None:
        return next((v for v in reversed(crowned) if v and v not in self.refused), None)

    def _is_busy(self) -> bool:
        return bool(self._open())

    def _work(self, known: Known) -> Record:
        found = self.book.pending(PIPELINE)
        assert found is not None
        assert (found.delta, found.retry_of) == (known.delta, known.retry_of)
        return record(found, State.SKIPPED)

    # The daemon.

    @precondition(lambda self: not self._is_busy())
    @rule(size=st.integers(1, 3))
    def opens(self, size: int) -> None:
        """Open what follows the cursor, one by one behind a split."""
        first = (self.cursor or 0) + 1
        piece = delta(first, first + (0 if self.until else size - 1))
        work = self.book.open(PIPELINE, piece)
        assert work.sequence == len(self.deltas) + 1
        self.deltas[work.sequence] = Known(piece)

    @rule(size=st.integers(1, 3), state=st.sampled_from(JUDGED + UNJUDGED))
    def advances(self, size: int, state: State) -> None:
        """Take up the oldest open delta, or a new one, and bring it to its end."""
        if not self._is_busy():
            self.opens(size)
        self.settles(state)

    @precondition(lambda self: self._is_busy())
    @rule(state=st.sampled_from(JUDGED + UNJUDGED))
    def settles(self, state: State) -> None:
        """Close the oldest open delta, judged against the champion of the moment."""
        number = min(self._open())
        known = self.deltas[number]
        version = str(next(self.versions)) if state in JUDGED else None
        work = self.book.pending(PIPELINE)
        assert work is not None
        closed = record(work, state, version, self.champion)
        self.book.settle(closed)
        self._closed(number, closed)
        if state is State.PROMOTED:
            self.crowned.append(version)
        if known.retry_of is None and state is not State.ABANDONED:
            self.cursor = known.delta.end_id
            passed = [s.id for s in known.delta.snapshots]
            self.until = None if self.until in passed else self.until
            self.passed = None if self.passed in passed else self.passed

    @precondition(lambda self: self._is_busy())
    @rule()
    def splits(self) -> None:
        """Take a delta of several snapshots apart."""
        number = min(self._open())
        known = self.deltas[number]
        if len(known.delta.snapshots) == 1:
            return
        closed = close(self.book, self.book.pending(PIPELINE), State.SPLIT)  # type: ignore[arg-type]
        self._closed(number, closed)
        self.until = known.delta.end_id

    def _closed(self, number: int, closed: Record) -> None:
        self.deltas[number].state = closed.state
        self.records.append(closed)

    @precondition(lambda self: self._is_busy())
    @rule(state=st.sampled_from(JUDGED), against=st.sampled_from(["0", "1", None]))
    def settles_a_stale_comparison(self, state: State, against: str | None) -> None:
        """A verdict against another than the champion moves nothing."""
        if against == self.champion:
            return
        work = self.book.pending(PIPELINE)
        assert work is not None
        before = dump(self.book)
        with pytest.raises(TryLater, match="champion"):
            self.book.settle(record(work, state, "stale", against))
        assert dump(self.book) == before

    @precondition(lambda self: bool(self.records))
    @rule(data=st.data(), state=st.sampled_from(UNJUDGED))
    def settles_again(self, data: st.DataObject, state: State) -> None:
        """What is closed stays closed."""
        closed = data.draw(st.sampled_from(self.records))
        before = dump(self.book)
        with pytest.raises(RuntimeError, match="is not open"):
            self.book.settle(replace(closed, state=state, verdict=None))
        assert dump(self.book) == before

    @precondition(lambda self: self._is_busy())
    @rule()
    def postpones(self) -> None:
        """Note a failed attempt."""
        known = self.deltas[min(self._open())]
        work = self.book.pending(PIPELINE)
        assert work is not None
        self.book.postpone(work, "an outage", moment())
        known.attempts += 1
        known.waits = True

    @precondition(lambda self: self.champion is not None)
    @rule()
    def refuses(self) -> None:
        """The champion does not serve: the last one that did takes over."""
        failed = str(self.champion)
        self.refused.add(failed)
        self.proven = None
        self.crowned.append(self._good(self.crowned))
        successor = self.book.refuse(PIPELINE, model(failed), "it does not answer")
        assert successor == (model(self.champion) if self.champion else None)

    @precondition(lambda self: self.champion is not None)
    @rule()
    def deploys(self) -> None:
        """The champion is deployed and proven."""
        self.book.deployed(PIPELINE, str(self.champion), "answers")
        self.proven = self.champion

    @rule(doing=st.sampled_from(["idle", "level with the table"]), head=st.integers(1, 3))
    def looks(self, doing: str, head: int) -> None:
        """A look moves nothing that counts."""
        self.book.looked(PIPELINE, Cursor(UUID, head), doing)
        self.head = head
        standing = self.book.standing(PIPELINE)
        assert (standing.doing, standing.head_id) == (doing, head)

    @rule(ahead=st.integers(1, 4))
    def halts(self, ahead: int) -> None:
        """A policy stops the pipeline at a head that lies ahead."""
        self.halted = (self.cursor or 0) + ahead
        self.book.halt(PIPELINE, "a rewrite", self.halted)
        self.paused = "halted: a rewrite"
        self.audits.append("halt")

    @rule()
    def restarts(self) -> None:
        """Another process takes over and finds the same."""
        self.book.release()
        self.book.close()
        self.book = ledger(self.home / "ledger.db")

    # The operator.

    @rule(data=st.data(), wish=st.sampled_from(WISHES))
    def retries(self, data: st.DataObject, wish: Wish) -> None:
        """Parked deltas open anew with a wish, at most those; unless dropped, nothing waits."""
        chosen = data.draw(st.lists(st.sampled_from(self._parked() or [0]), unique=True))
        records = [r for r in self.book.parked(PIPELINE) if r.sequence in chosen]
        self.book.retry(PIPELINE, "ann", records, wish)
        self.book.retry(PIPELINE, "bob", records, wish)  # who read the same list: too late
        for parked in records:
            number = len(self.deltas) + 1
            self.deltas[number] = Known(parked.delta, retry_of=parked.sequence, wish=wish)
        for number in self._open() if wish != "drop" else []:
            self.deltas[number].waits = False
        self.audits += [wish or "retry"] * 2

    @rule(reason=st.sampled_from(["", "maintenance", None]))
    def pauses_or_resumes(self, reason: str | None) -> None:
        """A pause tells why, or at least who."""
        if reason is None:
            self.book.resume(PIPELINE, "ann")
            self.passed, self.halted = self.halted or self.passed, None
        else:
            self.book.pause(PIPELINE, "ann", reason)
        self.paused = None if reason is None else reason or "ann"
        self.audits.append("resume" if reason is None else "pause")

    @precondition(lambda self: any(self.crowned))
    @rule(data=st.data())
    def rolls_back(self, data: st.DataObject) -> None:
        """Any former champion may be the champion again."""
        version = data.draw(st.sampled_from(sorted({v for v in self.crowned if v})))
        self.book.rollback(PIPELINE, "ann", model(version), "")
        self.crowned.append(version)
        self.audits.append("rollback")

    @precondition(lambda self: any(r.state is State.KEPT for r in self.records))
    @rule(data=st.data())
    def forces(self, data: st.DataObject) -> None:
        """What lost may be champion; a rollback brings back what it replaced, if that serves."""
        kept = [r.model.version for r in self.records if r.state is State.KEPT and r.model]
        version = data.draw(st.sampled_from(kept))
        self.book.promote(PIPELINE, "ann", model(version), "a reason")
        former = self._good([v for v in self.crowned if v != version])
        self.crowned.append(version)
        self.audits.append("promote")
        assert self.book.former(PIPELINE) == (model(former) if former else None)
        assert self.book.forced()[PIPELINE, version] == "forced by ann: a reason"

    # What holds at any time.

    @invariant()
    def agrees(self) -> None:
        """Cursor, champion, deltas and pause are as the model says."""
        standing = self.book.standing(PIPELINE)
        assert standing.cursor == (Cursor(UUID, self.cursor) if self.cursor else None)
        assert standing.one_by_one_until == self.until
        assert standing.paused == self.paused
        assert (standing.halted_id, standing.passed_id) == (self.halted, self.passed)
        assert (standing.waits_since is None) == (self.head in {None, self.cursor})
        assert champion(self.book) == self.champion
        assert self.book.proven(PIPELINE) == self.proven
        work = self.book.pending(PIPELINE)
        assert (work.sequence if work else None) == min(self._open(), default=None)
        if work:
            known = self.deltas[work.sequence]
            assert (work.attempts, bool(work.next_try_at)) == (known.attempts, known.waits)
            assert (work.wish, work.wisher) == (known.wish, "ann" if known.retry_of else "")
        assert [r.sequence for r in self.book.parked(PIPELINE)] == self._parked()
        assert self.book.history(PIPELINE, 1000) == self.records[::-1]
        assert [row["action"] for row in self.book.audit(1000)] == self.audits[::-1]

    @invariant()
    def counts_every_snapshot_once(self) -> None:
        """Up to the cursor each snapshot lies in exactly one closed delta that is no retry."""
        ends = [
            known.delta
            for known in self.deltas.values()
            if known.retry_of is None
            and known.state not in (State.OPEN, State.SPLIT, State.ABANDONED)
        ]
        passed = [s.id for piece in ends for s in piece.snapshots]
        assert passed == list(range(1, (self.cursor or 0) + 1))
        fates = self.book.fates(PIPELINE)
        assert sorted(fates) == passed
        assert self.book.dealt(PIPELINE) >= {
            id_ for id_, fated in fates.items() if fated.state is Fate.TRAINED
        }

    @invariant()
    def goes_back_one_by_one(self) -> None:
        """A rollback goes to the champion that the present one first replaced."""
        for version in {v for v in self.crowned if v}:
            earlier = self._good(self.crowned[: self.crowned.index(version)])
            found = self.book.before(PIPELINE, version)
            assert found == (model(earlier) if earlier else None)

    def _restores(self) -> None:
        """From its records a ledger comes back as it was; the registry's alias wins."""
        alias = model(self.champion) if self.champion else None
        with closing(ledger(self.home / "restored.db")) as again:
            assert again.restore(self.records, alias) == len(self.records)
            assert again.history(PIPELINE, 1000) == self.records[::-1]
            if not self.records:
                assert champion(again) is None
                return
            was, now = self.book.standing(PIPELINE), again.standing(PIPELINE)
            assert (now.cursor, now.one_by_one_until) == (was.cursor, was.one_by_one_until)
            promoted = [r.model.version for r in self.records if r.state is State.PROMOTED]  # type: ignore[union-attr]
            assert champion(again) == (self.champion or next(reversed(promoted), None))
            retried = {r.retry_of for r in self.records}
            assert [r.sequence for r in again.parked(PIPELINE)] == [
                r.sequence
                for r in self.records
                if r.state is State.PARKED and r.sequence not in retried
            ]
            assert again.open(PIPELINE, delta(1)).sequence == self.records[-1].sequence + 1
            rebuilt = dump(again)
            assert again.restore(self.records, alias) == 0
            assert dump(again) == rebuilt


TestAgainstAModel = LedgerMachine.TestCase
TestAgainstAModel.settings = settings(
    max_examples=50,
    stateful_step_count=30,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)


# -- together or not at all ----------------------------------------------------------------------


@contextmanager
def broken(book: Ledger, after: int) -> Iterator[None]:
    """Interrupt SQLite after so many steps of its machine."""
    left = after

    def stop() -> bool:
        nonlocal left
        left -= 1
        return left == 0  # once: what cleans up afterwards goes through

    book._db.set_progress_handler(stop, 1)
    try:
        yield
    finally:
        book._db.set_progress_handler(None, 1)


def attempt(call: Callable[[], object]) -> str:
    """Give the outage that a call met, if any."""
    try:
        call()
    except TryLater as error:
        return error.what
    return ""


def test_a_decision_moves_all_or_nothing_wherever_it_is_interrupted(book: Ledger) -> None:
    """Verdict, champion, cursor and snapshots move together, at whatever step it breaks."""
    promote(book, 1)
    work = book.open(PIPELINE, delta(2, 3))
    closed = record(work, State.PROMOTED, 2, "1")
    before = dump(book)
    for step in itertools.count(1, 3):
        with broken(book, step):
            outcome = attempt(lambda: book.settle(closed))
        if book.pending(PIPELINE) is None:
            break
        assert "interrupted" in outcome
        assert dump(book) == before
    # The last break may lie behind the commit: it is reported, and yet all has moved.
    assert (champion(book), cursor(book), book.pending(PIPELINE)) == ("2", 3, None)
    assert step > 100, "the breaks must have reached into every statement"


@pytest.mark.parametrize(
    "event",
    [
        "UPDATE ON deltas",
        "INSERT ON snapshots",
        "INSERT ON champions",
        "UPDATE OF cursor_id ON pipelines",
    ],
)
def test_a_decision_moves_nothing_if_one_statement_fails(book: Ledger, event: str) -> None:
    """Whichever statement fails, what was written before it is taken back."""
    work = book.open(PIPELINE, delta(1, 2))
    book._db.execute(
        f"CREATE TEMP TRIGGER breaks BEFORE {event} BEGIN SELECT RAISE(ABORT, 'broken'); END"
    )
    before = dump(book)
    with pytest.raises(sqlite3.Error, match="broken"):
        book.settle(record(work, State.PROMOTED, 1))
    assert dump(book) == before
    book._db.execute("DROP TRIGGER breaks")
    book.settle(record(work, State.PROMOTED, 1))
    assert (champion(book), cursor(book)) == ("1", 2)


def test_a_snapshot_counted_twice_closes_nothing(book: Ledger) -> None:
    """A record that accounts twice for a snapshot is refused as a whole."""
    work = book.open(PIPELINE, delta(1))
    closed = record(work, State.PROMOTED, 1)
    before = dump(book)
    with pytest.raises(sqlite3.IntegrityError):
        book.settle(replace(closed, snapshots=closed.snapshots * 2))
    assert dump(book) == before


DIES = """
import os, signal, sys
from pathlib import Path
sys.path.insert(0, "tests")
from builders import PIPELINE, delta, ledger, record
from handlers.facts import State

def die(home, step):
    book = ledger(home / f"{step}.db")
    work = book.open(PIPELINE, delta(1, 2))
    left = step
    def count():
        global left
        left -= 1
        if left <= 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return 0
    globals()["left"] = step
    book._db.set_progress_handler(count, 1)
    book._db.execute("PRAGMA cache_size = 0")  # spill: the file itself is written half
    book.settle(record(work, State.PROMOTED, 1))
    os._exit(0)

for step in map(int, sys.argv[2:]):
    child = os.fork()
    if child == 0:
        die(Path(sys.argv[1]), step)
    print(step, os.waitpid(child, 0)[1])
"""


def test_a_killed_process_leaves_all_or_nothing(tmp_path: Path) -> None:
    """A process killed in the midst of a decision leaves the delta open and nothing moved."""
    steps = [1, 40, 80, 120, 160, 10_000]
    done = subprocess.run(
        [sys.executable, "-c", DIES, str(tmp_path), *map(str, steps)],
        capture_output=True, text=True, cwd=ROOT, check=True,
    )  # fmt: skip
    ends = dict(line.split() for line in done.stdout.splitlines())
    assert ends["1"] == "9"
    assert ends["10000"] == "0"
    for step in steps:
        with closing(ledger(tmp_path / f"{step}.db")) as book:
            moved = ends[str(step)] == "0"
            assert (champion(book), cursor(book)) == (("1", 2) if moved else (None, None))
            assert (book.pending(PIPELINE) is None) == moved
            assert len(book.history()) == moved


@pytest.mark.parametrize("state", JUDGED)
@pytest.mark.parametrize("how", ["rollback", "promote", "refuse", "none before"])
def test_a_comparison_with_a_former_champion_is_made_again(
    book: Ledger, state: State, how: str
) -> None:
    """If the champion changed during the comparison, nothing moves and it is tried later."""
    if how != "none before":
        promote(book, 1)
        promote(book, 2)
    work = book.open(PIPELINE, delta(3))
    against = champion(book)
    if how == "rollback":
        book.rollback(PIPELINE, "ann", model(1), "")
    elif how == "promote":
        book.promote(PIPELINE, "ann", model(1), "")
    elif how == "refuse":
        book.refuse(PIPELINE, model(2), "does not answer")
    else:
        book.restore([], None)
        against = "7"
    before = dump(book)
    with pytest.raises(TryLater, match="made again"):
        book.settle(record(work, state, 3, against))
    assert dump(book) == before
    assert book.pending(PIPELINE) == work


# -- cursor, split, retry ------------------------------------------------------------------------


@pytest.mark.parametrize("state", [*JUDGED, *UNJUDGED])
def test_a_retry_leaves_the_cursor_where_it_is(book: Ledger, state: State) -> None:
    """What is taken up again lies behind the cursor, whatever becomes of it."""
    parked = park(book, 1)
    promote(book, 2)
    book.retry(PIPELINE, "ann", [parked])
    work = book.pending(PIPELINE)
    assert work is not None
    assert work.retry_of == 1
    close(book, work, state, 3 if state in JUDGED else None)
    assert cursor(book) == 2
    assert champion(book) == ("3" if state is State.PROMOTED else "2")


def test_a_retry_of_a_retry_names_the_last_one(book: Ledger) -> None:
    """A retry that is parked again can be taken up again, and the first one cannot."""
    book.retry(PIPELINE, "ann", [park(book, 1)])
    close(book, book.pending(PIPELINE), State.PARKED)  # type: ignore[arg-type]
    assert [r.sequence for r in book.parked(PIPELINE)] == [2]
    book.retry(PIPELINE, "ann", book.parked(PIPELINE))
    work = book.pending(PIPELINE)
    assert work is not None
    assert (work.sequence, work.retry_of, book.parked(PIPELINE)) == (3, 2, [])


def test_two_operators_take_a_parked_delta_up_only_once(path: Path, book: Ledger) -> None:
    """Both saw it parked; its rows are trained on once."""
    parked = [park(book, 1)]
    with closing(ledger(path, owned=False)) as other:
        other.retry(PIPELINE, "ann", parked)
        book.retry(PIPELINE, "bob", parked)
    close(book, book.pending(PIPELINE))  # type: ignore[arg-type]
    assert book.pending(PIPELINE) is None


def test_a_split_lasts_until_its_end_is_passed(book: Ledger) -> None:
    """A split leaves the cursor, and its pieces are taken one by one up to its end."""
    promote(book, 1)
    close(book, book.open(PIPELINE, delta(2, 4)), State.SPLIT)
    assert (cursor(book), book.standing(PIPELINE).one_by_one_until) == (1, 4)
    for number, until in [(2, 4), (3, 4), (4, None)]:
        close(book, book.open(PIPELINE, delta(number)))
        assert book.standing(PIPELINE).one_by_one_until == until


def test_a_split_ends_within_a_piece(book: Ledger) -> None:
    """A piece may reach past the split's end, where its last snapshots bring no rows."""
    close(book, book.open(PIPELINE, delta(1, 2)), State.SPLIT)
    pieces = [snapshot(1), snapshot(2, 0, "replace"), snapshot(3)]
    close(book, book.open(PIPELINE, delta_of(pieces)))
    assert book.standing(PIPELINE).one_by_one_until is None


@pytest.mark.parametrize("state", [State.SPLIT, State.ABANDONED])
def test_a_ledger_without_a_cursor_is_not_restored_twice(book: Ledger, state: State) -> None:
    """A first delta that was split or abandoned leaves no cursor, and a restart restores."""
    closed = close(book, book.open(PIPELINE, delta(1, 2)), state)
    before = dump(book)
    assert book.restore([closed], None) == 0
    assert dump(book) == before


def test_the_alias_wins_over_the_last_promotion(book: Ledger) -> None:
    """A rollback is not in the records; the registry's alias remembers it."""
    records = [replace(closing_of(book, n), sequence=n) for n in (1, 2)]
    with closing(ledger(book.path.with_name("again.db"))) as again:
        assert again.restore(records, model(1)) == 2
        found = again.champion(PIPELINE)
        assert found is not None
        assert (found.model, found.how) == (model(1), "restored")


def closing_of(book: Ledger, number: int) -> Record:
    """Promote the delta of one snapshot; gives the record."""
    promote(book, number)
    return book.history(PIPELINE, 1)[0]


def test_a_broken_restoration_restores_nothing(book: Ledger) -> None:
    """One record that cannot be taken leaves the ledger empty, to be restored at the next try."""
    first, second = closing_of(book, 1), closing_of(book, 2)
    bad = replace(second, snapshots=second.snapshots * 2)
    with closing(ledger(book.path.with_name("again.db"))) as again:
        empty = dump(again)
        with pytest.raises(sqlite3.IntegrityError):
            again.restore([first, bad], model(2))
        assert dump(again) == empty
        assert again.restore([first, second], model(2)) == 2


# -- champions -----------------------------------------------------------------------------------


def test_a_refused_champion_gives_way_to_the_last_that_served(book: Ledger) -> None:
    """The last good champion takes over, then the one before; without one nothing serves."""
    promote(book, 1)
    promote(book, 2)
    promote(book, 3)
    assert book.refuse(PIPELINE, model(3), "differs") == model(2)
    assert book.refuse(PIPELINE, model(2), "differs") == model(1)
    assert book.refuse(PIPELINE, model(1), "differs") is None
    assert champion(book) is None
    promote(book, 4)
    assert champion(book) == "4"
    assert book.before(PIPELINE, "4") is None


def test_a_failed_rollback_falls_back_to_what_served(book: Ledger) -> None:
    """A rollback to a model that no longer loads leaves the one that served, not nothing."""
    promote(book, 1)
    promote(book, 2)
    book.rollback(PIPELINE, "ann", model(1), "")
    assert book.refuse(PIPELINE, model(1), "its files are gone") == model(2)


def test_a_fall_back_respects_a_rollback(book: Ledger) -> None:
    """What an operator rolled away from does not come back by itself."""
    promote(book, 1)
    promote(book, 2)
    book.rollback(PIPELINE, "ann", model(1), "2 is bad")
    promote(book, 3)
    assert book.before(PIPELINE, "3") == model(1)
    assert book.refuse(PIPELINE, model(3), "differs") == model(1)


def test_a_refusal_does_not_undo_a_rollback(path: Path, book: Ledger) -> None:
    """An operator rolled back while the deployment failed: the operator's choice stands."""
    for number in (1, 2, 3):
        promote(book, number)
    with closing(ledger(path, owned=False)) as operator:
        operator.rollback(PIPELINE, "ann", model(1), "")
    assert book.refuse(PIPELINE, model(3), "differs") == model(1)
    found = book.champion(PIPELINE)
    assert found is not None
    assert (found.model, found.how) == (model(1), "rolled back")
    assert book.before(PIPELINE, "3") == model(2)


def test_a_proof_counts_only_until_a_deployment_fails(book: Ledger) -> None:
    """The endpoint is proven by its last deployment, not by an earlier one."""
    promote(book, 1)
    assert book.proven(PIPELINE) is None
    book.deployed(PIPELINE, "1", "answers")
    assert book.proven(PIPELINE) == "1"
    promote(book, 2)
    book.refuse(PIPELINE, model(2), "differs")
    assert book.proven(PIPELINE) is None
    told = [(d.version, d.outcome, d.reason) for d in book.deployments(PIPELINE)]
    assert told == [("2", "refused", "differs"), ("1", "deployed", "answers")]


def test_a_proof_counts_only_until_another_deployment_begins(book: Ledger) -> None:
    """What was killed between its deployment and its proof is not proven, even if it once was."""
    promote(book, 1)
    book.deployed(PIPELINE, "1", "answers")
    for _ in range(2):
        book.deploying(PIPELINE, "1")
        assert book.proven(PIPELINE) is None
    assert [d.outcome for d in book.deployments(PIPELINE)] == ["deployed"], "it has no outcome yet"
    book.deployed(PIPELINE, "1", "answers again")
    assert book.proven(PIPELINE) == "1"
    assert [d.outcome for d in book.deployments(PIPELINE)] == ["deployed", "deployed"]


def test_pipelines_do_not_meet(book: Ledger) -> None:
    """Sequences, cursors, champions and pauses are each pipeline's own."""
    promote(book, 1)
    other = book.open("other", delta(1, 2))
    assert other.sequence == 1
    assert (book.champion("other"), book.standing("other").cursor) == (None, None)
    book.pause("other", "ann", "")
    close(book, other, State.PARKED)
    assert (champion(book), cursor(book)) == ("1", 1)
    assert (book.parked(PIPELINE), book.standing(PIPELINE).paused) == ([], None)
    assert [r.pipeline for r in book.history()] == ["other", PIPELINE]
    assert book.refuse("other", model(1), "differs") is None
    assert champion(book) == "1"


def test_history_is_newest_first_and_limited(book: Ledger) -> None:
    """The limit keeps the newest."""
    for number in range(1, 6):
        park(book, number)
    assert [r.sequence for r in book.history(limit=2)] == [5, 4]


@pytest.mark.parametrize("score", [math.nan, math.inf, -math.inf])
def test_a_score_that_is_no_number_can_be_read_again(book: Ledger, score: float) -> None:
    """An infinite loss is a fact like any other and must not make the history unreadable."""
    work = book.open(PIPELINE, delta(1))
    closed = replace(record(work, State.KEPT, 1), verdict=verdict(challenger=score))
    book.settle(closed)
    told = book.history()[0].verdict
    assert told is not None
    assert repr(told.challenger["log_loss"]) == repr(score)
    assert repr(told.gain) == repr(closed.verdict.gain if closed.verdict else None)


@pytest.mark.parametrize("state", JUDGED)
def test_what_made_a_model_is_found(book: Ledger, state: State) -> None:
    """Each model leads back to its decision, whatever the scores of this or another were."""
    poor = record(book.open(PIPELINE, delta(1)), State.KEPT, 1)
    book.settle(replace(poor, verdict=verdict(challenger=math.inf)))
    park(book, 2)
    made = close(book, book.open(PIPELINE, delta(3)), state, 2)
    assert book.made(PIPELINE, "2") == made
    found = book.made(PIPELINE, "1")
    assert found is not None
    assert found.sequence == 1
    assert book.made(PIPELINE, "3") is None
    assert book.made("other", "2") is None


def test_texts_come_back_as_they_were(book: Ledger) -> None:
    """Whatever an error says is kept to the letter."""
    text = "'; DROP TABLE deltas; -- \0 \n\t <b>é漢🙂 \x1b[31m"
    work = book.open(PIPELINE, delta(1))
    book.postpone(work, text, moment())
    found = book.pending(PIPELINE)
    assert found is not None
    assert found.trouble == text
    closed = record(work, State.PARKED, reason=text)
    book.settle(closed)
    assert book.history() == [closed]


def test_the_largest_snapshot_ids_fit(book: Ledger) -> None:
    """Iceberg draws ids from 63 bits."""
    largest = replace(snapshot(1), id=2**63 - 1, parent_id=None)
    close(book, book.open(PIPELINE, delta_of([largest])))
    assert cursor(book) == 2**63 - 1


# -- halts and wishes ----------------------------------------------------------------------------


def test_a_halt_stops_the_pipeline_until_it_is_resumed(book: Ledger) -> None:
    """It is a pause that the program itself made, with its reason and the head that it saw."""
    book.halt(PIPELINE, "snapshot 2 is a delete", 3)
    standing = book.standing(PIPELINE)
    assert (standing.paused, standing.halted_id) == ("halted: snapshot 2 is a delete", 3)
    book.looked(PIPELINE, Cursor(UUID, 4), "halted")
    assert book.standing(PIPELINE).halted_id == 3, "what came later was not seen"
    book.resume(PIPELINE, "ann")
    standing = book.standing(PIPELINE)
    assert (standing.paused, standing.halted_id, standing.passed_id) == (None, None, 3)
    told = [(row["who"], row["action"], row["detail"]) for row in book.audit()]
    assert told == [("ann", "resume", ""), ("retraind", "halt", "snapshot 2 is a delete")]


def test_what_may_pass_is_forgotten_once_it_has_passed(book: Ledger) -> None:
    """A decision that moves the cursor over it ends the permission; a split or a retry does not."""
    parked = park(book, 1)
    book.halt(PIPELINE, "a rewrite", 3)
    book.resume(PIPELINE, "ann")
    close(book, book.open(PIPELINE, delta(2, 3)), State.SPLIT)
    book.retry(PIPELINE, "ann", [parked])
    close(book, book.pending(PIPELINE))  # type: ignore[arg-type]
    close(book, book.open(PIPELINE, delta(2)))
    assert book.standing(PIPELINE).passed_id == 3
    close(book, book.open(PIPELINE, delta(3)))
    assert book.standing(PIPELINE).passed_id is None


def test_a_resume_without_a_halt_lets_nothing_more_pass(book: Ledger) -> None:
    """After a mere pause the earlier permission stands as it was, or there is none."""
    book.pause(PIPELINE, "ann", "")
    book.resume(PIPELINE, "ann")
    assert book.standing(PIPELINE).passed_id is None
    book.halt(PIPELINE, "a rewrite", 3)
    book.pause(PIPELINE, "ann", "the weekend")
    assert book.standing(PIPELINE).paused == "the weekend"
    for _ in range(2):
        book.resume(PIPELINE, "ann")
        assert book.standing(PIPELINE).passed_id == 3
    assert book.standing("other") == Standing("other")


def test_a_wish_goes_with_the_delta_that_is_opened_anew(book: Ledger) -> None:
    """`release` and `drop` are read by whoever decides, with who wished it and why."""
    first, second = park(book, 1), park(book, 2)
    book.retry(PIPELINE, "ann", [first], "release")
    book.retry(PIPELINE, "bob", [first, second], "drop", "a test run")
    wishes = []
    while work := book.pending(PIPELINE):
        wishes.append((work.retry_of, work.wish, work.wisher))
        close(book, work, State.DROPPED if work.wish == "drop" else State.KEPT)
    assert wishes == [(1, "release", "ann"), (2, "drop", "bob: a test run")]
    told = [(row["who"], row["action"], row["detail"]) for row in book.audit()]
    assert told == [("bob", "drop", "2 a test run"), ("ann", "release", "1")]
    assert (book.parked(PIPELINE), cursor(book)) == ([], 2)
    assert [fated.state for fated in book.fates(PIPELINE).values()] == [Fate.TRAINED, Fate.SKIPPED]


@pytest.mark.parametrize("wish", WISHES)
def test_a_drop_hurries_nothing_else(book: Ledger, wish: Wish) -> None:
    """Only who wants something tried does not want to wait for it."""
    parked = park(book, 1)
    book.postpone(book.open(PIPELINE, delta(2)), "an outage", moment())
    book.retry(PIPELINE, "ann", [parked], wish)
    work = book.pending(PIPELINE)
    assert work is not None
    assert (work.sequence, work.next_try_at is None) == (2, wish != "drop")


# -- looking -------------------------------------------------------------------------------------


def test_when_the_head_moved_and_since_when_something_waits(book: Ledger) -> None:
    """The first of what waits counts from when it was seen, the burst from its last commit."""
    noon = datetime(2026, 1, 31, 12, tzinfo=timezone.utc)

    def look(minute: int, head: int | None) -> tuple[int | None, int | None]:
        book.clock = lambda: noon + timedelta(minutes=minute)
        book.looked(PIPELINE, Cursor(UUID, head) if head else None, "idle")
        return seen()

    def seen() -> tuple[int | None, int | None]:
        standing = book.standing(PIPELINE)
        times = (standing.moved_at, standing.waits_since)
        moved, waits = (int((t - noon).total_seconds() // 60) if t else None for t in times)
        return moved, waits

    def closes(
        first: int, last: int, state: State = State.SKIPPED
    ) -> tuple[int | None, int | None]:
        close(book, book.open(PIPELINE, delta(first, last)), state)
        return seen()

    assert look(0, None) == (None, None)
    assert look(1, 1) == (1, 1)
    assert look(2, 1) == (1, 1), "it did not move"
    assert look(3, 2) == (3, 1)
    assert look(4, 3) == (4, 1)
    assert look(5, None) == (4, 1)
    assert closes(1, 3, State.SPLIT) == (4, 1), "nothing was dealt with yet"
    assert closes(1, 1) == (4, 4), "the rest was there when the head moved last"
    assert closes(2, 3) == (4, None)
    assert look(6, 3) == (4, None)
    assert look(7, 4) == (7, 7)
    assert look(8, 3) == (8, None), "what waited was taken back"
    assert look(9, 5) == (9, 9)


def test_the_next_moment_is_kept_until_something_else_is_said(book: Ledger) -> None:
    """It belongs to what is waited for, and goes with it, or with a decision."""
    soon, later = moment(), moment()
    book.looked(PIPELINE, None, "not now", soon)
    assert book.standing(PIPELINE).next_at == soon
    book.looked(PIPELINE, Cursor(UUID, 1), "not now", soon)
    assert book.standing(PIPELINE).next_at == soon
    book.looked(PIPELINE, None, "not now", later)
    assert book.standing(PIPELINE).next_at == later
    book.looked(PIPELINE, None, "idle")
    assert book.standing(PIPELINE).next_at is None
    book.looked(PIPELINE, None, "not now", later)
    park(book, 1)
    assert book.standing(PIPELINE).next_at is None


def test_pins_are_told(book: Ledger) -> None:
    """What is kept from expiry, or why nothing is, is told as it was said last."""
    promote(book, 1)
    assert book.standing(PIPELINE).pins == ""
    for told in ("2 tag(s)", "off: access denied"):
        book.pinned(PIPELINE, told)
        assert book.standing(PIPELINE).pins == told


# -- writing as little as possible ---------------------------------------------------------------


def test_a_look_that_finds_nothing_new_costs_no_write(path: Path, book: Ledger) -> None:
    """Polling every few seconds must not wear a disk."""
    head = Cursor(UUID, 1)
    book.looked(PIPELINE, head, "idle")
    with closing(ledger(path, owned=False)) as other:
        version = other._db.execute("PRAGMA data_version").fetchone()[0]
        for _ in range(3):
            book.looked(PIPELINE, head, "idle")
            book.looked(PIPELINE, None, "idle", None)
        assert other._db.execute("PRAGMA data_version").fetchone()[0] == version
        book.looked(PIPELINE, Cursor(UUID, 2), "idle")
        assert other._db.execute("PRAGMA data_version").fetchone()[0] != version
        assert other.standing(PIPELINE).head_id == 2
    book.looked(PIPELINE, None, "training")
    standing = book.standing(PIPELINE)
    assert (standing.head_id, standing.doing) == (2, "training")


# -- sharing -------------------------------------------------------------------------------------


def test_two_connections_see_each_other(path: Path, book: Ledger) -> None:
    """A command in another process reads what the daemon wrote, and the other way round."""
    with closing(ledger(path, owned=False)) as other:
        promote(book, 1)
        assert champion(other) == "1"
        other.pause(PIPELINE, "ann", "maintenance")
        assert book.standing(PIPELINE).paused == "maintenance"


def test_threads_lose_nothing(path: Path, book: Ledger) -> None:
    """Pipelines, pages and operators share one ledger; each write is found afterwards."""
    rounds = 12
    errors: list[BaseException] = []

    def works(name: str) -> None:
        try:
            for number in range(1, rounds + 1):
                work = book.open(name, delta(number))
                book.looked(name, Cursor(UUID, number), f"delta {number}")
                close(book, work, State.PROMOTED, number)
                book.deployed(name, str(number), "answers")
                book.history(name)
        except BaseException as error:  # noqa: BLE001 (told by the test's own thread)
            errors.append(error)

    def operates(name: str) -> None:
        try:
            with closing(ledger(path, owned=False)) as own:
                for _ in range(rounds):
                    own.pause(name, "ann", "")
                    own.resume(name, "ann")
        except BaseException as error:  # noqa: BLE001
            errors.append(error)

    names = ["a", "b", "c"]
    threads = [threading.Thread(target=works, args=[name]) for name in names]
    threads += [threading.Thread(target=operates, args=["a"])]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert len(book.audit(1000)) == 2 * rounds
    for name in names:
        assert [r.sequence for r in book.history(name, 99)] == list(range(rounds, 0, -1))
        assert book.standing(name).cursor == Cursor(UUID, rounds)
        assert len(book.deployments(name, 99)) == rounds


def test_a_ledger_is_made_once_by_whoever_comes_first(tmp_path: Path) -> None:
    """The daemon and a command started at the same moment find one and the same new file."""
    errors: list[BaseException] = []

    def opens(path: Path, together: threading.Barrier) -> None:
        together.wait()
        try:
            Ledger(path).close()
        except BaseException as error:  # noqa: BLE001 (told by the test's own thread)
            errors.append(error)

    for number in range(8):
        path = tmp_path / str(number) / "ledger.db"
        together = threading.Barrier(4)
        threads = [threading.Thread(target=opens, args=[path, together]) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert errors == []


# -- the file ------------------------------------------------------------------------------------


@pytest.mark.parametrize("before", ["new", "WAL"])
def test_the_journal_is_no_write_ahead_log(tmp_path: Path, before: str) -> None:
    """A write-ahead log breaks on NFS, which Cloudera AI's projects lie on."""
    path = tmp_path / "ledger.db"
    if before == "WAL":
        ledger(path).close()
        with closing(sqlite3.connect(path)) as db:
            db.execute("PRAGMA journal_mode = WAL")
    with closing(Ledger(path)) as book:
        assert book._db.execute("PRAGMA journal_mode").fetchone()[0] == "delete"
        assert book._db.execute("PRAGMA synchronous").fetchone()[0] == 2
        assert book._db.execute("PRAGMA foreign_keys").fetchone()[0] == 1


def test_a_newer_format_is_refused(path: Path, book: Ledger) -> None:
    """An old program does not touch what a newer one wrote."""
    book._db.execute(f"PRAGMA user_version = {VERSION + 1}")
    before = path.read_bytes()
    with pytest.raises(GiveUp, match=f"format {VERSION + 1}, newer than") as refused:
        Ledger(path)
    assert "newer retraind" in refused.value.remedy
    assert path.read_bytes() == before


def test_a_place_that_cannot_be_written_is_told_with_the_remedy(tmp_path: Path) -> None:
    """A state folder that cannot be made is told at the start."""
    (tmp_path / "file").write_text("in the way", encoding="utf-8")
    with pytest.raises(GiveUp, match="cannot be opened") as refused:
        Ledger(tmp_path / "file" / "state" / "ledger.db")
    assert "state_dir" in refused.value.remedy


def test_a_file_that_is_no_ledger_is_left_alone(tmp_path: Path) -> None:
    """Whatever lies there is not overwritten."""
    path = tmp_path / "ledger.db"
    path.write_bytes(b"something else entirely, " * 100)
    before = path.read_bytes()
    with pytest.raises(GiveUp, match="cannot be opened"):
        Ledger(path)
    assert path.read_bytes() == before


def writes(book: Ledger) -> dict[str, Callable[[], object]]:
    """Give one call of every method that writes."""
    parked = park(book, 1)
    promote(book, 2)
    work = book.open(PIPELINE, delta(3))
    later = datetime.now(tz=moment().tzinfo) + timedelta(hours=1)
    return {
        "looked": lambda: book.looked(PIPELINE, Cursor(UUID, 9), "idle"),
        "open": lambda: book.open(PIPELINE, delta(4)),
        "postpone": lambda: book.postpone(work, "x" * 100_000, later),
        "settle": lambda: book.settle(record(work, State.SKIPPED)),
        "restore": lambda: book.restore([replace(parked, sequence=77)], None),
        "deploying": lambda: book.deploying(PIPELINE, "2"),
        "deployed": lambda: book.deployed(PIPELINE, "2", "answers"),
        "refuse": lambda: book.refuse(PIPELINE, model(2), "differs"),
        "beat": book.beat,
        "release": book.release,
        "claim": lambda: book.claim(owner.myself(), book.owner()),
        "pause": lambda: book.pause(PIPELINE, "ann", "x"),
        "resume": lambda: book.resume(PIPELINE, "ann"),
        "halt": lambda: book.halt(PIPELINE, "x", 9),
        "pinned": lambda: book.pinned(PIPELINE, "x"),
        "rollback": lambda: book.rollback(PIPELINE, "ann", model(2), "x"),
        "promote": lambda: book.promote(PIPELINE, "ann", model(2), "x"),
        "retry": lambda: book.retry(PIPELINE, "ann", [parked]),
    }


READS = {
    "by_run", "forced", "former", "refusal", "withdrawn", "dealt", "fates", "doubts", "trained_at",
    "standing", "pending", "works", "history", "champion", "before", "proven", "promoted",
    "deployments", "parked", "audit", "made", "owner", "one", "all", "now", "close", "write",
    "work", "record", "closed", "champions", "retried_in", "count_parked",
}  # fmt: skip


def test_a_lock_delays_every_write_and_loses_none(path: Path, book: Ledger) -> None:
    """Another program's lock is an outage: nothing moves, and the same call works afterwards."""
    calls = writes(book)
    methods = {name for name in dir(Ledger) if not name.startswith("_")}
    assert methods == READS | set(calls), "a method that writes must be tried here"
    book._db.execute("PRAGMA busy_timeout = 1")
    before = dump(book)
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        for call in calls.values():
            with pytest.raises(TryLater, match="locked"):
                call()
        assert champion(book) == "2", "who only reads is not disturbed"
        other.execute("ROLLBACK")
    assert dump(book) == before
    for name in ("settle", "beat", "pause", "retry"):
        calls[name]()
    assert cursor(book) == 3


def test_a_lock_delays_reading_too(path: Path, book: Ledger) -> None:
    """A file that cannot be read for now is an outage, not a fault of ours."""
    book._db.execute("PRAGMA busy_timeout = 1")
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        for read in (lambda: book.champion(PIPELINE), book.history):
            with pytest.raises(TryLater, match="could not be read"):
                read()


def test_a_full_disk_delays_work_and_loses_none(book: Ledger) -> None:
    """A full disk is an outage: nothing moves, and once there is room the same call works."""
    work = book.open(PIPELINE, delta(1))
    before = dump(book)
    pages = book._db.execute("PRAGMA page_count").fetchone()[0]
    book._db.execute(f"PRAGMA max_page_count = {pages}")
    large = record(work, State.PROMOTED, 1, reason="x" * 100_000)
    with pytest.raises(TryLater, match="full") as delayed:
        book.settle(large)
    assert "full disk" in delayed.value.remedy
    assert dump(book) == before
    book._db.execute("PRAGMA max_page_count = 1000000")
    book.settle(large)
    assert (champion(book), cursor(book)) == ("1", 1)
