"""Acting over HTTP: only behind the platform's login, only writers, under their own name."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import httpx
import pytest
from builders import PIPELINE, close, delta, dump, ledger, park, promote

from config.settings import Pipeline, Settings
from daemon import dashboard, service
from daemon.ledger import Ledger
from handlers.facts import State

ANN = {"remote-user": "ann", "remote-user-perm": "RW", "retraind": "yes"}


@pytest.fixture
def book(tmp_path: Path) -> Iterator[Ledger]:
    """Give the ledger of a daemon that runs."""
    with closing(ledger(tmp_path / "ledger.db")) as book:
        yield book


Client = Callable[..., httpx.Client]


@pytest.fixture
def looked() -> list[str]:
    """Give the looks that were asked for."""
    return []


@pytest.fixture
def client(book: Ledger, looked: list[str]) -> Iterator[Client]:
    """Give clients of the pages, with the platform's login before them or without."""
    settings = Settings(pipelines={PIPELINE: Pipeline(table="lake.bank.cards", label="fraud")})
    with ExitStack() as stack:

        def made(*, proxied: bool = True) -> httpx.Client:
            bound = service.bind("127.0.0.1", 0)
            pages = dashboard.app(settings, book, dict, list, looked.append, proxied=proxied)
            stack.enter_context(service.pages(pages, bound))
            url = f"http://127.0.0.1:{bound.getsockname()[1]}"
            return stack.enter_context(httpx.Client(base_url=url, trust_env=False, timeout=10))

        yield made


def act(pages: Any, action: str, headers: Any = ANN, pipeline: str = PIPELINE, **wish: Any) -> Any:
    """Send an action; gives the answer."""
    return pages.post(f"/api/pipelines/{pipeline}/{action}", json=wish, headers=headers)


def test_every_action_is_done_under_the_name_of_who_came(book: Ledger, client: Client) -> None:
    """Each is the command of its name, and the audit trail says who did it and why."""
    pages = client()
    promote(book, 1)
    promote(book, 2)
    close(book, book.open(PIPELINE, delta(3)), State.KEPT, 3)
    park(book, 4)
    park(book, 5)
    for action, wish in (
        ("pause", {"reason": "maintenance"}), ("resume", {}), ("retry", {"delta": 4}),
        ("drop", {"delta": 5, "reason": "a test rig"}), ("rollback", {}),
        ("promote", {"version": "3", "reason": "the law asks"}),
    ):  # fmt: skip
        answer = act(pages, action, **wish)
        assert answer.status_code == 200, answer.text
        assert answer.json()["done"].startswith(f"{PIPELINE}")
    done = [(row["who"], row["action"], row["detail"]) for row in reversed(book.audit())]
    assert done == [
        ("ann", "pause", "maintenance"), ("ann", "resume", ""), ("ann", "retry", "4"),
        ("ann", "drop", "5 a test rig"), ("ann", "rollback", "to 1: "),
        ("ann", "promote", "3: the law asks"),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("headers", "proxied", "told"),
    [
        (ANN, False, "There is no login here"),
        ({**ANN, "remote-user-perm": "RO"}, True, "ann may look at this project"),
        ({**ANN, "remote-user-perm": ""}, True, "ann may look at this project"),
        ({"remote-user-perm": "RW", "retraind": "yes"}, True, "Nobody is logged in"),
        ({**ANN, "retraind": ""}, True, "Send a header `retraind`"),
    ],
)
def test_who_may_not_act_changes_nothing(
    book: Ledger, client: Client, headers: dict[str, str], told: str, *, proxied: bool
) -> None:
    """Readers, strangers, pages of other sites, and anyone where there is no login are told why."""
    before = dump(book)
    answer = act(client(proxied=proxied), "pause", headers)
    assert (answer.status_code, told in answer.text) == (403, True)
    assert dump(book) == before


@pytest.mark.parametrize(
    ("action", "wish", "status"),
    [
        ("rollback", {}, 409), ("drop", {}, 409), ("promote", {"version": "1"}, 409),
        ("retry", {"delta": 9}, 409), ("explode", {}, 422), ("pause", {"unknown": 1}, 422),
    ],
)  # fmt: skip
def test_what_cannot_be_done_is_told(
    book: Ledger, client: Client, action: str, wish: dict[str, Any], status: int
) -> None:
    """The answer says why, and nothing was changed."""
    before = dump(book)
    assert act(client(), action, **wish).status_code == status
    assert act(client(), "pause", pipeline="others").status_code == 404
    assert dump(book) == before


def test_a_producer_has_a_pipeline_look(client: Client, looked: list[str]) -> None:
    """Asking needs the right to act, but no body; what is asked of others is not passed on."""
    path = f"/api/pipelines/{PIPELINE}/look"
    answer = client().post(path, headers=ANN)
    assert (answer.status_code, answer.json()["pipeline"]) == (202, PIPELINE)
    assert looked == [PIPELINE]
    assert client().post(path, headers={**ANN, "retraind": ""}).status_code == 403
    assert client(proxied=False).post(path, headers=ANN).status_code == 403
    assert client().post("/api/pipelines/others/look", headers=ANN).status_code == 404
    assert looked == [PIPELINE]


def test_the_page_says_who_looks(client: Client) -> None:
    """A reader is told that they may only look; without a login nobody is named."""
    reader = {"remote-user": "<bob>", "remote-user-perm": "RO"}
    assert "you are &lt;bob&gt;, who may look only" in client().get("/", headers=reader).text
    assert "you are ann</span>" in client().get("/", headers=ANN).text
    assert "you are" not in client(proxied=False).get("/", headers=ANN).text
    told = client().get("/api/visitor", headers=ANN).json()
    assert told == {"name": "ann", "told": "", "may_act": True}
