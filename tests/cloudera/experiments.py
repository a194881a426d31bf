"""Experiments and their runs, as API v2 shows what MLflow's plugin writes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cloudera.errors import Refused
from cloudera.state import Call, Thing, alive, find, new_id, now_text, user

Linked = Callable[[str], list[dict[str, Any]]]
"""Gives the registered versions that were made of a run."""


@dataclass(eq=False)
class Experiment(Thing):
    """A named set of runs."""


@dataclass(eq=False)
class ExperimentRun(Thing):
    """A run; metrics keep their history."""

    metrics: list[dict[str, Any]] = field(default_factory=list)
    params: dict[str, str] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)


class Experiments:
    """The operations on experiments and runs."""

    def __init__(self, home: Path, linked: Linked) -> None:
        self._home = home
        self._linked = linked
        self.things: list[Experiment] = []
        self.runs: list[ExperimentRun] = []

    def create_experiment(self, call: Call) -> dict[str, Any]:
        """Make an experiment; its name is its own on the whole workbench."""
        name = call.body["name"]
        if any(one.body["name"] == name and not one.deleted for one in self.things):
            raise Refused(400, f"experiment {name!r} already exists")
        identifier = new_id()
        experiment = Experiment({
            "id": identifier, "project_id": call.ids["project_id"], "name": name,
            "artifact_location": str(self._home / identifier), "lifecycle_stage": "active",
            "created_at": now_text(), "updated_at": now_text(), "user": user(call.user),
            "tags": call.body.get("tags", []),
        })  # fmt: skip
        self.things.append(experiment)
        return dict(experiment.body)

    def list_experiments(self, _: Call) -> list[dict[str, Any]]:
        """List the experiments of the project."""
        return alive(self.things)

    list_all_experiments = list_experiments

    def get_experiment(self, call: Call) -> dict[str, Any]:
        """Read an experiment."""
        return dict(self._of(call).body)

    def update_experiment(self, call: Call) -> dict[str, Any]:
        """Change an experiment."""
        experiment = self._of(call)
        experiment.body |= {**call.pick("name", "tags", "lifecycle_stage")}
        experiment.body["updated_at"] = now_text()
        return dict(experiment.body)

    def delete_experiment(self, call: Call) -> dict[str, Any]:
        """Remove an experiment."""
        self._of(call).deleted = True
        return {}

    def create_experiment_run(self, call: Call) -> dict[str, Any]:
        """Start a run."""
        experiment, identifier = self._of(call), new_id()
        place = self._home / experiment.id / identifier / "artifacts"
        place.mkdir(parents=True)
        run = ExperimentRun({
            "id": identifier, "name": call.body.get("run_name", f"run-{identifier[:4]}"),
            "experiment_id": experiment.id, "user": user(call.user),
            "start_time": call.body.get("start_time", now_text()), "artifact_uri": str(place),
        })  # fmt: skip
        run.enter("EXPERIMENT_RUN_RUNNING")
        run.tags = _pairs(call.body.get("tags", []))
        self.runs.append(run)
        return self._shown(run)

    def list_experiment_runs(self, call: Call) -> list[dict[str, Any]]:
        """List the runs of an experiment, with what they hold, so that filters can look there."""
        experiment = self._of(call)
        return [self._shown(run) for run in self._runs(experiment)]

    def get_experiment_run(self, call: Call) -> dict[str, Any]:
        """Read a run."""
        return self._shown(self._run(call))

    def update_experiment_run(self, call: Call) -> dict[str, Any]:
        """Change a run, which is how it ends."""
        run = self._run(call)
        if "status" in call.body:
            run.enter(call.body["status"])
        run.body |= call.pick("name", "start_time", "end_time")
        return self._shown(run)

    def delete_experiment_run(self, call: Call) -> dict[str, Any]:
        """Remove a run."""
        self._run(call).deleted = True
        return {}

    def log_experiment_run_batch(self, call: Call) -> dict[str, Any]:
        """Add metrics, parameters and tags."""
        run = self._run(call)
        run.metrics += [{"timestamp": now_text(), **one} for one in call.body.get("metrics", [])]
        run.params |= _pairs(call.body.get("params", []))
        run.tags |= _pairs(call.body.get("tags", []))
        return {}

    def delete_experiment_run_batch(self, call: Call) -> dict[str, Any]:
        """Take metrics, parameters and tags away, by their keys."""
        run = self._run(call)
        run.metrics = [m for m in run.metrics if m["key"] not in call.body.get("metrics", [])]
        for name in call.body.get("params", []):
            run.params.pop(name, None)
        for name in call.body.get("tags", []):
            run.tags.pop(name, None)
        return {}

    def get_experiment_run_metrics(self, call: Call) -> dict[str, Any]:
        """Give the history of a metric."""
        key = call.ids["metric_key"]
        return {"metrics": [one for one in self._run(call).metrics if one["key"] == key]}

    def _shown(self, run: ExperimentRun) -> dict[str, Any]:
        last = {one["key"]: one for one in run.metrics}
        place = Path(run.body["artifact_uri"])
        files = [
            {"path": file.name, "is_dir": file.is_dir(), "file_size": str(file.stat().st_size)}
            for file in (sorted(place.iterdir()) if place.is_dir() else [])
        ]
        data = {
            "metrics": list(last.values()), "params": _tags(run.params), "tags": _tags(run.tags),
            "files": files, "registered_model_metadata": self._linked(run.id),
        }  # fmt: skip
        return {**run.body, "data": data}

    def _of(self, call: Call) -> Experiment:
        return find(self.things, "experiment", call.ids["experiment_id"])

    def _runs(self, experiment: Experiment) -> list[ExperimentRun]:
        ours = [run for run in self.runs if run.body["experiment_id"] == experiment.id]
        return [run for run in ours if not run.deleted]

    def _run(self, call: Call) -> ExperimentRun:
        return find(self._runs(self._of(call)), "run", call.ids["run_id"])


def _pairs(tags: list[dict[str, str]]) -> dict[str, str]:
    return {tag["key"]: tag.get("value", "") for tag in tags}


def _tags(pairs: dict[str, str]) -> list[dict[str, str]]:
    return [{"key": key, "value": value} for key, value in pairs.items()]
