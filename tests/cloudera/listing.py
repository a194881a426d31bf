"""Lists as the platform gives them: a filter that looks for parts, a sort, pages of ten."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Mapping
from functools import partial
from typing import Any

from cloudera.contract import Keys, Operation
from cloudera.errors import Refused

PAGE = 10
Item = Mapping[str, Any]
ALIASES = {"model_name": "name", "version_number": "number", "versions": "number"}
"""Keys of the registry's lists that are called otherwise in the items."""


def page(
    operation: Operation, path: str, query: Mapping[str, str], items: list[Item]
) -> tuple[list[Item], str]:
    """Give one page and the token of the next; the token is empty at the end.

    Raises:
        Refused: a key that is not documented, or a token of another list.
    """
    found = [item for item in items if _matches(item, query.get("search_filter"), operation)]
    found = _sorted(found, query.get("sort"), operation.sorts)
    size = int(query.get("page_size") or 0) or PAGE
    if size < 0:
        raise Refused(400, "page_size must be positive")
    asked = [path, size, query.get("search_filter", ""), query.get("sort", "")]
    mark = hashlib.sha256(json.dumps(asked).encode()).hexdigest()[:12]
    start = _start(query.get("page_token", ""), mark)
    end = start + size
    return found[start:end], _token(end, mark) if end < len(found) else ""


def _token(start: int, mark: str) -> str:
    return base64.urlsafe_b64encode(f"{start}:{mark}".encode()).decode()


def _start(token: str, mark: str) -> int:
    if not token:
        return 0
    try:
        start, _, of = base64.urlsafe_b64decode(token).decode().partition(":")
        place = int(start)
    except ValueError:
        raise Refused(400, "invalid page token") from None
    if of != mark:
        raise Refused(400, "invalid page token: page_size, search_filter and sort must be repeated")
    return place


def _matches(item: Item, text: str | None, operation: Operation) -> bool:
    if not text:
        return True
    try:
        wanted = json.loads(text)
    except ValueError:
        wanted = None
    if not isinstance(wanted, dict):
        raise Refused(400, f"search_filter must be a JSON object: {text}")
    for key in wanted:
        if not operation.filters.admits(key):
            raise Refused(400, f"search_filter has no key {key}")
    return all(_contains(item, k, v, operation.filters) for k, v in wanted.items())


def _contains(item: Item, key: str, wanted: Any, keys: Keys) -> bool:
    """Whether a field contains a text; states are known by their last words, in small letters."""
    text = _text(_value(item, key))
    if key in keys.values:
        text = text.lower().removeprefix("application_").removeprefix("engine_")
    return _text(wanted) in text


def _value(item: Any, key: str) -> Any:
    """Give what a key means; of a run, `metrics.auc` is an entry of a list within its data."""
    head, _, rest = key.partition(".")
    if not rest:
        return item.get(key, item.get(ALIASES.get(key, key)))
    if head in item.get("data", {}):
        return next((one["value"] for one in item["data"][head] if one["key"] == rest), None)
    return item.get(head, {}).get(rest)


def _text(value: Any) -> str:
    return json.dumps(value) if isinstance(value, bool) else "" if value is None else str(value)


def _sorted(items: list[Item], sort: str | None, keys: Keys) -> list[Item]:
    for part in reversed((sort or "").split(",")):
        if not part:
            continue
        name = part.lstrip("+- ")
        if not keys.admits(name):
            raise Refused(400, f"sort has no key {name}")
        items = sorted(items, key=partial(_rank, name), reverse=part[0] == "-")
    return items


def _rank(name: str, item: Item) -> tuple[int, float, str]:
    return _order(_value(item, name))


def _order(value: Any) -> tuple[int, float, str]:
    if isinstance(value, int | float):
        return (1, float(value), "")
    return (0, 0.0, "") if value is None else (2, 0.0, str(value))
