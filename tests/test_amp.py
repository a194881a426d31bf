"""The AMP: what the platform is told of the project, and its tasks in the emulated workbench."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml
from cloudera.catalogue import EDITIONS, EDITORS, KERNELS
from cloudera.workbench import Workbench
from workplace import ROOT, RUNNING, check_out_scripts, run_job

from config import reference
from config.loading import load

AMP: dict[str, Any] = yaml.safe_load(
    (ROOT / ".project-metadata.yaml").read_text(encoding="utf-8")
)  # fmt: skip
REQUIRED = {"name", "description", "author", "specification_version", "prototype_version"}
ROOTS = REQUIRED | {
    "date", "shared_memory_limit", "environment_variables", "feature_dependencies",
    "engine_images", "runtimes", "tasks",
}  # fmt: skip
SUMMARIES = {"short_summary", "long_summary"}
TASKS = {
    "run_session": {"name", "script", "code", "cpu", "memory", "kernel"} | SUMMARIES,
    "start_application": {
        "name", "subdomain", "static_subdomain", "script", "bypass_authentication", "cpu",
        "memory", "environment_variables", "kernel", "is_embedded",
    } | SUMMARIES,
}  # fmt: skip
"""The fields seen of the task types that we use."""
PROGRAM = """
    import http.server, os, sys

    print(*sys.argv[1:], os.environ["RETRAIND_SPARK__DATABASE"], flush=True)
    if sys.argv[1] == "run":
        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                self.send_response(200 if self.path == "/healthz" else 302)
                self.end_headers()

        address = ("127.0.0.1", int(os.environ["CDSW_APP_PORT"]))
        http.server.HTTPServer(address, Handler).serve_forever()
"""


def test_it_has_the_fields_of_the_specification() -> None:
    """All that are required, none that the specification does not know, and files that exist."""
    assert REQUIRED <= set(AMP) <= ROOTS
    for variable in AMP["environment_variables"].values():
        assert set(variable) == {"default", "description", "required"}
    (runtime,) = AMP["runtimes"]
    assert set(runtime) <= {"editor", "kernel", "edition", "version", "addons"}
    assert runtime["editor"] in EDITORS
    assert runtime["kernel"] in KERNELS
    assert runtime["edition"] in EDITIONS
    for task in AMP["tasks"]:
        assert set(task) - {"type"} <= TASKS[task["type"]]
        assert (ROOT / task["script"]).is_file()
        assert (task["cpu"], task["memory"]) == (2, 4)


def test_its_variables_are_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each is one of ours or the platform's; with the defaults the example loads."""
    known = {"RETRAIND_" + path.upper().replace(".", "__") for path, _, _ in reference.rows()}
    known |= {"RETRAIND_CONFIG", "CDSW_APP_POLLING_ENDPOINT"}
    assert set(AMP["environment_variables"]) <= known
    for name, variable in AMP["environment_variables"].items():
        monkeypatch.setenv(name, variable["default"])
    found = load(ROOT / AMP["environment_variables"]["RETRAIND_CONFIG"]["default"])
    (pipeline,) = found.pipelines.values()
    assert pipeline.table == "spark_catalog.default.card_transactions"
    assert (found.spark.data_connection, found.spark.data_lake) == (None, None)
    monkeypatch.setenv("RETRAIND_SPARK__DATA_CONNECTION", "lake")
    assert load(ROOT / "config" / "cloudera.yaml").spark.data_connection == "lake"


def test_its_tasks_end_with_an_application_that_answers(tmp_path: Path) -> None:
    """The tasks run in their order with the variables' defaults, as the platform would."""
    with Workbench(tmp_path) as bench:
        check_out_scripts(bench.project, PROGRAM)
        (bench.project / "pip").mkdir()
        for name in ("__init__", "__main__"):
            (bench.project / "pip" / f"{name}.py").touch()
        defaults = {name: one["default"] for name, one in AMP["environment_variables"].items()}
        bench.project_environment.update(defaults)
        session, application = AMP["tasks"]
        done = run_job(bench, session["script"])  # a session's kernel is that of a job
        assert done.status == "ENGINE_SUCCEEDED", done.log
        assert done.log == "append --rows 4000 --if-new default\n"
        app = _start(bench, application)
        bench.wait(app, RUNNING)
        assert app.log.startswith("run default\n")


def _start(bench: Workbench, task: Mapping[str, Any]) -> Any:
    fields = ("name", "subdomain", "script", "cpu", "memory", "bypass_authentication")
    body = {name: task[name] for name in fields}
    body |= {
        "runtime_identifier": bench.runtime, "environment": task["environment_variables"],
    }  # fmt: skip
    made = bench.client().create_application(body, bench.project_id)
    (app,) = [one for one in bench.applications if one.id == made.id]
    return app
