"""The endpoint on Cloudera AI: a model of the workbench, redeployed for every new champion."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from time import monotonic

import pandas as pd
import structlog

from config.endpoint import ClouderaEndpoint as Settings
from handlers import model_metrics
from handlers.asked import Asked, Underway
from handlers.endpoint import Answer
from handlers.facts import Model, RetraindError, TryLater
from handlers.modelservice import Access, Modelservice, NotAccepted
from handlers.rollout import Rollout
from handlers.shelf import Shelf
from handlers.trial import try_out
from handlers.workbench import Missing, Workbench

LOOKS = 4
"""Times that a model is asked when it changes over while it answers."""

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Waiting:
    """How long one call of `deploy` waits for the platform, and how it waits.

    The daemon does not wait at all: a deployment takes minutes, in which the table is to be
    followed and a stop to be noticed. Each tick looks once, and goes on where the last one ended.
    """

    patience: float
    """Seconds."""
    pause: Callable[[float], object]
    """Sleeps for so many seconds."""


class ClouderaEndpoint:
    """A model of the workbench. The platform is the only memory of what was made for it."""

    def __init__(
        self, settings: Settings, workbench: Workbench, shelf: Shelf, home: Path,
        experiment: Callable[[], str], waiting: Waiting,
    ) -> None:  # fmt: skip
        """Nothing is reached here; `home` holds the note of the last request, see `Asked`."""
        self._settings = settings
        self._workbench = workbench
        self._shelf = shelf
        self._waiting = waiting
        self._bare = False
        asked = Asked(home, settings.settle_within)
        self._rollout = Rollout(workbench, shelf, settings, asked, experiment)
        self._service = Modelservice.of(settings, workbench.site)

    @property
    def where(self) -> str:
        """Address for people."""
        return f"the model {self._shelf.name} at {self._service.url}"

    def serving(self) -> str | None:
        """Name the version that answers now; None when no deployment is up.

        Raises:
            TryLater: the workbench is out of reach.
        """
        up = self._shelf.serving()
        return up.version if up else None

    def deploy(self, model: Model, folder: Path) -> None:
        """Register, build and deploy the model, or go on with it; the old one serves meanwhile.

        Raises:
            TryLater: the platform is not done (`Underway`), or failed.
            GiveUp: the model in `folder` cannot be loaded, or its deployments fail.
        """
        up = self._shelf.serving()
        if up and up.build.holds == model:
            return
        try_out(folder, model)
        until = monotonic() + self._waiting.patience
        while True:
            try:
                self._rollout.step(model)
                break
            except Underway:
                if monotonic() >= until:
                    raise
            self._waiting.pause(self._settings.look_every)
        self._tidy()

    def predict(self, rows: pd.DataFrame) -> Answer:
        """Score rows through the modelservice, the way its clients do.

        Raises:
            TryLater: no deployment is up, it does not answer, or it changes over all the time.
            GiveUp: the served model refuses the rows, or its answers are no predictions.
        """
        for _ in range(LOOKS):
            # Answers that do not say who made them are dated by a look before and one after.
            before = self._shelf.serving() if self._bare else None
            try:
                reply = self._service.ask(self._access(), rows)
            except NotAccepted:
                self._shelf.forget()  # its access key may have been replaced
                raise
            if len(reply.crns) == 1:
                (crn,) = reply.crns
                if named := self._shelf.by_crn(crn):
                    return Answer(named.version, reply.predictions)
            elif before and not reply.crns and self._shelf.serving() == before:
                return Answer(before.version, reply.predictions)
            self._bare = not reply.crns
        raise TryLater(f"{self.where} is changing over.", "It is asked again later.")

    def stop(self) -> None:
        """Stop every deployment that is up or comes up; without effect when there is none.

        Raises:
            TryLater: the workbench is out of reach.
        """
        for one in self._shelf.deployments():
            if one.done or one.going:
                ids = self._workbench.project_id, self._shelf.model().id, one.build.id, one.id
                self._workbench.call("stop_model_deployment", *ids)

    def track(self, version: str, metrics: Mapping[str, float], start_ms: int, end_ms: int) -> None:
        """Keep metrics beside the deployment that serves, if it is of that version.

        Raises:
            TryLater: the workbench is out of reach, or does not take them.
        """
        up = self._shelf.serving()
        if up and up.version == version:
            model_metrics.track(up.crn, metrics, start_ms, end_ms)

    def _access(self) -> Access:
        model = self._shelf.model()
        if model is None:
            raise TryLater(f"There is no {self.where}.", "The next tick makes it.")
        return Access.of(model, self._settings, self._workbench.site)

    def _tidy(self) -> None:
        """Delete builds of ours that are old; what fails here is done after the next deployment."""
        try:
            builds = self._shelf.builds()
            every = self._shelf.deployments(builds)
            kept = {one.build.id for one in every if one.done or one.going}
            kept |= {build.id for build in builds[-self._settings.keep_builds :]}
            up = self._shelf.serving()
            if up and up.build.holds and (former := self._shelf.former(up.build.holds)):
                kept.add(former.id)
            for build in builds:
                if build.ours and build.id not in kept:
                    ids = self._workbench.project_id, self._shelf.model().id, build.id
                    self._workbench.call("delete_model_build", *ids)
        except Missing:
            return  # somebody else did it
        except RetraindError as error:
            log.warning("builds_not_tidied", trouble=str(error))
