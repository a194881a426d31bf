"""What is seen of a state from outside once the daemon has left, without what differs by chance.

Version numbers differ between a run that was killed and one that was not, because MLflow gives none
twice: a version is named by the delta that made it.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from hashlib import sha256
from pathlib import Path
from typing import Any

from mlflow import MlflowClient
from mlflow.entities import Run
from sweep_story import NAME, World

from daemon import composition
from daemon.ledger import Ledger
from handlers import pins
from handlers.endpoint import LOG
from handlers.facts import Model, Record
from handlers.licence import LICENCE, MODELS
from handlers.registry import KEY

Seen = dict[str, Any]
TOLD = re.compile(r"\b(version|champion|challenger) (\d+)\b")
SETTLED_WITHIN = 10.0
"""Seconds in which the loser of two servers that were started leaves."""


class Witness:
    """Looks at one state through the ledger, the table, MLflow, the endpoint and the folders."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._book: Ledger = world.ledger()
        self._doors = composition.doors(world.settings)[NAME][1]
        self._client = MlflowClient(f"sqlite:///{world.state.resolve()}/mlflow.db")
        self._records = list(reversed(self._book.history(NAME, 1000)))
        self._makers = {r.model.version: f"v{r.sequence}" for r in self._records if r.model}

    def testify(self) -> Seen:
        """Give everything that must be the same after a crash was healed."""
        standing = self._book.standing(NAME)
        champion = self._book.champion(NAME)
        accounts = composition.accounting(self._world.settings, self._book, NAME)
        crowned = self._book.all("SELECT version, how FROM champions ORDER BY id")
        return {
            "decisions": [self._decision(record) for record in self._records],
            "open": self._book.pending(NAME) is not None,
            "cursor": standing.cursor and standing.cursor.snapshot_id,
            "doing": standing.doing,
            "owner": self._book.owner() is not None,
            "champion": champion and self._maker(champion.model.version),
            "crowned": [(self._maker(row["version"]), row["how"]) for row in crowned],
            "deployed": [
                (self._maker(d.version), d.outcome)
                for d in reversed(self._book.deployments(NAME, 1000))
            ],
            "serves": self._serves(champion.model if champion else None),
            "accounts": [
                (line["id"], line["state"], line["rows"]) for line in accounts["snapshots"]
            ],
            "adds up": accounts["adds_up"] and self._rows_add_up(),
            "pins": self._pins(),
            **self._mlflow(),
            "litter": self._litter(),
        }

    def _maker(self, version: str | None) -> str | None:
        return self._makers.get(version, f"unknown version {version}") if version else None

    def _told(self, text: str) -> str:
        return TOLD.sub(lambda found: f"{found[1]} {self._maker(found[2])}", text)

    def _decision(self, record: Record) -> Seen:
        verdict = record.verdict and asdict(record.verdict) | {
            "against": self._maker(record.verdict.against),
            "sentence": self._told(record.verdict.sentence),
        }
        return {
            "key": record.key,
            "state": record.state.value,
            "rows": record.delta.rows,
            "way": record.delta.way,
            "reason": self._told(record.reason),
            "retry of": record.retry_of,
            "learnt": record.learnt and asdict(record.learnt),
            "verdict": verdict,
            "model": record.model and self._digest(self._artifacts(record.model.run_id)),
            "snapshots": [(s.snapshot_id, s.added, s.state.value) for s in record.snapshots],
        }

    def _rows_add_up(self) -> bool:
        """Say whether decisions over the table's log name each row that was appended once.

        A split delta's rows are named by those that follow it, a retried one's by the first.
        """
        named = [
            s.snapshot_id
            for record in self._records
            if record.state.value != "split" and record.retry_of is None
            for s in record.snapshots
        ]
        return sorted(named) == sorted(snapshot.id for snapshot in self._doors.table.log())

    def _pins(self) -> Mapping[str, int]:
        found = self._doors.table.pins(pins.pattern(NAME))
        made = re.compile(rf"(retraind-{NAME}-)(\d+)(.*)")
        return {
            made.sub(lambda f: f"{f[1]}{self._maker(f[2])}{f[3]}", k): v for k, v in found.items()
        }

    # -- MLflow ------------------------------------------------------------------------------

    def _mlflow(self) -> Seen:
        """Tell of runs with a run key all, of others only what would be left half-done."""
        name = f"retraind-{NAME}"
        experiment = self._client.get_experiment_by_name(name)
        runs = self._client.search_runs([experiment.experiment_id]) if experiment else []
        models = self._client.search_model_versions(f"name = '{name}'")
        registered = self._client.get_registered_model(name) if models else None
        return {
            "runs": sorted(self._run(run) for run in runs if KEY in run.data.tags),
            "runs left running": sum(run.info.status == "RUNNING" for run in runs),
            "versions": sorted(str(self._maker(str(model.version))) for model in models),
            "aliases": {
                alias: self._maker(str(version))
                for alias, version in (registered.aliases if registered else {}).items()
            },
        }

    def _run(self, run: Run) -> tuple[str, str, str, Sequence[Any]]:
        files = self._client.list_artifacts(run.info.run_id)
        about = (*sorted(run.data.metrics.items()), *sorted(run.data.params.items()))
        artifacts = tuple(sorted(file.path for file in files))
        return run.data.tags[KEY], run.info.status, run.info.run_name or "", (about, artifacts)

    def _artifacts(self, run_id: str) -> Path:
        uri = self._client.get_run(run_id).info.artifact_uri or ""
        return Path(uri.removeprefix("file://")) / "model" / "data" / "scorer"

    # -- the endpoint and the folders --------------------------------------------------------

    def _serves(self, champion: Model | None) -> Seen:
        """Ask the endpoint, look at the models that it took in, and count its processes."""
        home = self._world.state.resolve() / "endpoints" / NAME
        version = self._doors.endpoint.serving()
        return {
            "version": self._maker(version),
            "took in the champion": champion is not None
            and self._digest(self._artifacts(champion.run_id))
            in {self._digest(copy) for copy in (home / MODELS).glob("*")},
            "servers": _settled(lambda: len(self._world.servers())),
        }

    def _digest(self, folder: Path) -> str:
        digest = sha256()
        for file in sorted(path for path in folder.rglob("*") if path.is_file()):
            digest.update(f"{file.relative_to(folder)} {file.stat().st_size} ".encode())
            digest.update(file.read_bytes())
        return digest.hexdigest()[:16]

    def _litter(self) -> list[str]:
        """Name what lies about in the daemon's folders beside what belongs there."""
        known = {LICENCE, LOG, MODELS}
        served = self._world.state / "endpoints" / NAME
        fetched = self._world.state / "models" / NAME
        runs = {record.model.run_id for record in self._records if record.model}
        return sorted(
            [path.name for path in served.glob("*") if path.name not in known]
            + [f"models/{path.name}" for path in fetched.glob("*") if path.name not in runs]
        )


def _settled(count: Callable[[], int]) -> int:
    until = time.monotonic() + SETTLED_WITHIN
    while (found := count()) > 1 and time.monotonic() < until:
        time.sleep(0.1)
    return found
