"""When gathered evidence promotes, when it waits, and what stands in its way."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta
from typing import Any

import numpy as np
import pandas as pd
import pytest
import xgboost as xgb
from builders import EPOCH, delta
from test_judge import Oracle

from config.settings import Pipeline, Promote
from daemon.reign import Reign
from handlers import guards
from handlers.facts import Decision, GiveUp, Live, Look, Record, State, Verdict
from handlers.gain import detectable
from handlers.guards import refusals
from handlers.judge import Champion, Past, judge
from handlers.live import look_before
from handlers.rows import Part, Split
from handlers.scorer import Feature, Task
from handlers.sequential import evidence, interval

BOOSTER = xgb.train({}, xgb.DMatrix(np.zeros((4, 1)), np.arange(4)), 1)
"""Any booster: guards look at its size."""


def oracle(column: str, task: Task = "binary", classes: tuple[str, ...] = ("0", "1")) -> Oracle:
    """Make a model that says what this column says."""
    return Oracle(task, (Feature(column, "number"),), classes, BOOSTER)


CHAMPION = Champion("7", oracle("r"))


def pipeline(**promote: Any) -> Pipeline:
    """Make a pipeline with the default confidence."""
    wanted = Promote.model_validate({"min_held_out": 10, **promote})
    return Pipeline(table="lake.bank.cards", label="y", promote=wanted)


def part(rows: int, ours: float, theirs: float, seed: int = 0, **columns: Any) -> Part:
    """Make rows of which `m` and `r` know so much; below 0 they take it the wrong way round."""
    chance = np.random.default_rng(seed)
    labels = chance.integers(0, 2, rows)
    columns |= {
        name: 1
        / (1 + np.exp(-2 * known * (abs(known) * (2 * labels - 1) + chance.normal(size=rows))))
        for name, known in (("m", ours), ("r", theirs))
    }
    return Part(pd.DataFrame(columns), pd.Series(labels.astype(str)))


def judged(
    held_out: Part, past: Past | None = None, champion: Champion | None = CHAMPION, **promote: Any
) -> Verdict:
    """Compare `m` with `r`."""
    return judge(pipeline(**promote), oracle("m"), champion, held_out, held_out, past)


SMALL = part(40, 0.6, 0.4, seed=4)
LARGE = part(400, 1.5, 0.5)


# -- promoted, kept, waiting --------------------------------------------------------------------


def test_a_small_gain_on_few_rows_waits() -> None:
    """It won, which may be chance: the champion is kept, and the rows are told that would do."""
    verdict = judged(SMALL)
    assert (verdict.gain or 0) > 0
    assert verdict.decision is Decision.WAIT
    assert verdict.sentence.startswith("kept champion 7: ")
    assert "; it waits; over 40 rows so far the gain is" in verdict.sentence
    assert "more rows would decide" in verdict.sentence
    assert verdict.looks == (verdict.looks[0],)
    assert 0 < (verdict.evidence or 0) < 20
    assert verdict.interval
    assert verdict.interval[0] < 0 < verdict.interval[1]


def test_a_large_gain_is_promoted_at_once() -> None:
    """One look suffices where it leaves no doubt."""
    verdict = judged(LARGE)
    assert verdict.decision is Decision.PROMOTE
    assert (verdict.evidence or 0) >= 20
    assert "over 400 rows so far the gain is" in verdict.sentence


def test_evidence_gathers_over_looks() -> None:
    """The same small gain, found again and again, promotes in the end, and not at once."""
    decisions: list[Decision] = []
    looks: tuple[Look, ...] = ()
    signals: tuple[Look, ...] = ()
    for seed in range(2, 40):
        verdict = judged(part(40, 0.7, 0.4, seed=seed), Past(looks, signals))
        decisions.append(verdict.decision)
        looks += verdict.looks
        signals += (verdict.signal,) if verdict.signal else ()
        if verdict.decision is Decision.PROMOTE:
            break
    assert decisions[0] is Decision.WAIT
    assert decisions[-1] is Decision.PROMOTE
    assert len(decisions) > 1


def test_what_lost_this_time_is_not_promoted_by_earlier_winners() -> None:
    """However much evidence there is, this challenger must have won this comparison."""
    past = Past((Look(1000, 0.5, 0.01),), (Look(1000, 0.5, 0.01),))
    verdict = judged(part(40, 0.3, 0.6), past)
    assert (verdict.evidence or 0) >= 20
    assert verdict.decision is Decision.KEEP


def test_evidence_is_one_sided() -> None:
    """A loss that is certain is no evidence for a gain, and one below `min_gain` is none either."""
    assert evidence([Look(1000, -0.5, 0.01)]) < 1
    assert evidence([Look(1000, 0.05, 0.01)]) > 20
    assert evidence([Look(1000, 0.05, 0.01)], 0.1) < 1
    verdict = judged(LARGE, min_gain=10.0)
    assert verdict.decision is Decision.KEEP
    assert "where more than 10.0000 is asked" in verdict.sentence
    certain = judged(LARGE)
    assert certain.gain is not None
    nearly = judged(LARGE, min_gain=certain.gain - 0.001)
    assert nearly.decision is Decision.WAIT
    assert (nearly.evidence or 0) < 20


def test_models_that_know_no_more_than_a_constant_wait() -> None:
    """Where labels are drawn at random, a challenger may well beat a champion that is worse."""
    verdict = judged(part(400, 0.0, -1.5))
    assert (verdict.evidence or 0) >= 20
    assert verdict.decision is Decision.WAIT
    assert "models were no better so far than a constant" in verdict.sentence


def test_without_confidence_each_comparison_is_trusted() -> None:
    """With `confidence: 0` the point estimate decides, whatever was seen before."""
    worse = Past((Look(5000, -1.0, 0.01),), (Look(5000, -1.0, 0.01),))
    verdict = judged(SMALL, worse, confidence=0)
    assert verdict.decision is Decision.PROMOTE
    assert verdict.interval is None
    assert judged(part(40, 0.3, 0.6), confidence=0).decision is Decision.KEEP


def test_rows_of_one_class_decide_nothing() -> None:
    """Who leans to the class would win by that alone; the look counts in the evidence."""
    rows = LARGE.where(LARGE.labels.to_numpy() == "1")
    verdict = judged(rows)
    assert verdict.decision is Decision.WAIT
    assert verdict.sentence.endswith("all of class '1', which cannot tell the better model")
    assert verdict.looks
    assert judged(rows, champion=None).decision is Decision.KEEP


def test_other_labels_than_the_champions_are_refused() -> None:
    """A probability of something else is no better one."""
    held_out = replace(LARGE, labels=LARGE.labels.map({"0": "1", "1": "2"}))
    with pytest.raises(GiveUp, match="'1' and '2', but champion 7 tells '0' from '1'"):
        judge(pipeline(), oracle("m", classes=("1", "2")), CHAMPION, held_out, held_out)
    with pytest.raises(GiveUp, match="labelled '2', but the task is binary"):
        judged(held_out)


# -- live ---------------------------------------------------------------------------------------


def before(
    rows: Part, contender: Champion | None = None, promise: Look | None = None,
    lives: Sequence[Live] = (), *, unseen: bool = True,
) -> Live:  # fmt: skip
    """Look at a delta, whose last fifth is held out, before it is learnt from."""
    last = np.arange(len(rows.labels)) >= len(rows.labels) * 0.8
    parts = Split(rows.where(~last), rows.where(last), 0)
    found = look_before(pipeline(), CHAMPION, contender, parts, promise, lives, unseen=unseen)
    assert found
    return found


PROMISE = Look(200, 0.45, 0.03)


def test_an_alarm_promotes_what_is_certain_by_itself() -> None:
    """Where the champion fails, one clear look suffices, though earlier ones spoke against."""
    failing = before(part(400, 0.0, -1.0), promise=PROMISE)
    assert failing.alarmed
    against = (Look(3000, -0.2, 0.02),)
    known = (Look(3000, 0.2, 0.02),)
    clear, vague = part(60, 0.8, 0.4, seed=2), part(40, 0.8, 0.4, seed=3)
    calm = judged(clear, Past(against, known))
    alarmed = judged(clear, Past(against, known, failing))
    assert calm.decision is Decision.WAIT
    assert alarmed.decision is Decision.PROMOTE
    assert "champion 7 fails on live rows" in alarmed.sentence
    assert judged(vague, Past(against, known, failing)).decision is Decision.WAIT


def test_a_champion_that_keeps_its_promise_does_not_alarm() -> None:
    """Over many deltas as good as promised there is no alarm, and soon one when it fails."""
    lives: list[Live] = []
    for seed in range(30):
        lives.append(before(part(100, 0.0, 0.8, seed=seed), promise=PROMISE, lives=lives))
    assert not any(live.alarmed for live in lives)
    for seed in range(3):
        lives.append(before(part(100, 0.0, -0.5, seed=seed), promise=PROMISE, lives=lives))
    assert lives[-1].alarmed


@pytest.mark.parametrize("promise", [None, Look(1, 0.01, None), Look(2, 0.01, 0.0)])
def test_a_promise_that_tells_nothing_raises_no_alarm(promise: Look | None) -> None:
    """What a row or two promised is no promise."""
    found = before(part(400, 0.0, -1.0), promise=promise)
    assert (found.alarm, found.alarmed) == (1.0, False)


def test_no_row_is_looked_at_twice() -> None:
    """The contender is compared on rows to learn from, the challenger on the held-out ones."""
    rows = part(100, 1.0, 0.5)
    found = before(rows, Champion("8", oracle("m")))
    assert (found.rows, found.contender) == (100, "8")
    assert found.gain
    assert found.gain.rows == 80
    verdict = judged(rows.where(np.arange(100) >= 80), Past(live=found))
    assert [look.rows for look in verdict.looks] == [80, 20]
    again = before(rows, Champion("8", oracle("m")), unseen=False)
    assert (again.rows, again.gain, again.contender) == (20, None, None)


# -- guards -------------------------------------------------------------------------------------


def refused(held_out: Part, history: Part | None = None, **promote: Any) -> list[str]:
    """Give the sentences that speak against `m`, and see that the verdict has the first."""
    rules = pipeline(**promote)
    scores = judged(held_out, **promote).challenger
    found = list(
        refusals(rules, oracle("m"), oracle("r"), held_out, scores, history)
    )  # fmt: skip
    verdict = judged(held_out, Past(history=history), **promote)
    assert (verdict.decision is Decision.PROMOTE) == (not found)
    assert not found or verdict.sentence.endswith(f", but {found[0]}")
    return found


def test_required_scores() -> None:
    """A score is asked for at least, or at most where less is better; without one it is refused."""
    assert refused(LARGE, require={"auc": 0.7, "log_loss": 0.5}) == []
    low, high = refused(LARGE, require={"auc": 0.9999999, "log_loss": 0.01})
    assert low.startswith("its AUC is")
    assert low.endswith("where at least 1 is asked")
    assert high.endswith("where at most 0.01 is asked")
    rules = pipeline(require={"auc": 0.7})
    (absent,) = refusals(rules, oracle("m"), None, LARGE, {}, None)
    assert absent == "its AUC, of which 0.7 is asked, cannot be computed"


def test_size_and_time() -> None:
    """A model may have a largest size, and a longest time for a row."""
    assert refused(LARGE, max_megabytes=1, max_latency=5) == []
    (size,) = refused(LARGE, max_megabytes=1e-6)
    assert "where 1e-06 are allowed" in size
    (slow,) = refused(LARGE, max_latency=1e-9)
    assert slow.startswith("a row takes")


def test_a_slice_on_which_it_is_worse() -> None:
    """Better overall, but certainly worse in one shop: refused, and the shop is named."""
    shops = np.where(np.arange(400) < 60, "b", "a")
    rows = part(400, 2.0, 0.5)
    rows.rows["shop"] = shops
    model = replace(oracle("m"), features=(Feature("shop", "category", ("a", "b")),))
    rules = pipeline(slices=["shop"])

    class Named(Oracle):
        """Reads `m`, but has a shop."""

        def score(self, rows: Any) -> Any:
            """Read the scores."""
            return np.asarray(rows["m"], np.float32)

    ours = Named(model.task, model.features, model.classes, model.booster)
    assert list(refusals(rules, ours, oracle("r"), rows, {}, None)) == []
    spoilt = rows.rows.copy()
    spoilt.loc[:59, "m"] = 1 - spoilt.loc[:59, "m"]
    (told,) = refusals(rules, ours, oracle("r"), replace(rows, rows=spoilt), {}, None)
    assert told.startswith("it is worse where shop = b: loss")
    alike = rows.rows.assign(r=0.9, m=np.where(shops == "b", 0.4, 0.95))
    ones = Part(alike, pd.Series(["1"] * 400))
    assert "shop = b" in next(refusals(rules, ours, oracle("r"), ones, {}, None))
    assert guards.LEAST <= 60


def test_forgetting() -> None:
    """Better on the delta, but worse on the whole table's held-out rows by more than allowed."""
    history = part(400, 0.2, 1.0, seed=9)
    assert refused(LARGE, history, max_forgetting=2.0) == []
    (told,) = refused(LARGE, history, max_forgetting=0.01)
    assert told.startswith("it forgets: on 400 held-out rows of the whole table it is worse by")


