"""Jobs and their runs, which are processes."""

from __future__ import annotations

import json
import shlex
from dataclasses import dataclass
from typing import Any

from cloudera.catalogue import Catalogue
from cloudera.errors import Refused
from cloudera.state import Call, Thing, World, alive, find, new_id, now_text, user
from cloudera.workloads import Workload, Workloads

SETTABLE = (
    "name", "script", "cpu", "memory", "nvidia_gpu", "arguments", "schedule", "kernel",
    "recipients", "attachments", "runtime_identifier", "runtime_addon_identifiers",
    "kill_on_timeout", "success_recipients", "failure_recipients", "timeout_recipients",
    "stopped_recipients", "run_as", "accelerator_label_id", "retry_enabled", "max_retry",
    "retry_delay", "retry_for_script_failure", "retry_for_system_failure",
    "retry_for_timedout_runs", "retry_for_skipped_runs", "resource_group_id",
    "resource_profile_id",
)  # fmt: skip
ACTIVE = ("ENGINE_SCHEDULING", "ENGINE_STARTING", "ENGINE_RUNNING", "ENGINE_STOPPING")
HOLDING = ACTIVE[1:]
AGAIN = 0.05
"""Seconds between two looks for room."""


@dataclass(eq=False)
class Job(Thing):
    """A job."""

    @property
    def environment(self) -> dict[str, str]:
        """Give the variables that it sets."""
        found: dict[str, str] = json.loads(self.body["environment"])
        return found


@dataclass(eq=False)
class JobRun(Thing):
    """A run of a job."""

    job: Job | None = None
    workload: Workload | None = None
    timed_out: bool = False

    @property
    def log(self) -> str:
        """Give what it wrote."""
        return self.workload.log.read_text(errors="replace") if self.workload else ""


