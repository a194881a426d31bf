"""The pages. Every link is relative, so that they work below any prefix that a proxy takes off."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from config import __version__
from config.settings import Settings
from daemon import story, views
from daemon.access import visiting
from daemon.drawing import bars, curve
from daemon.ledger import Ledger
from daemon.service import Step
from daemon.tally import Lag
from daemon.views import View
from handlers.facts import GiveUp, RetraindError

Explain = Callable[[str], Mapping[str, Any]]
"""Fetches what was kept to explain the model of a run; as `composition.explanation` gives it."""
WhatIf = Callable[[str, Mapping[str, str]], Mapping[str, Any]]
"""Scores a row by the model of a run; as `composition.what_if` does."""


@dataclass(frozen=True, slots=True)
class Models:
    """What the pages want of the models that MLflow keeps."""

    explain: Explain
    what_if: WhatIf


SHOWN = 15
"""Features that are drawn."""


def pages(
    settings: Settings,
    ledger: Ledger,
    activity: Callable[[], Mapping[str, Step]],
    models: Models | None,
    lags: Mapping[str, Lag],
) -> APIRouter:
    """Make the routes; see `daemon.dashboard.app`."""
    router = APIRouter(include_in_schema=False, default_response_class=HTMLResponse)
    shown = Pages(settings, ledger, activity, models, lags)
    router.get("/")(shown.home)
    router.get("/pipelines/{name}")(shown.pipeline)
    router.get("/pipelines/{name}/deltas/{sequence}")(shown.delta)
    router.get("/pipelines/{name}/models/{version}")(shown.model)
    router.get("/pipelines/{name}/explanations/{run}")(shown.explanation)
    router.get("/pipelines/{name}/what-if/{run}")(shown.what_if)
    router.get("/audit")(shown.audit)
    return router


class Pages:
    """One method a page."""

    def __init__(
        self, settings: Settings, ledger: Ledger, activity: Callable[[], Mapping[str, Step]],
        models: Models | None, lags: Mapping[str, Lag],
    ) -> None:  # fmt: skip
        self._settings = settings
        self._ledger = ledger
        self._activity = activity
        self._models = models
        self._lags = lags
        self._templates = _templates()

    def home(self, request: Request) -> HTMLResponse:
        """Show where every pipeline stands; where there is one only, its story."""
        names = list(self._settings.pipelines)
        if len(names) == 1:
            return self.pipeline(request, names[0])
        return self._show(
            request, "overview.html",
            pipelines=story.overview(self._settings, self._ledger, self._activity()),
            decisions=views.history(self._ledger.history(limit=20), self._ledger.forced()),
        )  # fmt: skip

    def pipeline(self, request: Request, name: str, before: int | None = None) -> HTMLResponse:
        """Show the story of a pipeline; its timeline from before a delta on."""
        if name not in self._settings.pipelines:
            return self._missing(request, f"There is no pipeline {name!r}.")
        found = story.pipeline(self._settings, self._ledger, name, self._activity(), before)
        lag = self._lags.get(name, Lag())
        return self._show(request, "pipeline.html", p=found, lag=lag)

    def delta(self, request: Request, name: str, sequence: int) -> HTMLResponse:
        """Show one delta: its rows, the comparison, what decided."""
        try:
            found = story.delta(self._settings, self._ledger, name, sequence)
        except GiveUp as error:
            return self._missing(request, str(error))
        return self._show(request, "delta.html", d=found)

    def model(self, request: Request, name: str, version: str) -> HTMLResponse:
        """Show one model version: what it learnt from, how it served."""
        try:
            found = story.version(self._settings, self._ledger, name, version)
        except GiveUp as error:
            return self._missing(request, str(error))
        return self._show(request, "model.html", d=found)

    def explanation(self, request: Request, run: str) -> HTMLResponse:
        """Show how a model decides; it comes from MLflow, so the pages fetch it last."""
        try:
            found = self._models.explain(run)["explanation"] if self._models else None
        except RetraindError as error:
            return self._show(request, "explanation.html", found=None, told=str(error))
        return self._show(request, "explanation.html", found=_drawn(found), told="")

    def what_if(self, request: Request, name: str, run: str) -> HTMLResponse:
        """Show what both models make of a row that the address tells; asking changes nothing."""
        given, told, found = dict(request.query_params), "", None
        try:
            found = self._models.what_if(run, given) if self._models else None
        except RetraindError as error:
            told = str(error)
        return self._show(
            request, "what_if.html", name=name, run=run, given=given, found=found, told=told
        )

    def audit(self, request: Request) -> HTMLResponse:
        """Show what people and policies did."""
        return self._show(request, "audit.html", audit=self._ledger.audit(200))

    def _missing(self, request: Request, told: str) -> HTMLResponse:
        return self._show(request, "missing.html", 404, told=told)

    def _show(
        self, request: Request, template: str, status: int = 200, **context: Any  # noqa: ANN401 (what the template needs)
    ) -> HTMLResponse:  # fmt: skip
        path = request.url.path.removeprefix(request.scope.get("root_path", ""))
        text = self._templates.get_template(template).render(
            version=__version__, base="../" * (path.count("/") - 1) or "./",
            names=list(self._settings.pipelines), status=views.daemon(self._ledger),
            visitor=visiting(request), **context,
        )  # fmt: skip
        return HTMLResponse(text, status)


def _drawn(found: Mapping[str, Any] | None) -> View | None:
    """Draw what was kept to explain a model."""
    if found is None:
        return None
    features = [(f["name"], f["share"], f["champion"]) for f in found["features"][:SHOWN]]
    bins = [(b["predicted"], b["observed"], b["rows"]) for b in found.get("calibration", [])]
    return {
        **found,
        "bars": bars(features, "Share of each feature in the predictions"),
        "curve": curve(bins, "Share that came true by predicted probability"),
    }


def _templates() -> Environment:
    """Read the templates; what they do not know is an error, and every text is escaped."""
    found = Environment(
        loader=FileSystemLoader(Path(__file__).with_name("templates")), autoescape=True,
        undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    found.globals["outcome"] = views.outcome
    found.filters["drawn"] = Markup  # of our own drawings only, whose texts are escaped
    found.filters["whole"] = "{:,}".format
    found.filters["figure"] = _figure
    return found


def _figure(number: float | None, form: str = ".4f") -> str:
    return "" if number is None else format(number, form)
