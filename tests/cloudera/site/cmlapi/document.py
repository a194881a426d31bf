"""The contract as the generated client sees it: names, positions and types."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import yaml

FILE = Path(__file__).resolve().parents[2] / "cml_api_v2.yaml"
VERBS = ("get", "post", "patch", "delete")
PLAIN = {"string": "str", "integer": "int", "number": "float", "boolean": "bool"}


@dataclass(frozen=True)
class Method:
    """One method of the client."""

    name: str
    verb: str
    path: str
    required: tuple[str, ...]
    """The body, if there is one, then the ids of the path, outermost first."""
    ids: tuple[str, ...]
    """The names of the ids within the path, in the same order."""
    query: tuple[str, ...]
    answer: str

    @property
    def has_body(self) -> bool:
        """Whether it takes a body."""
        return len(self.required) > len(self.ids)


@lru_cache(maxsize=1)
def document() -> dict[str, Any]:
    """Read the contract once."""
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    with FILE.open(encoding="utf-8") as text:
        read: dict[str, Any] = yaml.load(text, loader)  # noqa: S506 (both loaders are safe)
    return read


def schemas() -> Mapping[str, Any]:
    """Give the schemas by name."""
    found: Mapping[str, Any] = document()["components"]["schemas"]
    return found


def methods() -> Iterator[Method]:
    """Give every method."""
    for path, verbs in document()["paths"].items():
        for verb in VERBS:
            if verb in verbs:
                yield _method(path, verb, verbs[verb])


def _method(path: str, verb: str, about: Mapping[str, Any]) -> Method:
    name, _, arguments = about["x-cmlapi-call"].rstrip(")").partition("(")
    required = [a.strip() for a in arguments.split(",") if a.strip() and a.strip()[0] != "*"]
    given = about.get("parameters", [])
    content = about["responses"]["200"]["content"]["application/json"]
    return Method(
        name,
        verb.upper(),
        path,
        tuple(required),
        tuple(one["name"] for one in given if one.get("in") == "path"),
        tuple(one.get("name") or _last(one["$ref"]) for one in given if one.get("in") != "path"),
        class_name(_last(content["schema"]["$ref"])),
    )


def type_of(schema: Mapping[str, Any]) -> str:
    """Name a field's type as `swagger_types` does."""
    if "$ref" in schema:
        return class_name(_last(schema["$ref"]))
    if schema["type"] == "array":
        return f"list[{type_of(schema['items'])}]"
    if schema["type"] == "object":
        more = schema.get("additionalProperties")
        return f"dict(str, {type_of(more)})" if more else "object"
    if schema.get("format") == "date-time":
        return "datetime"
    return PLAIN[schema["type"]]


def class_name(schema: str) -> str:
    """Name the class of a schema."""
    return schema[0].upper() + schema[1:]


def _last(reference: str) -> str:
    return reference.rpartition("/")[2]
