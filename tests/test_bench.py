"""The bench measures what it claims to: its streams drift as told, and the command runs."""

from __future__ import annotations

import sys
from itertools import pairwise
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from typer import Typer
from typer.testing import CliRunner

sys.path.insert(0, str(Path(__file__).resolve().parent / "bench"))

import policies
import streams
from streams import Array, Batch, Concept, Stream

from config.settings import Train

CATALOGUE = {stream.name: stream for stream in streams.catalogue(batches=10)}


def seen(name: str, seed: int = 0) -> list[Batch]:
    """Draw all batches of a stream."""
    return list(CATALOGUE[name].batches(seed))


def share(concept: Concept, batch: Batch) -> float:
    """Give the share of rows that do not follow a concept."""
    rows, labels = batch
    return float((concept(rows) != labels).mean())


def same(one: Batch, other: Batch) -> bool:
    """Compare rows and labels."""
    return one[0].equals(other[0]) and np.array_equal(one[1], other[1])


@pytest.mark.parametrize("stream", CATALOGUE.values(), ids=CATALOGUE)
def test_a_seed_draws_the_same_stream_again_and_another_seed_another(stream: Stream) -> None:
    """What was measured can be measured again."""
    first, again, other = (list(stream.batches(seed)) for seed in (0, 0, 1))
    assert len(first) == 10
    assert all(same(one, two) for one, two in zip(first, again, strict=True))
    assert not same(first[0], other[0])


@pytest.mark.parametrize("stream", CATALOGUE.values(), ids=CATALOGUE)
def test_a_batch_holds_as_many_rows_as_told_and_both_labels(stream: Stream) -> None:
    """A batch is a delta that can be trained on."""
    for rows, labels in stream.batches(0):
        assert len(rows) == len(labels) == stream.rows
        assert set(labels) == {0, 1}
        assert not rows.isna().any(axis=None)


def test_noise_turns_over_its_share_of_labels_and_no_more() -> None:
    """The noise is the least error that any model can have."""
    for batch in seen("sea-none-large"):
        assert share(streams.sea(8.0), batch) == pytest.approx(0.1, abs=0.03)


def test_a_sudden_drift_changes_the_concept_from_one_batch_to_the_next() -> None:
    """Each batch follows the concept of its time, and the concept before it no more."""
    batches = seen("agrawal-sudden-large")
    first, second = streams.agrawal(7), streams.agrawal(2)
    old = [share(first, batch) for batch in batches[:6]]
    new = [share(second, batch) for batch in batches[:6]]
    assert max(old[:3] + new[3:]) < 0.13
    assert min(old[3:] + new[:3]) > 0.3


def test_a_gradual_drift_hands_over_row_by_row() -> None:
    """In between, a batch holds rows of both concepts, more and more of the new one."""
    clean = streams.scheduled(
        streams.agrawal_rows, [streams.agrawal(3), streams.agrawal(4)], streams.gradual(3, 3),
        [2000] * 9, 0.0,
    )  # fmt: skip
    wrong = [share(streams.agrawal(3), batch) for batch in clean(0)]
    assert wrong[:3] == [0, 0, 0]
    assert 0 < wrong[3] < wrong[4] < wrong[5] < wrong[6]
    assert [share(streams.agrawal(4), batch) for batch in clean(0)][6:] == [0, 0, 0]


def test_a_recurring_concept_comes_back() -> None:
    """The first concept holds again after the second."""
    wrong = [share(streams.agrawal(7), batch) < 0.2 for batch in seen("agrawal-recurring")]
    assert wrong == [True, True, False, False] * 2 + [True, True]


def test_a_rotating_plane_leaves_its_first_concept() -> None:
    """What the first batches say fits the later ones less and less."""
    first = np.random.default_rng(0).uniform(0, 1, 10)
    wrong = [share(streams.hyperplane(first), batch) for batch in seen("hyperplane-fast")]
    assert wrong[0] < 0.1
    assert wrong[-1] > 0.15


def test_a_segment_is_one_band_of_the_column_and_each_comes_once_a_round() -> None:
    """Segments do not overlap, cover the range, and the concept is the same in all of them."""
    batches = seen("agrawal-segments")
    bands = sorted((rows["age"].min(), rows["age"].max()) for rows, _ in batches[:5])
    assert bands[0][0] == 20
    assert bands[-1][1] == 80
    assert all(low > high for (_, high), (low, _) in pairwise(bands))
    assert max(share(streams.agrawal(4), batch) for batch in batches) < 0.1


