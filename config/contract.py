"""What a delta's rows must be like: the models behind `validate`."""

from __future__ import annotations

from pydantic import Field, model_validator

from config.section import Duration, Section


class ColumnRule(Section):
    """What one column must be like; a column that is named must be there."""

    type: str | None = None
    """Its Spark type as `DESCRIBE` names it, e.g. `double` or `decimal(10,2)`."""
    max_null: float = Field(1.0, ge=0, le=1)
    """Largest share of the rows that may be null; NaN counts as null."""
    min: float | None = Field(None, allow_inf_nan=False)
    """Least value of a number."""
    max: float | None = Field(None, allow_inf_nan=False)
    """Largest value of a number."""
    values: tuple[str | int | float | bool, ...] | None = Field(None, min_length=1)
    """The values that are accepted, beside null."""

    @model_validator(mode="after")
    def _consistent(self) -> ColumnRule:
        if self.min is not None and self.max is not None and self.min > self.max:
            msg = f"min: {self.min:g} is above max: {self.max:g}, so no value fits"
            raise ValueError(msg)
        return self


class Freshness(Section):
    """How old the newest row may be."""

    column: str
    """Column with the time of a row, a date or a timestamp; a date counts until its end (UTC)."""
    within: Duration
    """The newest value may be this old at most."""


class Contract(Section):
    """What the rows of a delta must be like to be trained on."""

    columns: dict[str, ColumnRule] = Field({})
    """Rules by column."""
    min_per_class: int = Field(0, ge=0)
    """Least labelled rows of each class in a delta; a binary delta must then hold both classes."""
    max_duplicates: float = Field(1.0, ge=0, le=1)
    """Largest share of a delta's rows that repeat a `row_key` of the same delta."""
    freshness: Freshness | None = None
