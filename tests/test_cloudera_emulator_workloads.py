"""The emulated workbench's jobs and applications, which are real processes."""

from __future__ import annotations

import json
import sys
import textwrap
import time
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
from cloudera.applications import Application
from cloudera.jobs import JobRun
from cloudera.keys import API, APPLICATION
from cloudera.workbench import Workbench

NUMBERS = count(1)
RUNNING, FAILED = "APPLICATION_RUNNING", "APPLICATION_FAILED"
STARTING, STOPPED = "APPLICATION_STARTING", "APPLICATION_STOPPED"
ENDS = ("ENGINE_SUCCEEDED", "ENGINE_FAILED", "ENGINE_STOPPED", "ENGINE_TIMEDOUT")
SERVER = """
    import http.server, json, os

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            status = {"/": 302, "/healthz": 200, "/echo": 200}.get(self.path, 404)
            body = json.dumps(dict(self.headers)).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

    port = int(os.environ["CDSW_APP_PORT"])
    http.server.HTTPServer(("127.0.0.1", port), Handler).serve_forever()
"""


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Workbench]:
    """Give a workbench of one's own; what it started is gone when it has closed."""
    with Workbench(tmp_path) as bench:
        bench.pace.grace = 0.3
        yield bench
    engines = {path.stem for path in (tmp_path / "logs").glob("*.log")}
    assert not [one for one in psutil.process_iter() if engine_of(one) in engines]


def engine_of(process: psutil.Process) -> str | None:
    """Give the engine that a process belongs to."""
    try:
        return process.environ().get("CDSW_ENGINE_ID")
    except (psutil.Error, OSError):
        return None


@pytest.fixture
def api(bench: Workbench) -> Any:
    """Give the client of the workbench."""
    return bench.client()


def script(bench: Workbench, code: str) -> str:
    """Put a script into the project."""
    name = f"script-{next(NUMBERS)}.py"
    (bench.project / name).write_text(textwrap.dedent(code))
    return name


def job(bench: Workbench, code: str, **more: Any) -> str:
    """Make a job of some code; gives its identifier."""
    body = {"name": "job", "script": script(bench, code), "runtime_identifier": bench.runtime}
    return str(bench.client().create_job({**body, **more}, bench.project_id).id)


def start(bench: Workbench, identifier: str, **more: Any) -> JobRun:
    """Start a run of a job."""
    made = bench.client().create_job_run(more, bench.project_id, identifier)
    return next(run for run in bench.runs if run.id == made.id)


def run(bench: Workbench, code: str, **more: Any) -> JobRun:
    """Run some code to its end."""
    done = start(bench, job(bench, code, **more))
    bench.wait(done, *ENDS)
    return done


def application(bench: Workbench, code: str, **more: Any) -> Application:
    """Make an application of some code, which starts it."""
    name = f"app-{next(NUMBERS)}"
    body: dict[str, Any] = {"name": name, "subdomain": name, "script": script(bench, code)}
    body |= {"runtime_identifier": bench.runtime, "cpu": 2, "memory": 4, **more}
    made = bench.client().create_application(body, bench.project_id)
    return next(one for one in bench.applications if one.id == made.id)


def refusal(call: Any, *args: Any) -> tuple[int, str]:
    """Make a call that is refused; gives its status and body."""
    with pytest.raises(sys.modules["cmlapi"].rest.ApiException) as caught:
        call(*args)
    return caught.value.status, caught.value.body


# -- jobs --------------------------------------------------------------------------------------