def test_a_class_that_is_lost() -> None:
    """Among many classes a challenger must tell all that the champion tells."""
    ours = oracle("m", "multiclass", ("a", "b"))
    theirs = oracle("r", "multiclass", ("a", "b", "c"))
    (told,) = refusals(pipeline(), ours, theirs, LARGE, {}, None)
    assert told.startswith("it cannot tell the class(es) 'c', as the champion can")


# -- what is looked back at ---------------------------------------------------------------------


def record(number: int, *looks: Look, whole: bool = False) -> Record:
    """Make a decision that adds these looks."""
    verdict = judged(SMALL)
    found = delta(number)
    return Record(
        "cards", number, replace(found, start_id=None) if whole else found, State.KEPT, "",
        EPOCH, EPOCH + timedelta(minutes=number), (), verdict=replace(verdict, looks=looks),
    )  # fmt: skip


def test_the_whole_table_read_again_begins_anew() -> None:
    """Its held-out rows are those of the looks before: no row counts twice."""
    looks = [Look(100, 0.1 * number, 0.1) for number in range(4)]
    records = [record(2, looks[0]), record(3, looks[1], whole=True), record(4, looks[2])]
    assert Reign(tuple(records)).looks == (looks[1], looks[2])
    assert Reign(tuple(records[::2])).looks == (looks[0], looks[2])


def test_looks_that_differ_in_nothing_do_not_narrow_what_follows() -> None:
    """A first challenger that is the champion itself says nothing of the next."""
    same, other = Look(100, 0.0, 0.0), Look(100, 0.2, 0.05)
    band = interval([same, other], 0.05)
    assert band
    assert band[0] < 0.1 < band[1]
    assert interval([same], 0.05) == (0.0, 0.0)


def test_what_can_be_detected_is_no_loss() -> None:
    """With hardly any confidence asked, the gain that would show is nothing, not less."""
    assert detectable(Look(100, 0.1, 0.05), 0.95) == 0.0
