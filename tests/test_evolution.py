"""How a table's columns changed, told by their ids."""

from __future__ import annotations

import random
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from handlers.evolution import Evolution, Field, evolution

EXAMPLES = settings(max_examples=150, deadline=None)
NAMES = ["amount", "day", "fraud", "id"]
A, B, C = Field(1, "a", "int"), Field(2, "b", "string"), Field(3, "c", "double")


def schemas() -> st.SearchStrategy[list[Field]]:
    """Draw a schema: ids and names are each unique in it."""
    fields = st.builds(
        Field, st.integers(1, 5), st.sampled_from(NAMES), st.sampled_from(["int", "long"])
    )
    return st.lists(fields, max_size=4, unique_by=(lambda f: f.id, lambda f: f.name))


@pytest.mark.parametrize(
    ("before", "after", "told", "lost"),
    [
        ([], [], "", {}),
        ([A, B], [B, A], "", {}),
        ([A], [A, B, C], "b added, c added", {}),
        ([A, B], [A], "b dropped", {"b": "dropped"}),
        ([A, B], [A, Field(2, "x", "string")], "b renamed to x", {"b": "renamed to x"}),
        ([A], [Field(1, "a", "bigint")], "a changed from int to bigint", {}),
        (
            [A],
            [Field(1, "x", "bigint")],
            "a renamed to x and changed from int to bigint",
            {"a": "renamed to x and changed from int to bigint"},
        ),
        ([A], [Field(7, "a", "int")], "a added, a dropped and made anew", {}),
        ([A, B], [Field(1, "b", "int"), Field(2, "a", "string")],
         "a renamed to b, b renamed to a", {}),
        # The name is there, but it is another column that was there before.
        ([A, B], [Field(2, "a", "string")], "a dropped, b renamed to a", {"b": "renamed to a"}),
        ([A, B], [Field(1, "x", "int"), Field(7, "b", "string")],
         "b added, a renamed to x, b dropped and made anew", {"a": "renamed to x"}),
    ],
)  # fmt: skip
def test_what_happened_to_columns(
    before: Sequence[Field], after: Sequence[Field], told: str, lost: dict[str, str]
) -> None:
    """Each column that changed is told once, in words; names that are gone are lost."""
    assert evolution(before, after) == Evolution(f"columns: {told}" if told else "", lost)


@EXAMPLES
@given(schemas(), schemas(), st.randoms(use_true_random=False))
def test_columns_that_stay_are_not_mentioned(
    before: list[Field], after: list[Field], chance: random.Random
) -> None:
    """Nothing is told if and only if the columns are the same, in whatever order."""
    found = evolution(before, after)
    assert (not found.sentence) == (set(before) == set(after))
    mixed = chance.sample(after, len(after))
    assert evolution(before, mixed).lost == found.lost


@EXAMPLES
@given(schemas(), schemas())
def test_lost_are_the_names_that_are_gone(before: list[Field], after: list[Field]) -> None:
    """Just the names of before that no column has now, each with what is told of it."""
    found = evolution(before, after)
    names = {field.name for field in after}
    assert set(found.lost) == {field.name for field in before} - names
    told = found.sentence.removeprefix("columns: ").split(", ")
    assert all(f"{name} {what}" in told for name, what in found.lost.items())
    changed = {f.id for f in before} ^ {f.id for f in after}
    assert len([text for text in told if text]) == len(changed) + sum(
        f.id == g.id and f != g for f in before for g in after
    )
