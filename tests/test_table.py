"""The door to the table, on real Spark and Iceberg: what is new, what is not, and which rows."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace

import pytest
from conftest import Lab

from handlers.account import account, left_out
from handlers.facts import Cursor, Delta, Fate, GiveUp, Kind, TryLater
from handlers.table import Table

pytestmark = pytest.mark.real


def since(lab: Lab, cursor: Cursor | None) -> Delta:
    """Look, where something new is expected."""
    delta = lab.table().since(cursor)
    assert delta is not None
    return delta


def test_a_missing_table_is_waited_for(lab: Lab) -> None:
    """A table that does not exist yet is an outage with a remedy, not an end."""
    table = lab.table()
    with pytest.raises(TryLater, match=r"does not exist \(yet\).*looked for again"):
        table.head()
    lab.append(0)
    assert table.head() is not None


def test_an_unknown_catalog_is_named(lab: Lab) -> None:
    """A name that no catalog answers for is told with what to check."""
    with pytest.raises(TryLater, match=r"nowhere\.db\.t.*[Cc]heck"):
        Table(lab.sessions, "nowhere.db.t").head()


def test_the_first_look_is_the_whole_table(lab: Lab) -> None:
    """Without a cursor, every snapshot and every row belongs to the first delta."""
    first, second = lab.append(0), lab.append(1, 700)
    delta = since(lab, None)
    assert delta.start_id is None
    assert delta.rows == 1900
    assert len(delta.snapshots) == 2
    read = lab.table().read(delta, ["transaction_id", "age"])
    expected = first["transaction_id"].to_pylist() + second["transaction_id"].to_pylist()
    assert sorted(read["transaction_id"].to_pylist()) == sorted(expected)
    assert read.column_names == ["transaction_id", "age"]


def test_a_delta_holds_just_the_rows_between(lab: Lab) -> None:
    """Between two snapshots just the rows appended there are read, with exact types."""
    lab.append(0)
    cursor = since(lab, None).cursor
    assert lab.table().since(cursor) is None
    batches = [lab.append(1, 300), lab.append(2, 200)]
    delta = since(lab, cursor)
    assert (delta.start_id, delta.rows, len(delta.snapshots)) == (cursor.snapshot_id, 500, 2)
    names = batches[0].column_names
    read = lab.table().read(delta, names).sort_by("transaction_id")
    assert read["transaction_id"].to_pylist() == sorted(
        key for batch in batches for key in batch["transaction_id"].to_pylist()
    )
    assert read.schema.types == batches[0].schema.types


def test_commits_are_seen_while_polling(lab: Lab) -> None:
    """A table that is polled without a pause still sees each new commit at the next look."""
    lab.append(0, 50)
    table = lab.table()
    seen = [table.head()]
    for batch in range(1, 4):
        lab.append(batch, 50)
        seen.append(table.head())
    assert len({head.snapshot_id for head in seen if head}) == 4


def test_every_kind_of_snapshot_is_told_apart(lab: Lab) -> None:
    """Rows that an incremental read leaves out are counted, whichever way they were written."""
    lab.append(0, 400)
    lab.sql("ALTER TABLE {t} SET TBLPROPERTIES ('write.delete.mode'='merge-on-read')")
    cursor = since(lab, None).cursor
    lab.append(1, 100)
    lab.sql("DELETE FROM {t} WHERE age < 25")
    lab.append(1, 150, mode="merge")
    lab.sql(
        "CALL lake.system.rewrite_data_files(table => '{t}', options => map('rewrite-all', 'true'))"
    )
    lab.append(3, 60, mode="overwrite")
    delta = since(lab, cursor)
    kinds = [snapshot.kind for snapshot in delta.snapshots]
    assert kinds[:2] == [Kind.APPEND, Kind.DELETE]
    assert Kind.COMPACTION in kinds
    assert kinds.count(Kind.REWRITE) == 2
    assert delta.rows == 100
    assert left_out(delta) >= 160
    assert lab.table().read(delta, ["age"]).num_rows == 100
    states = [record.state for record in account(delta, Fate.TRAINED, "x")]
    assert states.count(Fate.TRAINED) == 1
    assert states.count(Fate.REWRITTEN) == 3


def test_a_commit_without_rows_is_no_append(lab: Lab) -> None:
    """An append of nothing moves the head but brings no rows."""
    lab.append(0, 50)
    cursor = since(lab, None).cursor
    lab.sql("INSERT INTO {t} SELECT * FROM {t} WHERE age > 1000")
    delta = lab.table().since(cursor)
    assert delta is None or (delta.rows, [s.kind for s in delta.snapshots]) == (0, [Kind.EMPTY])


def test_a_rollback_resumes_at_the_common_ancestor(lab: Lab) -> None:
    """After a rollback only what came after the youngest common ancestor is new."""
    lab.append(0, 50)
    base = since(lab, None).cursor
    lab.append(1, 60)
    gone = since(lab, base).cursor
    lab.sql(f"CALL lake.system.rollback_to_snapshot('{{t}}', {base.snapshot_id})")
    back = since(lab, gone)
    assert (back.start_id, back.end_id, back.rows) == (base.snapshot_id, base.snapshot_id, 0)
    assert "rolled back" in back.note
    lab.append(2, 70)
    delta = since(lab, gone)
    assert (delta.start_id, delta.rows) == (base.snapshot_id, 70)
    assert not lab.table().contains(gone.snapshot_id)
    assert lab.table().contains(base.snapshot_id)


def test_a_replaced_table_is_recognised_by_its_uuid(lab: Lab) -> None:
    """Another table under the same name is new as a whole, and the note says so."""
    lab.append(0, 50)
    cursor = since(lab, None).cursor
    table = Table(lab.sessions, lab.name, reload_every=0)
    assert table.head() == cursor
    lab.sql("DROP TABLE {t} PURGE")
    lab.append(1, 80)
    with suppress(TryLater):
        table.head()  # some catalogs refuse the held handle once, some adopt the new table at once
    delta = table.since(cursor)
    assert delta is not None
    assert (delta.start_id, delta.rows) == (None, 80)
    assert "another table" in delta.note


def test_an_expired_cursor_makes_the_whole_table_new(lab: Lab) -> None:
    """Where the history behind the head was expired, the delta says that history is gone."""
    lab.append(0, 50)
    cursor = since(lab, None).cursor
    for batch in (1, 2, 3):
        lab.append(batch, 50)
    lab.sql(
        "CALL lake.system.expire_snapshots(table => '{t}', "
        "older_than => TIMESTAMP '2100-01-01', retain_last => 1)"
    )
    delta = since(lab, cursor)
    assert (delta.start_id, delta.rows) == (None, 200)
    assert "history" in delta.note


def test_an_expired_cursor_that_is_the_oldest_parent_still_counts(lab: Lab) -> None:
    """The parent of the oldest retained snapshot needs no metadata of its own to be a start."""
    lab.append(0, 50)
    cursor = since(lab, None).cursor
    lab.append(1, 60)
    lab.sql(
        "CALL lake.system.expire_snapshots(table => '{t}', "
        "older_than => TIMESTAMP '2100-01-01', retain_last => 1)"
    )
    delta = since(lab, cursor)
    assert (delta.start_id, delta.rows) == (cursor.snapshot_id, 60)
    assert lab.table().read(delta, ["age"]).num_rows == 60


def test_other_branches_and_staged_snapshots_do_not_count(lab: Lab) -> None:
    """Only commits in the ancestry of the configured branch are new, and only they are read."""
    lab.append(0, 50)
    cursor = since(lab, None).cursor
    lab.sql("ALTER TABLE {t} CREATE BRANCH other")
    lab.sql("INSERT INTO {t}.branch_other SELECT * FROM {t} LIMIT 7")
    assert lab.table().since(cursor) is None
    other = lab.table("other")
    delta = other.since(cursor)
    assert delta is not None
    assert delta.rows == 7
    assert other.read(delta, ["age"]).num_rows == 7
    lab.sql("ALTER TABLE {t} SET TBLPROPERTIES ('write.wap.enabled'='true')")
    lab.sql("SET spark.wap.id = audit")
    try:
        lab.append(1, 30)
    finally:
        lab.sql("RESET spark.wap.id")
    assert lab.table().since(cursor) is None


def test_a_branch_without_commits_waits(lab: Lab) -> None:
    """A branch that does not exist has no head and nothing new."""
    lab.append(0, 50)
    assert lab.table("nowhere").head() is None
    assert lab.table("nowhere").since(None) is None


def test_rows_that_do_not_add_up_are_refused(lab: Lab) -> None:
    """A read that gives fewer rows than the snapshots added is an error, never a smaller delta."""
    lab.append(0, 50)
    delta = since(lab, None)
    claimed = replace(
        delta.snapshots[0], summary={**delta.snapshots[0].summary, "total-records": "51"}
    )
    with pytest.raises(GiveUp, match=r"50 rows were read .* added 51"):
        lab.table().read(replace(delta, snapshots=(claimed,)), ["age"])


def test_the_whole_table_is_read_without_deleted_rows(lab: Lab) -> None:
    """Delete files hide rows that the totals still count; the whole table is read without them."""
    lab.append(0, 200)
    lab.sql("ALTER TABLE {t} SET TBLPROPERTIES ('write.delete.mode'='merge-on-read')")
    lab.sql("DELETE FROM {t} WHERE age < 40")
    left = lab.sql("SELECT count(*) AS n FROM {t}")[0].n
    delta = since(lab, None)
    assert not delta.exact
    assert lab.table().read(delta, ["age"]).num_rows == left < 200
