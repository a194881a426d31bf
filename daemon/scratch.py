"""What stands in for a pipeline's doors while its history is replayed: nothing live is written."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd

from daemon.doors import Evidence, Source
from handlers import drift
from handlers.drift import Profile
from handlers.evidence import PROFILE
from handlers.evolution import Evolution
from handlers.facts import Changes, Cursor, Delta, GiveUp, Model, Record, Thin
from handlers.registry import MEMBERS, SCORER
from handlers.rows import Table as Rows
from handlers.scorer import Scorer

MADE_HERE = "simulated-"
"""What the runs of simulated models begin with."""


class Shelf:
    """Keeps simulated models in a folder; those of earlier runs are fetched from the live ones."""

    def __init__(self, folder: Path, live: Evidence) -> None:
        self._folder = folder
        self._live = live
        self.version = ""
        """The version that the next model gets."""

    def find(self, key: str) -> Record | None:  # noqa: ARG002 (as the registry has it)
        """Find nothing: each decision is made once."""
        return None

    def record(
        self,
        record: Record,
        scorer: Scorer | None,
        sample: pd.DataFrame | None,  # noqa: ARG002 (as the registry has it)
        explanation: Mapping[str, Any] | None = None,  # noqa: ARG002
        profile: Profile | None = None,
        made: Mapping[str, Scorer] | None = None,
    ) -> Record:
        """Keep the model of a decision, if it has one."""
        if scorer is None:
            return record
        model = Model(self.version, f"{MADE_HERE}{self.version}")
        folder = self._folder / model.run_id
        scorer.save(folder / SCORER)
        if profile is not None:
            drift.write(profile, folder / PROFILE)
        for kind, member in (made or {}).items():
            member.save(folder / MEMBERS / kind)
        return replace(record, model=model)

    def fetch(self, model: Model, home: Path) -> Path:
        """Give a simulated model, or bring a live one to this machine."""
        if model.run_id.startswith(MADE_HERE):
            return self._folder / model.run_id
        return self._live.fetch(model, home)

    def fetch_member(self, model: Model, kind: str | None, home: Path) -> Path:
        """Give what a simulated run made on its way, or bring that of a live one."""
        if not model.run_id.startswith(MADE_HERE):
            return self._live.fetch_member(model, kind, home)
        folder = self._folder / model.run_id / (f"{MEMBERS}/{kind}" if kind else SCORER)
        if not folder.is_dir():
            raise GiveUp(f"The simulated run {model.run_id} does not keep its {kind}.", "")
        return folder


@dataclass(frozen=True, slots=True)
class Then:
    """The table as a decision on record found it: what left its history since was still there."""

    now: Source
    contained: bool
    """Whether the delta was in the branch's history."""

    def contains(self, snapshot_id: int) -> bool:  # noqa: ARG002 (as the table has it)
        """Say what was so then."""
        return self.contained

    def schema(self, delta: Delta | None = None) -> Mapping[str, str]:
        """Give columns and their types."""
        return self.now.schema(delta)

    def evolution(self, delta: Delta) -> Evolution:
        """Say how the columns changed since the delta's start."""
        return self.now.evolution(delta)

    def read(self, delta: Delta, columns: Sequence[str], thin: Thin | None = None) -> Rows:
        """Read the rows of a delta, or a sample of them."""
        return self.now.read(delta, columns, thin)

    def since(self, cursor: Cursor | None, head: Cursor | None = None) -> Delta | None:
        """Give what came after the cursor."""
        return self.now.since(cursor, head)

    def kept(self, snapshot_ids: Iterable[int]) -> frozenset[int]:
        """Say which of these snapshots the table still keeps."""
        return self.now.kept(snapshot_ids)

    def measure(self, delta: Delta, columns: Sequence[str]) -> Changes:
        """Count what a delta with rewrites changed."""
        return self.now.measure(delta, columns)


@dataclass(frozen=True, slots=True)
class Desk:
    """The two doors of a replayed decision."""

    table: Then
    registry: Shelf
