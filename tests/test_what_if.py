"""What both models make of a row that a person changed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from builders import PIPELINE, delta, ledger, record
from endpoint_conformance import Models, make_rows, train_models

from daemon.ledger import Ledger
from daemon.what_if import what_if
from handlers.evidence import PROOF, write_proof
from handlers.facts import GiveUp, Model, Record, State
from handlers.registry import SCORER

SAMPLE = make_rows(5, seed=9).dropna().head(1)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Models:
    """Train two binary models, one of three classes, and a regression."""
    return train_models(tmp_path_factory.mktemp("models"))


@pytest.fixture
def book(tmp_path: Path) -> Iterator[Ledger]:
    """Open a ledger."""
    with closing(ledger(tmp_path / "ledger.db")) as book:
        yield book


class Kept:
    """What the registry keeps of each run."""

    def __init__(self, home: Path, models: Models) -> None:
        self.home = home
        for version, trained in models.items():
            folder = home / f"run-{version}"
            trained.scorer.save(folder / SCORER)
            write_proof(trained.scorer, SAMPLE, folder / PROOF)

    def __call__(self, model: Model) -> Path:
        """Bring a model."""
        return self.home / model.run_id


def decided(book: Ledger, *versions: str) -> Record:
    """Let each version be compared with the one before it; gives the last decision."""
    against = None
    for number, version in enumerate(versions, 1):
        work = book.open(PIPELINE, delta(number))
        closed = record(work, State.PROMOTED, version, against)
        book.settle(closed)
        against = version
    return closed


def test_the_row_is_one_that_was_held_out_until_it_is_changed(
    tmp_path: Path, book: Ledger, models: Models
) -> None:
    """Both score it as they do offline, to the last bit; what features add sums to the margin."""
    kept, last = Kept(tmp_path / "runs", models), decided(book, "1", "2")
    found = what_if(last, book, kept, {})
    assert [one["name"] for one in found["models"]] == ["version 2", "champion, version 1"]
    for one, version in zip(found["models"], "21", strict=True):
        scorer = models[version].scorer
        assert np.array_equal(np.array(one["scores"], np.float32), scorer.score(SAMPLE))
        assert list(one["added"].values()) == scorer.contributions(SAMPLE)[0].tolist()
    changed = SAMPLE.assign(amount=np.float32(250), country="FR", chip=None)
    given = {"amount": "250", "country": "FR", "chip": ""}
    found = what_if(last, book, kept, given)
    scores = [one["scores"][0] for one in found["models"]]
    assert np.array_equal(
        np.array(scores, np.float32), [models[v].scorer.score(changed)[0] for v in "21"]
    )
    texts = {field["name"]: field["text"] for field in found["fields"]}
    assert {name: texts[name] for name in given} == given


@pytest.mark.parametrize(("version", "scores"), [("3", 3), ("4", 1)])
def test_every_task_has_its_answer(
    tmp_path: Path, book: Ledger, models: Models, version: str, scores: int
) -> None:
    """Several classes have a probability each; a first model has no champion beside it."""
    kept, last = Kept(tmp_path / "runs", models), decided(book, version)
    (found,) = what_if(last, book, kept, {})["models"]
    assert len(found["scores"]) == scores
    assert set(found["added"]) == set(models[version].scorer.columns)


def test_what_does_not_fit_is_told(tmp_path: Path, book: Ledger, models: Models) -> None:
    """Text for a number names its column; a delta without a model has nothing to ask."""
    kept, last = Kept(tmp_path / "runs", models), decided(book, "1")
    with pytest.raises(GiveUp, match="'amount'"):
        what_if(last, book, kept, {"amount": "much"})
    work = book.open(PIPELINE, delta(2))
    with pytest.raises(GiveUp, match="made no model"):
        what_if(record(work, State.PARKED), book, kept, {})
