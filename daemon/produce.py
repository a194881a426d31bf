"""Carries out `append`: plays the producer that commits batches to a pipeline's table."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from config.settings import Settings
from daemon import composition
from handlers.append import Mode, exists, read_file
from handlers.append import append as commit
from handlers.cards import SCHEMA, Recipe, cards
from handlers.facts import GiveUp, TryLater
from handlers.table import Table


def append(
    settings: Settings, name: str, source: Recipe | Path, mode: Mode, *, follow: bool = False,
    if_new: bool = False,
) -> dict[str, Any]:  # fmt: skip
    """Commit generated rows or a file's as one snapshot; gives what was committed.

    With `follow`, the recipe's batch is the one that follows those in the table. With `if_new`, a
    table that has rows is left as it is.
    """
    pipeline = settings.pipelines[name]
    if pipeline.branch != "main":
        raise GiveUp(
            f"`append` commits to main, but {name} watches the branch {pipeline.branch!r}.",
            "Commit to the branch with Spark.",
        )
    sessions = composition.sessions(settings)
    table = Table(sessions, pipeline.table, pipeline.branch)
    if if_new and exists(sessions, pipeline.table) and (head := table.head()):
        return {"table": pipeline.table, "mode": mode, "rows": 0, "snapshot": head.snapshot_id}
    if isinstance(source, Recipe):
        if pipeline.label not in SCHEMA.names:
            raise GiveUp(
                f"Generated rows are card transactions without a column {pipeline.label!r}, the "
                f"label of {name}.",
                "Append your own rows with --file.",
            )
        rows = cards(replace(source, batch=_commits(table)) if follow else source)
    else:
        rows = read_file(source)
    commit(sessions, pipeline.table, rows, mode, pipeline.row_key, settings.state_dir / "tmp")
    head = table.head()
    return {
        "table": pipeline.table,
        "mode": mode,
        "rows": rows.num_rows,
        "snapshot": head.snapshot_id if head else None,
    }


def _commits(table: Table) -> int:
    """Count the snapshots so far, so that each generated batch continues the story."""
    try:
        delta = table.since(None)
    except TryLater:
        return 0  # no table yet: this is the first batch
    return len(delta.snapshots) if delta else 0
