"""Who wins a comparison, by which measure, and how that is told."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import xgboost as xgb
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics

from config.settings import METRICS, Metric, Pipeline, Promote
from handlers.facts import Decision, Verdict
from handlers.judge import Champion, judge
from handlers.measures import LOWER_IS_BETTER, measure
from handlers.rows import Part
from handlers.scorer import BadInput, Feature, Scorer, Task

EXAMPLES = settings(max_examples=15, deadline=None)
FEW = settings(max_examples=8, deadline=None)  # each judges twice, in a dozen measures
EMPTY = Part(pd.DataFrame({"m": []}), pd.Series([], dtype=object))


class Oracle(Scorer):
    """A model that says what the column of its name says: `m`, or `m0`, `m1`, ... for classes."""

    def score(self, rows: Any) -> np.ndarray[Any, np.dtype[np.float32]]:
        """Read the scores from the rows."""
        name = self.features[0].name if self.features else "m"
        many = [f"{name}{i}" for i in range(len(self.classes))]
        if name not in rows and many[0] not in rows:
            raise BadInput(f"missing column(s) {name!r}")
        scores = rows[many if self.task == "multiclass" else name]
        return np.asarray(scores, dtype=np.float32)


def model(task: Task = "binary", classes: tuple[str, ...] = ("0", "1")) -> Oracle:
    """Make a model that reads its scores from column `m`."""
    return Oracle(task, (), () if task == "regression" else classes, xgb.Booster())


def rival(task: Task = "binary", classes: tuple[str, ...] = ("0", "1")) -> Champion:
    """Make a champion, version 7, that reads its scores from column `r`."""
    return Champion("7", replace(model(task, classes), features=(Feature("r", "number"),)))


def pipeline(
    metric: Metric | None = None, task: Task = "binary", gain: float = 0.0, least: int = 1
) -> Pipeline:
    """Make a pipeline that promotes by this metric."""
    promote = Promote(metric=metric, min_gain=gain, min_held_out=least, confidence=0)
    return Pipeline(table="lake.bank.cards", label="y", task=task, promote=promote)


def binary(labels: list[int], ours: list[float], theirs: list[float] | None = None) -> Part:
    """Make rows with labels and both models' probabilities."""
    rows = pd.DataFrame({"m": ours, "r": theirs or ours})
    return Part(rows, pd.Series([str(label) for label in labels]))


def compared(
    part: Part, metric: Metric | None = None, task: Task = "binary", gain: float = 0.0
) -> Verdict:
    """Compare `m` with `r`."""
    return judge(pipeline(metric, task, gain), model(task), rival(task), part, part)


GOOD, BAD = [0.1, 0.2, 0.8, 0.9], [0.6, 0.4, 0.5, 0.3]
TRUTH = [0, 0, 1, 1]

# -- who wins ----------------------------------------------------------------------------------


@pytest.mark.parametrize("metric", METRICS["binary"])
def test_the_better_model_is_promoted_and_the_worse_is_not(metric: Metric) -> None:
    """By every metric of two classes: better is promoted, worse is kept out, equal is kept out."""
    assert compared(binary(TRUTH, GOOD, BAD), metric).decision is Decision.PROMOTE
    assert compared(binary(TRUTH, BAD, GOOD), metric).decision is Decision.KEEP
    equal = compared(binary(TRUTH, GOOD, GOOD), metric)
    assert (equal.decision, equal.gain) == (Decision.KEEP, 0.0)


@pytest.mark.parametrize("metric", METRICS["regression"])
def test_the_better_regression_is_promoted(metric: Metric) -> None:
    """By every metric of numbers: nearer is promoted, farther and equal are not."""
    truth = [1.0, 2.0, 3.0, 5.0]
    near, far = [1.1, 2.0, 3.0, 4.5], [3.0, 1.0, 3.0, 4.0]
    for ours, theirs, wanted in (
        (near, far, Decision.PROMOTE),
        (far, near, Decision.KEEP),
        (near, near, Decision.KEEP),
    ):
        part = Part(pd.DataFrame({"m": ours, "r": theirs}), pd.Series(truth))
        assert compared(part, metric, "regression").decision is wanted


SCORES = st.floats(0, 1, width=32)


