"""The entry scripts inside the platform's kernels: children, signals, failures, restarts."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import httpx
import psutil
import pytest
import yaml
from cloudera.serving import SITE
from cloudera.workbench import Workbench
from conftest import pipeline
from sites import until
from workplace import (
    FAILED,
    KERNEL_SIDE,
    ROOT,
    RUNNING,
    STOPPED,
    check_out,
    check_out_scripts,
    run_job,
    start_application,
)

from config import workload
from daemon.ledger import Ledger

SERVES = """
    import http.server, os, signal, sys

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

    def leave(*_):
        print("asked", flush=True)
        sys.exit(0)

    signal.signal(signal.SIGTERM, leave)
    print("up", *sys.argv[1:], os.environ["RETRAIND_CONFIG"], flush=True)
    http.server.HTTPServer(("127.0.0.1", int(os.environ["CDSW_APP_PORT"])), Handler).serve_forever()
"""
COMMAND = """
    import os, sys

    print("words", sys.argv[1:], os.environ.get("RETRAIND_COMMAND"), flush=True)
    if sys.argv[1] == "fail":
        print('{"event": "an event"}')
        print("The table does not exist. Create it.", file=sys.stderr)
        sys.exit(1)
"""


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Workbench]:
    """Give a workbench of one's own."""
    with Workbench(tmp_path) as bench:
        yield bench


@pytest.mark.parametrize("group", [True, False])
def test_the_daemon_is_kept_running_and_asked_once_to_leave(
    bench: Workbench, *, group: bool
) -> None:
    """It is started again when it dies; SIGTERM reaches it once, whoever else the platform tells.

    A second SIGTERM would make it leave without giving the state up.
    """
    bench.habits.terminate_group = group
    check_out_scripts(bench.project, SERVES)
    app = start_application(bench)
    bench.wait(app, RUNNING)
    until(lambda: app.log.count("up run config/cloudera.yaml") == 1, "it is up")
    (child,) = _children(app.workloads[0].engine)
    os.kill(child, signal.SIGKILL)
    until(lambda: app.log.count("up run") == 2, "it is up again")
    assert f"ended with status {-signal.SIGKILL}; again in 1 s" in app.log
    bench.client().stop_application(bench.project_id, app.id)
    bench.wait(app, STOPPED)
    assert app.log.count("asked") == 1
    assert app.statuses.count(STOPPED) == 1


def _children(engine: str) -> list[int]:
    """Name the processes of an engine that run the program."""
    found = []
    for process in psutil.process_iter():
        try:
            own = process.environ().get("CDSW_ENGINE_ID") == engine
            if own and "-m" in process.cmdline():
                found.append(process.pid)
        except (psutil.Error, OSError):
            continue
    return found


def test_a_wrong_configuration_fails_the_application(bench: Workbench) -> None:
    """What starting again would not mend is told by the platform's own means, with the mistakes."""
    bench.habits.application_restarts = 0
    check_out(bench.project)
    (bench.project / "wrong.yaml").write_text("pipelines: {}\nhttpp: {}\n", encoding="utf-8")
    app = start_application(bench, RETRAIND_CONFIG="wrong.yaml")
    bench.wait(app, FAILED)
    assert "RuntimeError: The configuration in wrong.yaml has 2 mistake(s)" in app.log
    assert "httpp: unknown setting" in app.log


def test_a_job_carries_out_the_command_of_its_environment(bench: Workbench) -> None:
    """Words are split as a shell would; the command's own environment does not have them."""
    check_out_scripts(bench.project, COMMAND)
    done = run_job(bench, "daemon/cloudera_job.py", RETRAIND_COMMAND="append --file 'a b.csv'")
    assert done.status == "ENGINE_SUCCEEDED", done.log
    assert done.log == "words ['append', '--file', 'a b.csv'] None\n"


def test_a_job_fails_with_the_reason(bench: Workbench) -> None:
    """The reason is raised out of the kernel; so is that there is no command."""
    check_out_scripts(bench.project, COMMAND)
    failed = run_job(bench, "daemon/cloudera_job.py", RETRAIND_COMMAND="fail")
    assert failed.status == "ENGINE_FAILED"
    assert "RuntimeError: -m daemon fail ended with status 1: words" in failed.log
    assert failed.log.endswith("The table does not exist. Create it.\n")
    nothing = run_job(bench, "daemon/cloudera_job.py")
    assert nothing.status == "ENGINE_FAILED"
    assert "RuntimeError: Set RETRAIND_COMMAND" in nothing.log