def test_a_job_runs_in_a_kernel(bench: Workbench) -> None:
    """It finds no `__file__`, but its folder, arguments, variables and the platform's packages."""
    bench.environment["MLFLOW_TRACKING_URI"] = "cml://localhost"
    bench.project_environment.update({"A": "project", "B": "project"})
    code = """
        import os, sys
        assert "__file__" not in globals() and __name__ == "__main__"
        import beside, cmlapi
        project = cmlapi.default_client().get_project(os.environ["CDSW_PROJECT_ID"])
        names = ["A", "B", "C", "CDSW_CPU_MILLICORES", "CDSW_MEMORY_MB", "MLFLOW_TRACKING_URI",
                 "ML_RUNTIME_KERNEL", "ML_RUNTIME_EDITION", "HADOOP_USER_NAME"]
        print([os.environ.get(name) for name in names])
        print(os.getcwd(), sys.argv[1:4], project.name)
    """
    (bench.project / "beside.py").write_text("")
    done = run(
        bench, code, cpu=2, memory=4, arguments="--rows '1 2'", environment={"B": "job", "C": "job"}
    )
    assert done.status == "ENGINE_SUCCEEDED", done.log
    first, second = done.log.splitlines()
    assert first == str(
        ["project", "job", "job", "2000", "4096", "cml://localhost", "Python 3.11", "Standard",
         "analyst"]
    )  # fmt: skip
    assert second == f"{bench.project} ['--rows', '1 2', '-f'] retraind"
    assert done.statuses == [
        "ENGINE_SCHEDULING", "ENGINE_STARTING", "ENGINE_RUNNING", "ENGINE_SUCCEEDED",
    ]  # fmt: skip


@pytest.mark.parametrize(
    "code",
    [
        "import sys; sys.exit(0)",
        "raise SystemExit",
        "1 / 0",
        "import os; os._exit(0)",
        "import os; os.execv('/bin/sleep', ['sleep', '60'])",
        "import os, signal; os.kill(os.getpid(), signal.SIGKILL)",
        "not python",
    ],
)
def test_only_the_end_of_the_script_is_success(bench: Workbench, code: str) -> None:
    """Any SystemExit, an exception, an exit or exec of the kernel, and its death are failures."""
    assert run(bench, code).status == "ENGINE_FAILED"


def test_a_run_has_its_own_environment_but_no_arguments(bench: Workbench) -> None:
    """The environment of a run is applied over the job's; its arguments are not, unless ordered."""
    identifier = job(
        bench, "import os, sys; print(os.environ['A'], sys.argv[1])", arguments="job",
        environment={"A": "job"},
    )  # fmt: skip
    first = start(bench, identifier, environment={"A": "run"}, arguments="run")
    bench.wait(first, *ENDS)
    bench.habits.run_arguments_used = True
    second = start(bench, identifier, arguments="run")
    bench.wait(second, *ENDS)
    assert (first.log, second.log) == ("run job\n", "job run\n")


def test_a_child_starts_when_its_parent_succeeds(bench: Workbench, api: Any) -> None:
    """A job starts its children, if it succeeds; a parent and a schedule exclude each other."""
    parent = job(bench, "import os; os.environ.get('FAIL') and 1 / 0")
    child = job(bench, "pass", parent_id=parent)
    assert api.get_job(bench.project_id, child).type == "dependent"
    bench.wait(start(bench, parent, environment={"FAIL": "1"}), *ENDS)
    assert len(bench.runs) == 1
    bench.wait(start(bench, parent), *ENDS)
    assert len(bench.runs) == 3
    bench.wait(bench.runs[-1], "ENGINE_SUCCEEDED")
    assert bench.runs[-1].body["job_id"] == child
    both = {"parent_id": parent, "schedule": "0 * * * *"}
    body = {"name": "j", "script": "j.py", "runtime_identifier": bench.runtime}
    for wrong in (both, {"parent_id": "none"}, {"schedule": "daily"}, {"runtime_identifier": "x"}):
        assert refusal(api.create_job, {**body, **wrong}, bench.project_id)[0] == 400
    assert refusal(api.update_job, {"environment": "A=1"}, bench.project_id, child)[0] == 400
    assert refusal(api.update_job, {"environment": {"A": "1"}}, bench.project_id, child)[0] == 400
    api.delete_job(bench.project_id, parent)
    assert [one.id for one in api.list_jobs(bench.project_id).jobs] == [child]


