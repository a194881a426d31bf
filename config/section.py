"""What all groups of settings are made of."""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field
from pydantic.fields import FieldInfo

UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}


def _seconds(value: object) -> object:
    """Read `90`, `"90s"`, `"1.5m"`, `"2h"`, `"1d"`, `"500ms"` as seconds."""
    if not isinstance(value, str | bool):
        return value
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*(ms|[smhd])?", str(value).strip())
    if not found:
        msg = "is no duration; write seconds (90) or a unit: 500ms, 90s, 1.5m, 2h, 1d"
        raise ValueError(msg)
    return float(found[1]) * UNITS[found[2] or "s"]


Duration = Annotated[float, BeforeValidator(_seconds), Field(gt=0, allow_inf_nan=False)]


class Section(BaseModel):
    """A frozen group of settings that refuses keys it does not know."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


def fields(model: type[BaseModel]) -> dict[str, FieldInfo]:
    """Give the settings of a group under the names that the YAML file has for them."""
    return {field.alias or name: field for name, field in model.model_fields.items()}
