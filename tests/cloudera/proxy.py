"""The way to an application: a login, two headers that say who comes, and the application."""

from __future__ import annotations

from contextlib import closing, suppress
from http.client import HTTPConnection, HTTPException, HTTPResponse
from threading import Lock
from typing import Any

from cloudera.applications import RUNNING, STARTING, Application
from cloudera.errors import Refused
from cloudera.front import Front, Handler
from cloudera.keys import APPLICATION
from cloudera.state import World

HOP = {"connection", "keep-alive", "transfer-encoding", "te", "trailer", "upgrade", "host"}
SPOOFED = {"remote-user", "remote-user-perm", "origin-remote-user"}


class Proxy:
    """One address per application, which stands for its subdomain."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._doors: dict[str, Door] = {}
        self._lock = Lock()

    def url(self, application: Application) -> str:
        """Give the address of an application; it stays the same as long as the workbench runs."""
        with self._lock:
            if application.id not in self._doors:
                self._doors[application.id] = Door(self._world, application)
            return self._doors[application.id].url

    def close(self) -> None:
        """Let go of all addresses."""
        for door in self._doors.values():
            door.close()


class Door(Front):
    """The server of one application's address."""

    def __init__(self, world: World, application: Application) -> None:
        self.world = world
        self.application = application
        super().__init__(_nobody)
        self.RequestHandlerClass = Passage

    def visitor(self, authorization: str | None) -> dict[str, str]:
        """Give the headers that say who comes.

        Raises:
            Refused: nobody may, unknown: 302 leads to the login.
        """
        habits = self.world.habits
        if authorization:
            key = self.world.keys.check(authorization, APPLICATION)
            return {"remote-user": key.user, "remote-user-perm": habits.visitor_permission}
        if habits.visitor:
            return {"remote-user": habits.visitor, "remote-user-perm": habits.visitor_permission}
        if self.application.body["bypass_authentication"]:
            return {}
        raise Refused(302, "log in first")


def _nobody(_: Any) -> Any:
    raise AssertionError


class Passage(Handler):
    """Passes a request on to the application, and its answer back as it comes."""

    server: Door

    def relay(self) -> None:
        """Serve any method."""
        length = int(self.headers.get("Content-Length") or 0)
        body = self.rfile.read(length)
        try:
            visitor = self.server.visitor(self.headers.get("Authorization"))
            self._pass_on(body, visitor)
        except Refused as error:
            self._say(error.status, error.message)
        except (OSError, HTTPException):
            self._say(503, "the application does not answer")

    def _pass_on(self, body: bytes, visitor: dict[str, str]) -> None:
        application = self.server.application
        if application.status not in (STARTING, RUNNING) or not application.port:
            raise Refused(503, f"the application is {application.status}")
        headers = {
            name: value
            for name, value in self.headers.items()
            if name.lower() not in HOP | SPOOFED | {"authorization"}
        }
        with closing(HTTPConnection("127.0.0.1", application.port, timeout=60)) as way:
            way.request(self.command, self.path, body, {**headers, **visitor})
            answer = way.getresponse()
            with suppress(OSError, HTTPException):  # what has begun can only be cut off
                self._copy(answer)

    def _copy(self, answer: HTTPResponse) -> None:
        """Pass an answer on piece by piece, so that a stream of events is one."""
        self.close_connection = True
        self.send_response_only(answer.status)
        for name, value in answer.getheaders():
            if name.lower() not in HOP:
                self.send_header(name, value)
        self.send_header("Connection", "close")
        self.end_headers()
        while part := answer.read1(65536):
            self.wfile.write(part)
            self.wfile.flush()

    def _say(self, status: int, text: str) -> None:
        content = text.encode()
        self.send_response_only(status)
        if status == 302:
            self.send_header("Location", "/login")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    do_GET = do_HEAD = do_POST = do_PUT = do_PATCH = do_DELETE = relay  # noqa: N815
