"""Rows that really are new, on real Iceberg: whatever wrote them, none twice and none left out."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable
from dataclasses import replace

import pyarrow as pa
import pytest
from conftest import Lab

from config.settings import DeltaPolicy
from handlers.cut import plan
from handlers.facts import Cursor, Delta, Kind

pytestmark = pytest.mark.real
MODES = ("copy-on-write", "merge-on-read")
COLUMNS = ["id", "a", "name"]
Row = tuple[int | None, float | None, str | None]


class Sheet:
    """A small table of numbers and names, changed by SQL."""

    def __init__(self, lab: Lab, mode: str, version: int = 2, partition: str = "") -> None:
        self.lab = lab
        lab.sql("CREATE NAMESPACE IF NOT EXISTS lake.lab")
        modes = ", ".join(
            f"'write.{name}.mode' = '{mode}'" for name in ("delete", "update", "merge")
        )
        lab.sql(
            f"CREATE TABLE {{t}} (id BIGINT, a DOUBLE, name STRING) USING iceberg {partition} "
            f"TBLPROPERTIES ('format-version' = '{version}', {modes})"
        )

    def insert(self, first: int, last: int, value: str = "id * 1.0", name: str = "'x'") -> None:
        """Append rows with these ids."""
        self.lab.sql(
            f"INSERT INTO {{t}} SELECT /*+ COALESCE(1) */ id, {value}, {name} "
            f"FROM range({first}, {last})"
        )

    def merge(self, first: int, last: int, value: str, *, matched: bool = True) -> None:
        """Insert these rows, and update those that are there."""
        update = "WHEN MATCHED THEN UPDATE SET *" if matched else ""
        self.lab.sql(
            f"MERGE INTO {{t}} AS o USING (SELECT id, {value} AS a, 'm' AS name FROM "
            f"range({first}, {last})) AS n ON o.id = n.id {update} WHEN NOT MATCHED THEN INSERT *"
        )

    def compact(self) -> None:
        """Rewrite all files into as few as there can be."""
        self.lab.sql(
            "CALL lake.system.rewrite_data_files("
            "table => '{t}', options => map('rewrite-all', 'true'))"
        )

    def cursor(self) -> Cursor:
        """Say where the table stands."""
        head = self.lab.table().head()
        assert head is not None
        return head

    def rows(self, at: int | None = None) -> Counter[Row]:
        """Count the rows of one state; default the present one."""
        when = f" VERSION AS OF {at}" if at else ""
        return Counter(tuple(row) for row in self.lab.sql(f"SELECT * FROM {{t}}{when}"))

    def delta(self, cursor: Cursor, rewrites: str = "added") -> Delta:
        """Plan what came since, where nothing halts."""
        found = self.lab.table().since(cursor)
        assert found is not None
        policy = DeltaPolicy.model_validate({"rewrites": rewrites})
        planned = plan(found, cursor, policy)
        assert isinstance(planned, Delta)
        return planned

    def read(self, delta: Delta) -> Counter[Row]:
        """Read a delta as the daemon does."""
        return counted(self.lab.table().read(delta, COLUMNS))


def counted(rows: pa.Table) -> Counter[Row]:
    """Count rows that are alike."""
    return Counter(zip(*(rows[name].to_pylist() for name in COLUMNS), strict=True))


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("version", [2, 3])
def test_what_is_new_is_what_the_end_has_and_the_start_has_not(
    lab: Lab, mode: str, version: int
) -> None:
    """Append, update, delete, merge and compaction in one delta: its rows are the difference."""
    sheet = Sheet(lab, mode, version)
    sheet.insert(0, 100)
    start = sheet.cursor()
    sheet.insert(100, 120)
    lab.sql("UPDATE {t} SET a = -1 WHERE id IN (5, 6, 105)")
    lab.sql("DELETE FROM {t} WHERE id IN (7, 8, 110)")
    sheet.merge(118, 125, "9.0")
    sheet.compact()
    lab.sql("DELETE FROM {t} WHERE id IN (9, 111, 124)")
    delta = sheet.delta(start)
    before, after = sheet.rows(start.snapshot_id), sheet.rows()
    assert delta.way == "changed"
    assert sheet.read(delta) == after - before
    changes = lab.table().measure(delta, COLUMNS)
    assert (changes.new, changes.removed) == ((after - before).total(), (before - after).total())
    assert sheet.read(replace(delta, changes=changes)) == after - before


def test_rows_carried_over_are_not_new(lab: Lab) -> None:
    """A copy-on-write delete or update rewrites whole files; only what it changed counts."""
    sheet = Sheet(lab, "copy-on-write")
    sheet.insert(0, 200)
    start = sheet.cursor()
    lab.sql("UPDATE {t} SET a = a + 1 WHERE id = 7")
    delta = sheet.delta(start)
    assert delta.snapshots[0].added == 200
    assert sheet.read(delta) == Counter([(7, 8.0, "x")])
    lab.sql("DELETE FROM {t} WHERE id = 9")
    gone = sheet.delta(delta.cursor)
    assert gone.snapshots[0].kind is Kind.REWRITE
    assert not sheet.read(gone)
    assert lab.table().measure(gone, COLUMNS).removed == 1


def test_old_rows_that_are_deleted_and_appended_again_are_not_new(lab: Lab) -> None:
    """Some writers rewrite by a delete and an append: only what differs from before is new."""
    sheet = Sheet(lab, "copy-on-write", partition="PARTITIONED BY (name)")
    sheet.insert(0, 50)
    start = sheet.cursor()
    lab.sql("DELETE FROM {t} WHERE name = 'x'")
    sheet.insert(0, 60)
    for rewrites in ("added", "skip"):
        delta = sheet.delta(start, rewrites)
        assert [s.kind for s in delta.snapshots] == [Kind.DELETE, Kind.APPEND]
        assert sheet.read(delta) == Counter((id_, float(id_), "x") for id_ in range(50, 60))


@pytest.mark.parametrize("mode", MODES)
def test_rows_that_are_alike_are_counted(lab: Lab, mode: str) -> None:
    """Three equal rows where there was one are two new ones; null and NaN equal themselves."""
    sheet = Sheet(lab, mode)
    lab.sql("INSERT INTO {t} VALUES (1, 1.0, 'x'), (NULL, NULL, NULL), (2, double('NaN'), 'y')")
    start = sheet.cursor()
    lab.sql("INSERT INTO {t} VALUES (1, 1.0, 'x'), (1, 1.0, 'x'), (NULL, NULL, NULL)")
    lab.sql("UPDATE {t} SET name = 'y' WHERE id = 2")
    delta = sheet.delta(start)
    assert delta.way == "changed"
    assert sheet.read(delta) == Counter({(1, 1.0, "x"): 2, (None, None, None): 1})


@pytest.mark.parametrize("mode", MODES)
def test_skipped_rewrites_leave_appends_alone(lab: Lab, mode: str) -> None:
    """Under `skip` every appended row is read once, and none that a merge or update wrote."""
    sheet = Sheet(lab, mode)
    sheet.insert(0, 50)
    cursor = sheet.cursor()
    sheet.insert(100, 110)
    sheet.merge(105, 120, "5.0")
    sheet.insert(200, 210)
    sheet.insert(210, 215)
    lab.sql("UPDATE {t} SET a = 0 WHERE id < 10")
    sheet.compact()
    sheet.insert(300, 305)
    read: Counter[Row] = Counter()
    head = sheet.cursor()
    while cursor != head:
        delta = sheet.delta(cursor, "skip")
        read += sheet.read(delta)
        cursor = delta.cursor
    ids = [*range(100, 110), *range(200, 215), *range(300, 305)]
    assert read == Counter((id_, float(id_), "x") for id_ in ids)


def test_an_insert_only_merge_is_an_append_in_disguise(lab: Lab) -> None:
    """Merge-on-read commits it as an overwrite, which an incremental read leaves out."""
    sheet = Sheet(lab, "merge-on-read")
    sheet.insert(0, 50)
    start = sheet.cursor()
    sheet.merge(45, 60, "1.0", matched=False)
    sheet.merge(58, 61, "2.0")
    delta = sheet.delta(start)
    assert len(sheet.read(delta)) == 11
    assert not lab.table().read(replace(delta, way="appended"), COLUMNS).num_rows % 10


OVERWRITES: dict[str, Callable[[Lab], object]] = {
    "static": lambda lab: lab.sql(
        "INSERT OVERWRITE {t} PARTITION (name = 'p') SELECT id, 0.5 FROM range(10, 30)"
    ),
    "dynamic": lambda lab: lab.sql(
        "INSERT OVERWRITE {t} SELECT id, id * 1.0, concat('p', id % 2) FROM range(0, 30)"
    ),
    "everything": lambda lab: lab.sql("INSERT OVERWRITE {t} SELECT id, 2.0, 'q' FROM range(10)"),
    "truncate": lambda lab: lab.sql("TRUNCATE TABLE {t}"),
}


@pytest.mark.parametrize("how", OVERWRITES)
def test_overwrites_bring_what_was_not_there(lab: Lab, how: str) -> None:
    """INSERT OVERWRITE, static or dynamic, and TRUNCATE: only rows that differ are new."""
    sheet = Sheet(lab, "copy-on-write", partition="PARTITIONED BY (name)")
    sheet.insert(0, 20, name="'p'")
    sheet.insert(0, 20, name="'p1'")
    start = sheet.cursor()
    mode = "dynamic" if how == "dynamic" else "static"
    lab.sql(f"SET spark.sql.sources.partitionOverwriteMode = {mode}")
    try:
        OVERWRITES[how](lab)
    finally:
        lab.sql("RESET spark.sql.sources.partitionOverwriteMode")
    delta = sheet.delta(start)
    before, after = sheet.rows(start.snapshot_id), sheet.rows()
    assert sheet.read(delta) == after - before
    assert lab.table().measure(delta, COLUMNS).removed == (before - after).total() > 0


def test_a_new_partition_layout_changes_no_rows(lab: Lab) -> None:
    """Partition evolution and a rewrite of the files bring nothing new."""
    sheet = Sheet(lab, "copy-on-write")
    sheet.insert(0, 40)
    start = sheet.cursor()
    lab.sql("ALTER TABLE {t} ADD PARTITION FIELD bucket(4, id)")
    sheet.insert(40, 60)
    sheet.compact()
    lab.sql("UPDATE {t} SET a = 0 WHERE id = 1")
    delta = sheet.delta(start)
    expected = [(1, 0.0, "x"), *((id_, float(id_), "x") for id_ in range(40, 60))]
    assert sheet.read(delta) == Counter(expected)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("seed", range(2))
def test_any_sequence_of_changes_is_read_exactly(lab: Lab, mode: str, seed: int) -> None:
    """Cut anywhere, random changes are read as the difference of the states at the cuts."""
    chance = random.Random(seed)
    sheet = Sheet(lab, mode)
    sheet.insert(0, 60)
    cursor = sheet.cursor()
    steps: list[Callable[[int], object]] = [
        lambda at: sheet.insert(at, at + 15),
        lambda at: sheet.merge(at - 10, at + 5, f"{at}.5"),
        lambda at: lab.sql(f"UPDATE {{t}} SET a = {at} WHERE id % 7 = {at % 7}"),
        lambda at: lab.sql(f"DELETE FROM {{t}} WHERE id % 11 = {at % 11}"),
        lambda _: sheet.compact(),
        lambda at: lab.sql(
            f"INSERT OVERWRITE {{t}} SELECT id, a, name FROM {{t}} WHERE id > {at - 80}"
        ),
    ]
    for step in range(8):
        chance.choice(steps)(60 + 15 * step)
        if chance.random() < 0.5:
            found = lab.table().since(cursor)
            if found is None:
                continue
            delta = sheet.delta(cursor)
            if delta.way == "changed":
                expected = sheet.rows(delta.end_id) - sheet.rows(cursor.snapshot_id)
                assert sheet.read(delta) == expected
            cursor = delta.cursor
