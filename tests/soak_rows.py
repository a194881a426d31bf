"""The rows that the soak writes, as SQL: whatever is in a row follows from its id and version."""

from __future__ import annotations

from collections.abc import Mapping
from random import Random

FEATURES = ("version", "part", "serial", "a", "b")
EXTRAS = tuple(f"extra{number}" for number in range(6))
"""Columns that come and go; a name that comes again is another column."""
COLUMNS = "id BIGINT, version INT, part INT, serial DOUBLE, a DOUBLE, b FLOAT, label INT"
LARGEST_A = 1000
"""What the data contract allows; broken batches exceed it."""
MOST_ROWS = 4000
"""With more the oldest are deleted."""
UNLABELLED = (40, 7)
"""Ids of this residue class have no label."""
REGIME = 2500
"""After so many ids the label's rule turns round, so that a new model has something to gain."""


class Rows:
    """Writes the queries of rows. All that one step writes has the step's number as its version.

    So no image ever comes from two writes.
    """

    def __init__(self) -> None:
        self.step = 0
        self.extras: list[str] = []
        """Further columns that the table has."""
        self.next_id = 0

    def fresh(self, count: int) -> str:
        """Give a range of ids that were never there."""
        first, self.next_id = self.next_id, self.next_id + count
        return f"range({first}, {self.next_id})"

    def query(self, ids: str, **columns: str) -> str:
        """Write the query of new rows; some columns can be replaced."""
        values = {
            "id": "id", "version": str(self.step), "part": "CAST(id % 3 AS INT)",
            "serial": "CAST(id AS DOUBLE)", **self.learnable(),
            **dict.fromkeys(self.extras, "CAST(id % 13 AS DOUBLE)"),
        }  # fmt: skip
        told = ", ".join(f"{value} AS {name}" for name, value in (values | columns).items())
        return f"SELECT /*+ COALESCE(1) */ {told} FROM {ids}"

    def learnable(self) -> Mapping[str, str]:
        """Write what is learnt from and what is to be learnt: a rule, a tenth of it noise."""
        drawn = f"pmod(hash(id, {self.step}), 1000) / 100.0 - 5"
        right = f"(({drawn}) > 0) = ((id DIV {REGIME}) % 2 = 0)"
        noise = f"pmod(hash({self.step}, id), 10) = 0"
        return {
            "a": f"CAST({drawn} AS DOUBLE)",
            "b": "CAST(pmod(hash(id), 100) / 10.0 AS FLOAT)",
            "label": self.label(f"CAST({right} != ({noise}) AS INT)"),
        }

    def label(self, value: object) -> str:
        """Write a label, which some ids never have."""
        modulus, rest = UNLABELLED
        return f"CASE WHEN id % {modulus} = {rest} THEN NULL ELSE {value} END"

    def excessive(self) -> str:
        """Write a column that breaks the data contract here and there."""
        return f"CASE WHEN id % 25 = 3 THEN {LARGEST_A * 5.0}D ELSE {self.learnable()['a']} END"

    def some(self, chance: Random) -> str:
        """Choose some of the rows, rather of the younger ones."""
        modulus = chance.choice((3, 7, 11, 30))
        youngest = max(0, self.next_id - chance.choice((500, 1500, MOST_ROWS)))
        return f"id % {modulus} = {chance.randrange(modulus)} AND id >= {youngest}"
