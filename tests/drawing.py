"""Draws logs for property tests: any operation with any summary that a writer may leave."""

from __future__ import annotations

from builders import EPOCH
from hypothesis import strategies as st

from handlers.facts import Delta, Snapshot

BEFORE = 100
"""The snapshot before every log drawn here; the log's own are numbered from the next on."""
OPERATIONS = st.sampled_from(["append", "overwrite", "delete", "replace", "unknown", "merge", ""])
COUNTS = (
    "added-records",
    "added-data-files",
    "deleted-records",
    "total-records",
    "added-position-deletes",
    "added-equality-deletes",
    "total-delete-files",
    "changed-partition-count",
)
SUMMARIES = st.dictionaries(
    st.sampled_from(COUNTS), st.integers(0, 5).map(str), max_size=len(COUNTS)
)
USUAL: st.SearchStrategy[tuple[str, dict[str, str]]] = st.sampled_from(
    [
        ("append", {"added-records": "5", "total-records": "50"}),
        ("append", {"added-records": "5", "total-records": "50"}),
        ("append", {}),
        ("overwrite", {"added-records": "5", "deleted-records": "3"}),
        ("overwrite", {"added-records": "3", "deleted-records": "5"}),
        ("overwrite", {"added-records": "4"}),
        ("overwrite", {"added-position-deletes": "2"}),
        ("delete", {"deleted-records": "3"}),
        ("replace", {"added-records": "5", "deleted-records": "5"}),
    ]
)
"""What Spark and PyIceberg write every day."""


def delta(*snapshots: Snapshot, start: int | None = BEFORE, note: str = "") -> Delta:
    """Make a delta over these snapshots."""
    end = snapshots[-1].id if snapshots else BEFORE
    return Delta("lake.bank.cards", "main", "uuid", start, end, snapshots, note)


@st.composite
def logs(draw: st.DrawFn, *, least: int = 0, most: int = 7) -> tuple[Snapshot, ...]:
    """Draw a log, oldest first."""
    done = USUAL | st.tuples(OPERATIONS, SUMMARIES)
    drawn = draw(st.lists(done, min_size=least, max_size=most))
    return tuple(
        Snapshot(number, number - 1, EPOCH, operation, summary)
        for number, (operation, summary) in enumerate(drawn, start=BEFORE + 1)
    )


def deltas(*, start: int | None = BEFORE, least: int = 0) -> st.SearchStrategy[Delta]:
    """Draw a delta as the log gives it."""
    return logs(least=least).map(lambda log: delta(*log, start=start))
