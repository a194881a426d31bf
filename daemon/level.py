"""Keeps what serves level with the champion, and its snapshots from expiry."""

from __future__ import annotations

from datetime import datetime, timedelta
from pathlib import Path

import structlog

from config.settings import Pipeline
from daemon.doors import Doors
from daemon.ledger import Ledger
from daemon.telling import Telling
from handlers import pins
from handlers.deploy import deploy
from handlers.evidence import PROOF, read_proof
from handlers.facts import GiveUp, Model, TryLater
from handlers.registry import SCORER

AGAIN_AFTER = timedelta(minutes=10)

log = structlog.get_logger(__name__)


class Leveller:
    """Brings one pipeline's endpoint to its champion."""

    def __init__(
        self, name: str, pipeline: Pipeline, doors: Doors, ledger: Ledger, models: Path,
        telling: Telling,
    ) -> None:  # fmt: skip
        self.name = name
        self._wants_pins = pipeline.delta.pin
        self._doors = doors
        self._ledger = ledger
        self._models = models
        self._telling = telling
        self._pointed: tuple[str, datetime | None] | None = None
        self._pinned: tuple[list[str], datetime | None] | None = None

    def level(self) -> None:
        """Bring the endpoint to the champion, proven; a model that fails its proof is refused."""
        champion = self._ledger.champion(self.name)
        if champion is None:
            self._withdraw()
            return
        if self._is_level(champion.model):
            return
        model = champion.model
        self._telling.say(f"deploying version {model.version}")
        folder = self._doors.registry.fetch(model, self._models)
        sample, expected = read_proof(folder / PROOF)
        self._ledger.deploying(self.name, model.version)
        try:
            with self._telling.timed("deploying"):
                sentence = deploy(self._doors.endpoint, model, folder / SCORER, sample, expected)
        except GiveUp as fault:
            self._telling.failed(fault)
            self._refuse(model, str(fault))
            return
        self._ledger.deployed(self.name, model.version, sentence)
        self._telling.done()
        where = self._doors.endpoint.where
        log.info("deployed", version=model.version, proof=sentence, where=where)

    def _is_level(self, model: Model) -> bool:
        """Ask the endpoint; a deployment that was killed before its proof is not level."""
        proven = self._ledger.proven(self.name)
        return self._doors.endpoint.serving() == model.version and proven == model.version

    def _refuse(self, model: Model, fault: str) -> None:
        successor = self._ledger.refuse(self.name, model, fault)
        log.error(
            "deployment_refused", version=model.version, reason=fault,
            fallback=successor.version if successor else None,
        )  # fmt: skip
        self.level()

    def _withdraw(self) -> None:
        """Serve nothing rather than a model that was refused."""
        endpoint = self._doors.endpoint
        if self._ledger.withdrawn(self.name) and endpoint.serving():
            endpoint.stop()
            log.warning("endpoint_withdrawn", where=endpoint.where)

    def point(self) -> None:
        """Have MLflow's alias name the champion: a ledger that is lost is rebuilt with it."""
        champion = self._ledger.champion(self.name)
        if champion is None:
            return
        version, registry = champion.model.version, self._doors.registry
        if self._pointed and self._pointed[0] == version and not self._due(self._pointed[1]):
            return
        try:
            done = registry.pointed("champion") == version or registry.point("champion", version)
        except TryLater as error:
            done = False
            self._telling.failed(error)
            log.warning("not_pointed", version=version, trouble=str(error))
        self._pointed = version, None if done else self._ledger.clock()

    def pin(self) -> None:
        """Tag the snapshots of the champion and of the one it replaced; release all others.

        A user may lack the right to tag: then it is said, and done without.
        """
        if not self._wants_pins:
            return
        champion = self._ledger.champion(self.name)
        versions = [champion.model.version] if champion else []
        if champion and (former := self._ledger.former(self.name)):
            versions.append(former.version)
        if self._pinned and self._pinned[0] == versions and not self._due(self._pinned[1]):
            return
        try:
            told = self._pin(versions)
            self._pinned = versions, None
        except TryLater as error:
            told = f"off: {error}"
            self._pinned = versions, self._ledger.clock()
            self._telling.failed(error)
            log.warning("not_pinned", versions=versions, trouble=str(error))
        self._ledger.pinned(self.name, told)

    def _due(self, failed_at: datetime | None) -> bool:
        return failed_at is not None and abs(self._ledger.clock() - failed_at) > AGAIN_AFTER

    def _pin(self, versions: list[str]) -> str:
        """Compare the tags that are there with those that should be, and close the gap."""
        table = self._doors.table
        head = table.head()
        records = [self._ledger.made(self.name, version) for version in versions]
        wanted = pins.tags(
            r for r in records if r and head and r.delta.table_uuid == head.table_uuid
        )
        kept = table.kept(wanted.values())
        wanted = {name: snapshot_id for name, snapshot_id in wanted.items() if snapshot_id in kept}
        found = table.pins(pins.pattern(self.name))
        missing = {name: at for name, at in wanted.items() if found.get(name) != at}
        stale = [name for name, at in found.items() if wanted.get(name) != at]
        if missing or stale:
            table.pin(missing, stale)
            log.info("pinned", versions=versions, tags=sorted(missing), released=sorted(stale))
        if not wanted:
            return "no champion's snapshots to keep yet"
        return f"{len(wanted)} tag(s) keep the snapshots of version(s) {', '.join(versions)}"