@FEW
@given(
    st.lists(st.tuples(st.sampled_from([0, 1]), SCORES, SCORES), min_size=1, max_size=12),
    st.sampled_from(METRICS["binary"]),
    st.floats(0, 0.2),
)
def test_the_decision_follows_the_scores(
    drawn: list[tuple[int, float, float]], metric: Metric, gain: float
) -> None:
    """Promoted exactly if better by more than `min_gain`, in the metric's own direction."""
    labels, ours, theirs = (list(column) for column in zip(*drawn, strict=True))
    verdict = compared(binary(labels, ours, theirs), metric, gain=gain)
    assert verdict.champion is not None
    if metric not in verdict.challenger:
        assert (verdict.decision, verdict.gain) == (Decision.KEEP, None)
        return
    difference = verdict.challenger[metric] - verdict.champion[metric]
    better = -difference if metric == "log_loss" else difference
    assert verdict.gain == better
    assert (verdict.decision is Decision.PROMOTE) == (better > gain)
    assert (verdict.metric, verdict.rows, verdict.against) == (metric, len(labels), "7")


@FEW
@given(
    st.lists(st.tuples(st.sampled_from([0, 1]), SCORES, SCORES), min_size=1, max_size=12),
    st.sampled_from(METRICS["binary"]),
)
def test_two_models_never_promote_each_other(
    drawn: list[tuple[int, float, float]], metric: Metric
) -> None:
    """If one wins, the other loses on the same rows: the champion cannot flip to and fro."""
    labels, ours, theirs = (list(column) for column in zip(*drawn, strict=True))
    one = compared(binary(labels, ours, theirs), metric)
    other = compared(binary(labels, theirs, ours), metric)
    assert [one.decision, other.decision].count(Decision.PROMOTE) <= 1
    assert one.challenger == other.champion


@pytest.mark.parametrize(
    ("gain", "wanted"), [(0.25, "keep"), (0.2499, "promote"), (0.0, "promote")]
)
def test_a_gain_of_exactly_the_margin_is_not_enough(gain: float, wanted: str) -> None:
    """`min_gain` must be exceeded, not met: four rows, one more of them right is 0.25."""
    part = binary(TRUTH, [0.1, 0.2, 0.8, 0.9], [0.1, 0.2, 0.8, 0.4])
    verdict = compared(part, "accuracy", gain=gain)
    assert verdict.gain == 0.25
    assert verdict.decision.value == wanted


@pytest.mark.parametrize("metric", sorted({m for ms in METRICS.values() for m in ms}))
def test_the_direction_of_each_metric(metric: str) -> None:
    """Losses and errors are better when lower, everything else when higher."""
    assert (metric in LOWER_IS_BETTER) == (metric in {"log_loss", "rmse", "mae"})


# -- without a champion, without rows -----------------------------------------------------------


def test_the_first_model_must_beat_the_trivial_predictor() -> None:
    """Without a champion the rival is the frequency of the classes in the training rows."""
    train = binary([0, 0, 0, 1], [0.5] * 4)
    good = judge(pipeline(), model(), None, train, binary(TRUTH, GOOD))
    bad = judge(pipeline(), model(), None, train, binary(TRUTH, [0.9, 0.8, 0.2, 0.1]))
    expected = metrics.log_loss(TRUTH, [0.25] * 4)
    assert math.isclose(good.trivial["log_loss"], expected)
    assert (good.decision, bad.decision) == (Decision.PROMOTE, Decision.KEEP)
    assert (good.champion, good.against) == (None, None)
    assert "no champion yet" in good.sentence
    assert "the trivial predictor's" in bad.sentence
    assert bad.sentence.startswith("promoted nothing")


def test_the_trivial_regression_is_the_mean() -> None:
    """For numbers the trivial predictor is the mean of the training labels."""
    train = Part(pd.DataFrame({"m": [0.0, 0.0]}), pd.Series([1.0, 3.0]))
    held_out = Part(pd.DataFrame({"m": [1.0, 5.0]}), pd.Series([1.0, 5.0]))
    verdict = judge(pipeline(task="regression"), model("regression"), None, train, held_out)
    assert verdict.trivial["mae"] == pytest.approx(2.0)
    assert verdict.decision is Decision.PROMOTE


