"""The JSON API: what the pages show, typed, paged, and with one shape of errors."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from time import perf_counter
from typing import Any

import httpx
import pytest
from builders import PIPELINE, ledger
from past import BIG, fill, lengthen

from config.settings import Pipeline, Settings
from daemon import dashboard, service
from daemon.ledger import Ledger
from daemon.service import Step

HOME = f"/api/pipelines/{PIPELINE}"


@pytest.fixture
def book(tmp_path: Path) -> Iterator[Ledger]:
    """Give the ledger of a pipeline in use."""
    with closing(ledger(tmp_path / "ledger.db")) as book:
        fill(book)
        yield book


@pytest.fixture
def client(book: Ledger) -> Iterator[httpx.Client]:
    """Give a client of its pages."""
    settings = Settings(
        state_dir=book.path.parent,
        pipelines={PIPELINE: Pipeline(table="lake.bank.cards", label="fraud"),
                   "new": Pipeline.model_validate({
                       "table": "lake.bank.new", "label": "y", "endpoint": {"port": 5002}})},
    )  # fmt: skip
    steps = {PIPELINE: Step("training", 3, 10)}
    bound = service.bind("127.0.0.1", 0)
    pages = dashboard.app(settings, book, lambda: steps, lambda: ["new"])
    url = f"http://127.0.0.1:{bound.getsockname()[1]}"
    with service.pages(pages, bound), httpx.Client(base_url=url, trust_env=False) as client:
        yield client


def get(client: httpx.Client, path: str, **params: Any) -> Any:
    """Get something that is there."""
    answer = client.get(path, params=params)
    assert answer.status_code == 200, answer.text
    return answer.json()


def test_pipelines_are_told_with_what_they_do(client: httpx.Client) -> None:
    """Each says what it is to do, what it does, what serves, and what waits; a new one as well."""
    cards, new = get(client, "/api/pipelines")["pipelines"]
    assert cards == get(client, HOME)
    assert (cards["metric"], cards["looked"], cards["paused"]) == ("log_loss", True, "a <test>")
    assert cards["activity"] == {"name": "training", "done": 3, "total": 10}
    assert (cards["champion"]["version"], cards["champion"]["how"]) == ("1", "fell back")
    assert (cards["open"]["delta"], cards["open"]["trouble"]) == (9, "MLflow is down.")
    assert [parked["delta"] for parked in cards["parked"]] == [5]
    assert cards["head"] == str(BIG + 99)
    assert (new["looked"], new["champion"], new["last"]) == (False, None, None)
    assert get(client, "/api/activity") == {PIPELINE: cards["activity"]}


def test_deltas_come_in_pages_newest_first(client: httpx.Client) -> None:
    """Following `next` gives every delta once, open ones as well; `state` chooses."""
    found: list[int] = []
    before: dict[str, int] = {}
    while True:
        page = get(client, f"{HOME}/deltas", limit=4, **before)
        found += [item["delta"] for item in page["deltas"]]
        if page["next"] is None:
            break
        before = {"before": page["next"]}
    assert found == list(range(9, 0, -1))
    (parked,) = get(client, f"{HOME}/deltas", state="parked", before=6)["deltas"]
    assert (parked["delta"], parked["closed_at"] is None) == (5, False)
    (work,) = get(client, f"{HOME}/deltas", state="open")["deltas"]
    assert (work["delta"], work["closed_at"], work["reason"]) == (9, None, "MLflow is down.")
    assert get(client, "/api/pipelines/new/deltas") == {"deltas": [], "next": None}


def test_a_delta_tells_everything(client: httpx.Client) -> None:
    """Rows and snapshots, what was learnt, both models' scores with intervals, rule and command."""
    found = get(client, f"{HOME}/deltas/3")
    assert found["snapshot_to"] == str(BIG + 3)
    assert [(s["id"], s["rows"]) for s in found["snapshots"]] == [(str(BIG + 3), 100)]
    assert [m["weight"] for m in found["learnt"]["members"]] == [0.6, 0.4, 0.0]
    assert found["learnt"]["parameters"]["tree_method"] == "hist"
    compared = found["comparison"]
    assert (compared["decision"], compared["rule"][:8]) == ("promote", "promoted")
    assert compared["challenger"]["scores"] == {"log_loss": 0.3, "auc": None}
    assert compared["challenger"]["loss"]["low"] == pytest.approx(0.1 - 1.96 * 0.02)
    assert compared["champion"]["loss"]["rows"] == 100
    assert (compared["gain"]["low"], compared["gain"]["high"]) == (-0.1, None)
    assert found["live"]["alarmed"]
    assert found["drift"][0]["size"] == "large"
    assert found["reproduce"] == "retraind reproduce cards-3"
    broken = get(client, f"{HOME}/deltas/5")
    assert (broken["breaches"][0]["count"], broken["reproduce"]) == (12, None)
    work = get(client, f"{HOME}/deltas/9")
    assert (work["attempts"]["made"], work["snapshots"]) == (1, [])


