"""The soak's verdict on doctored facts: whatever promise is broken, it says so.

The soak itself takes minutes and is a command, `python tests/soak.py --minutes 20`; here it is run
once in short, so that it cannot rot.
"""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from copy import deepcopy
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest
from soak_table import Book, Images, image
from soak_verdict import (
    Finding,
    Record,
    Rows,
    Run,
    check_answers,
    check_evidence,
    check_outages,
    check_rows,
    check_verdicts,
    key,
)
from soak_watch import Outage, Prober

BEGIN = datetime(2026, 1, 1, tzinfo=timezone.utc)
COMMITS = {1: range(100), 2: range(100, 150), 3: range(150, 170)}
"""Snapshot -> the ids that it appended."""


def images(ids: range) -> Images:
    """Give rows of version 0; one id in forty has no label."""
    return frozenset(image(row, 0) for row in ids)


def held(ids: range) -> Images:
    """Hold out one row in ten; none of these lacks a label."""
    return frozenset(one for one in images(ids) if one in images(range(0, 1000, 10)))


@pytest.fixture
def book() -> Book:
    """Three appends, one after the other; the table keeps them all."""
    book, rows = Book(), frozenset[int]()
    for number, ids in COMMITS.items():
        rows |= images(ids)
        book.note(number, number - 1 or None, "append", rows)
        book.stand(number, COMMITS, BEGIN)
    return book


@pytest.fixture
def records() -> list[Record]:
    """Each append was trained on by a delta of its own, as it should be."""
    return [
        {
            "sequence": number,
            "state": "promoted",
            "retry_of": None,
            "opened_at": (BEGIN + timedelta(minutes=number)).isoformat(),
            "delta": {
                "start_id": number - 1 or None, "end_id": number, "way": "appended",
                "table_uuid": "uuid", "branch": "main",
            },
            "snapshots": [{"snapshot_id": number, "state": "trained"}],
            "learnt": {
                "train_rows": len(ids) - len(held(ids)) - sum(row % 40 == 7 for row in ids),
                "held_out_rows": len(held(ids)),
                "unlabelled_rows": sum(row % 40 == 7 for row in ids),
            },
            "verdict": {
                "decision": "promote", "metric": "log_loss", "challenger": {"log_loss": 0.2},
                "champion": None, "trivial": {"log_loss": 0.6},
            },
            "model": {"version": str(number), "run_id": str(number)},
        }
        for number, ids in COMMITS.items()
    ]  # fmt: skip


def proof(run_id: str) -> Images:
    """Give what a run held out."""
    return held(COMMITS[int(run_id)])


def verdict(book: Book, records: list[Record], proof: Callable[[str], Images] = proof) -> Finding:
    """Follow the rows."""
    found = Finding()
    check_rows(Rows(book, found, "added", proof), records)
    return found


def test_sound_facts_pass(book: Book, records: list[Record]) -> None:
    """Where every row was trained on once, nothing is lost, doubled or broken."""
    found = verdict(book, records)
    check_verdicts(records, found)
    assert (found.broken, found.lost, found.twice) == ([], set(), set())
    assert len(found.trained) == 170
    assert found.named == {1, 2, 3}


def test_a_delta_that_is_missing_is_seen(book: Book, records: list[Record]) -> None:
    """Rows that no decision tells of are lost, at the end of the log as in the middle."""
    assert verdict(book, records[:2]).lost == images(COMMITS[3])
    found = verdict(book, [records[0], records[2]])
    assert found.lost == images(COMMITS[2])
    assert any("50 rows are lost" in sentence for sentence in found.broken)


def test_one_row_that_is_missing_is_seen(book: Book, records: list[Record]) -> None:
    """A row that was committed, and of which neither half of a delta tells, is seen."""
    records[1]["learnt"]["train_rows"] -= 1
    (sentence,) = verdict(book, records).broken
    assert "delta 2" in sentence
    short = {"2": proof("2") - {image(110, 0)}}
    records[1]["learnt"]["train_rows"] += 1
    assert verdict(book, records, lambda run_id: short.get(run_id, proof(run_id))).broken


def test_a_parked_delta_loses_nothing(book: Book, records: list[Record]) -> None:
    """Rows that were set aside are accounted for; what was read past them is lost."""
    records[1] |= {"state": "parked", "learnt": None, "verdict": None, "model": None}
    found = verdict(book, records)
    assert not found.broken
    assert found.aside == images(COMMITS[2])


