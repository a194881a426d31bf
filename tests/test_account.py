"""Every snapshot of a delta is accounted for, whatever it did."""

from __future__ import annotations

from dataclasses import replace

import pytest
from builders import EPOCH
from drawing import delta, deltas
from hypothesis import given, settings
from hypothesis import strategies as st

from handlers.account import account, left_out, skipped
from handlers.facts import Delta, Fate, Kind, Snapshot, Way

EXAMPLES = settings(max_examples=100, deadline=None)
WAYS: tuple[Way, ...] = ("appended", "changed", "apart", "whole")
ways = st.sampled_from(WAYS)
outcomes = st.sampled_from([Fate.TRAINED, Fate.SKIPPED, Fate.QUARANTINED, Fate.LOST])
any_delta = st.builds(lambda found, way: replace(found, way=way), deltas(), ways) | deltas(
    start=None
)


def snapshot(number: int, operation: str = "append", **counts: int) -> Snapshot:
    """Make a snapshot; `added_records=3` becomes `added-records: 3`."""
    summary = {name.replace("_", "-"): str(count) for name, count in counts.items()}
    return Snapshot(number, number - 1 or None, EPOCH, operation, summary)


@EXAMPLES
@given(any_delta, outcomes)
def test_every_snapshot_appears_exactly_once(wanted: Delta, outcome: Fate) -> None:
    """The records are the snapshots, one for one and in order, each with a fate and a reason."""
    records = account(wanted, outcome, "because")
    assert [r.snapshot_id for r in records] == [s.id for s in wanted.snapshots]
    assert [(r.kind, r.added) for r in records] == [(s.kind, s.added) for s in wanted.snapshots]
    assert all(r.reason for r in records)
    assert {r.state for r in records} <= {outcome, Fate.SKIPPED, Fate.REWRITTEN}


@EXAMPLES
@given(any_delta, outcomes)
def test_the_kind_decides_the_fate(wanted: Delta, outcome: Fate) -> None:
    """Appends share the delta's outcome, rewrites were dealt with by policy, the rest is skipped.

    A delta that is parked or lost takes all that changed rows with it.
    """
    for record in account(wanted, outcome, "because"):
        if record.kind in {Kind.EMPTY, Kind.COMPACTION}:
            assert record.state is Fate.SKIPPED
        elif record.kind is Kind.APPEND or outcome in {Fate.QUARANTINED, Fate.LOST}:
            assert (record.state, record.reason) == (outcome, "because")
        elif wanted.start_id is None and record.kind is Kind.REWRITE:
            assert record.state is outcome, "its rows are in the whole table"
        else:
            assert record.state is Fate.REWRITTEN


@EXAMPLES
@given(deltas(), ways, outcomes)
def test_the_rows_add_up(wanted: Delta, way: Way, outcome: Fate) -> None:
    """All rows written are the delta's own, are left out and told to be, or were only moved."""
    wanted = replace(wanted, way=way)
    records = account(wanted, outcome, "because")
    of = {kind: sum(r.added for r in records if r.kind is kind) for kind in Kind}
    assert sum(s.added for s in wanted.snapshots) == sum(of.values())
    assert of[Kind.DELETE] == of[Kind.EMPTY] == 0
    if way != "whole":
        assert of[Kind.APPEND] + of[Kind.REWRITE] == wanted.rows + left_out(wanted)
    else:
        assert left_out(wanted) == 0


@EXAMPLES
@given(deltas(), ways)
def test_a_rewrite_tells_how_it_was_dealt_with(wanted: Delta, way: Way) -> None:
    """The reason has the operation, its rows, and whether they were trained on."""
    wanted = replace(wanted, way=way)
    for record, seen in zip(account(wanted, Fate.TRAINED, "why"), wanted.snapshots, strict=True):
        if seen.kind not in {Kind.REWRITE, Kind.DELETE}:
            continue
        wrote = f"{seen.operation}: {seen.added} rows written, {seen.removed} taken away"
        assert record.reason.startswith(wrote)
        told = record.reason.removeprefix(wrote)
        if way in {"changed", "whole"}:
            assert told.startswith("; trained on the")
        else:
            assert told == ("; not trained on (rewrites: skip)" if seen.added else "")


