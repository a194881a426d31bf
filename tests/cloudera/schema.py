"""Values held against the schemas: requests as the platform reads them, answers to the letter.

The platform is a gRPC service behind a JSON gateway, whose rules these are: a number may come as
text (`"cpu": "2"` is seen in working samples) and an unknown field is passed over in silence.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from cloudera.contract import Contract, Schema

DATE_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,9})?(Z|[+-]\d\d:\d\d)")
WHOLE = re.compile(r"-?\d+")


class Misfit(ValueError):
    """A value of a type that its field does not have."""


@dataclass
class Reading:
    """A request's body as the platform reads it, and what it dropped on the way."""

    contract: Contract
    dropped: list[str] = field(default_factory=list)

    def read(self, schema: Schema, value: Any, where: str = "") -> Any:
        """Give a value as its schema has it.

        Raises:
            Misfit: it is of another type.
        """
        schema = self.contract.resolve(schema)
        if value is None:
            return None
        if schema["type"] == "object":
            return self._object(schema, value, where)
        if schema["type"] == "array":
            if not isinstance(value, list):
                raise Misfit(f"{where or 'body'} must be a list, not {_name(value)}")
            return [self.read(schema["items"], one, f"{where}[{n}]") for n, one in enumerate(value)]
        return _scalar(schema, value, where)

    def _object(self, schema: Schema, value: Any, where: str) -> dict[str, Any]:
        if not isinstance(value, dict):
            raise Misfit(f"{where or 'body'} must be an object, not {_name(value)}")
        if "additionalProperties" in schema:
            of = schema["additionalProperties"]
            return {k: self.read(of, one, f"{where}.{k}") for k, one in value.items()}
        read: dict[str, Any] = {}
        for name, one in value.items():
            path = f"{where}.{name}" if where else name
            known = schema.get("properties", {}).get(name)
            if known is None or known.get("readOnly"):
                self.dropped.append(path)
            elif one is not None:
                read[name] = self.read(known, one, path)
        return read


def _scalar(schema: Schema, value: Any, where: str) -> Any:
    kind, form = schema["type"], schema.get("format")
    if "enum" in schema:
        if value not in schema["enum"]:
            raise Misfit(f"{where} must be one of {schema['enum']}, not {value!r}")
        return value
    if kind == "boolean":
        if not isinstance(value, bool):
            raise Misfit(f"{where} must be true or false, not {value!r}")
        return value
    if kind in ("integer", "number"):
        return _number(kind, value, where)
    if form == "int64" and not isinstance(value, bool):
        if WHOLE.fullmatch(text := str(value)):
            return text
        raise Misfit(f"{where} must be a whole number, not {value!r}")
    if not isinstance(value, str):
        raise Misfit(f"{where} must be text, not {_name(value)}: {json.dumps(value)[:60]}")
    if form == "date-time" and not DATE_TIME.fullmatch(value):
        raise Misfit(f"{where} must be a time, not {value!r}")
    return value


def _number(kind: str, value: Any, where: str) -> float | int:
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise Misfit(f"{where} must be a number, not {_name(value)}")
    try:
        number = float(value)
    except ValueError:
        raise Misfit(f"{where} must be a number, not {value!r}") from None
    if kind == "number":
        return number
    if not number.is_integer() or abs(number) >= 2**31:
        raise Misfit(f"{where} must be a whole number of 32 bits, not {value!r}")
    return int(number)


def _name(value: Any) -> str:
    kind = type(value).__name__
    return {"dict": "an object", "list": "a list", "str": "text"}.get(kind, kind)


def complaints(contract: Contract, schema: Schema, value: Any, where: str = "answer") -> list[str]:
    """Say what is wrong with an answer; here, unlike in requests, nothing is forgiven."""
    schema = contract.resolve(schema)
    if value is None:
        return []
    if schema["type"] == "array":
        if not isinstance(value, list):
            return [f"{where} is no list"]
        found = [complaints(contract, schema["items"], v, f"{where}[{n}]") for n, v in _each(value)]
        return [one for some in found for one in some]
    if schema["type"] == "object":
        return _complaints_of_object(contract, schema, value, where)
    return _complaints_of_scalar(schema, value, where)


def _each(value: list[Any]) -> list[tuple[int, Any]]:
    return list(enumerate(value))


def _complaints_of_object(contract: Contract, schema: Schema, value: Any, where: str) -> list[str]:
    if not isinstance(value, Mapping):
        return [f"{where} is no object"]
    known, more = schema.get("properties", {}), schema.get("additionalProperties")
    found = []
    for name, one in value.items():
        of = known.get(name, more)
        if of is None:
            found.append(f"{where}.{name} is not in the contract")
        else:
            found += complaints(contract, of, one, f"{where}.{name}")
    return found


def _complaints_of_scalar(schema: Schema, value: Any, where: str) -> list[str]:
    types: dict[str, type | tuple[type, ...]] = {
        "string": str, "boolean": bool, "integer": int, "number": (int, float),
    }  # fmt: skip
    right = isinstance(value, types[schema["type"]])
    if isinstance(value, bool) and schema["type"] != "boolean":
        right = False
    if right and "enum" in schema:
        right = value in schema["enum"]
    if right and schema.get("format") == "int64":
        right = WHOLE.fullmatch(value) is not None
    if right and schema.get("format") == "date-time":
        right = DATE_TIME.fullmatch(value) is not None
    return [] if right else [f"{where} is {value!r}, which is no {schema}"]