def test_the_trivial_multiclass_is_the_frequencies() -> None:
    """For many classes the trivial predictor gives each its frequency in training."""
    classes = ("a", "b", "c")
    columns = {f"m{i}": [0.8, 0.1] for i in range(3)}
    train = Part(pd.DataFrame(columns), pd.Series(["a", "b"]))
    train = Part(pd.concat([train.rows] * 2), pd.Series(["a", "a", "b", "c"]))
    held_out = Part(pd.DataFrame({"m0": [0.9], "m1": [0.05], "m2": [0.05]}), pd.Series(["a"]))
    verdict = judge(
        pipeline(task="multiclass"), model("multiclass", classes), None, train, held_out
    )
    assert verdict.trivial["log_loss"] == pytest.approx(-math.log(0.5))
    assert verdict.rows == 1


@pytest.mark.parametrize("champion", [None, rival()])
@pytest.mark.parametrize("metric", METRICS["binary"])
def test_without_held_out_rows_nothing_changes(champion: Champion | None, metric: Metric) -> None:
    """No row to compare on is no proof: the champion stays, and the sentence says why."""
    train = binary(TRUTH, GOOD)
    verdict = judge(pipeline(metric), model(), champion, train, EMPTY)
    assert (verdict.decision, verdict.gain, verdict.rows) == (Decision.KEEP, None, 0)
    assert "0 held-out rows, where at least 1 are asked for a promotion" in verdict.sentence


@pytest.mark.parametrize("task", METRICS)
def test_one_held_out_row_is_judged(task: Task) -> None:
    """A single row has a shape of its own; it is judged like many."""
    classes = ("0", "1", "2") if task == "multiclass" else ("0", "1")
    labels = [1.0, 2.0, 0.0] if task == "regression" else ["1", "0", "2"][: len(classes)]
    rows = pd.DataFrame({name: [0.4] for name in ("m", "m0", "m1", "m2")})
    train = Part(pd.concat([rows] * len(labels)), pd.Series(labels))
    part = Part(rows, pd.Series(labels[:1]))
    verdict = judge(pipeline(task=task), model(task, classes), None, train, part)
    assert verdict.rows == 1
    assert all(map(math.isfinite, [*verdict.challenger.values(), *verdict.trivial.values()]))


def test_where_the_metric_is_undefined_nothing_changes() -> None:
    """Held-out rows of one class have no AUC: kept, with a sentence, and the rest is measured."""
    verdict = compared(binary([0, 0], [0.1, 0.2], [0.9, 0.9]), "auc")
    assert (verdict.decision, verdict.gain) == (Decision.KEEP, None)
    assert verdict.sentence == "kept champion 7: 2 held-out rows, on which AUC cannot be computed"
    assert verdict.challenger["log_loss"] < 1


# -- classes that a model does not know ---------------------------------------------------------


def test_a_champion_that_lacks_a_class_has_a_finite_loss() -> None:
    """A class that the champion never saw costs it dearly, yet finitely, and it can lose."""
    ours = {"m0": [0.8, 0.1, 0.1], "m1": [0.1, 0.8, 0.1], "m2": [0.1, 0.1, 0.8]}
    theirs = {"r0": [1.0, 0.0, 0.5], "r1": [0.0, 1.0, 0.5]}
    part = Part(pd.DataFrame(ours | theirs), pd.Series(["a", "b", "c"]))
    verdict = judge(
        pipeline(task="multiclass"),
        model("multiclass", ("a", "b", "c")),
        rival("multiclass", ("a", "b")),
        part,
        part,
    )
    assert verdict.champion is not None
    assert 5 < verdict.champion["log_loss"] < 50
    assert verdict.decision is Decision.PROMOTE


@EXAMPLES
@given(
    st.lists(st.sampled_from("abcd"), min_size=1, max_size=8),
    st.lists(st.sampled_from("abcd"), min_size=2, max_size=4, unique=True),
    st.sampled_from(["binary", "multiclass"]),
    st.randoms(use_true_random=False),
)
def test_every_score_is_finite_whatever_classes_occur(
    labels: list[str], known: list[str], task: Task, chance: Any
) -> None:
    """Known and unknown classes, one or many: no score is NaN or infinite, and none crashes."""
    classes = tuple(known[:2] if task == "binary" else known)
    raw = np.array([[chance.random() + 0.01 for _ in classes] for _ in labels])
    shares = raw / raw.sum(axis=1, keepdims=True)
    rows = pd.DataFrame(shares, columns=[f"m{i}" for i in range(len(classes))]).assign(m=raw[:, 0])
    found = measure(model(task, classes), Part(rows, pd.Series(labels)))
    assert "log_loss" in found
    assert all(map(math.isfinite, found.values()))


