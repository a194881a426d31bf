"""A server that takes what Apprise sends."""

from __future__ import annotations

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

SECRET = "hunter2"  # noqa: S105 (the secret that must not be shown)


class Inbox:
    """A server that takes Apprise's webhooks, and may be told to refuse them or be slow."""

    def __init__(self, port: int = 0) -> None:
        self.got: list[dict[str, Any]] = []
        self.status = 200
        self.go_on = threading.Event()
        self.go_on.set()
        inbox = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                inbox.go_on.wait(10)
                if inbox.status == 200:
                    inbox.got.append(json.loads(body))
                self.send_response(inbox.status)
                self.end_headers()

            def log_message(self, *_: object) -> None:
                """Say nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
        self.port = self._server.server_port
        self.url = f"json://ann:{SECRET}@127.0.0.1:{self.port}/{SECRET}"
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()

    @property
    def texts(self) -> list[str]:
        """Give the messages as they were read."""
        return [f"{one['title']}\n{one['message']}" for one in self.got]

    def close(self) -> None:
        """Be out of reach."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
