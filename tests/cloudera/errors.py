"""What the platform answers when it refuses."""

from __future__ import annotations

from typing import Any

CODES = {400: 3, 401: 16, 403: 7, 404: 5, 409: 6, 413: 3, 429: 8, 500: 13, 503: 14, 504: 4}
"""gRPC status codes by the HTTP status they come with."""


class Refused(Exception):
    """A request that is answered with a status and a `runtimeError`."""

    def __init__(self, status: int, message: str, code: int | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.code = CODES.get(status, 2) if code is None else code

    def body(self) -> dict[str, Any]:
        """Give it as the contract's `runtimeError`."""
        return {"error": self.message, "code": self.code, "message": self.message, "details": []}


def missing(what: str, name: str) -> Refused:
    """Say that something is not there."""
    return Refused(404, f"{what} {name} not found")
