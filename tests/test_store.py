"""The file under the ledger: older formats are brought up, damage is told, faults of ours show."""

from __future__ import annotations

import json
import sqlite3
import threading
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from builders import (
    PIPELINE,
    TABLE,
    UUID,
    close,
    delta,
    delta_of,
    dump,
    ledger,
    moment,
    park,
    promote,
    record,
    snapshot,
)

from daemon import store
from daemon.ledger import Ledger
from daemon.reading import DELTA, RECORD, Work
from daemon.store import MIGRATIONS, VERSION
from handlers.facts import Cursor, Delta, Fate, GiveUp, Model, Record, State, TryLater

LATER_IN_DELTAS = ("way", "changes", "gone")
"""What a delta of the first format has not."""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Give the place of a ledger."""
    return tmp_path / "ledger.db"


def old_delta(wanted: Delta) -> dict[str, Any]:
    """Write a delta as the first format did."""
    made: dict[str, Any] = DELTA.dump_python(wanted, mode="json")
    return {name: value for name, value in made.items() if name not in LATER_IN_DELTAS}


def old_record(closed: Record, **fates: str) -> dict[str, Any]:
    """Write a record as the first format did, with the fates' first names."""
    made: dict[str, Any] = RECORD.dump_python(closed, mode="json")
    del made["breaches"]
    made["delta"] = old_delta(closed.delta)
    for line in made["snapshots"]:
        line["state"] = fates.get(f"of_{line['snapshot_id']}", line["state"])
    return made


def old_file(path: Path) -> tuple[list[Record], Work]:
    """Write a file of the first format: promoted, parked, and one open; gives what it tells."""
    pieces = delta_of([snapshot(2, 70, "overwrite", deleted_records="3"), snapshot(3)], 1)
    deltas = [delta(1), pieces, delta(4)]
    ends = [State.PROMOTED, State.KEPT, State.PARKED]
    works = [Work(PIPELINE, n, wanted, moment()) for n, wanted in enumerate(deltas, start=1)]
    records = [
        record(work, state, version, against)
        for work, state, version, against in zip(
            works, ends, ["1", "2", None], [None, "1", None], strict=True
        )
    ]
    waiting = Work(PIPELINE, 4, delta(5), moment(), attempts=2, faults=1, trouble="an outage")
    with closing(sqlite3.connect(path)) as db, db:
        db.executescript(MIGRATIONS[0])
        db.execute("PRAGMA user_version = 1")
        db.execute(
            "INSERT INTO pipelines (name, table_uuid, cursor_id, head_id, doing, paused) "
            "VALUES (?, ?, 4, 5, 'idle', 'maintenance')",
            (PIPELINE, UUID),
        )
        names = {"of_2": "unread", "of_4": "parked"}
        for closed in records:
            old = old_record(closed, **names)
            db.execute(
                "INSERT INTO deltas (pipeline, sequence, state, delta, record, opened_at, "
                "closed_at) VALUES (?, ?, ?, ?, ?, ?, ?)",
                (PIPELINE, closed.sequence, closed.state.value, json.dumps(old["delta"]),
                 json.dumps(old), closed.opened_at.isoformat(), closed.closed_at.isoformat()),
            )  # fmt: skip
            db.executemany(
                "INSERT INTO snapshots VALUES (?, ?, ?, ?, ?, ?, ?)",
                [
                    (PIPELINE, closed.sequence, s["snapshot_id"], s["kind"], s["added"],
                     s["state"], s["reason"])
                    for s in old["snapshots"]
                ],
            )  # fmt: skip
        db.execute(
            "INSERT INTO deltas (pipeline, sequence, state, delta, opened_at, attempts, faults, "
            "trouble) VALUES (?, 4, 'open', ?, ?, 2, 1, 'an outage')",
            (PIPELINE, json.dumps(old_delta(waiting.delta)), waiting.opened_at.isoformat()),
        )
        db.execute(
            "INSERT INTO champions (pipeline, version, run_id, since, how, reason) "
            "VALUES (?, '1', 'run-1', ?, 'promoted', 'better')",
            (PIPELINE, moment().isoformat()),
        )
        db.execute(
            "INSERT INTO deployments (pipeline, version, at, outcome, reason) "
            "VALUES (?, '1', ?, 'deployed', 'answers')",
            (PIPELINE, moment().isoformat()),
        )
    return records, waiting


