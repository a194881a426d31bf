"""What the pages show, as JSON: pipelines, deltas, champions, deployments, audit trail."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Path, Query

from config.settings import Settings
from daemon import archive, schema, schema_delta, views
from daemon.ledger import Ledger
from daemon.problem import Refused, problems
from daemon.service import Step
from handlers.facts import State

RECENT = 60
"""Deltas that a trend goes back."""
Name = Annotated[str, Path(description="A pipeline, as the configuration names it.")]
Limit = Annotated[int, Query(ge=1, le=200, description="How many at most.")]
Before = Annotated[
    int | None, Query(ge=1, le=2**53, description="Only what is older; `next` of the last page.")
]
Activity = Callable[[], Mapping[str, Step]]
Unready = Callable[[], list[str]]
How = Literal["promoted", "forced", "rolled back", "fell back", "restored"]
"""How a version becomes champion."""


def known(settings: Settings, pipeline: str) -> str:
    """Give the name of a pipeline that is configured.

    Raises:
        Refused: it is not.
    """
    if pipeline not in settings.pipelines:
        listed = ", ".join(settings.pipelines)
        raise Refused(404, f"There is no pipeline {pipeline!r}.", f"There are: {listed}.")
    return pipeline


def resources(
    settings: Settings, ledger: Ledger, activity: Activity, unready: Unready
) -> APIRouter:
    """Make the routes; everything they tell is read at the moment it is asked."""
    router = APIRouter(tags=["facts"], responses=problems(401, 421, 422, 503))

    def pipeline(name: str) -> schema.Pipeline:
        wanted, seen = settings.pipelines[name], views.pipeline(settings, ledger, name)
        last = seen["last"]["delta"] if seen["last"] else None
        told = {
            "label": wanted.label, "task": wanted.task, "metric": wanted.metric,
            "strategy": wanted.train.strategy, "poll_every": wanted.poll_every,
            "looked": name not in unready(),
            "activity": asdict(activity().get(name, Step())),
        }  # fmt: skip
        return schema.Pipeline(**{**seen, "last": last, **told})

    @router.get("/pipelines")
    def pipelines() -> schema.Pipelines:
        """Say where each pipeline stands."""
        return schema.Pipelines(pipelines=tuple(map(pipeline, settings.pipelines)))

    @router.get("/pipelines/{pipeline}", responses=problems(404))
    def standing(pipeline_: Annotated[str, Path(alias="pipeline")]) -> schema.Pipeline:
        """Say where one pipeline stands."""
        return pipeline(known(settings, pipeline_))

    @router.get("/activity")
    def steps() -> dict[str, schema.Step]:
        """Say what each pipeline does at this moment."""
        return {name: schema.Step(**asdict(step)) for name, step in activity().items()}

    _past(router, settings, ledger)
    _as_before(router, settings, ledger, activity)
    return router


def _past(router: APIRouter, settings: Settings, ledger: Ledger) -> None:
    """Add what was decided, served and done."""

    @router.get("/pipelines/{pipeline}/deltas", responses=problems(404))
    def deltas(
        pipeline: Name, limit: Limit = 50, before: Before = None, state: State | None = None
    ) -> schema_delta.Deltas:
        """Give a pipeline's deltas in short, newest first."""
        return archive.deltas(ledger, known(settings, pipeline), limit, before, state)

    @router.get("/pipelines/{pipeline}/deltas/{delta}", responses=problems(404))
    def delta(
        pipeline: Name, delta: Annotated[int, Path(ge=1, le=2**53, description="Its number.")]
    ) -> schema_delta.Delta:
        """Give everything about one delta."""
        found = archive.delta(ledger, known(settings, pipeline), delta)
        if found is None:
            raise Refused(404, f"{pipeline} has no delta {delta}.", "List those that it has.")
        return found

    @router.get("/pipelines/{pipeline}/champions", responses=problems(404))
    def champions(
        pipeline: Name, limit: Limit = 50, before: Before = None, how: How | None = None
    ) -> schema.Champions:
        """Give a pipeline's champions, newest first; rollbacks are those that were `rolled back`.

        One that the endpoint refused `fell back` to the champion before it.
        """
        return archive.champions(ledger, known(settings, pipeline), limit, before, how)

    @router.get("/pipelines/{pipeline}/deployments", responses=problems(404))
    def deployments(pipeline: Name, limit: Limit = 50, before: Before = None) -> schema.Deployments:
        """Give a pipeline's deployments, newest first, and how they ended."""
        return archive.deployments(ledger, known(settings, pipeline), limit, before)

    @router.get("/pipelines/{pipeline}/trend", responses=problems(404))
    def its_trend(pipeline: Name, limit: Limit = RECENT) -> schema.Trend:
        """Say how what a pipeline served did over its deltas, and what moved."""
        records = ledger.history(known(settings, pipeline), limit)
        return schema.Trend(**views.trend(records))

    @router.get("/audit")
    def audit(
        limit: Limit = 50, before: Before = None, pipeline: str | None = None
    ) -> schema.Audit:
        """Give what people, and the daemon's policies, did; newest first."""
        return archive.audit(ledger, limit, before, pipeline)


def _as_before(router: APIRouter, settings: Settings, ledger: Ledger, activity: Activity) -> None:
    """Add `/api/status`, `/api/history` and `/api/trend`; snapshot ids are numbers there."""

    @router.get("/status")
    def status() -> dict[str, Any]:
        """Tell what `retraind status --json` tells, and what each pipeline does at this moment."""
        steps = {name: asdict(step) for name, step in activity().items()}
        return {**views.status(settings, ledger), "activity": steps}

    @router.get("/history")
    def history(pipeline: str | None = None, limit: int = 50) -> list[dict[str, Any]]:
        """Tell what `retraind history --json` tells: the decisions taken, newest first."""
        records = ledger.history(pipeline, min(max(limit, 1), 1000))
        return views.history(records, ledger.forced(pipeline))

    @router.get("/trend")
    def trend(limit: int = RECENT) -> dict[str, Any]:
        """Say for each pipeline how what was served did over its deltas, and what moved."""
        most = min(max(limit, 1), 1000)
        return {name: views.trend(ledger.history(name, most)) for name in settings.pipelines}