def test_one_run_of_a_job_is_active(bench: Workbench, api: Any) -> None:
    """A second run is refused, or skipped; one that is stopped makes room for the next."""
    identifier = job(bench, "import time; time.sleep(60)")
    first = start(bench, identifier)
    bench.wait(first, "ENGINE_RUNNING")
    assert refusal(api.create_job_run, {}, bench.project_id, identifier)[0] == 400
    bench.habits.second_run = "skipped"
    assert start(bench, identifier).status == "ENGINE_SKIPPED"
    api.stop_job_run(bench.project_id, identifier, first.id)
    assert bench.wait(first, *ENDS) == "ENGINE_STOPPED"
    third = start(bench, identifier)
    api.stop_job_run(bench.project_id, identifier, third.id)
    assert bench.wait(third, *ENDS) == "ENGINE_STOPPED"
    runs = api.list_job_runs(
        bench.project_id, identifier, search_filter='{"status": "stopped"}', sort="-created_at"
    ).job_runs
    assert [one.id for one in runs] == [third.id, first.id]


def test_jobs_time_out_fail_by_order_and_wait_for_room(bench: Workbench) -> None:
    """A job is killed after its timeout; another is made to fail or hang, or waits for quota."""
    late = start(bench, job(bench, "import time; time.sleep(60)", timeout=1, kill_on_timeout=True))
    bench.fault("CreateJobRun", "fail")
    assert run(bench, "pass").status == "ENGINE_FAILED"
    bench.fault("CreateJobRun", "hang", state="ENGINE_SCHEDULING")
    hanging = start(bench, job(bench, "pass"))
    bench.wait(late, "ENGINE_RUNNING")
    bench.quota(1)
    waiting = start(bench, job(bench, "pass"))
    time.sleep(0.2)
    assert waiting.statuses == ["ENGINE_SCHEDULING"]
    bench.wait(late, "ENGINE_TIMEDOUT")
    bench.wait(waiting, "ENGINE_SUCCEEDED")
    assert hanging.statuses == ["ENGINE_SCHEDULING"]


def test_all_of_a_workload_ends_with_it(bench: Workbench) -> None:
    """What a script started ends with it, also what left its session."""
    done = run(
        bench,
        """
        import subprocess
        child = subprocess.Popen(["sleep", "60"], start_new_session=True)
        print(child.pid)
        """,
    )
    assert done.status == "ENGINE_SUCCEEDED"
    gone = not psutil.pid_exists(int(done.log))
    assert gone or psutil.Process(int(done.log)).status() == psutil.STATUS_ZOMBIE


def test_a_data_connection_gives_a_session(bench: Workbench) -> None:
    """`cml.data_v1` builds a session from the description that the test gave, and from no other."""
    bench.environment["EMULATED_CONNECTIONS"] = '{"lake": {"spark.master": "local[1]"}}'
    (bench.project / "pyspark").mkdir()
    (bench.project / "pyspark" / "__init__.py").touch()
    (bench.project / "pyspark" / "sql.py").write_text(
        textwrap.dedent("""
            class SparkSession:
                class builder:
                    def appName(name): return SparkSession()
                def config(self, *pair): self.pair = pair; return self
                def getOrCreate(self): return self.pair
        """)
    )
    code = """
        import cml.data_v1 as cmldata
        print(cmldata.get_connection("lake").get_spark_session())
        cmldata.get_connection("other")
    """
    done = run(bench, code)
    assert done.log.startswith("('spark.master', 'local[1]')")
    assert "ValueError: no data connection 'other'" in done.log


# -- applications ------------------------------------------------------------------------------


