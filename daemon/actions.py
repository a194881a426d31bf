"""What an operator does, over HTTP: the commands' actions, by those who may, under their name."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Literal

import structlog
from fastapi import APIRouter, Header, Request
from pydantic import Field

from config.section import Section
from config.settings import Settings
from daemon import operate
from daemon.access import visiting
from daemon.ledger import Ledger
from daemon.problem import Refused, problems
from daemon.resources import Name, known
from daemon.schema import Asked, Done
from daemon.visitor import Visitor
from handlers.facts import GiveUp

Action = Literal["pause", "resume", "rollback", "retry", "drop", "promote"]
Mark = Annotated[
    str, Header(description="Anything; it must be there, as pages of other sites cannot send it.")
]

log = structlog.get_logger(__name__)


class Wish(Section):
    """What goes with an action, where it needs more than a pipeline."""

    reason: str = Field("", max_length=500)
    """Why; kept in the audit trail."""
    version: str | None = None
    """Of `promote` and `rollback`."""
    delta: int | None = None
    """Of `retry` and `drop`."""
    release: bool = False
    """Of `retry`: train on what breaks the data contract."""


def actions(settings: Settings, book: Ledger, look: Callable[[str], None]) -> APIRouter:
    """Make the routes; `daemon.access` lets only those in who may act."""
    router = APIRouter(tags=["actions"], responses=problems(401, 421, 503))

    @router.get("/visitor")
    def who(request: Request) -> dict[str, str | bool]:
        """Say who asks, and whether they may act."""
        return visiting(request).as_dict()

    def actor(request: Request, retraind: str) -> Visitor:
        if not retraind:
            raise Refused(403, "Send a header `retraind`: pages of other sites cannot.")
        return visiting(request)

    @router.post("/pipelines/{pipeline}/look", status_code=202, responses=problems(403, 404, 422))
    def hasten(request: Request, pipeline: Name, retraind: Mark = "") -> Asked:
        """Look at the table now instead of at the next poll: for who has just committed to it.

        May be called as often as one likes. While a look goes on, one more follows it.
        """
        visits = actor(request, retraind)
        look(known(settings, pipeline))
        log.info("look_asked", pipeline=pipeline, who=visits.name)
        return Asked(pipeline=pipeline, told=f"{pipeline} looks now.")

    @router.post("/pipelines/{pipeline}/{action}", responses=problems(400, 403, 404, 409, 422))
    def act(
        request: Request, pipeline: Name, action: Action, wish: Wish, retraind: Mark = ""
    ) -> Done:
        """Do what the command of that name does."""
        visits = actor(request, retraind)
        return Done(done=_done(book, known(settings, pipeline), action, wish, visits.name))

    return router


def _done(book: Ledger, pipeline: str, action: Action, wish: Wish, who: str) -> str:
    reason = wish.reason.strip()
    if action == "pause":
        return operate.pause(book, pipeline, reason, who)
    if action == "resume":
        return operate.resume(book, pipeline, who)
    if action == "rollback":
        return operate.rollback(book, pipeline, wish.version, reason, who)
    if action == "retry":
        return operate.retry(book, pipeline, wish.delta, release=wish.release, who=who)
    if action == "drop":
        if wish.delta is None:
            raise GiveUp("Which delta?", "Name the parked delta to close as `delta`.")
        return operate.drop(book, pipeline, wish.delta, reason, who)
    if not wish.version or not reason:
        raise GiveUp("Which version, and why?", "Name `version` and `reason`.")
    return operate.promote(book, pipeline, wish.version, reason, who)
