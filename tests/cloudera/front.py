"""The HTTP servers of the workbench: each request is one call, answered or cut off."""

from __future__ import annotations

import json
import socket
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any


class Lost(Exception):
    """The connection ends here, without an answer."""


@dataclass(frozen=True)
class Received:
    """A request."""

    verb: str
    target: str
    headers: Mapping[str, str]
    content: bytes

    @property
    def path(self) -> str:
        """Give the target without its query."""
        return self.target.partition("?")[0]

    @property
    def query(self) -> str:
        """Give the query of the target."""
        return self.target.partition("?")[2]


@dataclass(frozen=True)
class Sent:
    """An answer; a value that is no text is sent as JSON."""

    status: int
    body: Any
    headers: Mapping[str, str] = field(default_factory=dict)

    @property
    def content(self) -> bytes:
        """Give the bytes of the body."""
        if isinstance(self.body, bytes):
            return self.body
        return json.dumps(self.body).encode()


Answer = Callable[[Received], Sent]


class Front(ThreadingHTTPServer):
    """A server on loopback, in threads of its own."""

    daemon_threads = True
    block_on_close = False
    request_queue_size = 128

    def __init__(self, answer: Answer, port: int = 0) -> None:
        super().__init__(("127.0.0.1", port), Handler)
        self.answer = answer
        self.address = f"127.0.0.1:{self.server_port}"
        self.url = f"http://{self.address}"
        Thread(target=self.serve_forever, args=(0.02,), daemon=True).start()

    def close(self) -> None:
        """Let go of the port."""
        self.shutdown()
        self.server_close()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing: clients leave when they please."""


class Handler(BaseHTTPRequestHandler):
    """Hands a request to the server's function."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # or small answers wait for 40 ms
    wbufsize = -1
    server: Front

    def relay(self) -> None:
        """Answer any method."""
        length = int(self.headers.get("Content-Length") or 0)
        headers = {name.lower(): value for name, value in self.headers.items()}
        received = Received(self.command, self.path, headers, self.rfile.read(length))
        try:
            sent = self.server.answer(received)
        except Lost:
            self.close_connection = True
            self.connection.shutdown(socket.SHUT_RDWR)
            return
        content = sent.content
        self.send_response_only(sent.status)
        for name, value in {"Content-Type": "application/json", **sent.headers}.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    do_GET = do_HEAD = do_POST = do_PUT = do_PATCH = do_DELETE = relay  # noqa: N815

    def log_message(self, *_: object) -> None:
        """Say nothing."""
