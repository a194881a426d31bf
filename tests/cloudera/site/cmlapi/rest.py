"""What the server answers when it refuses."""

from __future__ import annotations

from typing import Any


class ApiException(Exception):
    """An answer whose status is no success; a lost connection is urllib3's own error instead."""

    def __init__(
        self, status: int | None = None, reason: str | None = None, http_resp: Any = None
    ) -> None:
        super().__init__(status, reason)
        self.status = http_resp.status if http_resp else status
        self.reason = http_resp.reason if http_resp else reason
        self.body: str | None = http_resp.data.decode() if http_resp else None
        self.headers = http_resp.headers if http_resp else None

    def __str__(self) -> str:
        """Write it as the real client does."""
        text = f"({self.status})\nReason: {self.reason}\n"
        if self.headers:
            text += f"HTTP response headers: {self.headers}\n"
        if self.body:
            text += f"HTTP response body: {self.body}\n"
        return text
