"""The soak's other program: it commits to the table in every way that Iceberg knows."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING

from soak_rows import COLUMNS, EXTRAS, LARGEST_A, MOST_ROWS, Rows
from soak_table import Chronicle, ids

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

FOR_EVER = "TIMESTAMP '2100-01-01'"


class Writer:
    """Commits, and keeps the chronicle. Each method is one kind of commit; it tells what it did."""

    def __init__(
        self, session: SparkSession, chronicle: Chronicle, cursor: Callable[[], int | None]
    ) -> None:
        self.chronicle = chronicle
        self.rows = Rows()
        self._session = session
        self._table = chronicle.table
        self._catalog = chronicle.table.split(".")[0]
        self._cursor = cursor
        self._ahead: int | None = None
        self._widened = False

    def create(self, version: int) -> None:
        """Make the table, with its first rows."""
        self._sql(f"CREATE NAMESPACE IF NOT EXISTS {self._table.rpartition('.')[0]}")
        self._sql(
            f"CREATE TABLE {self._table} ({COLUMNS}) USING iceberg PARTITIONED BY (part) "
            f"TBLPROPERTIES ('format-version' = '{version}', 'write.wap.enabled' = 'true')"
        )
        self.rows.step = 1
        self._insert(600)
        self.chronicle.look()

    def _insert(self, count: int, where: str = "", **columns: str) -> None:
        query = self.rows.query(self.rows.fresh(count), **columns)
        self._sql(f"INSERT INTO {self._table}{where} BY NAME {query}")

    # -- appends -----------------------------------------------------------------------------

    def append(self, chance: Random) -> str:
        """Append a batch."""
        count = chance.randint(150, 400)
        self._insert(count)
        return f"{count} rows"

    def append_few(self, chance: Random) -> str:
        """Append less than is worth a training."""
        count = chance.randint(1, 5)
        self._insert(count)
        return f"{count} rows"

    def burst(self, chance: Random) -> str:
        """Append several times at once."""
        counts = [chance.randint(20, 120) for _ in range(chance.randint(2, 4))]
        for count in counts:
            self._insert(count)
        return f"{counts} rows"

    def poison(self, chance: Random) -> str:
        """Append rows of one class only."""
        count, label = chance.randint(100, 200), chance.randrange(2)
        self._insert(count, label=self.rows.label(label))
        return f"{count} rows of class {label}"

    def breach(self, chance: Random) -> str:
        """Append some rows that break the data contract."""
        count = chance.randint(100, 200)
        self._insert(count, a=self.rows.excessive())
        return f"{count} rows"

    def nothing(self, _: Random) -> str:
        """Append no rows."""
        self._insert(0)
        return "no rows"

    # -- rewrites ----------------------------------------------------------------------------

    def _merge(self, chance: Random, matched: str) -> str:
        known, new = chance.randint(0, 60), chance.randint(20, 200)
        first = max(0, self.rows.next_id - known)
        self.rows.fresh(new)
        query = self.rows.query(f"range({first}, {self.rows.next_id})")
        self._sql(
            f"MERGE INTO {self._table} AS o USING ({query}) AS n ON o.id = n.id {matched} "
            "WHEN NOT MATCHED THEN INSERT *"
        )
        return f"{known} known ids, {new} new"

    def merge_new(self, chance: Random) -> str:
        """Merge without an update: an append in disguise."""
        return self._merge(chance, "")

    def merge(self, chance: Random) -> str:
        """Merge with updates."""
        return self._merge(chance, "WHEN MATCHED THEN UPDATE SET *")

    def update(self, chance: Random) -> str:
        """Update some rows."""
        some = self.rows.some(chance)
        values = {"version": str(self.rows.step), **self.rows.learnable()}
        told = ", ".join(f"{name} = {value}" for name, value in values.items())
        self._sql(f"UPDATE {self._table} SET {told} WHERE {some}")
        return some

    def delete(self, chance: Random) -> str:
        """Delete some rows; a whole partition's young rows now and then."""
        some = self.rows.some(chance)
        if chance.random() < 0.2:
            some = f"part = {chance.randrange(3)} AND id >= {self.rows.next_id - 300}"
        self._sql(f"DELETE FROM {self._table} WHERE {some}")
        return some

    def mend(self, _: Random) -> str:
        """Delete what breaks the data contract."""
        self._sql(f"DELETE FROM {self._table} WHERE a > {LARGEST_A}")
        return "what exceeds the limit"

    def overwrite(self, chance: Random) -> str:
        """INSERT OVERWRITE one partition: rows that stay, rows that change, rows that are new."""
        part, dynamic = chance.randrange(3), chance.random() < 0.5
        here = self._session.table(self._table).where(f"part = {part}")
        stays = here.where("id % 4 != 1")
        fresh = self._new(90).where(f"part = {part}")
        written = stays.unionByName(fresh).writeTo(self._table)
        if dynamic:
            written.overwritePartitions()
        else:
            from pyspark.sql.functions import expr  # noqa: PLC0415 (started late, imported late)

            written.overwrite(expr(f"part = {part}"))
        return f"partition {part}, {'dynamic' if dynamic else 'static'}"

    def rewrite(self, chance: Random) -> str:
        """Delete rows and append them again with some new ones, as PyIceberg's upsert does."""
        some = self.rows.some(chance)
        old = self._session.table(self._table).where(some).localCheckpoint()
        self._sql(f"DELETE FROM {self._table} WHERE {some}")
        old.unionByName(self._new(40)).writeTo(self._table).append()
        return some

    def _new(self, count: int) -> DataFrame:
        return self._session.sql(self.rows.query(self.rows.fresh(count)))

    # -- files and columns -------------------------------------------------------------------

    def compact(self, _: Random) -> str:
        """Rewrite the data files."""
        self._call("rewrite_data_files", "options => map('rewrite-all', 'true')")
        return "all files"

    def manifests(self, _: Random) -> str:
        """Rewrite the manifests."""
        self._call("rewrite_manifests")
        return "all manifests"

    def modes(self, chance: Random) -> str:
        """Write updates, deletes and merges in another mode from now on."""
        mode = chance.choice(("copy-on-write", "merge-on-read"))
        for verb in ("delete", "update", "merge"):
            self._alter(f"SET TBLPROPERTIES ('write.{verb}.mode' = '{mode}')")
        return mode

    def columns(self, chance: Random) -> str:
        """Add, drop, rename or widen a column that nobody asked for."""
        there = self.rows.extras
        free = [name for name in EXTRAS if name not in there]
        if not self._widened and chance.random() < 0.3:
            self._widened = True
            changes = ["ALTER COLUMN b TYPE DOUBLE", "ALTER COLUMN version TYPE BIGINT"]
        elif len(there) < 3 or chance.random() < 0.3:
            changes = [f"ADD COLUMN {chance.choice(free)} DOUBLE"]
        elif chance.random() < 0.5:
            changes = [f"DROP COLUMN {chance.choice(there)}"]
        else:
            changes = [f"RENAME COLUMN {chance.choice(there)} TO {chance.choice(free)}"]
        try:
            for change in changes:
                self._alter(change)
        finally:  # a change may lose a race
            found = self._session.table(self._table).columns
            self.rows.extras = [name for name in found if name in EXTRAS]
        return "; ".join(changes)

    # -- the log -----------------------------------------------------------------------------

    def roll_back(self, chance: Random) -> str:
        """Go back some snapshots."""
        history = self.chronicle.history()
        back = min(chance.randint(1, 4), len(history) - 1)
        if not back:
            return ""
        self._ahead = history[0]
        self._call("rollback_to_snapshot", f"snapshot_id => {history[back]}")
        return f"{back} back"

    def roll_forward(self, _: Random) -> str:
        """Return to where the last rollback began, whatever was committed since."""
        ahead, self._ahead = self._ahead, None
        if ahead not in self.chronicle.kept:
            return ""
        self._call("set_current_snapshot", f"snapshot_id => {ahead}")
        return f"to {ahead}"

    def expire(self, chance: Random) -> str:
        """Expire what lies well behind the cursor."""
        history = self.chronicle.history()
        cursor = self._cursor()
        if cursor not in history:
            return ""
        keep = history.index(cursor) + 1 + chance.randrange(4)
        self._call("expire_snapshots", f"older_than => {FOR_EVER}, retain_last => {keep}")
        return f"all but {keep}"

    def expire_ahead(self, chance: Random) -> str:
        """Append twice and expire all before that at once, whether it was read or not."""
        self.burst(chance)
        self.chronicle.look()
        self._call("expire_snapshots", f"older_than => {FOR_EVER}, retain_last => 1")
        return "all but 1"

    def stage(self, chance: Random) -> str:
        """Stage a snapshot for an audit."""
        self._session.conf.set("spark.wap.id", f"step-{self.rows.step}")
        try:
            return self.append(chance)
        finally:
            self._session.conf.unset("spark.wap.id")

    def pick(self, chance: Random) -> str:
        """Cherry-pick what was staged, rolled back or appended to another branch."""
        choice = list(self._pickable())
        if not choice:
            return ""
        source = chance.choice(choice)
        self._call("cherrypick_snapshot", f"snapshot_id => {source}")
        return f"{source}"

    def _pickable(self) -> Iterator[int]:
        """Give appends whose rows are not in the branch, in any version."""
        book = self.chronicle
        history = set(book.history())
        sources = {book.known[number].source_id for number in history}
        there = ids(book.state(book.head))
        for number in sorted(book.kept - history - sources, key=list(book.known).index):
            known = book.known[number]
            new = book.state(number) - book.state(known.parent_id)
            if known.operation == "append" and new and there.isdisjoint(ids(new)):
                yield number

    def branch(self, chance: Random) -> str:
        """Commit to a branch beside; sometimes the followed branch is then taken forward to it."""
        self._alter("CREATE BRANCH beside")
        try:
            count = chance.randint(50, 200)
            self._insert(count, ".branch_beside")
            self.chronicle.look()
            taken = chance.random() < 0.4
            if taken:
                self._call("fast_forward", "branch => 'main', to => 'beside'")
            return f"{count} rows{', taken over' if taken else ''}"
        finally:
            self._alter("DROP BRANCH beside")

    # -- the rest ----------------------------------------------------------------------------

    def tidy(self) -> str:
        """Delete the oldest rows where there are too many."""
        if len(self.chronicle.state(self.chronicle.head)) <= MOST_ROWS:
            return ""
        oldest = f"id < {self.rows.next_id - MOST_ROWS // 2}"
        self._sql(f"DELETE FROM {self._table} WHERE {oldest}")
        return oldest

    def newest_file(self) -> Path:
        """Give a data file of the head."""
        table = self.chronicle.handle
        added = table.currentSnapshot().addedDataFiles(table.io())
        return Path(str(next(iter(added)).path()).removeprefix("file:"))

    def _sql(self, text: str) -> None:
        self._session.sql(text).collect()

    def _alter(self, change: str) -> None:
        self._sql(f"ALTER TABLE {self._table} {change}")

    def _call(self, procedure: str, arguments: str = "") -> None:
        told = ", ".join(text for text in (f"table => '{self._table}'", arguments) if text)
        self._sql(f"CALL {self._catalog}.system.{procedure}({told})")


