"""Brings a Cloudera AI project to what retraind needs there: compares, and closes the gaps.

Applications and jobs are known by their names. What is as wanted is left alone, what differs is
changed in place, and what a person added beside it (variables, say) stays.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from threading import Event
from time import monotonic
from typing import Any, Literal

from config.endpoint import Cloudera
from handlers.facts import GiveUp, TryLater
from handlers.workbench import Unsure, Workbench

Kind = Literal["application", "job"]
Done = Literal["created", "changed", "started", "as wanted"]
LOOK_EVERY = 2.0
ENDED = ("succeeded", "failed", "stopped", "timedout", "skipped")


@dataclass(frozen=True, slots=True)
class Change:
    """What was done about one thing, or would be in a dry run."""

    kind: str
    name: str
    done: Done
    told: str = ""
    id: str = ""

    def as_dict(self) -> dict[str, str]:
        """Give it ready for JSON."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Machine:
    """What each workload runs on."""

    kernel: str = "Python 3.11"
    editor: str = "PBJ Workbench"
    edition: str = "Standard"
    spark: str = "3.5"
    cpu: float = 2.0
    memory: float = 4.0


class Project:
    """One project of a workbench; in a dry run it is only read."""

    def __init__(self, bench: Workbench, *, dry_run: bool = False) -> None:
        self.bench = bench
        self.dry_run = dry_run
        self._pause = Event()

    # -- what there is to choose from --------------------------------------------------------

    def size(self, machine: Machine, wanted: Cloudera) -> dict[str, Any]:
        """Give the fields of a workload that say what it runs on."""
        return {
            "cpu": machine.cpu, "memory": machine.memory,
            "runtime_identifier": wanted.runtime or self._runtime(machine),
            "runtime_addon_identifiers": [self._spark(machine)],
        }  # fmt: skip

    def _runtime(self, machine: Machine) -> str:
        """Find the newest runtime of a kind; there are dozens, and ten on a page."""
        kind = {"kernel": machine.kernel, "editor": machine.editor, "edition": machine.edition}
        found = [
            item
            for item in self.bench.pages("list_runtimes", search_filter=json.dumps(kind))
            if all(getattr(item, key) == value for key, value in kind.items())
            and (item.status or "ENABLED") == "ENABLED"
        ]
        if not found:
            raise GiveUp(
                f"The workbench has no enabled runtime {', '.join(kind.values())}.",
                "Name another with --kernel, --editor, --edition, or set cloudera.runtime.",
            )
        newest = max(found, key=lambda item: _numbers(item.full_version))
        return str(newest.image_identifier)

    def _spark(self, machine: Machine) -> str:
        """Find the newest Spark addon of a version."""
        wanted = json.dumps({"component": "Spark", "status": "AVAILABLE"})
        known = [
            item
            for item in self.bench.pages("list_runtime_addons", search_filter=wanted)
            if (item.component, item.status) == ("Spark", "AVAILABLE")
        ]
        # Not the version of the lake, which the name tells as well.
        version = re.compile(rf"Spark\D*{re.escape(machine.spark)}(?!\d)")
        found = [item for item in known if version.match(item.display_name)]
        if not found:
            named = ", ".join(item.display_name for item in known) or "none"
            raise GiveUp(
                f"The workbench has no Spark addon {machine.spark}; it has: {named}.",
                "Name another with --spark; retraind needs Spark 3.5.",
            )
        return str(max(found, key=lambda item: _numbers(item.display_name)).identifier)

    # -- bringing level ----------------------------------------------------------------------

    def bring(self, kind: Kind, wanted: Mapping[str, Any]) -> Change:
        """Make the thing of this name, or change it where it differs."""
        found = self.find(kind, wanted["name"])
        if found is None:
            return self._create(kind, wanted)
        changes = _differences(found, wanted)
        change = Change(kind, wanted["name"], "as wanted", "", found.id)
        if not changes:
            return change
        if not self.dry_run:
            self.bench.call(f"update_{kind}", changes, self.bench.project_id, found.id)
        return replace(change, done="changed", told=", ".join(sorted(changes)))

    def find(self, kind: Kind, name: str) -> Any:  # noqa: ANN401 (an object of the client's)
        """Look for a thing by its whole name; None if there is none."""
        project = self.bench.project_id
        found = self.bench.named(f"list_{kind}s", project, field="name", value=name)
        if len(found) > 1:
            raise GiveUp(
                f"The project has {len(found)} {kind}s called {name!r}.", "Delete all but one."
            )
        return found[0] if found else None

    def _create(self, kind: Kind, wanted: Mapping[str, Any]) -> Change:
        change = Change(kind, wanted["name"], "created")
        if self.dry_run:
            return change
        project = self.bench.project_id
        body = {**wanted, "project_id": project}
        try:
            made = self.bench.call(f"create_{kind}", body, project)
        except Unsure:  # asking again might make a second one
            made = self.find(kind, wanted["name"])
            if made is None:
                raise
        return replace(change, id=made.id)

    # -- starting ----------------------------------------------------------------------------

    def start_application(self, change: Change) -> Change:
        """Start it anew, if it was changed or does not run; making it has started it."""
        if self.dry_run or change.done == "created":
            return change
        project = self.bench.project_id
        status = _status(self.bench.call("get_application", project, change.id).status)
        if change.done == "as wanted" and status in ("running", "starting"):
            return change
        self.bench.call("restart_application", project, change.id)
        done: Done = "changed" if change.done == "changed" else "started"
        return replace(change, done=done, told=f"{change.told}; started anew".lstrip("; "))

    def start_job(self, change: Change) -> str:
        """Start a run of a job; gives its identifier."""
        run = self.bench.call("create_job_run", {}, self.bench.project_id, change.id)
        return str(run.id)

    def succeeded(self, change: Change) -> bool:
        """Say whether the newest run of a job succeeded."""
        runs = self.bench.pages(
            "list_job_runs", self.bench.project_id, change.id, sort="-created_at"
        )
        newest = next(iter(runs), None)
        return newest is not None and _status(newest.status) == "succeeded"

    def await_run(self, change: Change, run: str, within: float) -> None:
        """Wait for the end of a job's run.

        Raises:
            GiveUp: it did not succeed.
            TryLater: it goes on still.
        """
        ids = (self.bench.project_id, change.id, run)
        status = self._await("get_job_run", ids, ENDED, within)
        if status not in ENDED:
            raise TryLater(
                f"The job {change.name!r} is {status} after {within:g} s.",
                "It goes on; while it is scheduling it waits for room in the quota.",
            )
        if status != "succeeded":
            raise GiveUp(
                f"The job {change.name!r} ended as {status}.",
                "Its log is on the job's page, under History; the last lines say why.",
            )

    def await_application(self, change: Change, within: float) -> None:
        """Wait until an application answers.

        Raises:
            GiveUp: it failed.
            TryLater: it does not answer yet.
        """
        ids = (self.bench.project_id, change.id)
        status = self._await("get_application", ids, ("running", "failed"), within)
        if status == "failed":
            raise GiveUp(
                f"The application {change.name!r} failed.", "Its log is on the application's page."
            )
        if status != "running":
            raise TryLater(
                f"The application {change.name!r} is {status} after {within:g} s.",
                "It goes on; its log is on the application's page.",
            )

    def _await(self, name: str, ids: tuple[str, ...], ends: tuple[str, ...], within: float) -> str:
        until = monotonic() + within
        while True:
            status = _status(self.bench.call(name, *ids).status)
            if status in ends or monotonic() > until:
                return status
            self._pause.wait(LOOK_EVERY)


def _differences(found: Any, wanted: Mapping[str, Any]) -> dict[str, Any]:  # noqa: ANN401 (the client's)
    """Give the fields to change, as a change takes them."""
    changes: dict[str, Any] = {}
    for field, value in wanted.items():
        present = getattr(found, field)
        if field == "environment":  # an object when it is made, and a text ever after
            present = json.loads(present or "{}")
            merged = {**present, **value}
            if merged != present:
                changes[field] = json.dumps(merged)
        elif isinstance(value, list):
            if sorted(present or []) != sorted(value):
                changes[field] = value
        elif present != value and (present or value):  # what is not told is none
            changes[field] = value
    if changes.get("parent_id") and getattr(found, "schedule", None):
        changes["schedule"] = ""  # a job has a parent or a schedule, never both
    return changes


def _status(text: str) -> str:
    """Give a state without its kind: `ENGINE_SUCCEEDED` is `succeeded`."""
    return text.lower().removeprefix("engine_").removeprefix("application_")


def _numbers(text: str) -> tuple[int, ...]:
    """Give the numbers of a text in order, by which versions are compared."""
    return tuple(int(number) for number in re.findall(r"\d+", text))
