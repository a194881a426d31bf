"""A few rows are encoded in plain Python: the result must be that of the way through pandas."""

from __future__ import annotations

from typing import Any, get_args

import numpy as np
import pandas as pd
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from handlers.scorer import FEW, BadInput, Feature, FeatureKind

times = st.datetimes().map(str) | st.datetimes(timezones=st.timezones()).map(
    lambda moment: moment.isoformat()
)
near_times = st.from_regex(
    r"[0-9]{4}-[0-1][0-9]-[0-3][0-9]"
    r"([T ][0-2][0-9]:[0-9]{2}:[0-6][0-9](\.[0-9]{1,9})?(Z|[+-][0-2][0-9]:?[0-9]{2})?)?",
    fullmatch=True,
)
cells = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.integers(2**52, 2**65)
    | st.floats()
    | st.text(max_size=6)
    | times
    | near_times
    | st.sampled_from(["a", "b", "true", "False", "1", "1.5", "now", ""])
)


def outcome(feature: Feature, values: Any) -> list[float] | str:
    """Give the encoded column, or what is wrong with it."""
    try:
        encoded: list[float] = feature.encode(values).tolist()
    except BadInput as error:
        return str(error)
    return encoded


@pytest.mark.parametrize("kind", get_args(FeatureKind))
@settings(max_examples=150, deadline=None)
@given(values=st.lists(cells, max_size=4) | st.lists(times | near_times | st.none(), max_size=3))
@example(values=["2026-02-30"])
@example(values=["2026-01-01T24:00:00"])
@example(values=["0001-01-01T00:00:00+23:59"])
@example(values=["9999-12-31T23:59:59.999999-23:59"])
@example(values=[2**53 + 1, -(2**53) - 1, 1e39, -0.0])
def test_few_cells_are_encoded_as_many_are(kind: FeatureKind, values: list[Any]) -> None:
    """Whatever the cells, both ways give the same float32 values or the same refusal."""
    feature = Feature("x", kind, ("a", "b"))
    assert len(values) <= FEW
    few, many = outcome(feature, values), outcome(feature, pd.Series(values, dtype=object))
    assert np.array_equal(few, many, equal_nan=True) if isinstance(few, list) else few == many
