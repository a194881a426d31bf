"""`retraind cloudera`: a project is brought to what is wanted, through the API, from anywhere."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import structlog
from cloudera.serving import SITE
from cloudera.workbench import Workbench
from sites import until
from workplace import RUNNING, STOPPED, check_out_scripts

from daemon import provision
from daemon.__main__ import main

PROGRAM = """
    import http.server, os, sys

    print(*sys.argv[1:], os.environ["RETRAIND_CONFIG"], os.environ.get("LEVEL"), flush=True)
    if os.environ.get("LEVEL") == "broken":
        sys.exit(1)
    if sys.argv[1] == "run":
        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                self.send_response(200 if self.path == "/healthz" else 302)
                self.end_headers()

        address = ("127.0.0.1", int(os.environ["CDSW_APP_PORT"]))
        http.server.HTTPServer(address, Handler).serve_forever()
"""
CONFIG = "pipelines:\n  cards: {table: lake.bank.cards, label: fraud}\n"
SPARK, RUNTIME = "sparkconnect354-732-26", "pbj-workbench-python3.11-standard:2026.08.1-b5"
JOBS = ["New Batch", "Retrain XGBoost", "API Redeployment"]
Call = Callable[..., tuple[int, str]]


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Workbench]:
    """Give a workbench whose project holds the entry scripts, and a pip that installs nothing."""
    with Workbench(tmp_path) as bench:
        check_out_scripts(bench.project, PROGRAM)
        (bench.project / "pip").mkdir()
        for name in ("__init__", "__main__"):
            (bench.project / "pip" / f"{name}.py").touch()
        yield bench


@pytest.fixture
def call(
    bench: Workbench, tmp_path: Path, capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[Call]:  # fmt: skip
    """Run a command from outside; gives its status and what it said."""
    path = tmp_path / "retraind.yaml"
    path.write_text(CONFIG, encoding="utf-8")
    monkeypatch.syspath_prepend(str(SITE))
    for name, value in {
        "CDSW_API_URL": f"{bench.url}/api/v1", "CDSW_PROJECT_ID": bench.project_id,
        "CDSW_APIV2_KEY": bench.key.text,
    }.items():  # fmt: skip
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(provision, "LOOK_EVERY", 0.02)

    def call(*words: object) -> tuple[int, str]:
        given = ["retraind", "cloudera", *map(str, words), "--config", str(path)]
        monkeypatch.setattr(sys, "argv", given)
        with pytest.raises(SystemExit) as ended:
            main()
        said = capsys.readouterr()
        code = ended.value.code
        assert isinstance(code, int | None)
        return code or 0, said.out + said.err

    yield call
    structlog.reset_defaults()


def report(call: Call, *words: object) -> tuple[dict[str, str], Any]:
    """Run a command; gives what was done by name, and all that it reports."""
    status, text = call(*words, "--json")
    assert status == 0, text
    view = json.loads(text)
    return {change["name"]: change["done"] for change in view["changes"]}, view


def writes(bench: Workbench) -> list[str]:
    """Name the operations that changed something."""
    return [
        one.operation for one in bench.requests if not one.operation.startswith(("Get", "List"))
    ]


# -- the application -----------------------------------------------------------------------------


def test_a_project_is_set_up_from_nothing_and_then_left_alone(bench: Workbench, call: Call) -> None:
    """The set-up runs, the application answers; a second time there is nothing to do."""
    done, view = report(call, "install")
    assert done == {"Set up retraind": "created", "retraind": "created"}
    assert view["url"] == bench.url.replace("//", "//retraind.")
    (app,), (setup,) = bench.applications, bench.runs
    assert app.status == RUNNING
    assert app.log.startswith("run config/cloudera.yaml")
    assert "append --rows 4000 --if-new config/cloudera.yaml" in setup.log
    assert app.body["script"] == "daemon/cloudera_app.py"
    assert (app.body["cpu"], app.body["memory"]) == (2, 4)
    assert app.body["runtime_identifier"].endswith(RUNTIME)
    assert app.body["runtime_addon_identifiers"] == [SPARK]
    assert app.environment["CDSW_APP_POLLING_ENDPOINT"] == "/healthz"
    assert app.environment["RETRAIND_NOTIFY__LINK"] == view["url"]
    assert not bench.dropped
    before = writes(bench)
    done, _ = report(call, "install")
    assert done == {"Set up retraind": "as wanted", "retraind": "as wanted"}
    assert writes(bench) == before
    assert len(bench.runs) == len(app.workloads) == 1


def test_what_differs_is_changed_in_place_and_started_anew(bench: Workbench, call: Call) -> None:
    """Same application, same address; a variable that a person added stays."""
    report(call, "install", "--no-setup")
    (app,) = bench.applications
    app.body["environment"] = json.dumps({**app.environment, "MINE": "1"})
    status, text = call("install", "--no-setup", "--memory", 8, "--env", "LEVEL=high=er")
    assert status == 0
    assert "application retraind: changed (environment, memory; started anew)" in text
    assert [one.id for one in bench.applications] == [app.id]
    assert app.body["memory"] == 8
    assert app.environment.items() >= {"MINE": "1", "LEVEL": "high=er"}.items()
    until(lambda: "high=er" in app.log, "the new process has the variable")
    assert not bench.runs


def test_what_was_stopped_is_started(bench: Workbench, call: Call) -> None:
    """Who installs wants it to run."""
    report(call, "install", "--no-setup")
    (app,) = bench.applications
    bench.client().stop_application(bench.project_id, app.id)
    bench.wait(app, STOPPED)
    done, _ = report(call, "install", "--no-setup")
    assert done == {"retraind": "started"}
    assert app.status == RUNNING


@pytest.mark.parametrize("command", ["install", "jobs"])
def test_a_dry_run_changes_nothing(bench: Workbench, call: Call, command: str) -> None:
    """It says what would be done, before and after."""
    status, text = call(command, "--dry-run")
    assert status == 0
    assert "would be created" in text
    assert writes(bench) == []
    report(call, command)
    before = writes(bench)
    assert "as wanted" in call(command, "--dry-run")[1]
    assert "would be changed (memory)" in call(command, "--dry-run", "--memory", 9)[1]
    assert writes(bench) == before


def test_a_set_up_that_failed_is_told_and_run_again(bench: Workbench, call: Call) -> None:
    """The application is not started on what is half installed; the next time it is set up."""
    status, text = call("install", "--env", "LEVEL=broken")
    assert (status, bench.applications) == (1, [])
    assert "The job 'Set up retraind' ended as failed. Its log is on the job's page" in text
    done, _ = report(call, "install", "--env", "LEVEL=fine")
    assert done == {"Set up retraind": "changed", "retraind": "created"}
    report(call, "install", "--env", "LEVEL=fine", "--setup")
    assert [run.status for run in bench.runs] == [
        "ENGINE_FAILED", "ENGINE_SUCCEEDED", "ENGINE_SUCCEEDED",
    ]  # fmt: skip


def test_what_goes_on_too_long_is_told(bench: Workbench, call: Call) -> None:
    """No room in the quota, or an application that does not answer."""
    bench.quota(1)
    status, text = call("install", "--within", 1)
    assert (status, "'Set up retraind' is scheduling after 1 s" in text) == (1, True)
    bench.quota(None)
    script = bench.project / "daemon" / "cloudera_app.py"
    script.write_text("import time; time.sleep(60)\n")
    status, text = call("install", "--no-setup", "--within", 1)
    assert (status, "'retraind' is starting after 1 s" in text) == (1, True)
    bench.habits.application_restarts = 0
    script.write_text("1 / 0\n")
    status, text = call("install", "--no-setup", "--memory", 5)
    assert (status, "'retraind' failed. Its log" in text) == (1, True)


@pytest.mark.parametrize("kind", ["deadline", "drop after"])
def test_an_answer_that_was_lost_makes_no_second_one(
    bench: Workbench, call: Call, kind: Any
) -> None:
    """What was made although the gateway gave up is found, and not made again."""
    bench.fault("CreateApplication", kind)
    bench.fault("CreateJob", kind)
    report(call, "install")
    assert (len(bench.applications), len(bench.jobs)) == (1, 1)


def test_what_there_is_not_is_told(bench: Workbench, call: Call) -> None:
    """No such runtime or Spark, two of one name, a variable without a value."""
    assert "no enabled runtime Python 2.7" in call("install", "--kernel", "Python 2.7")[1]
    status, text = call("jobs", "--spark", "3.2")
    assert (status, "no Spark addon 3.2; it has: Spark 3.5.4 - CDP 7.3.2, Spark" in text) == (
        1,
        True,
    )
    report(call, "jobs", "--spark", "4.1")
    assert bench.jobs[0].body["runtime_addon_identifiers"] == ["sparkconnect411-26"]
    assert call("jobs", "--env", "A")[0] == 2
    bench.client().create_job(
        {"name": "New Batch", "script": "x.py", "runtime_identifier": bench.runtime},
        bench.project_id,
    )
    assert "2 jobs called 'New Batch'" in call("jobs")[1]


# -- the jobs ------------------------------------------------------------------------------------


def test_the_three_jobs_are_the_labs_and_one_starts_the_next(bench: Workbench, call: Call) -> None:
    """Each runs one command when the one before succeeded; a second time nothing changes."""
    done, _ = report(call, "jobs", "--start")
    assert done == dict.fromkeys(JOBS, "created")
    until(lambda: len(bench.runs) == 3, "the chain runs")
    bench.wait(bench.runs[-1], "ENGINE_SUCCEEDED")
    assert [run.log.split(" config/")[0] for run in bench.runs] == [
        "append cards --rows 1440", "once --until verdict", "once --only deploy",
    ]  # fmt: skip
    first, second, third = bench.jobs
    assert [job.body["name"] for job in bench.jobs] == JOBS
    assert [job.body["parent_id"] for job in bench.jobs] == ["", first.id, second.id]
    assert [job.body["type"] for job in bench.jobs] == ["manual", "dependent", "dependent"]
    assert {(job.body["cpu"], job.body["memory"]) for job in bench.jobs} == {(2, 4)}
    assert third.body["runtime_addon_identifiers"] == [SPARK]
    before = writes(bench)
    done, _ = report(call, "jobs")
    assert done == dict.fromkeys(JOBS, "as wanted")
    assert writes(bench) == before


def test_a_job_is_changed_in_place_and_loses_its_schedule(bench: Workbench, call: Call) -> None:
    """A job that follows another has no schedule of its own; the platform takes only one."""
    report(call, "jobs")
    api, (_, second, _) = bench.client(), bench.jobs
    api.update_job({"parent_id": "", "schedule": "0 * * * *"}, bench.project_id, second.id)
    done, view = report(call, "jobs", "--rows", 99)
    assert done == dict(zip(JOBS, ("changed", "changed", "as wanted"), strict=True))
    assert view["changes"][1]["told"] == "parent_id, schedule"
    assert (second.body["parent_id"], second.body["schedule"]) == (bench.jobs[0].id, "")
    assert bench.jobs[0].environment["RETRAIND_COMMAND"] == "append cards --rows 99"


def test_a_failure_ends_the_chain(bench: Workbench, call: Call) -> None:
    """What follows does not run on what is not there."""
    report(call, "jobs", "--env", "LEVEL=broken", "--start")
    bench.wait(bench.runs[0], "ENGINE_FAILED")
    assert len(bench.runs) == 1
    assert "RuntimeError: -m daemon append" in bench.runs[0].log
