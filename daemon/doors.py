"""The outside systems of one pipeline, together, and what a decision needs of them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import pandas as pd

from handlers.drift import Profile
from handlers.endpoint import Endpoint
from handlers.evolution import Evolution
from handlers.facts import Changes, Cursor, Delta, Model, Record, Thin
from handlers.registry import Registry
from handlers.rows import Table as Rows
from handlers.scorer import Scorer
from handlers.table import Table


class Source(Protocol):
    """What a decision reads of the table."""

    def contains(self, snapshot_id: int) -> bool:
        """Say whether a snapshot is in the branch's history."""

    def schema(self, delta: Delta | None = None) -> Mapping[str, str]:
        """Give columns and their types, of a delta or of the table."""

    def evolution(self, delta: Delta) -> Evolution:
        """Say how the columns changed since the delta's start."""

    def read(self, delta: Delta, columns: Sequence[str], thin: Thin | None = None) -> Rows:
        """Read the rows of a delta, or a sample of them."""

    def since(self, cursor: Cursor | None, head: Cursor | None = None) -> Delta | None:
        """Give what came after the cursor."""

    def kept(self, snapshot_ids: Iterable[int]) -> frozenset[int]:
        """Say which of these snapshots the table still keeps."""

    def measure(self, delta: Delta, columns: Sequence[str]) -> Changes:
        """Count what a delta with rewrites changed."""


class Evidence(Protocol):
    """What keeps decisions and their models."""

    def find(self, key: str) -> Record | None:
        """Find the completed work of a run key."""

    def record(
        self,
        record: Record,
        scorer: Scorer | None,
        sample: pd.DataFrame | None,
        explanation: Mapping[str, Any] | None = None,
        profile: Profile | None = None,
        made: Mapping[str, Scorer] | None = None,
    ) -> Record:
        """Keep a decision, and its model if there is one; gives the record with its model."""

    def fetch(self, model: Model, home: Path) -> Path:
        """Bring a model to this machine."""

    def fetch_member(self, model: Model, kind: str | None, home: Path) -> Path:
        """Bring a model that a run made on its way, or the one that it was to serve."""


class Access(Protocol):
    """The two that a decision reaches."""

    @property
    def table(self) -> Source:
        """Where its rows come from."""

    @property
    def registry(self) -> Evidence:
        """Where its evidence is kept."""


@dataclass(frozen=True, slots=True)
class Doors:
    """Where its rows come from, where its evidence is kept, and where its model serves."""

    table: Table
    registry: Registry
    endpoint: Endpoint
