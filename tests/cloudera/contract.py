"""The contract, read from `cml_api_v2.yaml`: operations and schemas as the platform names them."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache, lru_cache
from pathlib import Path
from typing import Any

import yaml

FILE = Path(__file__).parent / "cml_api_v2.yaml"
VERBS = ("get", "post", "patch", "delete")
Schema = Mapping[str, Any]


@dataclass(frozen=True)
class Keys:
    """The keys that a list's filter or sort takes; None where the contract does not name them."""

    names: tuple[str, ...] | None
    values: Mapping[str, list[str]]

    def admits(self, name: str) -> bool:
        """Whether a key is documented; `metrics.*` stands for every metric."""
        if self.names is None:
            return True
        return any(
            name == known or (known.endswith("*") and name.startswith(known[:-1]))
            for known in self.names
        )


@dataclass(frozen=True)
class Operation:
    """One operation of the API."""

    id: str
    call: str
    """Name of the client's method."""
    verb: str
    path: str
    body: str | None
    """Name of the body's schema."""
    answer: str
    """Name of the schema of the answer with status 200."""
    query: Mapping[str, Schema]
    filters: Keys
    sorts: Keys

    def match(self, verb: str, path: str) -> dict[str, str] | None:
        """Give the path parameters of a request; None if it is not for this operation."""
        if verb != self.verb:
            return None
        found = _pattern(self.path).fullmatch(path)
        return found.groupdict() if found else None


@cache
def _pattern(path: str) -> re.Pattern[str]:
    """Compile a template; an id holds no colon, which leads the custom verbs."""
    literal = re.split(r"\{(\w+)\}", path)
    return re.compile(
        "".join(
            f"(?P<{part}>[^/:]+)" if place % 2 else re.escape(part)
            for place, part in enumerate(literal)
        )
    )


class Contract:
    """All operations and schemas."""

    def __init__(self, file: Path = FILE) -> None:
        loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # ten times faster, not everywhere
        with file.open(encoding="utf-8") as text:
            self.document: dict[str, Any] = yaml.load(text, loader)  # noqa: S506 (both are safe)
        self.schemas: Mapping[str, Schema] = self.document["components"]["schemas"]
        self.operations = {operation.id: operation for operation in self._operations()}

    def find(self, verb: str, path: str) -> tuple[Operation, dict[str, str]] | None:
        """Find the operation of a request, with its path parameters."""
        for operation in self.operations.values():
            if (found := operation.match(verb, path)) is not None:
                return operation, found
        return None

    def resolve(self, schema: Schema) -> Schema:
        """Follow a reference."""
        if "$ref" not in schema:
            return schema
        found: Schema = self.schemas[schema["$ref"].rpartition("/")[2]]
        return found

    def required(self, name: str) -> list[str]:
        """Name the fields that every published sample sends, though the API declares none."""
        return list(self.schemas[name].get("x-required-in-practice", []))

    def items_of(self, name: str) -> str | None:
        """Name the field of a list's answer that holds its items; None if it is no list."""
        fields = self.schemas[name].get("properties", {})
        if "next_page_token" not in fields:
            return None
        return next((field for field, s in fields.items() if s.get("type") == "array"), None)

    def _operations(self) -> Iterator[Operation]:
        for path, verbs in self.document["paths"].items():
            for verb in VERBS:
                if verb in verbs:
                    yield self._operation(path, verb, verbs[verb])

    def _operation(self, path: str, verb: str, about: Mapping[str, Any]) -> Operation:
        parameters = [self._parameter(given) for given in about.get("parameters", [])]
        query = {given["name"]: given for given in parameters if given["in"] == "query"}
        content = about.get("requestBody", {}).get("content", {})
        return Operation(
            id=about["operationId"],
            call=about["x-cmlapi-call"].partition("(")[0],
            verb=verb.upper(),
            path=path,
            body=_named(content) if content else None,
            answer=_named(about["responses"]["200"]["content"]),
            query={name: given["schema"] for name, given in query.items()},
            filters=_keys(query.get("search_filter", {})),
            sorts=_keys(query.get("sort", {})),
        )

    def _parameter(self, given: Mapping[str, Any]) -> Mapping[str, Any]:
        if "$ref" not in given:
            return given
        found: Mapping[str, Any] = self.document["components"]["parameters"][
            given["$ref"].rpartition("/")[2]
        ]
        return found


def _named(content: Mapping[str, Any]) -> str:
    return str(content["application/json"]["schema"]["$ref"].rpartition("/")[2])


def _keys(parameter: Mapping[str, Any]) -> Keys:
    names = parameter.get("x-keys")
    return Keys(None if names is None else tuple(names), parameter.get("x-key-values", {}))


@lru_cache(maxsize=1)
def contract() -> Contract:
    """Give the contract, read once."""
    return Contract()