class Jobs:
    """The operations on jobs and runs."""

    def __init__(self, world: World, workloads: Workloads, catalogue: Catalogue) -> None:
        self._world = world
        self._workloads = workloads
        self._catalogue = catalogue
        self.things: list[Job] = []
        self.runs: list[JobRun] = []
        world.holders.append(self._held)

    def create_job(self, call: Call) -> dict[str, Any]:
        """Make a job; it runs when it is told to, or after its parent."""
        self._catalogue.check(call.body)
        parent = call.body.get("parent_id") or call.body.get("parent_job_id")
        schedule = call.body.get("schedule")
        if parent and schedule:
            raise Refused(400, "a job has a schedule or a parent, not both")
        if parent and not any(one.id == parent and not one.deleted for one in self.things):
            raise Refused(400, f"there is no job {parent} to be the parent")
        check_schedule(schedule)
        kind = "dependent" if parent else "cron" if schedule else "manual"
        job = Job({
            "id": new_id(), "creator": user(call.user), "created_at": now_text(),
            "updated_at": now_text(), "type": kind, "cpu": 1.0, "memory": 1.0,
            "timezone": call.body.get("timezone", "America/Los_Angeles"),
            "environment": json.dumps(call.body.get("environment", {})),
            "paused": call.body.get("paused", False), "timeout": str(call.body.get("timeout", 0)),
            "project": {"public_identifier": call.ids["project_id"]}, "parent_id": parent or "",
            **call.pick(*SETTABLE),
        })  # fmt: skip
        self.things.append(job)
        return dict(job.body)

    def list_jobs(self, _: Call) -> list[dict[str, Any]]:
        """List the jobs."""
        return alive(self.things)

    def get_job(self, call: Call) -> dict[str, Any]:
        """Read a job."""
        return dict(self._of(call).body)

    def update_job(self, call: Call) -> dict[str, Any]:
        """Change a job."""
        job, changes = self._of(call), call.pick(*SETTABLE, "timeout", "parent_id", "environment")
        after = {**job.body, **changes}
        if after.get("parent_id") and after.get("schedule"):
            raise Refused(400, "a job has a schedule or a parent, not both")
        check_environment(changes)
        check_schedule(changes.get("schedule"))
        self._catalogue.check(after)
        job.body |= {**changes, "updated_at": now_text()}
        return dict(job.body)

    def delete_job(self, call: Call) -> dict[str, Any]:
        """Remove a job; its children stay."""
        self._of(call).deleted = True
        return {}

    def create_job_run(self, call: Call) -> dict[str, Any]:
        """Start a run, if none is active."""
        return dict(self._run(self._of(call), call).body)

    def _run(self, job: Job, call: Call) -> JobRun:
        busy = any(run.job is job and run.status in ACTIVE for run in self.runs)
        if busy and self._world.habits.second_run == "refused":
            raise Refused(400, "the job is running already")
        environment = call.body.get("environment", {})
        run = JobRun({
            "id": new_id(), "job_id": job.id, "created_at": now_text(),
            "project_id": job.body["project"]["public_identifier"], "creator": user(call.user),
            "environment": json.dumps({**job.environment, **environment}),
            "arguments": call.body.get("arguments", job.body.get("arguments", "")),
            **{name: job.body[name] for name in ("cpu", "memory", "runtime_identifier")},
        }, job=job, faults=call.ordered())  # fmt: skip
        self.runs.append(run)
        if busy:
            run.enter("ENGINE_SKIPPED", finished_at=now_text())
            return run
        run.enter("ENGINE_SCHEDULING", scheduling_at=now_text())
        if not run.hangs("ENGINE_SCHEDULING"):
            self._world.clock.after(self._world.pace.scheduling, lambda: self._schedule(run))
        return run

    def _schedule(self, run: JobRun) -> None:
        """Start a run once there is room for it."""
        if run.status != "ENGINE_SCHEDULING":
            return
        if not self._world.fits(run.body["cpu"]):
            self._world.clock.after(AGAIN, lambda: self._schedule(run))
            return
        run.body["starting_at"] = now_text()
        states = [("ENGINE_STARTING", self._world.pace.starting)]
        self._world.pass_through(run, states, lambda: self._launch(run))

    def _launch(self, run: JobRun) -> None:
        job = run.job
        if job is None:
            return
        text = job.body.get("arguments", "")
        if self._world.habits.run_arguments_used:
            text = run.body["arguments"]
        arguments = [*shlex.split(text), "-f", f"/tmp/jupyter/kernel-{run.id}.json"]  # noqa: S108
        own = json.loads(run.body["environment"])
        run.enter("ENGINE_RUNNING", running_at=now_text())
        run.workload = self._workloads.start(
            job.body, arguments, lambda outcome: self._ended(run, outcome), own
        )
        timeout = float(job.body.get("timeout") or 0)
        if timeout and job.body.get("kill_on_timeout"):
            self._world.clock.after(timeout, lambda: self._time_out(run))

    def _time_out(self, run: JobRun) -> None:
        if run.status == "ENGINE_RUNNING" and run.workload:
            run.timed_out = True
            run.workload.terminate(0, group=True)

    def _ended(self, run: JobRun, outcome: str) -> None:
        with self._world.lock:
            if run.status == "ENGINE_STOPPING":
                status = "ENGINE_STOPPED"
            elif run.timed_out:
                status = "ENGINE_TIMEDOUT"
            elif outcome == "succeeded" and not run.fault("fail"):
                status = "ENGINE_SUCCEEDED"
            else:
                status = "ENGINE_FAILED"
            run.enter(status, finished_at=now_text())
            if status == "ENGINE_SUCCEEDED" and run.job:
                self._start_children(run.job)

    def _start_children(self, job: Job) -> None:
        """Start the jobs that follow; one that runs already is not started again."""
        for child in self.things:
            busy = any(run.job is child and run.status in ACTIVE for run in self.runs)
            if child.body["parent_id"] == job.id and not child.deleted and not busy:
                self._run(child, Call({}, {}, {}, child.body["creator"]["username"]))

    def list_job_runs(self, call: Call) -> list[dict[str, Any]]:
        """List the runs of a job; filters know them by what the job is called, too."""
        job = self._of(call)
        return alive(self.runs, lambda run: run.job is job)

    def get_job_run(self, call: Call) -> dict[str, Any]:
        """Read a run."""
        return dict(self._run_of(call).body)

    def stop_job_run(self, call: Call) -> dict[str, Any]:
        """Stop a run."""
        run = self._run_of(call)
        if run.status in ("ENGINE_SCHEDULING", "ENGINE_STARTING"):
            run.enter("ENGINE_STOPPED", finished_at=now_text())
        elif run.status == "ENGINE_RUNNING" and run.workload:
            run.enter("ENGINE_STOPPING")
            group = self._world.habits.terminate_group
            run.workload.terminate(self._world.pace.grace, group=group)
        return dict(run.body)

    def _of(self, call: Call) -> Job:
        return find(self.things, "job", call.ids["job_id"])

    def _run_of(self, call: Call) -> JobRun:
        job = self._of(call)
        return find([r for r in self.runs if r.job is job], "job run", call.ids["run_id"])

    def _held(self) -> float:
        return float(sum(run.body["cpu"] for run in self.runs if run.status in HOLDING))


def check_schedule(schedule: str | None) -> None:
    """Let pass a cron line of five fields.

    Raises:
        Refused: it has another number of them.
    """
    if schedule and len(schedule.split()) != 5:
        raise Refused(400, f"a schedule has five fields: {schedule!r}")


def check_environment(changes: dict[str, Any]) -> None:
    """Let pass an environment as changes have it: the JSON of an object, as text.

    Raises:
        Refused: it is something else.
    """
    try:
        good = isinstance(json.loads(changes.get("environment", "{}")), dict)
    except ValueError:
        good = False
    if not good:
        raise Refused(400, "environment must be the JSON text of an object")