def version_of(path: Path) -> int:
    """Read the format's number."""
    with closing(sqlite3.connect(path)) as db:
        return int(db.execute("PRAGMA user_version").fetchone()[0])


# -- formats -------------------------------------------------------------------------------------


def test_the_old_file_of_these_tests_is_one(path: Path) -> None:
    """It has neither the new columns nor the new names."""
    old_file(path)
    with closing(sqlite3.connect(path)) as db:
        text = "\n".join(db.iterdump())
    assert version_of(path) == 1
    for new in ("wish", "undone", "halted_id", '"way"', '"gone"', '"breaches"', "quarantined"):
        assert new not in text
    assert "'parked'" in text
    assert "'unread'" in text


def test_a_file_of_the_first_format_is_read_on(path: Path) -> None:
    """Decisions, fates, champion, pause and open work are all there, under their new names."""
    records, waiting = old_file(path)
    with closing(ledger(path)) as book:
        assert version_of(path) == VERSION == len(MIGRATIONS)
        assert book.history(PIPELINE) == records[::-1]
        assert [s.state for s in records[1].snapshots] == [Fate.REWRITTEN, Fate.TRAINED]
        fates = {id_: fated.state for id_, fated in book.fates(PIPELINE).items()}
        assert fates == {
            1: Fate.TRAINED, 2: Fate.REWRITTEN, 3: Fate.TRAINED, 4: Fate.QUARANTINED,
        }  # fmt: skip
        assert [book.made(PIPELINE, version) for version in "129"] == [*records[:2], None]
        assert book.dealt(PIPELINE) == {1, 2, 3}
        assert book.parked(PIPELINE) == [records[2]]
        assert book.pending(PIPELINE) == waiting
        assert book.trained_at(PIPELINE) == records[1].closed_at
        assert book.made(PIPELINE, "2") == records[1]
        champion = book.champion(PIPELINE)
        assert champion is not None
        assert (champion.model, book.proven(PIPELINE)) == (Model("1", "run-1"), "1")
        standing = book.standing(PIPELINE)
        assert (standing.cursor, standing.paused) == (Cursor(UUID, 4), "maintenance")
        assert (standing.halted_id, standing.passed_id, standing.pins) == (None, None, "")
        assert (standing.moved_at, standing.waits_since, standing.next_at) == (None, None, None)


def test_a_file_of_the_first_format_is_written_on(path: Path) -> None:
    """What was open is closed, what was parked dropped, rollbacks marked, as in a new file."""
    records, waiting = old_file(path)
    with closing(ledger(path)) as book:
        book.resume(PIPELINE, "ann")
        book.settle(record(waiting, State.PROMOTED, 3, "1"))
        book.retry(PIPELINE, "ann", [records[2]], "drop", "a test")
        work = book.pending(PIPELINE)
        assert work is not None
        assert (work.wish, work.wisher, work.delta) == ("drop", "ann: a test", records[2].delta)
        close(book, work, State.DROPPED)
        back = Delta(TABLE, "main", UUID, 3, 3, (), note="rolled back", gone=(5, 4))
        close(book, book.open(PIPELINE, back), State.SKIPPED)
        undone = {id_ for id_, fated in book.fates(PIPELINE).items() if fated.undone}
        assert undone == {4, 5}
        book.halt(PIPELINE, "a rewrite", 6)
        assert book.standing(PIPELINE).halted_id == 6


def test_a_file_is_brought_up_once(path: Path) -> None:
    """Opening it again changes nothing, and a file made old and brought up is like a new one."""
    old_file(path)
    ledger(path, owned=False).close()
    before = path.read_bytes()
    ledger(path, owned=False).close()
    assert path.read_bytes() == before
    with closing(Ledger(path)) as old, closing(Ledger(path.with_name("new.db"))) as new:
        columns = (
            "SELECT m.name AS t, p.name, p.type, p.[notnull], p.dflt_value, p.pk FROM "
            "sqlite_master AS m, pragma_table_info(m.name) AS p ORDER BY m.name, p.cid"
        )
        assert [tuple(row) for row in old.all(columns)] == [tuple(row) for row in new.all(columns)]


