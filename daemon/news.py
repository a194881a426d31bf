"""What of a pipeline is worth telling: decisions, and conditions that begin and end.

Nothing here is remembered: what was told before is in the ledger, see `outbox`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime

from config.notify import Event, Notify
from daemon.figures import Figures
from daemon.reading import FORCED, Work
from daemon.reign import fails
from handlers.facts import Record, State

TITLES: dict[Event, str] = {
    "promoted": "another champion",
    "kept": "challengers keep losing",
    "parked": "a delta is parked",
    "degraded": "the champion does worse than it promised",
    "rolled_back": "an earlier champion is back",
    "stuck": "stuck",
    "recovered": "recovered",
}


@dataclass(frozen=True, slots=True)
class Notice:
    """Something to tell once; `event` and `about` name it for ever."""

    event: Event
    about: str
    text: str


@dataclass(frozen=True, slots=True)
class Condition:
    """A trouble that lasts: told when it is old enough, and again when it is over."""

    event: Event
    about: str
    since: datetime
    text: str
    over: str
    """What is said when it is no more."""
    patience: float = 0.0
    """Seconds that it must have lasted."""

    @property
    def name(self) -> str:
        """Name this occurrence; the same trouble may come again."""
        return f"{self.about} since {self.since.isoformat()}"

    @property
    def key(self) -> tuple[str, str]:
        """Name the trouble, whenever it occurs."""
        return self.event, self.about


@dataclass(frozen=True, slots=True)
class Crowned:
    """A line of the list of champions."""

    id: int
    version: str | None
    how: str
    reason: str


def of_decision(record: Record, lost: int, wanted: Notify) -> Iterator[Notice]:
    """Tell a decision; `lost` challengers in a row did, this one included."""
    about = f"delta {record.sequence}"
    if record.state is State.PROMOTED and record.model:
        text = f"Delta {record.sequence}, version {record.model.version}: {record.reason}"
        yield Notice("promoted", about, text)
    elif record.state is State.PARKED:
        yield Notice("parked", about, f"Delta {record.sequence} is parked: {record.reason}")
    elif record.state is State.KEPT and lost and lost % wanted.kept_in_row == 0:
        yield Notice("kept", about, f"{lost} in a row; delta {record.sequence}: {record.reason}")


def of_champion(crowned: Crowned) -> Iterator[Notice]:
    """Tell a champion that no decision made."""
    now = f"version {crowned.version} is champion" if crowned.version else "none is champion"
    about, text = f"champion {crowned.id}", f"{crowned.how.capitalize()}, {now}: {crowned.reason}"
    if crowned.how == FORCED:
        yield Notice("promoted", about, text)
    elif crowned.how in {"rolled back", "fell back"}:
        yield Notice("rolled_back", about, text)


def conditions(
    figures: Figures, work: Work | None, known: Iterable[tuple[Condition, bool]], wanted: Notify,
    moment: datetime, doing: str,
) -> list[Condition]:  # fmt: skip
    """Give the troubles that there are; those that were `known` began when they were first seen.

    `doing` is what the pipeline says of itself, which names what keeps a deployment.
    """
    began = {condition.key: condition.since for condition, _ in known}
    found: list[Condition] = []
    champion, told = figures.champion, fails(figures.judged) if figures.judged else None
    if figures.alarmed and told:
        over = f"Version {champion} serves no more, or does as it promised again."
        found.append(Condition("degraded", f"version {champion}", moment, told, over))
    if work and work.attempts:
        text = f"Delta {work.sequence} failed {work.attempts} times: {work.trouble}"
        over = f"Delta {work.sequence} is closed."
        found.append(Condition("stuck", f"delta {work.sequence}", work.opened_at, text, over,
                               wanted.stuck_after))  # fmt: skip
    if champion and figures.deployed != champion:
        text = f"Version {champion} should serve, and could not be proven to: {doing or 'no sign'}"
        over = f"Version {champion} serves, or another one should."
        found.append(Condition("stuck", f"version {champion}", moment, text, over,
                               wanted.stuck_after))  # fmt: skip
    return [
        Condition(c.event, c.about, began.get(c.key, c.since), c.text, c.over, c.patience)
        for c in found
    ]


def bundles(count: int, left: int) -> list[int]:
    """Say how many notices each message takes, so that `left` messages tell all `count` of them."""
    if left <= 0 or count == 0:
        return []
    return [1] * count if count <= left else [1] * (left - 1) + [count - left + 1]


def message(pipeline: str, told: Sequence[tuple[Event, str]], link: str) -> tuple[str, str]:
    """Write a message about one thing or several: title and body."""
    one = TITLES[told[0][0]] if len(told) == 1 else f"{len(told)} things happened"
    lines = [text for _, text in told] if len(told) == 1 else [f"- {text}" for _, text in told]
    return f"retraind, {pipeline}: {one}", "\n".join([*lines, *([link] if link else [])])
