"""A model on record is made once more from the table, and what differs is told exactly."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from builders import PIPELINE, ledger, promote
from conftest import Lab

from daemon.ledger import Ledger
from daemon.reproduce import find, reproduce
from handlers.facts import Expired, GiveUp, Record


@pytest.fixture
def book(tmp_path: Path) -> Iterator[Ledger]:
    """Give a ledger."""
    with closing(ledger(tmp_path / "ledger.db")) as book:
        yield book


def again(lab: Lab, book: Ledger, record: Record, **changes: Any) -> dict[str, Any]:
    """Make the model of a record again, under settings that may have changed since."""
    mine = lab.settings(**changes).pipelines[lab.pipeline]
    return reproduce(record, mine, lab.doors(), book, lab.home / "again")


def differing(view: dict[str, Any]) -> list[str]:
    """Name what was not the same."""
    return [check["what"] for check in view["checks"] if not check["same"]]


@pytest.mark.real
def test_the_same_model_comes_out_whatever_became_of_table_and_settings(lab: Lab) -> None:
    """Rows are merged and compacted, the configuration is changed: old models are made again."""
    lab.append(0)
    book = lab.ledger()
    reconciler = lab.reconciler(book)
    reconciler.tick()
    lab.append(6, 600)
    lab.sql("UPDATE {t} SET age = age + 1 WHERE age < 40")
    reconciler.tick()
    lab.sql("ALTER TABLE {t} ADD COLUMN later DOUBLE")
    lab.sql("CALL lake.system.rewrite_data_files(table => '{t}', options => "
            "map('rewrite-all', 'true'))")  # fmt: skip
    newest, oldest = book.history(lab.pipeline)
    assert newest.delta.way == "changed"
    changes = {"train": {"rounds": 7, "seed": 3, "max_categories": 2, "strategy": "full"}}
    for record in (oldest, newest):
        view = again(lab, book, record, **changes)
        assert view["reproduced"], view
        assert view["told"] == "The same model came out."
        whose = {check["what"].partition(" ")[0] for check in view["checks"]}
        assert {"digest", "its", "greatest"} <= whose
        assert ("champion" in whose) == (record is newest)
        assert len(view["checks"]) > 8


@pytest.mark.real
def test_what_differs_is_told(lab: Lab) -> None:
    """Other parameters, other rows, other software: each has its sentence."""
    lab.append(0)
    book = lab.ledger()
    lab.reconciler(book).tick()
    (record,) = book.history(lab.pipeline)
    learnt = record.learnt
    assert learnt is not None

    twisted = replace(learnt, parameters={**learnt.parameters, "eta": 0.11})
    view = again(lab, book, replace(record, learnt=twisted))
    assert not view["reproduced"]
    assert "Rows and software are the same." in view["told"]
    assert "digest of the model" in differing(view)
    assert "training rows" not in differing(view)

    older = replace(twisted, environment={**learnt.environment, "xgboost": "1.0"})
    view = again(lab, book, replace(record, learnt=older))
    assert "not the software (xgboost 1.0 then" in view["told"]

    view = again(lab, book, replace(record, learnt=replace(learnt, salt="another")))
    assert "The rows are not those of then." in view["told"]

    known = replace(learnt, rows_digest="", environment={}, split_by=())
    assert again(lab, book, replace(record, learnt=known))["reproduced"], "an older record"


@pytest.mark.real
def test_expired_snapshots_are_named(lab: Lab) -> None:
    """Rows that can no longer be told from others are refused, with what would have kept them."""
    lab.append(0)
    book = lab.ledger()
    reconciler = lab.reconciler(book)
    reconciler.tick()
    lab.append(6, 600)
    reconciler.tick()
    lab.append(2, 600)
    lab.sql("CALL lake.system.expire_snapshots(table => '{t}', retain_last => 1, "
            "older_than => TIMESTAMP '2100-01-01 00:00:00')")  # fmt: skip
    with pytest.raises(Expired, match="were expired"):
        again(lab, book, book.history(lab.pipeline)[0])


def test_a_run_is_found_by_its_id_or_name(book: Ledger) -> None:
    """The beginning of an id is enough where it is the only one."""
    promote(book, 1)
    (made,) = book.history(PIPELINE)
    assert made.model is not None
    assert find(book, f"{PIPELINE}-{made.sequence}") == made
    assert find(book, made.model.run_id) == find(book, made.model.run_id[:3]) == made
    with pytest.raises(GiveUp, match="no model was made in the run 'zzz'"):
        find(book, "zzz")