def test_a_file_is_brought_up_wholly_or_not_at_all(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A step that fails leaves the old format as it was, to be brought up at the next start."""
    records, _ = old_file(path)
    before = path.read_bytes()
    broken = (MIGRATIONS[0], f"{MIGRATIONS[1]}; ALTER TABLE nowhere ADD COLUMN x TEXT")
    monkeypatch.setattr(store, "MIGRATIONS", broken)
    with pytest.raises(TryLater, match="nowhere"):
        Ledger(path)
    assert path.read_bytes() == before
    monkeypatch.undo()
    with closing(Ledger(path)) as book:
        assert book.history(PIPELINE) == records[::-1]


def test_a_file_that_two_bring_up_at_once_is_brought_up_once(tmp_path: Path) -> None:
    """The daemon and a command that start on an old file do not meet."""
    errors: list[BaseException] = []

    def opens(path: Path, together: threading.Barrier) -> None:
        together.wait()
        try:
            Ledger(path).close()
        except BaseException as error:  # noqa: BLE001 (told by the test's own thread)
            errors.append(error)

    for number in range(4):
        path = tmp_path / f"{number}.db"
        old_file(path)
        together = threading.Barrier(3)
        threads = [threading.Thread(target=opens, args=[path, together]) for _ in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert version_of(path) == VERSION
    assert errors == []


# -- damage --------------------------------------------------------------------------------------


def test_a_damaged_file_is_an_outage_with_its_remedy(path: Path) -> None:
    """Pages that were overwritten are told as damage, whether read or written, and left alone."""
    with closing(ledger(path)) as book:
        for number in range(1, 30):
            promote(book, number)
        parked = [park(book, 30)]
        size = int(book.one("PRAGMA page_size")[0])  # type: ignore[index]
        root = int(book.one("SELECT rootpage FROM sqlite_master WHERE name = 'deltas'")[0])  # type: ignore[index]
    with path.open("r+b") as file:
        file.seek((root - 1) * size)
        file.write(b"\xff" * size)
    before = path.read_bytes()
    with closing(Ledger(path)) as book:
        for call in (lambda: book.history(PIPELINE), lambda: book.retry(PIPELINE, "ann", parked)):
            with pytest.raises(TryLater, match="is damaged") as told:
                call()
            assert "rebuilt from MLflow" in told.value.remedy
        assert book.champion(PIPELINE) is not None, "what is not damaged is still told"
    assert path.read_bytes() == before


@pytest.mark.parametrize("content", [b"\xff\xfe", b'{"pipeline": "ca\0\0'])
def test_damage_inside_a_page_is_told_too(path: Path, content: bytes) -> None:
    """What is no text, or not the JSON that was written, is damage as well."""
    with closing(ledger(path)) as book:
        promote(book, 1)
        book.open(PIPELINE, delta(2))
        with closing(sqlite3.connect(path)) as other, other:
            text = "CAST(? AS TEXT)"
            values = (content, content)
            other.execute(f"UPDATE deltas SET delta = {text}, record = {text}", values)
        for call in (lambda: book.history(PIPELINE), lambda: book.pending(PIPELINE)):
            with pytest.raises(TryLater, match="is damaged") as told:
                call()
            assert "\n" not in str(told.value)


@pytest.mark.parametrize("begin", [0, 100])
def test_a_file_damaged_from_its_beginning_is_not_opened(path: Path, begin: int) -> None:
    """There the message of the start tells that it is no ledger any more, and the remedy."""
    ledger(path).close()
    with path.open("r+b") as file:
        file.seek(begin)
        file.write(b"\xff" * 4000)
    with pytest.raises(GiveUp, match="cannot be opened") as told:
        Ledger(path)
    assert "rebuilt from MLflow" in told.value.remedy


def test_a_fault_of_ours_is_not_told_as_damage(path: Path) -> None:
    """A wrong call, a closed file or a broken rule of the tables is for us to repair."""
    book = ledger(path)
    with pytest.raises(sqlite3.ProgrammingError):
        book.all("SELECT * FROM deltas WHERE pipeline = ?")
    promote(book, 1)
    with pytest.raises(sqlite3.IntegrityError), book.write() as db:
        db.execute("INSERT INTO deltas SELECT * FROM deltas")
    before = dump(book)
    book.close()
    with pytest.raises(sqlite3.ProgrammingError, match="closed"):
        book.champion(PIPELINE)
    with closing(Ledger(path)) as again:
        assert dump(again) == before
