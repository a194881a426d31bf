"""The outside systems of one pipeline, together."""

from __future__ import annotations

from dataclasses import dataclass

from handlers.endpoint import Endpoint
from handlers.registry import Registry
from handlers.table import Table


@dataclass(frozen=True, slots=True)
class Doors:
    """Where its rows come from, where its evidence is kept, and where its model serves."""

    table: Table
    registry: Registry
    endpoint: Endpoint
