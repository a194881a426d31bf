"""The typed requests and responses: one class per schema, made when the module is imported."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from pprint import pformat
from typing import Any, ClassVar

from cmlapi.document import class_name, schemas, type_of


class Message:
    """What all of them do, as the generator of the real client writes it into each."""

    swagger_types: ClassVar[dict[str, str]] = {}
    attribute_map: ClassVar[dict[str, str]] = {}

    def __init__(self, **fields: Any) -> None:
        for name in fields:
            if name not in self.swagger_types:
                raise TypeError(f"__init__() got an unexpected keyword argument {name!r}")
        for name in self.swagger_types:
            setattr(self, name, fields.get(name))

    def to_dict(self) -> dict[str, Any]:
        """Give all fields, those without a value as None."""
        return {name: _plain(getattr(self, name)) for name in self.swagger_types}

    def to_str(self) -> str:
        """Write all fields."""
        return pformat(self.to_dict())

    def __repr__(self) -> str:
        """Write all fields."""
        return self.to_str()

    def __eq__(self, other: object) -> bool:
        """Whether two of the same class have the same fields."""
        return type(other) is type(self) and vars(other) == vars(self)

    __hash__ = None  # type: ignore[assignment]

    def __getattr__(self, name: str) -> Any:
        """Say what is missing; it is here for the type checker, which cannot see the fields."""
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")


def _plain(value: Any) -> Any:
    if isinstance(value, Message):
        return value.to_dict()
    if isinstance(value, list):
        return [_plain(one) for one in value]
    if isinstance(value, dict):
        return {name: _plain(one) for name, one in value.items()}
    return value


def _make(name: str, schema: Any) -> type[Message]:
    fields = schema.get("properties", {})
    body: dict[str, Any] = {
        "swagger_types": {field: type_of(of) for field, of in fields.items()},
        "attribute_map": {field: field for field in fields},
        "__doc__": schema.get("description"),
        "__module__": "cmlapi.models",
    }
    body |= {value: value for value in schema.get("enum", [])}
    return type(class_name(name), (Message,), body)


MODELS = {class_name(name): _make(name, schema) for name, schema in schemas().items()}


def read(kind: str, value: Any) -> Any:
    """Turn what JSON carried into an object of a swagger type."""
    if value is None:
        return None
    if kind.startswith("list["):
        return [read(kind[5:-1], one) for one in value]
    if kind.startswith("dict("):
        return {name: read(kind[10:-1], one) for name, one in value.items()}
    if kind == "datetime":
        return moment(value)
    made = MODELS.get(kind)
    if made is None or isinstance(value, str):  # an enumeration stays text
        return CASTS.get(kind, _as_it_is)(value)
    return made(**{name: read(of, value.get(name)) for name, of in made.swagger_types.items()})


CASTS: dict[str, Callable[[Any], Any]] = {"str": str, "int": int, "float": float, "bool": bool}


def _as_it_is(value: Any) -> Any:
    return value


def moment(text: str) -> datetime:
    """Read a time; its fraction may have any number of digits."""
    head, dot, tail = text.replace("Z", "+00:00").partition(".")
    if not dot:
        return datetime.fromisoformat(head)
    digits = len(tail) - len(tail.lstrip("0123456789"))
    return datetime.fromisoformat(f"{head}.{tail[:digits][:6]:0<6}{tail[digits:]}")


def write(value: Any) -> Any:
    """Turn a body into what JSON carries; fields without a value are left out, dicts are not."""
    if isinstance(value, Message):
        names = value.attribute_map
        fields = {names[name]: getattr(value, name) for name in value.swagger_types}
        return {name: write(one) for name, one in fields.items() if one is not None}
    if isinstance(value, list | tuple):
        return [write(one) for one in value]
    if isinstance(value, dict):
        return {name: write(one) for name, one in value.items()}
    return value.isoformat() if isinstance(value, datetime) else value
