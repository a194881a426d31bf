"""Tells programs and pages that something changed: a stream of events, or a version to ask for."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import AsyncIterator
from typing import Annotated, Any

from fastapi import APIRouter, Header, Response
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import JSONResponse, StreamingResponse

from daemon.problem import Refused, problems
from daemon.schema import Version
from daemon.watch import Seen, Watch
from handlers.facts import TryLater

EVERY = 0.3
"""Seconds between two looks for changes, so a few events a second at most; and within which a
stream notices that it is to end."""
SIGN_OF_LIFE = 15.0
"""Seconds of silence after which a comment tells that the connection lives."""
RETRY = "retry: 2000\n\n"
"""Milliseconds after which a browser connects again."""
MOST = 64
"""Streams at a time."""
HEADERS = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
STREAM: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "Events `changed`; `data` is JSON with `version`, `changed` (`ledger`, "
        "`activity` or both) and `activity`. `id` is the version.",
        "content": {"text/event-stream": {"schema": {"type": "string"}}},
    }
}
SAME: dict[int | str, dict[str, Any]] = {304: {"description": "Nothing changed."}}


class Streams:
    """The streams that are open."""

    def __init__(self, watch: Watch, closing: threading.Event) -> None:
        self._watch, self._closing = watch, closing
        self.open = 0

    async def events(self, last: str) -> AsyncIterator[str]:
        """Give an event at each change, until the pages close; the first at once.

        Who has seen the `last` version is told only of the next.
        """
        self.open += 1
        try:
            yield RETRY
            version, known, silent = last, None, 0.0
            while not self._closing.is_set():
                seen = await self._look()
                if seen and seen.version != version:
                    yield event(seen, known)
                    version, silent = seen.version, 0.0
                elif silent >= SIGN_OF_LIFE:
                    yield ": nothing new\n\n"
                    silent = 0.0
                known = seen or known
                await asyncio.sleep(EVERY)
                silent += EVERY
        finally:
            self.open -= 1

    async def _look(self) -> Seen | None:
        try:
            return await run_in_threadpool(self._watch.now)
        except TryLater:
            return None  # the pages tell of it; a stream waits until the ledger can be read


def event(seen: Seen, before: Seen | None) -> str:
    """Write an event that tells what changed; everything may have, where nothing is known."""
    ledger = before is None or before.ledger != seen.ledger
    steps = before is None or (before.activity, before.waiting) != (seen.activity, seen.waiting)
    changed = [what for what, moved in (("ledger", ledger), ("activity", steps)) if moved]
    data = {"version": seen.version, "changed": changed, "activity": seen.activity}
    return f"id: {seen.version}\nevent: changed\ndata: {json.dumps(data)}\n\n"


def changes(watch: Watch, closing: threading.Event) -> APIRouter:
    """Make the routes; streams end when `closing` is set."""
    router = APIRouter(tags=["changes"], responses=problems(401, 421, 422, 503))
    streams = Streams(watch, closing)

    @router.get("/events", response_class=StreamingResponse, responses=STREAM)
    async def events(last_event_id: Annotated[str, Header()] = "") -> StreamingResponse:
        """Stream an event whenever anything changed that a page shows, a few a second at most."""
        if streams.open >= MOST:
            raise Refused(503, f"{MOST} streams are open.", "Ask for /api/version now and then.")
        return StreamingResponse(
            streams.events(last_event_id), media_type="text/event-stream", headers=HEADERS
        )

    @router.get("/version", response_model=Version, responses=SAME)
    def version(
        if_none_match: Annotated[str, Header(description="The `ETag` seen last.")] = "",
    ) -> Response:
        """Give what changes whenever anything does: cheap to ask for every few seconds."""
        now = watch.now().version
        headers = {"ETag": f'"{now}"', "Cache-Control": "no-cache"}
        known = {tag.strip().removeprefix("W/") for tag in if_none_match.split(",")}
        if known & {headers["ETag"], "*"}:
            return Response(status_code=304, headers=headers)
        return JSONResponse(Version(version=now).model_dump(), headers=headers)

    return router
