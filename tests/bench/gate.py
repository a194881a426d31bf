"""The daemon's own judgement without table, ledger and registry: what a benchmark can repeat."""

from __future__ import annotations

from dataclasses import dataclass, field

from config.settings import Pipeline
from handlers.facts import Decision, Live, Look, Verdict
from handlers.judge import Champion, Past, judge
from handlers.live import look_before
from handlers.rows import Split
from handlers.scorer import Scorer


@dataclass
class Gate:
    """Keeps the champion of one history, as the daemon would."""

    pipeline: Pipeline
    champion: Champion | None = None
    contender: Champion | None = None
    promoted_at: list[int] = field(default_factory=list)
    verdicts: list[Verdict] = field(default_factory=list)
    _made: int = 0
    _looks: tuple[Look, ...] = ()
    _signals: tuple[Look, ...] = ()
    _lives: tuple[Live, ...] = ()
    _promise: Look | None = None

    def predict(self, rows: Split) -> Live | None:
        """Score what serves on rows that nothing has learnt from yet."""
        if self.champion is None:
            return None
        return look_before(
            self.pipeline, self.champion, self.contender, rows, self._promise, self._lives,
            unseen=True,
        )  # fmt: skip

    def decide(self, challenger: Scorer, rows: Split, live: Live | None) -> Verdict:
        """Judge a challenger that learnt from the rows' training part."""
        self._made += 1
        looks = self._looks if self.champion else self._signals
        past = Past(looks, self._signals, live)
        verdict = judge(
            self.pipeline, challenger, self.champion, rows.train, rows.held_out, past
        )  # fmt: skip
        self.verdicts.append(verdict)
        self._signals += (verdict.signal,) if verdict.signal else ()
        self._looks += verdict.looks
        self._lives += (live,) if live else ()
        made = Champion(str(self._made), challenger)
        if verdict.decision is Decision.PROMOTE:
            self.champion, self.contender, self._promise = made, None, verdict.loss
            self._looks, self._lives = (), ()
            self.promoted_at.append(self._made)
        else:
            self.contender = made if verdict.decision is Decision.WAIT else None
        return verdict
