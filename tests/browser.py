"""A real headless Chromium, and the pages of a ledger with a long history on a real port."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import pytest
from conftest import free_port
from long_history import COLUMNS
from playwright.sync_api import Browser, ConsoleMessage, Page, sync_playwright

from config.settings import Settings
from daemon import dashboard, service
from daemon.ledger import Ledger
from daemon.pages import Models
from daemon.service import Step

CHROMIUM = ("chromium", "chromium-browser", "google-chrome")
EXPLANATION = {
    "rows": 288, "against": "37",
    "features": [
        {"name": name, "share": 0.3 - 0.04 * place, "gain": 0.2, "champion": 0.25 - 0.03 * place}
        for place, name in enumerate(COLUMNS)
    ],
    "slices": [
        {"slice": "age above 60", "rows": 88, "challenger": 0.31, "champion": 0.35, "error": 0.01},
        {"slice": "gender is F", "rows": 140, "challenger": 0.33, "champion": 0.32, "error": 0.01},
    ],
    "confusion": {"classes": ["0", "1"], "counts": [[250, 5], [13, 20]]},
    "calibration": [
        {"predicted": place / 12, "observed": place / 12 + 0.01 * (-1) ** place, "rows": 28}
        for place in range(10)
    ],
}  # fmt: skip


@contextmanager
def chromium() -> Iterator[Browser]:
    """Start the browser that this machine has; Playwright's own is not needed."""
    path = next(filter(None, map(shutil.which, CHROMIUM)), None)
    if path is None:
        pytest.skip("there is no Chromium: install the system's package `chromium`")
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield browser
        browser.close()


def what_if(_: str, given: Mapping[str, str]) -> Mapping[str, Any]:
    """Score a row by two models that know one number."""
    amount = given.get("transaction_amount", "80")
    models = [
        {"name": name, "scores": [min(float(amount) / by, 1.0)],
         "added": {"transaction_amount": float(amount) / by - 0.5, "zip": 0.0}}
        for name, by in (("version 37", 100), ("champion, version 1", 200))
    ]  # fmt: skip
    fields = [
        {"name": "transaction_amount", "kind": "number", "choices": [], "text": amount},
        {"name": "zip", "kind": "category", "choices": ["80331", "10115"], "text": ""},
    ]
    return {"fields": fields, "models": models, "classes": ["0", "1"]}


class WithoutPrefix:
    """A proxy that takes a prefix off, and adds who came, as that of a platform does."""

    def __init__(self, app: Any, prefix: str, who: Mapping[str, str]) -> None:
        self.app, self.prefix, self.who = app, prefix, who
        self.state = app.state

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Pass a request on."""
        if scope["type"] == "http":
            added = [(name.encode(), value.encode()) for name, value in self.who.items()]
            path = scope["path"].removeprefix(self.prefix)
            scope = {**scope, "path": path, "headers": [*scope["headers"], *added]}
        await self.app(scope, receive, send)


WRITER = {"remote-user": "ada", "remote-user-perm": "RW"}


@contextmanager
def serving(
    settings: Settings, book: Ledger, activity: Callable[[], Mapping[str, Step]] = dict,
    *, prefix: str = "", who: Mapping[str, str] = WRITER,
) -> Iterator[str]:  # fmt: skip
    """Serve the pages behind a proxy; gives their address."""
    app: Any = dashboard.app(
        settings, book, activity, list,
        models=Models(lambda _: {"explanation": EXPLANATION}, what_if), proxied=True,
    )  # fmt: skip
    bound = service.bind("127.0.0.1", free_port())
    with service.pages(WithoutPrefix(app, prefix, who), bound):  # type: ignore[arg-type]
        yield f"http://127.0.0.1:{bound.getsockname()[1]}{prefix}"


class Watched:
    """A page of the browser, and all that it complained of."""

    def __init__(self, page: Page) -> None:
        self.page = page
        self.complaints: list[str] = []
        self.asked: list[str] = []
        self._lock = threading.Lock()
        page.on("console", self._said)
        page.on("pageerror", lambda error: self._note(str(error)))
        page.on("request", lambda request: self.asked.append(request.url))

    def _said(self, said: ConsoleMessage) -> None:
        if said.location["url"] != self.page.url:  # a page may be missing, nothing on it may
            self._note(said.text, said.type)

    def _note(self, text: str, kind: str = "error") -> None:
        if kind in {"error", "warning"}:
            with self._lock:
                self.complaints.append(text)
