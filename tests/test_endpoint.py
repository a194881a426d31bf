"""The embedded endpoint: the conformance suite, then what is its own (processes, files, HTTP)."""

from __future__ import annotations

import contextlib
import http.client
import http.server
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pandas as pd
import psutil
import pytest
from conftest import free_port
from endpoint_conformance import (
    FEATURES,
    EndpointConformance,
    Models,
    make_rows,
    train_models,
)
from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from config.endpoint import LocalEndpoint as LocalSettings
from handlers import endpoint as endpoint_module
from handlers import licence as licence_module
from handlers import serve, wire
from handlers.endpoint import LocalEndpoint
from handlers.facts import TryLater
from handlers.licence import Licence, born
from handlers.scorer import Scorer

JSON = {"Content-Type": "application/json"}


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Models:
    """Train once for the whole module."""
    return train_models(tmp_path_factory.mktemp("models"))


@pytest.fixture(scope="module")
def lock(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Hold a file open, as the daemon holds its lock, in a way that children could inherit."""
    path = tmp_path_factory.mktemp("daemon") / "lock"
    with path.open("w") as file:
        os.set_inheritable(file.fileno(), True)  # noqa: FBT003 (os takes it by position)
        yield path


@pytest.fixture(scope="module")
def endpoint(tmp_path_factory: pytest.TempPathFactory, lock: Path) -> Iterator[LocalEndpoint]:
    """Share one endpoint: a start takes seconds, and every test deploys what it needs."""
    assert lock.exists()
    home = tmp_path_factory.mktemp("state") / "endpoints" / "cards"
    local = LocalEndpoint(LocalSettings(port=free_port()), home)
    yield local
    local.stop()


@pytest.fixture
def client(endpoint: LocalEndpoint, models: Models) -> Iterator[httpx.Client]:
    """Speak HTTP to the endpoint, which serves version 1."""
    endpoint.deploy(models["1"].model, models["1"].folder)
    with httpx.Client(base_url=endpoint.where, trust_env=False) as client:
        yield client


def server_of(endpoint: LocalEndpoint) -> psutil.Process:
    """Give the process that the licence names."""
    licence = Licence.read(endpoint._home)
    assert licence
    assert licence.process
    return licence.process


class TestLocalEndpoint(EndpointConformance):
    """The embedded endpoint keeps the rules of every endpoint."""


def body_of(rows: pd.DataFrame) -> dict[str, Any]:
    """Give rows as `dataframe_split` has them."""
    return wire.split(rows)


def forms_of(rows: pd.DataFrame) -> dict[str, tuple[str, str]]:
    """Write the same rows in every form of the protocol: content type and body."""
    names, data = body_of(rows)["columns"], body_of(rows)["data"]
    records = [dict(zip(names, row, strict=True)) for row in data]
    sparse = [{k: v for k, v in row.items() if v is not None} for row in records]
    columns = {name: [row[name] for row in records] for name in names}
    backwards = {"columns": ["more", *names[::-1]], "data": [[[1], *row[::-1]] for row in data]}
    documents = {
        "split": {"dataframe_split": body_of(rows)},
        "split in another order": {"dataframe_split": backwards},
        "records": {"dataframe_records": records},
        "records without the missing": {"dataframe_records": sparse},
        "inputs as rows": {"inputs": data},
        "inputs as records": {"inputs": records},
        "inputs as columns": {"inputs": columns},
        "instances as rows": {"instances": data},
        "instances as columns": {"instances": columns},
    }
    forms = {name: ("application/json", json.dumps(value)) for name, value in documents.items()}
    forms["csv"] = ("text/csv; charset=utf-8", rows.to_csv(index=False))
    forms["csv with an index"] = ("Text/CSV", rows.to_csv())
    return forms


@pytest.mark.parametrize("form", list(forms_of(make_rows(1))))
def test_every_form_gives_the_same_predictions(
    client: httpx.Client, models: Models, form: str
) -> None:
    """The rows decide the predictions, not the way they were written; null means missing."""
    rows = make_rows(50, seed=3)
    content_type, body = forms_of(rows)[form]
    headers = {"Content-Type": content_type}
    answer = client.post("/invocations", content=body.encode(), headers=headers)
    assert answer.status_code == 200, answer.text
    found = answer.json()
    assert found["model_version"] == answer.headers["X-Model-Version"] == "1"
    assert np.array_equal(np.float32(found["predictions"]), models["1"].scorer.score(rows))


ROW = {"amount": 1.5, "age": 30, "country": "FR", "chip": True, "seen": "2026-01-01"}


@pytest.mark.parametrize(
    ("body", "status", "words"),
    [
        ("{", 400, "JSON"),
        ("[" * 100_000, 400, "JSON"),
        ("[]", 400, "dataframe_split"),
        ("{}", 400, "dataframe_split"),
        ({"inputs": [], "instances": []}, 400, "one of"),
        ({"dataframe_records": [{**ROW, "amount": "much"}]}, 400, "'amount'"),
        ({"dataframe_records": [{**ROW, "amount": [1]}]}, 400, "'amount'"),
        ({"dataframe_records": [{**ROW, "country": {"a": 1}}]}, 400, "'country'"),
        ({"dataframe_records": [{**ROW, "chip": "perhaps"}]}, 400, "'chip'"),
        ({"dataframe_records": [{**ROW, "seen": "yesterday"}]}, 400, "'seen'"),
        ({"dataframe_records": [{"amount": 1}]}, 400, "'age', 'country', 'chip', 'seen'"),
        ({"dataframe_records": [{}]}, 400, "'amount'"),
        ({"dataframe_records": [1]}, 400, "objects"),
        ({"dataframe_split": {"columns": [], "data": []}}, 400, "'amount'"),
        ({"dataframe_split": {"columns": ["a", "b", "a"], "data": []}}, 400, "'a'"),
        ({"dataframe_split": {"columns": ["a"], "data": [[1], [1, 2]]}}, 400, "row 1"),
        ({"dataframe_split": {"columns": [1], "data": [[1]]}}, 400, "names"),
        ({"dataframe_split": {"columns": ["a"], "data": 1}}, 400, "list"),
        ({"dataframe_split": {"data": [[1]]}}, 400, "`columns`"),
        ({"inputs": 1}, 400, "inputs"),
        ({"inputs": {"amount": 1}}, 400, "list per column"),
        ({"inputs": {"amount": [1], "age": [1, 2]}}, 400, "length"),
    ],
)
def test_a_bad_request_is_told_what_is_wrong(
    client: httpx.Client, body: object, status: int, words: str
) -> None:
    """What cannot be scored is refused as MLflow does, with the column or the place by name."""
    content = body if isinstance(body, str) else json.dumps(body)
    answer = client.post("/invocations", content=content, headers=JSON)
    assert (answer.status_code, answer.json()["error_code"]) == (status, "BAD_REQUEST")
    assert words in answer.json()["message"]


MORE = "amount,age,country,chip,seen\n1,2,3,FR,True,2026-01-01"


@pytest.mark.parametrize(
    "body", ["amount\nmuch", "amount\n1\n2,3,4", "", '"', "\xff", "\n\n", MORE]
)
def test_bad_csv_is_refused(client: httpx.Client, body: str) -> None:
    """CSV that does not hold the model's columns is refused in the same way."""
    headers = {"Content-Type": "text/csv"}
    answer = client.post("/invocations", content=body.encode("latin-1"), headers=headers)
    assert (answer.status_code, answer.json()["error_code"]) == (400, "BAD_REQUEST")


def test_other_media_and_methods_are_refused(client: httpx.Client) -> None:
    """Only JSON and CSV are read, and only when they are POSTed."""
    assert client.post("/invocations", content="x").status_code == 415
    assert client.get("/invocations").status_code == 405
    assert client.get("/nothing").status_code == 404


def test_a_body_that_is_too_large_is_refused(client: httpx.Client) -> None:
    """Neither an announced nor an unannounced body makes the server hold more than its limit."""
    megabyte = b" " * 2**20
    for content in (megabyte * 33, iter([megabyte] * 33)):
        answer = client.post("/invocations", content=content, headers=JSON)
        assert answer.status_code == 413, answer.text
        assert "32 MiB" in answer.json()["message"]
    assert client.get("/ping").status_code == 200


def test_answers_without_a_pause(endpoint: LocalEndpoint, client: httpx.Client) -> None:
    """No answer waits for the network to acknowledge its first packet, which costs 40 ms."""
    assert client.get("/ping").status_code == 200
    connection = http.client.HTTPConnection("127.0.0.1", endpoint._settings.port, timeout=10)
    body = json.dumps({"dataframe_split": body_of(make_rows(1))})
    took = []
    for _ in range(20):
        start = time.perf_counter()
        connection.request("POST", "/invocations", body, JSON)
        assert connection.getresponse().read()
        took.append(time.perf_counter() - start)
    connection.close()
    assert min(took) < 0.03


def test_says_who_it_is_but_not_its_token(endpoint: LocalEndpoint, client: httpx.Client) -> None:
    """The version page names model, run, columns and task; the token stays in a private file."""
    licence = Licence.read(endpoint._home)
    assert licence
    page = client.get("/version")
    assert page.json() == {
        "model_version": "1",
        "run_id": "run-1",
        "columns": [feature.name for feature in FEATURES],
        "task": "binary",
        "instance": licence.instance,
    }
    assert licence.token not in page.text
    assert licence.token not in " ".join(server_of(endpoint).cmdline())
    assert (endpoint._home / "server.json").stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("token", [None, "", "Bearer x", "wrong", "Bearer é"])
def test_no_deployment_without_the_token(
    client: httpx.Client, models: Models, token: str | None
) -> None:
    """Only who can read the licence can change the model."""
    order = {"version": "6", "run_id": "r", "folder": str(models["2"].folder)}
    headers = {} if token is None else {b"Authorization": token.encode("latin-1")}
    answer = client.post("/admin/deploy", json=order, headers=headers)
    assert answer.status_code == 401
    assert client.get("/version").json()["model_version"] == "1"


@pytest.mark.parametrize("folder", ["/etc", "{home}/models/../..", "{home}/models/link"])
def test_no_model_from_elsewhere(
    endpoint: LocalEndpoint, client: httpx.Client, folder: str
) -> None:
    """Even with the token, models are loaded from the endpoint's own folder only."""
    licence = Licence.read(endpoint._home)
    assert licence
    link = endpoint._home / "models" / "link"
    if not link.is_symlink():
        link.symlink_to("/etc")
    order = {"version": "6", "run_id": "r", "folder": folder.format(home=endpoint._home)}
    headers = {"Authorization": f"Bearer {licence.token}"}
    answer = client.post("/admin/deploy", json=order, headers=headers)
    link.unlink()
    assert answer.status_code == 403


def scraped(client: httpx.Client) -> dict[tuple[str, ...], float]:
    """Read what Prometheus would: a sample's name and the values of its labels."""
    answer = client.get("/metrics")
    assert answer.status_code == 200
    return {
        (sample.name, *(sample.labels[name] for name in sorted(sample.labels))): sample.value
        for family in text_string_to_metric_families(answer.text)
        for sample in family.samples
    }


def test_requests_rows_and_the_model_are_counted(
    endpoint: LocalEndpoint, client: httpx.Client, models: Models
) -> None:
    """Each answer counts by its status, with its rows and time; the model is the loaded one."""
    before = scraped(client)
    body = json.dumps({"dataframe_split": body_of(make_rows(7))})
    assert client.post("/invocations", content=body, headers=JSON).status_code == 200
    large = json.dumps({"dataframe_split": body_of(make_rows(1000))})
    assert len(large) > serve.SCORED_AT_ONCE
    assert client.post("/invocations", content=large, headers=JSON).status_code == 200
    assert client.post("/invocations", content="{", headers=JSON).status_code == 400
    assert client.get("/ping").status_code == 200
    after = scraped(client)
    changed = {key: value - before.get(key, 0) for key, value in after.items()}
    assert changed["retraind_scoring_requests_total", "200"] == 2
    assert changed["retraind_scoring_requests_total", "400"] == 1
    assert changed["retraind_scoring_rows_total",] == 1007
    assert changed["retraind_scoring_duration_seconds_count",] == 3
    assert changed["retraind_scoring_duration_seconds_bucket", "+Inf"] == 3
    assert after["retraind_scoring_model_info", "run-1", "1"] == 1
    endpoint.deploy(models["2"].model, models["2"].folder)
    told = [key for key in scraped(client) if key[0] == "retraind_scoring_model_info"]
    assert told == [("retraind_scoring_model_info", "run-2", "2")]


def test_keeps_only_the_model_it_serves(endpoint: LocalEndpoint, models: Models) -> None:
    """Copies of former models do not pile up, nor do those of failed deployments."""
    for version in ("1", "2", "1"):
        endpoint.deploy(models[version].model, models[version].folder)
        assert len(list((endpoint._home / "models").iterdir())) == 1


def test_the_next_daemon_takes_the_server_over(endpoint: LocalEndpoint, models: Models) -> None:
    """A second endpoint on the same home finds the server and deploys to it, without a restart."""
    endpoint.deploy(models["1"].model, models["1"].folder)
    before = server_of(endpoint)
    second = LocalEndpoint(endpoint._settings, endpoint._home)
    assert second.serving() == "1"
    second.deploy(models["2"].model, models["2"].folder)
    assert endpoint.serving() == "2"
    assert server_of(second) == before


def test_the_server_is_a_process_of_its_own(
    endpoint: LocalEndpoint, models: Models, lock: Path
) -> None:
    """It leads a session that no Ctrl-C of ours reaches, and holds none of our files open."""
    endpoint.deploy(models["1"].model, models["1"].folder)
    server = server_of(endpoint)
    assert os.getsid(server.pid) == server.pid != os.getsid(0)
    held = {Path(file.path) for file in server.open_files()}
    assert held <= {endpoint._home / "server.log"}
    assert lock not in held


def test_a_killed_server_is_started_anew(endpoint: LocalEndpoint, models: Models) -> None:
    """After `kill -9` nothing is said to serve, predictions wait, and a deployment heals."""
    endpoint.deploy(models["1"].model, models["1"].folder)
    server = server_of(endpoint)
    server.kill()
    psutil.wait_procs([server], 10)
    assert endpoint.serving() is None
    with pytest.raises(TryLater, match="does not answer"):
        endpoint.predict(make_rows(1))
    endpoint.deploy(models["1"].model, models["1"].folder)
    assert endpoint.serving() == "1"
    assert server_of(endpoint) != server


def test_a_silent_server_is_replaced(
    endpoint: LocalEndpoint, models: Models, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server that hangs counts as none, and makes way for another after `start_within`."""
    endpoint.deploy(models["1"].model, models["1"].folder)
    server = server_of(endpoint)
    monkeypatch.setattr(endpoint_module, "ANSWER_WITHIN", 0.2)
    monkeypatch.setattr(licence_module, "STOP_WITHIN", 0.5)
    hasty = LocalEndpoint(
        endpoint._settings.model_copy(update={"start_within": 0.3}), endpoint._home
    )
    server.suspend()
    assert hasty.serving() is None
    with pytest.raises(TryLater, match=r"did not answer within 0\.3 s"):
        hasty.deploy(models["1"].model, models["1"].folder)
    assert not server.is_running() or server.status() == psutil.STATUS_ZOMBIE
    monkeypatch.undo()
    endpoint.deploy(models["2"].model, models["2"].folder)
    assert endpoint.serving() == "2"


def test_running_requests_are_finished(endpoint: LocalEndpoint, models: Models) -> None:
    """A stop lets a request that has begun end with its answer."""
    endpoint.deploy(models["1"].model, models["1"].folder)
    body = json.dumps({"dataframe_split": body_of(make_rows(10))}).encode()
    connection = http.client.HTTPConnection("127.0.0.1", endpoint._settings.port, timeout=10)
    connection.putrequest("POST", "/invocations")
    connection.putheader("Content-Type", "application/json")
    connection.putheader("Content-Length", str(len(body)))
    connection.endheaders(body[:20])
    # The server has taken the connection up once it answers on a later one.
    assert endpoint.serving() == "1"
    stopping = threading.Thread(target=endpoint.stop)
    stopping.start()
    while endpoint._listened():
        pass
    connection.send(body[20:])
    answer = connection.getresponse()
    assert answer.status == 200
    assert len(json.loads(answer.read())["predictions"]) == 10
    connection.close()
    stopping.join()
    assert endpoint.serving() is None


def test_two_starts_end_in_one_server(tmp_path: Path, models: Models) -> None:
    """A daemon killed while its server starts leaves one that the next daemon finds or replaces.

    Whoever of the two listens first serves; the other leaves, and so does the one that serves
    once its licence is withdrawn.
    """
    settings = LocalSettings(port=free_port())
    killed, later = LocalEndpoint(settings, tmp_path), LocalEndpoint(settings, tmp_path)
    Licence("token", settings.host, settings.port).write(tmp_path)
    killed._spawn()
    later.deploy(models["1"].model, models["1"].folder)
    assert later.serving() == "1"
    server = server_of(later)
    children = [process for process in (killed._child, later._child) if process]
    losers = [child for child in children if child.pid != server.pid]
    assert [child.wait(30) for child in losers] == [2] * (len(children) - 1)
    (tmp_path / "server.json").unlink()
    assert all(child.wait(30) is not None for child in children)
    assert not server.is_running()


def test_follows_its_settings_to_another_port(endpoint: LocalEndpoint, models: Models) -> None:
    """After a change of the port the server moves, and none is left at the old one."""
    endpoint.deploy(models["1"].model, models["1"].folder)
    before = server_of(endpoint)
    port = free_port()
    moved = LocalEndpoint(endpoint._settings.model_copy(update={"port": port}), endpoint._home)
    assert moved.serving() is None
    moved.deploy(models["1"].model, models["1"].folder)
    assert moved.serving() == "1"
    assert not endpoint._listened()
    assert server_of(moved) != before
    moved.stop()


def test_says_why_the_server_left(
    tmp_path: Path, models: Models, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server that cannot start is an outage that carries its last words and its log."""
    monkeypatch.setattr(endpoint_module, "ANSWER_WITHIN", 0.2)
    nowhere = LocalEndpoint(LocalSettings(host="192.0.2.1", port=free_port()), tmp_path)
    with pytest.raises(TryLater, match=r"cannot listen on 192\.0\.2\.1.*server\.log"):
        nowhere.deploy(models["1"].model, models["1"].folder)


class _Foreign(http.server.BaseHTTPRequestHandler):
    """Another program that happens to speak HTTP, and even JSON."""

    says = b""

    def do_GET(self) -> None:
        """Answer every question alike."""
        self.send_response(200)
        self.end_headers()
        self.wfile.write(self.says)

    def log_message(self, *_: object) -> None:
        """Keep the test's output clean."""


@pytest.mark.parametrize("says", [b'{"hello": 1}', b"[1]", b"hello", None])
def test_a_port_taken_by_another_program_is_an_outage(
    tmp_path: Path, models: Models, monkeypatch: pytest.MonkeyPatch, says: bytes | None
) -> None:
    """The port of another program is named with a remedy, and nothing is started beside it."""
    monkeypatch.setattr(endpoint_module, "ANSWER_WITHIN", 0.2)
    handler = type("Foreign", (_Foreign,), {"says": says})
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as foreign:
        if says is not None:
            threading.Thread(target=foreign.serve_forever, args=(0.01,), daemon=True).start()
        port = foreign.server_address[1]
        local = LocalEndpoint(LocalSettings(port=port), tmp_path)
        for attempt in (local.serving, lambda: local.deploy(models["1"].model, models["1"].folder)):
            with pytest.raises(TryLater, match=f"Port {port}.*another port"):
                attempt()
        if says is not None:
            foreign.shutdown()
    assert local._child is None


def test_never_signals_a_stranger(tmp_path: Path) -> None:
    """A pid that was given to another process since is not ours to stop."""
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as stranger:
        created = born(psutil.Process(stranger.pid)) - 5
        Licence("token", "127.0.0.1", free_port(), stranger.pid, created).write(tmp_path)
        LocalEndpoint(LocalSettings(port=free_port()), tmp_path).stop()
        assert stranger.poll() is None
        assert Licence.read(tmp_path) is None
        stranger.send_signal(signal.SIGKILL)


def test_a_torn_licence_is_none(tmp_path: Path) -> None:
    """What a crash of the machine left of the file does not stop the next start."""
    (tmp_path / "server.json").write_text('{"token": "x", "host')
    local = LocalEndpoint(LocalSettings(port=free_port()), tmp_path)
    assert local.serving() is None
    local.stop()


cells = (
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5)
    | st.datetimes().map(str) | st.sampled_from(["FR", "true", "1.5", "2026-01-01T00:00:00Z"])
)  # fmt: skip
values = st.recursive(
    cells, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3)
)
names = st.sampled_from([*ROW, "other"])
documents = st.dictionaries(
    st.sampled_from([*wire.FORMS, "other"]),
    values
    | st.lists(st.dictionaries(names, values), max_size=3)
    | st.lists(st.lists(values, min_size=5, max_size=5), max_size=3)
    | st.fixed_dictionaries({"columns": st.lists(names), "data": st.lists(st.lists(cells))}),
    max_size=2,
)


@settings(max_examples=100, deadline=None)
@given(document=documents)
def test_no_document_is_an_accident(models: Models, document: object) -> None:
    """Whatever JSON arrives, it is scored or refused; nothing else ever leaves the server."""
    served = serve.Served("1", "run", models["1"].scorer)
    with contextlib.suppress(wire.Refusal):
        answer = json.loads(served.answer("application/json", json.dumps(document).encode())[0])
        assert all(0 <= score <= 1 for score in answer["predictions"])


def test_infinite_predictions_are_null(models: Models) -> None:
    """JSON has no infinity: what a model cannot say as a number is null."""

    class Wild(Scorer):
        def score_matrix(
            self, encoded: np.ndarray[Any, np.dtype[np.float32]]
        ) -> np.ndarray[Any, np.dtype[np.float32]]:
            return np.full(len(encoded), np.inf, np.float32)

    known = models["4"]
    wild = Wild(known.scorer.task, known.scorer.features, (), known.scorer.booster)
    body = json.dumps({"inputs": body_of(make_rows(2))["data"]}).encode()
    answer = json.loads(serve.Served("1", "run", wild).answer("application/json", body)[0])
    assert answer["predictions"] == [None, None]