Kind = Callable[[Writer, Random], str]
KINDS: Mapping[str, tuple[int, Kind]] = {
    "append": (6, Writer.append),
    "append of a few rows": (1, Writer.append_few),
    "burst of appends": (2, Writer.burst),
    "append of one class": (1, Writer.poison),
    "append that breaks the contract": (1, Writer.breach),
    "empty append": (1, Writer.nothing),
    "insert-only merge": (2, Writer.merge_new),
    "merge": (2, Writer.merge),
    "update": (2, Writer.update),
    "delete": (2, Writer.delete),
    "delete of what breaks the contract": (1, Writer.mend),
    "insert overwrite": (2, Writer.overwrite),
    "delete and append of old rows": (2, Writer.rewrite),
    "compaction": (2, Writer.compact),
    "rewrite of manifests": (1, Writer.manifests),
    "change of write modes": (1, Writer.modes),
    "change of columns": (2, Writer.columns),
    "rollback": (2, Writer.roll_back),
    "roll forward": (1, Writer.roll_forward),
    "expiry behind the cursor": (2, Writer.expire),
    "expiry ahead of the cursor": (1, Writer.expire_ahead),
    "staged append": (1, Writer.stage),
    "cherry-pick": (2, Writer.pick),
    "branch beside": (1, Writer.branch),
}
"""Every kind of commit, and how often it comes in a deck."""
