"""A model on record is explained, and made once more from the table; what differs is told."""

from __future__ import annotations

import sys
from dataclasses import replace
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from conftest import DRAWING, Lab
from rich.console import Console

from daemon.ledger import Ledger
from daemon.reproduce import reproduce
from daemon.screen import explanation_text
from daemon.views import decision
from handlers.facts import Expired, Record
from handlers.pictures import PICTURES


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
def test_every_model_is_explained_beside_its_champion(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    """MLflow keeps the explanation, and the terminal shows it: features, slices, calibration."""
    monkeypatch.delitem(sys.modules, DRAWING)
    lab.append(0)
    book = lab.ledger()
    reconciler = lab.reconciler(book)
    reconciler.tick()
    lab.append(6)
    reconciler.tick()
    second, first = book.history(lab.pipeline)
    assert first.model is not None
    assert second.model is not None
    registry = lab.doors().registry
    kept = registry.explanation(first.model.run_id)
    assert kept is not None
    assert (kept["against"], kept["slices"]) == (None, [])
    kept = registry.explanation(second.model.run_id)
    assert kept is not None
    assert kept["against"] == first.model.version
    assert second.learnt is not None
    assert {item["name"] for item in kept["features"]} == set(second.learnt.features)
    assert kept["rows"] == second.learnt.held_out_rows == sum(map(sum, kept["confusion"]["counts"]))
    pictures = registry.pictures(second.model.run_id)
    shown = {uri.rpartition("/explanation/")[2] for uri in pictures}
    assert shown == {f"{name}.png" for name in PICTURES}
    assert all(Path(uri.removeprefix("file://")).stat().st_size for uri in pictures)
    assert first.drift == ()
    named = {item.name for item in second.drift if item.kind == "feature"}
    assert named == set(second.learnt.features), "the demo has fewer columns than are told"
    assert all(
        item.size in ("small", "unclear") for item in second.drift if item.name != "event_time"
    )
    console = Console(width=120, file=StringIO(), record=True)
    view = {"decision": decision(second), "explanation": kept, "pictures": pictures}
    console.print(explanation_text(view), soft_wrap=True)
    drawn = console.export_text()
    for told in ("share of contributions", "champion 1", "came true", "taken for 1"):
        assert told in drawn
    assert kept["slices"][0]["slice"] in drawn
    assert pictures[0] in drawn


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