def test_an_application_runs_when_its_endpoint_answers(bench: Workbench, api: Any) -> None:
    """A redirect is no answer; with the right endpoint the application is running, and reached."""
    waiting = application(bench, SERVER)
    path = json.dumps({"CDSW_APP_POLLING_ENDPOINT": "/healthz"})
    app = application(bench, SERVER, environment=json.loads(path))
    bench.wait(app, RUNNING)
    read = api.get_application(bench.project_id, app.id)
    assert (read.cpu, read.memory, read.environment) == (2.0, 4.0, path)
    time.sleep(0.2)
    assert waiting.status == STARTING
    found = api.list_applications(bench.project_id, search_filter='{"status": "running"}')
    assert [one.id for one in found.applications] == [app.id]
    taken = {**app.body, "environment": {}}
    assert refusal(api.create_application, taken, bench.project_id)[0] == 400
    api.stop_application(bench.project_id, waiting.id)
    api.stop_application(bench.project_id, app.id)
    bench.wait(app, STOPPED)


def test_the_proxy_says_who_comes(bench: Workbench) -> None:
    """Who is logged in, or has a key for applications, is named; nobody can name himself."""
    app = application(bench, SERVER, environment={"CDSW_APP_POLLING_ENDPOINT": "/healthz"})
    bench.wait(app, RUNNING)
    with httpx.Client(trust_env=False, base_url=bench.application_url(app.id)) as client:
        spoofed = {"remote-user": "root", "remote-user-perm": "RW"}
        bench.habits.visitor_permission = "R"
        headers = client.get("/echo", headers=spoofed).json()
        assert (headers["remote-user"], headers["remote-user-perm"]) == ("analyst", "R")
        bench.habits.visitor = None
        assert client.get("/echo").status_code == 302
        for key, status in ((bench.issue(API), 403), (bench.issue(APPLICATION, user="ann"), 200)):
            answer = client.get("/echo", headers={"Authorization": f"Bearer {key.text}"})
            assert answer.status_code == status
        assert answer.json()["remote-user"] == "ann"
        app.body["bypass_authentication"] = True
        assert "remote-user" not in client.get("/echo", headers=spoofed).json()


def test_a_failed_application_is_restarted_three_times(bench: Workbench, api: Any) -> None:
    """The platform tries three times more; then it stays failed until somebody restarts it."""
    bench.pace.restart = 0.02
    app = application(bench, "import os; os._exit(0)")
    limit = time.monotonic() + 20
    while app.statuses.count(FAILED) < 4 and time.monotonic() < limit:
        time.sleep(0.02)
    time.sleep(0.2)
    assert app.statuses == [STARTING, FAILED] * 4
    bench.habits.application_restarts = 0
    api.restart_application(bench.project_id, app.id)
    bench.wait(app, FAILED)
    assert app.statuses == [STARTING, FAILED] * 5


def test_stopping_asks_before_it_kills(bench: Workbench, api: Any) -> None:
    """SIGTERM comes first; who ignores it is killed after the grace, and can be started again."""
    code = """
        import signal, time
        signal.signal(signal.SIGTERM, lambda *_: print("asked", flush=True))
        print("up", flush=True)
        while True:
            time.sleep(60)
    """
    app = application(bench, code)
    while "up" not in app.log:
        time.sleep(0.02)
    first = app.workloads[0]
    api.restart_application(bench.project_id, app.id)
    assert app.status == "APPLICATION_STOPPING"
    bench.wait(app, STARTING)
    assert first.log.read_text() == "up\nasked\n"
    while len(app.workloads) < 2 or "up" not in app.log:
        time.sleep(0.02)
    api.delete_application(bench.project_id, app.id)
    bench.wait(app, STOPPED)
    assert api.list_applications(bench.project_id).applications == []


def test_the_key_of_a_workload_can_have_an_end(bench: Workbench) -> None:
    """A workload's key works as long as the habit says, and forever otherwise."""
    bench.habits.workload_key_lives = 0.0
    code = "import cmlapi, os; cmlapi.default_client().list_runtimes()"
    done = run(bench, code)
    assert done.status == "ENGINE_FAILED"
    assert "(401)" in done.log
