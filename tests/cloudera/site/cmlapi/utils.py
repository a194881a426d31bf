"""Lists of more than one page."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any


class Cursor:
    """Walks all pages of a list: `Cursor(client.list_models, project_id=..., sort=...).items()`."""

    def __init__(self, method: Callable[..., Any], **kwargs: Any) -> None:
        self._method = method
        self._kwargs = kwargs

    def items(self) -> Iterator[Any]:
        """Give the items, fetching pages as they are asked for."""
        token = ""
        while True:
            page = self._method(**self._kwargs, **({"page_token": token} if token else {}))
            types = page.swagger_types
            yield from getattr(page, next(n for n in types if types[n].startswith("list["))) or []
            token = page.next_page_token
            if not token:
                return