def test_champions_deployments_and_the_audit_trail_are_told(client: httpx.Client) -> None:
    """Each reign with its end, each deployment with its outcome, each deed with its doer."""
    reigns = get(client, f"{HOME}/champions")["champions"]
    assert [(reign["version"], reign["how"]) for reign in reigns] == [
        ("1", "fell back"), ("2", "forced"), ("1", "rolled back"), ("3", "promoted"),
        ("1", "promoted"),
    ]  # fmt: skip
    assert [reign["until"] for reign in reigns] == [None, *(r["since"] for r in reigns[:-1])]
    back = get(client, f"{HOME}/champions", how="rolled back", limit=1)
    assert (back["champions"], back["next"]) == ([reigns[2]], None)
    assert get(client, f"{HOME}/champions", limit=2)["next"] == reigns[1]["id"]
    tried = get(client, f"{HOME}/deployments", limit=2)
    assert [item["outcome"] for item in tried["deployments"]] == ["begun", "refused"]
    older = get(client, f"{HOME}/deployments", before=tried["next"])["deployments"]
    assert [item["outcome"] for item in older] == ["deployed"]
    deeds = get(client, "/api/audit", pipeline=PIPELINE)["audit"]
    assert [(deed["who"], deed["action"]) for deed in deeds] == [
        ("ann", "pause"), ("ann", "resume"), ("retraind", "halt"), ("bob", "promote"),
        ("ann", "rollback"),
    ]  # fmt: skip
    assert get(client, "/api/audit", pipeline="new")["audit"] == []
    assert len(get(client, f"{HOME}/trend")["points"]) == 3


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/api/pipelines/others", 404), (f"{HOME}/deltas/99", 404), ("/api/nothing", 404),
        (f"{HOME}/deltas/x", 422), (f"{HOME}/deltas?limit=0", 422), (f"{HOME}/", 404),
        (f"{HOME}/deltas?before={2**70}", 422), (f"{HOME}/look", 405), ("/api/a%0Ab", 404),
    ],
)  # fmt: skip
def test_errors_have_one_shape(client: httpx.Client, path: str, status: int) -> None:
    """Whatever went wrong: what happened, and what helps."""
    answer = client.get(path)
    assert answer.status_code == status
    assert set(answer.json()) == {"detail", "remedy"}
    assert all(answer.json().values())


def test_a_ledger_out_of_reach_is_told(client: httpx.Client, book: Ledger) -> None:
    """An outage is no error of the program's: it may be asked again later."""
    book._db.execute("ALTER TABLE champions RENAME TO others")
    answer = client.get(HOME)
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "5")
    assert "could not be read" in answer.json()["detail"]


def test_ten_thousand_deltas_are_paged_at_once(client: httpx.Client, book: Ledger) -> None:
    """A page costs what it shows, wherever it is, and however rare what it looks for."""
    lengthen(book, 10_000)
    for params in ({}, {"before": 5000}, {"state": "parked"}, {"limit": 1, "before": 2}):
        get(client, f"{HOME}/deltas", **params)
        spent = []
        for _ in range(5):
            began = perf_counter()
            get(client, f"{HOME}/deltas", **params)
            spent.append(perf_counter() - began)
        print(params, f"{min(spent) * 1000:.1f} ms")  # noqa: T201 (shown by -rP)
        assert min(spent) < 0.1, params


def test_the_document_needs_no_other_host(client: httpx.Client) -> None:
    """It is JSON, names the paths as they are called, and nothing shows it from a CDN."""
    document = get(client, "/api/openapi.json")
    assert document["servers"] == [{"url": "/api"}]
    assert "/pipelines/{pipeline}/deltas/{delta}" in document["paths"]
    ids = document["components"]["schemas"]["Snapshot"]["properties"]["id"]
    assert (ids["type"], "2^53" in ids["description"]) == ("string", True)
    assert client.get("/api/docs").status_code == client.get("/docs").status_code == 404
    for path in document["paths"].values():
        for operation in path.values():
            assert operation["description"], operation["operationId"]
            assert all(
                answer["content"]["application/json"]["schema"]["$ref"].endswith("/Problem")
                for status, answer in operation["responses"].items()
                if status >= "400"
            )
