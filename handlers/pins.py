"""Names the tags that keep a model's snapshots from expiry. Pure.

A tag keeps one snapshot, not the ones before it, and an incremental read needs every snapshot of
its range: so all of them are tagged.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from handlers.facts import Record


def pattern(pipeline: str) -> str:
    """Give the regular expression of this pipeline's tags, and of no other's."""
    return rf"retraind-{re.escape(pipeline)}-\w+(\.\d+)?"


def tags(records: Iterable[Record]) -> Mapping[str, int]:
    """Give tag name -> snapshot id: all that reading these models' deltas again needs."""
    return {
        name: snapshot_id
        for record in records
        if record.model
        for name, snapshot_id in _tags(record, record.model.version).items()
    }


def _tags(record: Record, version: str) -> Mapping[str, int]:
    delta, name = record.delta, f"retraind-{record.pipeline}-{version}"
    found = {name: delta.end_id}
    if delta.start_id is None or delta.whole or delta.start_id == delta.end_id:
        return found
    between = [s.id for s in delta.snapshots[:-1]] if delta.way == "appended" else []
    parts = enumerate([delta.start_id, *between], start=1)
    return found | {f"{name}.{number}": snapshot_id for number, snapshot_id in parts}
