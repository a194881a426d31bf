"""Judges the challenger against the champion on the same held-out rows. Pure.

One comparison on a small delta's held-out rows says little, and one that is repeated at every
snapshot finds a winner by chance. So the evidence against a champion is gathered over all looks
since it reigns, and a challenger that won is promoted once that evidence suffices.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from scipy.stats import norm

from config.settings import Pipeline
from handlers import sequential
from handlers.drift import Profile
from handlers.facts import Decision, GiveUp, Live, Look, Scores, Verdict
from handlers.gain import compare, detectable, difference, mean_loss
from handlers.guards import refusals
from handlers.measures import Scored, constant, measure_said, score, word
from handlers.rows import Part
from handlers.scorer import BadInput, Scorer

ENOUGH = 3.0
"""Standard errors of the mean gain at which the evidence suffices, nearly."""


@dataclass(frozen=True, slots=True)
class Champion:
    """The serving model, its version, and the profile of what it learnt from, if that is known."""

    version: str
    scorer: Scorer
    profile: Profile | None = None


@dataclass(frozen=True, slots=True)
class Past:
    """What is known before the challenger is looked at."""

    looks: tuple[Look, ...] = ()
    """At all challengers of this champion."""
    signals: tuple[Look, ...] = ()
    """At all challengers beside the best constant."""
    live: Live | None = None
    """How the champion, and the last challenger, did on this delta before it was learnt from."""
    history: Part | None = None
    """Held-out rows of the whole table, where forgetting is guarded against."""


@dataclass(frozen=True, slots=True)
class _Case:
    """All that is weighed in one comparison."""

    pipeline: Pipeline
    challenger: Scorer
    champion: Champion | None
    held_out: Part
    past: Past
    scores: Scores
    rival: Scores
    look: Look | None
    signal: Look | None

    @property
    def level(self) -> float:
        """Give the doubt that is allowed."""
        return 1 - self.pipeline.promote.confidence

    @property
    def gain(self) -> float | None:
        """Give the gain on the held-out rows, as the two scores tell it."""
        return difference(self.pipeline.metric, self.scores, self.rival)

    @property
    def looks(self) -> tuple[Look, ...]:
        """Give what this delta adds: the last challenger on its rows, then the new one."""
        if self.champion is None:
            return ()
        before = self.past.live.gain if self.past.live else None
        return tuple(look for look in (before, self.look) if look)

    @property
    def gathered(self) -> tuple[Look, ...]:
        """Give all looks at challengers of this champion, in their order."""
        return (*self.past.looks, *self.looks) if self.champion else ()


def judge(
    pipeline: Pipeline, challenger: Scorer, champion: Champion | None, train: Part, held_out: Part,
    past: Past | None = None,
) -> Verdict:  # fmt: skip
    """Compare on rows that neither model has trained on.

    The champion is always scored again: a stored score belongs to other rows. Where there is no
    champion, or one that cannot score the rows any more, the challenger must beat the trivial
    predictor (the training labels' class frequencies, or their mean).

    Raises:
        GiveUp: the champion, or the rows, have other values of a binary label.
    """
    past = past or Past()
    _same_question(challenger, champion, held_out)
    said = score(challenger, held_out) if len(held_out.rows) else None
    trivial = constant(challenger, train.labels, len(held_out.labels))
    theirs, unfit = _champion_said(champion, held_out)
    bare = measure_said(trivial, held_out.labels)
    case = _Case(
        pipeline, challenger, champion if theirs else None, held_out, past,
        scores=measure_said(said, held_out.labels) if said else {},
        rival=measure_said(theirs, held_out.labels) if theirs else bare,
        look=compare(pipeline.metric, said, theirs or trivial, held_out) if said else None,
        signal=compare(pipeline.metric, said, _hindsight(said, held_out), held_out)
        if said else None,
    )  # fmt: skip
    decision, doubt = _decide(case)
    kept = f"kept champion {champion.version}" if champion else "promoted nothing"
    outcome = "promoted" if decision is Decision.PROMOTE else kept
    return Verdict(
        decision=decision,
        sentence=f"{outcome}: {unfit}{_compared(case)}{doubt}",
        metric=pipeline.metric,
        rows=len(held_out.labels),
        challenger=case.scores,
        champion=case.rival if theirs else None,
        trivial=bare,
        gain=case.gain,
        against=champion.version if champion else None,
        looks=case.looks,
        signal=case.signal,
        evidence=sequential.evidence(case.gathered, pipeline.promote.min_gain),
        interval=sequential.interval(case.gathered, case.level) if case.level < 1 else None,
        gathered=sum(look.rows for look in case.gathered),
        detectable=detectable(case.look, case.level) if case.look and case.level < 1 else None,
        loss=mean_loss(said, held_out) if said else None,
    )


def _champion_said(champion: Champion | None, held_out: Part) -> tuple[Scored | None, str]:
    """Let the champion score the rows, or say why it cannot."""
    if champion is None:
        return None, "no champion yet, and "
    try:
        return score(champion.scorer, held_out), ""
    except BadInput as error:
        return None, f"champion {champion.version} cannot score these rows ({error}), and "


def _same_question(challenger: Scorer, champion: Champion | None, held_out: Part) -> None:
    """Refuse a challenger whose probability is that of something else.

    Who reads the served number would not notice.
    """
    if challenger.task != "binary":
        return
    now = challenger.classes
    if strange := sorted(set(held_out.labels) - set(now)):
        raise GiveUp(
            f"Held-out rows are labelled {', '.join(map(repr, strange))}, but the task is binary "
            f"and the training rows have {' and '.join(map(repr, now))}.",
            "Set `task: multiclass`, or correct the labels, then `retraind retry`.",
        )
    then = champion.scorer.classes if champion else now
    if champion and now != then:
        raise GiveUp(
            f"The labels are {' and '.join(map(repr, now))}, but champion {champion.version} "
            f"tells {then[0]!r} from {then[1]!r}.",
            "Correct them, then `retraind retry`, or start a pipeline under a new name.",
        )


def _hindsight(said: Scored, held_out: Part) -> Scored:
    """Give the best constant there is, which no honest predictor can know."""
    return constant(said.model, held_out.labels, len(held_out.labels))


def _decide(case: _Case) -> tuple[Decision, str]:
    """Decide, and say what speaks against a promotion."""
    rules, metric = case.pipeline.promote, case.pipeline.metric
    rows = len(case.held_out.labels)
    if rows + sum(look.rows for look in case.past.looks) < rules.min_held_out:
        asked = f", where at least {rules.min_held_out} are asked for a promotion"
        return Decision.KEEP, asked
    if (gain := case.gain) is None:
        return Decision.KEEP, f", on which {word(metric)} cannot be computed"
    if not gain > rules.min_gain:
        asked = f", a gain of {gain:+.4f} where more than {rules.min_gain:.4f} is asked"
        return Decision.KEEP, asked if gain > 0 else ""
    if refusal := _refusal(case):
        return Decision.KEEP, f", but {refusal}"
    return _weigh(case) if rules.confidence else (Decision.PROMOTE, "")


def _refusal(case: _Case) -> str | None:
    """Give the first guard that the challenger fails, if any."""
    rival = case.champion.scorer if case.champion else None
    refused = refusals(
        case.pipeline, case.challenger, rival, case.held_out,
        case.scores, case.past.history,
    )  # fmt: skip
    return next(refused, None)


def _one_class(case: _Case) -> str | None:
    """Name the class of all held-out rows, if it is one; who leans to it would win by that alone.

    The look counts in the evidence, as such rows are a part of the stream.
    """
    if case.challenger.task == "regression":
        return None
    found = set(case.held_out.labels)
    return str(found.pop()) if len(found) == 1 else None


def _weigh(case: _Case) -> tuple[Decision, str]:
    """Promote the winner of the comparison if that is no chance.

    Where labels are drawn at random, a champion may well be worse than its challengers, as it has
    learnt more of the noise. So these must have been better on average than the best constant.
    """
    if alone := _one_class(case):
        asked = f", all of class {alone!r}, which cannot tell the better model"
        return (Decision.WAIT if case.champion else Decision.KEEP), asked
    if case.champion is None:
        return Decision.PROMOTE, ""
    needed, least = 1 / case.level, case.pipeline.promote.min_gain
    signals = (*case.past.signals, *([case.signal] if case.signal else []))
    if sequential.mean(signals) <= 0:
        return Decision.WAIT, "; it waits, as models were no better so far than a constant"
    if sequential.evidence(case.gathered, least) >= needed:
        return Decision.PROMOTE, _over(case)
    if case.past.live and case.past.live.alarmed and _certain(case.look, case.level, least):
        told = f"; champion {case.past.live.version} fails on live rows (evidence "
        return Decision.PROMOTE, f"{told}{case.past.live.alarm:.3g})"
    return Decision.WAIT, f"; it waits{_over(case)}{_still(case.gathered, least)}"


def _certain(look: Look | None, level: float, least: float) -> bool:
    """Say whether this look alone shows the gain, one-sided."""
    if look is None or not look.error:
        return False
    return bool((look.gain - least) / look.error >= norm.isf(level))


def _over(case: _Case) -> str:
    looks, found = case.gathered, sequential.interval(case.gathered, case.level)
    if found is None:
        return ""
    rows, confidence = sum(look.rows for look in looks), case.pipeline.promote.confidence
    return (
        f"; over {rows} rows so far the gain is {sequential.mean(looks):+.4f} "
        f"({confidence:.0%} interval {found[0]:+.4f} to {found[1]:+.4f})"
    )


def _still(looks: Sequence[Look], least: float) -> str:
    """Say how many rows would decide, should the gain stay what it is."""
    usable = [look for look in looks if look.error]
    rows, gain = sum(look.rows for look in usable), sequential.mean(usable) - least
    if gain <= 0:
        return ""
    variance = sum((look.rows * (look.error or 0.0)) ** 2 for look in usable) / rows
    more = ENOUGH**2 * variance / gain**2 - rows
    return f"; about {max(more, 1):,.0f} more rows would decide"


def _compared(case: _Case) -> str:
    metric, rows = case.pipeline.metric, f"{len(case.held_out.labels)} held-out rows"
    if case.gain is None:
        return rows
    whose = f"champion {case.champion.version}'s" if case.champion else "the trivial predictor's"
    mine, theirs = case.scores[metric], case.rival[metric]
    return f"{word(metric)} {mine:.4f} against {whose} {theirs:.4f} on {rows}"
