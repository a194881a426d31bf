"""What an operator does, over HTTP: the commands' actions, by those who may, under their name."""

from __future__ import annotations

from typing import Annotated, Literal

from fastapi import APIRouter, Header, HTTPException, Request
from pydantic import Field

from config.section import Section
from config.settings import Settings
from daemon import operate
from daemon.ledger import Ledger
from daemon.visitor import visitor
from handlers.facts import GiveUp

Action = Literal["pause", "resume", "rollback", "retry", "drop", "promote"]


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


def actions(settings: Settings, book: Ledger, *, proxied: bool) -> APIRouter:
    """Make the routes; `proxied` says whether the platform's login stands before them."""
    router = APIRouter()

    @router.get("/api/visitor")
    def who(request: Request) -> dict[str, str | bool]:
        """Say who asks, and whether they may act."""
        return visitor(request.headers, proxied=proxied).as_dict()

    @router.post("/api/pipelines/{pipeline}/{action}")
    def act(
        request: Request, pipeline: str, action: Action, wish: Wish,
        retraind: Annotated[str, Header(description="Pages of other sites cannot send it.")] = "",
    ) -> dict[str, str]:  # fmt: skip
        """Do what the command of that name does."""
        visits = visitor(request.headers, proxied=proxied)
        if not retraind:
            raise HTTPException(403, "Send a header `retraind`: pages of other sites cannot.")
        if not visits.may_act:
            raise HTTPException(403, visits.told)
        if pipeline not in settings.pipelines:
            raise HTTPException(404, f"There is no pipeline {pipeline!r}.")
        try:
            return {"done": _done(book, pipeline, action, wish, visits.name)}
        except GiveUp as error:
            raise HTTPException(409, str(error)) from error

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