@EXAMPLES
@given(st.text(max_size=10).filter(lambda t: t not in {"append", "replace"}), st.integers(1, 9))
def test_an_unknown_operation_with_rows_is_a_rewrite(operation: str, rows: int) -> None:
    """Whatever a future engine calls its operation: rows it adds are counted, never lost."""
    strange = replace(delta(snapshot(1, operation, added_records=rows)), way="apart")
    assert (left_out(strange), strange.rows) == (rows, 0)
    assert account(strange, Fate.SKIPPED, "why")[0].state is Fate.REWRITTEN
    assert f"up to {rows} rows written by overwrite or merge were left out" in skipped(strange)
    read = replace(strange, way="changed")
    assert (left_out(read), read.rows, read.brings_rows) == (0, rows, True)


@EXAMPLES
@given(any_delta)
def test_only_a_way_that_leaves_rows_out_tells_so(wanted: Delta) -> None:
    """The whole table and a comparison of states have every row; the other ways appended ones."""
    rewritten = sum(s.added for s in wanted.snapshots if s.kind is Kind.REWRITE)
    everything = wanted.whole or wanted.way == "changed"
    assert left_out(wanted) == (0 if everything else rewritten)


@pytest.mark.parametrize(
    ("one", "kind", "fate"),
    [
        (snapshot(1, added_records=2), Kind.APPEND, Fate.TRAINED),
        (snapshot(1, added_data_files=1), Kind.APPEND, Fate.TRAINED),
        (snapshot(1), Kind.EMPTY, Fate.SKIPPED),
        (snapshot(1, "delete", deleted_records=2), Kind.DELETE, Fate.REWRITTEN),
        (snapshot(1, "delete"), Kind.EMPTY, Fate.SKIPPED),
        (snapshot(1, "overwrite", added_position_deletes=2), Kind.DELETE, Fate.REWRITTEN),
        (snapshot(1, "overwrite", added_equality_deletes=2), Kind.DELETE, Fate.REWRITTEN),
        (snapshot(1, "overwrite", added_records=1, deleted_records=1), Kind.REWRITE, None),
        (snapshot(1, "overwrite", added_data_files=1), Kind.REWRITE, None),
        (snapshot(1, "overwrite"), Kind.EMPTY, Fate.SKIPPED),
        (snapshot(1, "delete", added_records=3), Kind.REWRITE, None),
        (snapshot(1, "replace", added_records=5, deleted_records=5), Kind.COMPACTION, Fate.SKIPPED),
        (snapshot(1, "replace", added_records=4, deleted_records=5), Kind.COMPACTION, Fate.SKIPPED),
        (snapshot(1, "replace", added_records=6, deleted_records=5), Kind.REWRITE, None),
        (snapshot(1, "replace"), Kind.COMPACTION, Fate.SKIPPED),
        (snapshot(1, "unknown"), Kind.EMPTY, Fate.SKIPPED),
    ],
)
def test_kinds(one: Snapshot, kind: Kind, fate: Fate | None) -> None:
    """The operation and the summary together say what a snapshot did; what rewrites is recorded."""
    assert one.kind is kind
    assert account(delta(one), Fate.TRAINED, "why")[0].state is (fate or Fate.REWRITTEN)


def test_why_a_delta_is_skipped() -> None:
    """The sentence tells the note, the rows left out, those taken away, and what was there."""
    log = [
        snapshot(1, "overwrite", added_records=7),
        snapshot(2, "replace"),
        snapshot(3, "delete", deleted_records=4),
    ]
    only = replace(delta(*log, note="history rewritten"), way="apart")
    assert skipped(only) == (
        "skipped: history rewritten; up to 7 rows written by overwrite or merge were left out; "
        "4 rows were taken away; no new rows (compaction, delete, rewrite)"
    )
    assert skipped(delta(log[1])) == "skipped: no new rows (compaction)"
    assert skipped(delta()) == "skipped: no new rows (no snapshots)"


@pytest.mark.parametrize(
    ("old", "fate"), [("parked", Fate.QUARANTINED), ("unread", Fate.REWRITTEN)]
)
def test_the_first_names_are_still_read(old: str, fate: Fate) -> None:
    """Records of the first format, in MLflow or a file, have their fates under other names."""
    assert Fate(old) is fate
    with pytest.raises(ValueError, match="nonsense"):
        Fate("nonsense")
