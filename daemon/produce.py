"""Carries out `append`: plays the producer that commits batches to a pipeline's table."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa

from config.settings import Settings
from daemon import composition
from handlers.append import Mode, read_file
from handlers.append import append as commit
from handlers.cards import Recipe, cards
from handlers.facts import TryLater
from handlers.table import Table


def append(settings: Settings, name: str, source: Recipe | Path, mode: Mode) -> dict[str, Any]:
    """Commit generated rows or a file's as one snapshot; gives what was committed.

    A recipe with a negative batch is the next in the table's story.
    """
    pipeline = settings.pipelines[name]
    sessions = composition.sessions(settings)
    table = Table(sessions, pipeline.table, pipeline.branch)
    rows = _generated(source, table) if isinstance(source, Recipe) else read_file(source)
    commit(sessions, pipeline.table, rows, mode, pipeline.row_key, settings.state_dir / "tmp")
    head = table.head()
    return {
        "table": pipeline.table,
        "mode": mode,
        "rows": rows.num_rows,
        "snapshot": head.snapshot_id if head else None,
    }


def _generated(recipe: Recipe, table: Table) -> pa.Table:
    return cards(recipe if recipe.batch >= 0 else replace(recipe, batch=_commits(table)))


def _commits(table: Table) -> int:
    """Count the snapshots so far, so that each generated batch continues the story."""
    try:
        delta = table.since(None)
    except TryLater:
        return 0  # no table yet: this is the first batch
    return len(delta.snapshots) if delta else 0