@pytest.mark.parametrize(
    ("function", "person", "group"),
    [
        (1, {"age": 40}, 0),
        (1, {"age": 60}, 1),
        (2, {"age": 30, "salary": 100_000}, 1),
        (2, {"age": 50, "salary": 70_000}, 0),
        (3, {"age": 30, "elevel": 2}, 0),
        (3, {"age": 70, "elevel": 2}, 1),
        (4, {"age": 30, "elevel": 1, "salary": 30_000}, 1),
        (4, {"age": 30, "elevel": 2, "salary": 30_000}, 0),
        (7, {"salary": 100_000, "loan": 200_000}, 1),
        (7, {"salary": 100_000, "loan": 250_000}, 0),
        (9, {"salary": 100_000, "elevel": 3, "loan": 200_000}, 1),
        (9, {"salary": 100_000, "elevel": 4, "loan": 200_000}, 0),
    ],
)
def test_the_loan_functions_are_those_of_the_paper(
    function: int, person: dict[str, float], group: int
) -> None:
    """Examples worked out by hand from the definitions."""
    everyone = {"age": 30.0, "salary": 60_000.0, "commission": 0.0, "elevel": 0.0, "loan": 0.0}
    rows = pd.DataFrame([everyone | person])
    assert streams.agrawal(function)(rows).tolist() == [group]


class Sure:
    """A model that gives every row the same answer."""

    def score(self, rows: pd.DataFrame) -> Array:
        """Answer a quarter."""
        return np.full(len(rows), 0.25)


class Taught:
    """A learner that notes how much it has seen and when it was served."""

    def __init__(self) -> None:
        self.seen: list[int] = []
        self.served: list[int] = []

    def learn(self, delta: object, columns: object) -> Sure:  # noqa: ARG002 (the bench's contract)
        """Count the batches."""
        self.seen.append(len(self.seen))
        return Sure()

    def promoted(self) -> None:
        """Note the last of them."""
        self.served.append(self.seen[-1])


def test_each_batch_is_scored_before_it_is_learnt_from() -> None:
    """The first batch has no model yet; a model that always answers the same has a known loss."""
    learner = Taught()
    score = policies.measure(CATALOGUE["sea-none-small"], learner)
    labels = np.concatenate([labels for _, labels in seen("sea-none-small")[1:]])
    expected = -np.mean(labels * np.log(0.25) + (1 - labels) * np.log(0.75))
    assert score.log_loss == pytest.approx(expected)
    assert (score.auc, score.promotions, learner.served) == (0.5, 10, list(range(10)))


def test_a_judge_decides_what_is_served_and_the_first_model_needs_none() -> None:
    """The strategy goes on learning whatever is served."""
    learner = policies.Judged(Train(strategy="fresh", rounds=5))
    score = policies.measure(CATALOGUE["sea-none-small"], learner)
    assert len(learner.product.runs) == len(learner.gate.verdicts) == 10
    assert learner.gate.promoted_at[0] == 1
    assert score.promotions == len(learner.gate.promoted_at) < 10


def test_the_command_prints_both_tables(tmp_path: Path) -> None:
    """The best policy on each stream is 100, and the tables go to the file as well."""
    app = Typer()
    app.command()(policies.main)
    out = tmp_path / "tables.md"
    wanted = ["--quick", "--streams", "sea-none", "--policies", "static; fresh", "--out", str(out)]
    answer = CliRunner().invoke(app, wanted)
    assert answer.exit_code == 0, answer.output
    text = out.read_text(encoding="utf-8")
    assert text in answer.output
    rows = [
        line.split(" | ") for line in text.splitlines() if line.startswith(("| static", "| fre"))
    ]
    assert len(rows) == 4
    assert "100.0" in {row[1] for row in rows}


def test_an_unknown_policy_is_refused_with_the_known_ones() -> None:
    """A slip of the pen is told at once, not after an hour."""
    app = Typer()
    app.command()(policies.main)
    answer = CliRunner().invoke(app, ["--policies", "frsh"])
    assert answer.exit_code == 2
    assert "frsh" in answer.output