@pytest.mark.parametrize("where", ["asyncio.run(loop())", "Thread(target=run).start()"])
def test_a_script_runs_inside_a_loop_and_outside_of_the_main_thread(
    tmp_path: Path, where: str
) -> None:
    """Kernels run scripts inside a running event loop; nothing says that it is the main thread."""
    check_out_scripts(tmp_path, COMMAND)
    code = f"""
        import asyncio, sys
        from threading import Thread

        sys.argv = ["daemon/cloudera_job.py", "-f", "kernel.json"]
        text = open("daemon/cloudera_job.py").read()

        def run():
            exec(compile(text, "<cell>", "exec"), {{"__name__": "__main__"}})

        async def loop():
            run()

        {where}
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)], cwd=tmp_path, check=False,
        env={**os.environ, "RETRAIND_COMMAND": "status"}, capture_output=True, text=True,  # noqa: TID251
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout == "words ['status'] None\n"


def test_what_kernels_load_needs_no_package() -> None:
    """One of the scripts installs the packages, so it cannot need any."""
    modules = [f"daemon.{name}" for name in KERNEL_SIDE] + ["config.workload"]
    code = f"import sys; sys.path.insert(0, {str(ROOT)!r}); import {', '.join(modules)}"
    subprocess.run([sys.executable, "-I", "-S", "-c", code], check=True)


def test_a_pod_is_known_by_its_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two pods of one host name are two places; a person is the workload's, not the login."""
    monkeypatch.setenv("LOGNAME", "cdsw")
    monkeypatch.setenv("HADOOP_USER_NAME", "ann")
    monkeypatch.delenv("CDSW_ENGINE_ID", raising=False)
    machine = workload.host()
    assert workload.person() == "cdsw"
    monkeypatch.setenv("CDSW_ENGINE_ID", "one")
    assert workload.host() not in {machine, "engine two"}
    assert workload.person() == "ann"


@pytest.mark.real
@pytest.mark.timeout(280)
def test_the_state_survives_a_restart_of_the_pod(bench: Workbench) -> None:
    """Killed with SIGKILL in a training, it is started again by the platform and goes on.

    The new pod watches the former owner's heartbeat, and answers health checks all the while. The
    delta is decided once.
    """
    bench.pace.restart = 0.1
    check_out(bench.project)
    _configure(bench, rounds=20_000)
    batch = {"RETRAIND_CONFIG": "retraind.yaml", "RETRAIND_COMMAND": "append --rows 1500 --if-new"}
    done = run_job(bench, "daemon/cloudera_job.py", **batch)
    assert done.status == "ENGINE_SUCCEEDED", done.log
    assert "1500 rows in snapshot" in done.log
    app = start_application(bench, RETRAIND_CONFIG="retraind.yaml")
    bench.wait(app, RUNNING)
    with closing(Ledger(bench.project / "state" / "ledger.db")) as book:
        until(lambda: book.pending("cards"), "the delta is opened")
        first = book.owner()
        _configure(bench, rounds=25)
        app.workloads[0].kill()
        until(lambda: len(app.workloads) == 2, "the platform starts it again")
        bench.wait(app, RUNNING)
        address = f"http://127.0.0.1:{app.port}"
        assert httpx.get(f"{address}/healthz", trust_env=False).status_code == 200
        assert book.owner() == first
        until(lambda: _served(book) == ["1"], "the model is served")
        second = book.owner()
        assert [record.delta.rows for record in book.history("cards")] == [1500]
    assert first
    assert second
    assert first.host != second.host


def _configure(bench: Workbench, rounds: int) -> None:
    train = {"rounds": rounds, "holdout": 0.3}
    cards = {**pipeline("lake.bank.cards", train=train), "poll_every": "1s"}
    text = yaml.safe_dump({"state_dir": "state", "pipelines": {"cards": cards}})
    (bench.project / "retraind.yaml").write_text(text, encoding="utf-8")


def _served(book: Ledger) -> list[str]:
    return [one.version for one in book.deployments("cards") if one.outcome == "deployed"]


PIP = """
    import os, sys

    constraint = open(sys.argv[sys.argv.index("--constraint") + 1]).read().split()
    print("pip", sys.argv[1:4], constraint)
    if os.environ.get("BREAKS"):
        for name in os.listdir("site"):
            os.rename(f"site/{name}", "site/mlflow_skinny-3.0.0.dist-info")
            text = "Metadata-Version: 2.1\\nName: mlflow-skinny\\nVersion: 3.0.0\\n"
            open("site/mlflow_skinny-3.0.0.dist-info/METADATA", "w").write(text)
"""


@pytest.mark.parametrize("breaks", ["", "yes"])
def test_setting_up_installs_and_appends_but_leaves_the_platforms_mlflow(
    bench: Workbench, breaks: str
) -> None:
    """Pip is held to what the platform brings; a version that changed all the same is an error.

    The pip here is a stand-in; `.ci/run` sets up a clean environment with the real one.
    """
    check_out_scripts(bench.project, COMMAND)
    (bench.project / "pip").mkdir()
    (bench.project / "pip" / "__init__.py").touch()
    (bench.project / "pip" / "__main__.py").write_text(textwrap.dedent(PIP), encoding="utf-8")
    skinny = bench.project / "site" / "mlflow_skinny-2.19.0.dist-info"
    skinny.mkdir(parents=True)
    (skinny / "METADATA").write_text(
        "Metadata-Version: 2.1\nName: mlflow-skinny\nVersion: 2.19.0\n"
    )
    bench.environment["PYTHONPATH"] = f"{bench.project / 'site'}:{SITE}"
    done = run_job(bench, "daemon/cloudera_setup.py", BREAKS=breaks)
    assert "pip ['install', '--editable', '.']" in done.log
    assert "'mlflow-skinny==2.19.0'" in done.log
    if breaks:
        assert done.status == "ENGINE_FAILED"
        assert "RuntimeError: pip changed what the platform brings" in done.log
    else:
        assert done.status == "ENGINE_SUCCEEDED", done.log
        assert "words ['append', '--rows', '4000', '--if-new']" in done.log
