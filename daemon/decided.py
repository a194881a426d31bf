"""What was decided on a pipeline, read from its ledger in the order of the decisions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from daemon.reading import Reading, Work
from handlers.facts import Fate, GiveUp, Model, Record, State


@dataclass(frozen=True, slots=True)
class Decided:
    """A decision on record, with what should have served before and after it."""

    work: Work
    record: Record
    before: Model | None
    after: str | None


def decisions(book: Reading, name: str) -> list[Decided]:
    """Give the decisions in order.

    The records tell the champion that each found, even where the ledger was lost and rebuilt.
    """
    works = {work.sequence: work for work in book.works(name)}
    models: dict[str, Model] = {}
    found: list[Decided] = []
    serving: str | None = None
    for record in reversed(book.history(name, -1)):
        before = record.verdict.against if record.verdict else serving
        serving = before
        if record.model:
            models[record.model.version] = record.model
            serving = record.model.version if record.state is State.PROMOTED else before
        work = works[record.sequence]
        if record.state is State.DROPPED:  # a ledger that was rebuilt has no wishes
            work = replace(work, wish="drop")
        found.append(Decided(work, record, models.get(before or ""), serving))
    return found


def first(decided: Sequence[Decided], name: str, since: int | None) -> int:
    """Find the first decision, or the first that is about a snapshot.

    Raises:
        GiveUp: there is none.
    """
    if not decided:
        raise GiveUp(f"No decision of {name} is on record yet.", "There is nothing to simulate.")
    if since is None:
        return 0
    for position, one in enumerate(decided):
        if since in {one.work.delta.end_id, *(s.id for s in one.work.delta.snapshots)}:
            return position
    raise GiveUp(
        f"The snapshot {since} is in no delta of {name} that was decided on.",
        "`retraind account` lists those that are.",
    )


def lost(record: Record) -> bool:
    """Say whether the snapshots of a delta had left the table before they were read."""
    fates = {snapshot.state for snapshot in record.snapshots}
    return record.state is State.ABANDONED or Fate.LOST in fates
