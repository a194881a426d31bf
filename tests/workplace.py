"""A project of the emulated workbench that is this checkout, with its jobs and applications."""

from __future__ import annotations

import shutil
import textwrap
from pathlib import Path
from typing import Any

from cloudera.applications import Application
from cloudera.jobs import JobRun
from cloudera.workbench import Workbench

ROOT = Path(__file__).resolve().parent.parent
ENDS = ("ENGINE_SUCCEEDED", "ENGINE_FAILED", "ENGINE_STOPPED", "ENGINE_TIMEDOUT")
RUNNING, FAILED, STOPPED = "APPLICATION_RUNNING", "APPLICATION_FAILED", "APPLICATION_STOPPED"
KERNEL_SIDE = ("__init__", "child", "cloudera_app", "cloudera_job", "cloudera_setup")


def check_out(project: Path) -> None:
    """Let the project be this checkout."""
    for name in ("config", "daemon", "handlers", "pyproject.toml", "README.md"):
        (project / name).symlink_to(ROOT / name)


def check_out_scripts(project: Path, program: str) -> None:
    """Let the project have the entry scripts alone, with this program in place of ours."""
    for folder, names in (("daemon", KERNEL_SIDE), ("config", ("__init__", "workload"))):
        (project / folder).mkdir()
        for name in names:
            if (source := ROOT / folder / f"{name}.py").exists():
                shutil.copy(source, project / folder)
    (project / "daemon" / "__main__.py").write_text(textwrap.dedent(program), encoding="utf-8")


def run_job(bench: Workbench, script: str, **environment: str) -> JobRun:
    """Run one of the scripts as a job, to its end."""
    body = {"name": "job", "script": script, "runtime_identifier": bench.runtime}
    job = bench.client().create_job({**body, "environment": environment}, bench.project_id)
    made = bench.client().create_job_run({}, bench.project_id, job.id)
    (run,) = [run for run in bench.runs if run.id == made.id]
    bench.wait(run, *ENDS, within=120)
    return run


def start_application(bench: Workbench, **environment: str) -> Application:
    """Start our application."""
    body: dict[str, Any] = {
        "name": "retraind", "subdomain": "retraind", "script": "daemon/cloudera_app.py",
        "runtime_identifier": bench.runtime, "cpu": 2, "memory": 4,
        "environment": {"CDSW_APP_POLLING_ENDPOINT": "/healthz", **environment},
    }  # fmt: skip
    made = bench.client().create_application(body, bench.project_id)
    return next(one for one in bench.applications if one.id == made.id)
