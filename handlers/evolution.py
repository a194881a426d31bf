"""Tells how a table's columns changed. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Field:
    """A column as Iceberg knows it: its id stays when it is renamed or widened."""

    id: int
    name: str
    type: str


@dataclass(frozen=True, slots=True)
class Evolution:
    """What happened to the columns between two schemas."""

    sentence: str
    """All of it in words; empty if nothing changed."""
    lost: Mapping[str, str]
    """Names that are no longer there, each with what became of its column."""


def evolution(before: Sequence[Field], after: Sequence[Field]) -> Evolution:
    """Compare two schemas by the ids of their columns."""
    then, now = {field.id: field for field in before}, {field.id: field for field in after}
    names = {field.name for field in after}
    anew = [field.name for field in after if field.id not in then]
    told = [f"{name} added" for name in anew]
    lost = {}
    for field in before:
        if what := _what(field, now.get(field.id), anew):
            told.append(f"{field.name} {what}")
            if field.name not in names:
                lost[field.name] = what
    return Evolution(f"columns: {', '.join(told)}" if told else "", lost)


def _what(before: Field, now: Field | None, anew: Sequence[str]) -> str:
    """Say what happened to a column; empty if nothing did."""
    if now is None:
        return "dropped and made anew" if before.name in anew else "dropped"
    told = [f"renamed to {now.name}"] if now.name != before.name else []
    told += [f"changed from {before.type} to {now.type}"] if now.type != before.type else []
    return " and ".join(told)