def test_one_f1_for_two_classes_and_for_three() -> None:
    """A multiclass F1 is the mean over the classes, however many of them a model knows.

    Else a champion of two classes would be compared by another measure than its challenger.
    """
    rows = pd.DataFrame({"m0": [0.9, 0.9, 0.2], "m1": [0.1, 0.1, 0.8]})
    labels = pd.Series(["a", "b", "b"])
    found = measure(model("multiclass", ("a", "b")), Part(rows, labels))
    expected = metrics.f1_score(labels, ["a", "a", "b"], average="macro")
    assert found["f1"] == pytest.approx(expected)
    assert found["auc"] == pytest.approx(metrics.roc_auc_score([0, 1, 1], rows["m1"]))


# -- the measures are scikit-learn's -------------------------------------------------------------


@EXAMPLES
@given(st.lists(st.tuples(st.booleans(), st.floats(2**-9, 1 - 2**-9, width=32)), min_size=2))
def test_binary_measures(drawn: list[tuple[bool, float]]) -> None:
    """Each measure of two classes is what scikit-learn computes."""
    truth = np.array([label for label, _ in drawn]).astype(int)
    score = np.array([s for _, s in drawn]).astype(np.float32)
    found = measure(model(), binary(truth.tolist(), score.tolist()))
    guessed = (score > 0.5).astype(int)
    expected = {
        "log_loss": metrics.log_loss(truth, score.astype(float), labels=[0, 1]),
        "brier": np.mean((score.astype(float) - truth) ** 2),
        "accuracy": metrics.accuracy_score(truth, guessed),
        "f1": metrics.f1_score(truth, guessed, zero_division=0.0),
        "recall": metrics.recall_score(truth, guessed, zero_division=0.0),
    }
    if 0 < truth.sum() < len(truth):
        expected["brier"] = metrics.brier_score_loss(truth, score)
        expected["auc"] = metrics.roc_auc_score(truth, score)
        expected["average_precision"] = metrics.average_precision_score(truth, score)
    assert 0 <= found["calibration_error"] <= 1
    known = {name: value for name, value in found.items() if name != "calibration_error"}
    assert known == pytest.approx(expected, rel=1e-6, abs=1e-9)


@EXAMPLES
@given(
    st.lists(
        st.tuples(st.integers(0, 2), st.tuples(*[st.floats(0.01, 1)] * 3)), min_size=1, max_size=15
    )
)
def test_multiclass_measures(drawn: list[tuple[int, tuple[float, float, float]]]) -> None:
    """Each measure of many classes is what scikit-learn computes."""
    truth = np.array([label for label, _ in drawn])
    raw = np.array([weights for _, weights in drawn])
    shares = (raw / raw.sum(axis=1, keepdims=True)).astype(np.float32)
    rows = pd.DataFrame(shares, columns=["m0", "m1", "m2"])
    part = Part(rows, pd.Series(truth.astype(str)))
    found = measure(model("multiclass", ("0", "1", "2")), part)
    exact = shares.astype(float) / shares.astype(float).sum(axis=1, keepdims=True)
    guessed = shares.argmax(axis=1)
    expected = {
        "log_loss": metrics.log_loss(truth, exact, labels=[0, 1, 2]),
        "accuracy": metrics.accuracy_score(truth, guessed),
        "f1": metrics.f1_score(truth, guessed, average="macro", zero_division=0.0),
    }
    if len(set(truth.tolist())) == 3:
        expected["auc"] = metrics.roc_auc_score(truth, exact, multi_class="ovr")
    assert found == pytest.approx(expected, rel=1e-5)


@EXAMPLES
@given(
    st.lists(
        st.tuples(st.floats(-1e6, 1e6, width=32), st.floats(-1e6, 1e6, width=32)),
        min_size=1,
        max_size=20,
    )
)
def test_regression_measures(drawn: list[tuple[float, float]]) -> None:
    """Each measure of numbers is what scikit-learn computes."""
    truth, guessed = (np.array(column) for column in zip(*drawn, strict=True))
    part = Part(pd.DataFrame({"m": guessed}), pd.Series(truth))
    found = measure(model("regression"), part)
    expected = {
        "rmse": metrics.root_mean_squared_error(truth, guessed),
        "mae": metrics.mean_absolute_error(truth, guessed),
    }
    if len(set(truth.tolist())) > 1:
        expected["r2"] = metrics.r2_score(truth, guessed)
    assert found == pytest.approx(expected, rel=1e-6)