def test_a_delta_trained_on_twice_is_seen(book: Book, records: list[Record]) -> None:
    """The same range again, or a range that reaches back, trains on rows twice."""
    again = deepcopy(records[1]) | {"sequence": 3}
    assert verdict(book, [*records[:2], again, records[2]]).twice == {3}
    wide = deepcopy(records[2])
    wide["delta"]["start_id"] = 1
    found = verdict(book, [*records[:2], wide])
    assert found.twice == {3}
    assert any("50 rows that deltas [2] had" in sentence for sentence in found.broken)


def test_a_whole_read_needs_a_reason(book: Book, records: list[Record]) -> None:
    """The whole table is not read anew, unless what came since the cursor was expired."""
    records[2]["delta"]["start_id"] = None
    reads = "reads the whole table"
    assert any(reads in sentence for sentence in verdict(book, records).broken)
    book.stand(3, [3], BEGIN + timedelta(hours=1))
    assert not any(reads in sentence for sentence in verdict(book, records).broken)


def test_a_row_on_both_sides_of_the_split_is_seen(book: Book, records: list[Record]) -> None:
    """A row that was held out once is never trained on, in whatever version."""
    rows = book.state(3) - {image(100, 0)} | {image(100, 1)}
    book.note(4, 3, "overwrite", rows)
    book.stand(4, COMMITS)
    update = deepcopy(records[2]) | {"sequence": 4, "model": {"version": "4", "run_id": "4"}}
    update["delta"] |= {"start_id": 3, "end_id": 4, "way": "changed"}
    update["snapshots"][0]["snapshot_id"] = 4
    update["learnt"] = {"train_rows": 1, "held_out_rows": 0, "unlabelled_rows": 0}
    found = verdict(book, [*records, update], lambda id_: frozenset() if id_ == "4" else proof(id_))
    assert found.broken == ["delta 4: 1 ids held out and trained on"]


def test_a_promotion_that_lost_is_seen(records: list[Record]) -> None:
    """A challenger that is no better than the champion must not be promoted."""
    records[1]["verdict"]["champion"] = {"log_loss": 0.2}
    found = Finding()
    check_verdicts(records, found)
    assert found.broken == ["delta 2 was promoted with a gain of +0.0000"]


@pytest.mark.parametrize(
    ("doctor", "told"),
    [
        (lambda runs: runs[:2], "no run tells of"),
        (lambda runs: [*runs, runs[0]], "two runs"),
        (lambda runs: [*runs, Run("4", "FINISHED", "soak#4", Path())], "no decision belongs to"),
        (lambda runs: [*runs, Run("4", "RUNNING", None, Path())], "RUNNING for ever"),
    ],
)
def test_evidence_that_does_not_fit_is_seen(
    records: list[Record], doctor: Callable[[list[Run]], list[Run]], told: str
) -> None:
    """Each decision has exactly one run, and each run that counts one decision."""
    runs = [Run(str(one["sequence"]), "FINISHED", key(one), Path()) for one in records]
    sound, found = Finding(), Finding()
    check_evidence(records, runs, sound)
    check_evidence(records, doctor(runs), found)
    assert sound.broken == []
    assert told in " ".join(found.broken)


def test_a_wrong_answer_is_seen() -> None:
    """An answer must be the one of a version that was promoted."""
    prober, found = Prober(1), Finding()
    prober.answers["1"] = Counter({(0.25, 0.5): 7})
    check_answers(prober, {"1": [0.25, 0.5]}, found)
    assert found.broken == []
    check_answers(prober, {"1": [0.25, 0.6]}, found)
    assert (found.wrong, len(found.broken)) == (7, 1)
    check_answers(prober, {"2": [0.25, 0.5]}, found)
    assert "version 1 answered, but was never promoted" in found.broken


def test_an_outage_of_the_endpoint_needs_a_reason() -> None:
    """The endpoint may fail to answer after it was struck, and only then."""
    prober, found = Prober(1), Finding()
    prober.outages = [Outage(100.0, 130.0)]
    check_outages(prober, [105.0], found)
    assert found.broken == []
    check_outages(prober, [20.0, 140.0], found)
    assert len(found.broken) == 1


@pytest.mark.real
@pytest.mark.timeout(900)
def test_a_short_soak_breaks_no_promise() -> None:
    """Some commits, and a `kill -9` of the daemon at its start: nothing is lost or doubled."""
    done = subprocess.run(
        [sys.executable, "tests/soak.py", "--minutes", "0.3", "--seed", "7"],
        cwd=Path(__file__).parent.parent, capture_output=True, text=True, check=False, timeout=890,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    told = {line[:24].strip(): line[24:] for line in done.stdout.splitlines()}
    assert told["rows lost"] == told["deltas trained twice"] == "0"
    assert "1 daemon killed" in told["faults"]