def test_a_tie_is_one_class_for_every_measure() -> None:
    """A probability of exactly one half is the first class for accuracy, F1 and recall alike."""
    found = measure(model(), binary([1, 1], [0.5, 0.5]))
    assert (found["accuracy"], found["recall"], found["f1"]) == (0.0, 0.0, 0.0)


@pytest.mark.parametrize("task", METRICS)
def test_every_metric_that_can_be_configured_is_measured(task: Task) -> None:
    """What `promote.metric` may name is among the measures, so no configuration never promotes."""
    classes = ("0", "1", "2") if task == "multiclass" else ("0", "1")
    shares = np.array([[0.6, 0.3, 0.1], [0.2, 0.5, 0.3], [0.1, 0.2, 0.7]])
    rows = pd.DataFrame(shares, columns=["m0", "m1", "m2"]).assign(m=[0.1, 0.8, 0.3])
    labels = [0.0, 1.0, 2.0] if task == "regression" else ["0", "1", classes[-1]]
    found = measure(model(task, classes), Part(rows, pd.Series(labels)))
    assert set(METRICS[task]) <= set(found)


# -- the sentence ------------------------------------------------------------------------------


def test_the_sentence_tells_scores_rows_and_champion() -> None:
    """A person learns the decision, both scores, the rows and whom it was compared with."""
    verdict = compared(binary(TRUTH, GOOD, BAD))
    assert verdict.champion is not None
    ours, theirs = verdict.challenger["log_loss"], verdict.champion["log_loss"]
    assert verdict.sentence == (
        f"promoted: log loss {ours:.4f} against champion 7's {theirs:.4f} on 4 held-out rows"
    )


def test_the_sentence_of_a_gain_that_is_too_small() -> None:
    """Better, but not by enough: the sentence tells the gain and what was asked."""
    part = binary(TRUTH, [0.1, 0.2, 0.8, 0.9], [0.1, 0.2, 0.8, 0.4])
    assert compared(part, "accuracy", gain=0.5).sentence == (
        "kept champion 7: accuracy 1.0000 against champion 7's 0.7500 on 4 held-out rows, "
        "a gain of +0.2500 where more than 0.5000 is asked"
    )


@FEW
@given(
    st.lists(st.tuples(st.sampled_from([0, 1]), SCORES, SCORES), min_size=1, max_size=12),
    st.sampled_from(METRICS["binary"]),
)
def test_every_sentence_says_what_was_decided(
    drawn: list[tuple[int, float, float]], metric: Metric
) -> None:
    """The sentence begins with the decision and names the champion, scores and rows."""
    labels, ours, theirs = (list(column) for column in zip(*drawn, strict=True))
    verdict = compared(binary(labels, ours, theirs), metric)
    start = "promoted: " if verdict.decision is Decision.PROMOTE else "kept champion 7: "
    assert verdict.sentence.startswith(start)
    assert f"{len(labels)} held-out rows" in verdict.sentence
    assert "champion 7" in verdict.sentence
    if verdict.gain is not None:
        assert verdict.champion is not None
        for scores in (verdict.challenger, verdict.champion):
            assert f"{scores[metric]:.4f}" in verdict.sentence


def test_few_held_out_rows_promote_nothing() -> None:
    """Below `min_held_out` even a far better challenger is kept out, and the sentence says why."""
    part = binary(TRUTH, GOOD, BAD)
    verdict = judge(pipeline(least=5), model(), rival(), part, part)
    assert verdict.decision is Decision.KEEP
    assert "kept champion 7" in verdict.sentence
    assert "on 4 held-out rows, where at least 5 are asked for a promotion" in verdict.sentence


def test_a_champion_that_cannot_score_the_rows_makes_way() -> None:
    """A column that the champion reads is gone: the challenger only has to beat the trivial one."""
    part = binary(TRUTH, GOOD)
    part = replace(part, rows=part.rows.drop(columns="r"))
    verdict = judge(pipeline(), model(), rival(), part, part)
    assert verdict.decision is Decision.PROMOTE
    assert verdict.champion is None
    assert verdict.against == "7"
    assert "champion 7 cannot score these rows (missing column(s) 'r'" in verdict.sentence
