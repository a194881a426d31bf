"""Who gets in, and who may act: by a token where no platform asks for a login."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from builders import PIPELINE, dump, ledger
from fastapi.testclient import TestClient
from structlog.testing import capture_logs

from config.loading import load
from config.settings import ConfigError, Settings
from daemon import dashboard, doctor
from daemon.ledger import Ledger

TOKEN = "a-token-of-some-length"  # noqa: S105 (of the tests alone)
PAUSE = f"/api/pipelines/{PIPELINE}/pause"
BEARER = {"Authorization": f"Bearer {TOKEN}"}
BASE = "pipelines:\n  cards: {table: lake.bank.cards, label: fraud}\n"
Open = Callable[..., TestClient]


def basic(name: str, secret: str) -> dict[str, str]:
    """Give what a browser sends once it has asked its user."""
    return {"Authorization": f"Basic {b64encode(f'{name}:{secret}'.encode()).decode()}"}


@pytest.fixture
def book(tmp_path: Path) -> Iterator[Ledger]:
    """Give a ledger."""
    with closing(ledger(tmp_path / "ledger.db")) as book:
        book.pause(PIPELINE, "set up", "")
        yield book


@pytest.fixture
def opened(book: Ledger) -> Open:
    """Give clients of pages with settings of their own; `seen_as` is the host that is asked."""

    def opened(
        seen_as: str = "127.0.0.1:8090", *, proxied: bool = False, **http: Any
    ) -> TestClient:
        settings = Settings.model_validate(
            {"http": http, "pipelines": {PIPELINE: {"table": "lake.bank.cards", "label": "y"}}}
        )
        pages = dashboard.app(settings, book, dict, list, proxied=proxied)
        return TestClient(pages, f"http://{seen_as}", follow_redirects=False)

    return opened


def act(client: TestClient, **headers: str) -> Any:
    """Pause the pipeline."""
    return client.post(PAUSE, json={"reason": "x"}, headers={"retraind": "yes", **headers})


@pytest.mark.parametrize(
    ("headers", "who"),
    [
        (BEARER, "token"), ({**BEARER, "X-User": "ann"}, "ann (by token)"),
        (basic("bob", TOKEN), "bob (by token)"), (basic("", TOKEN), "token"),
        ({**BEARER, "X-User": "<b>" + "x" * 99}, f"b{'x' * 63} (by token)"),
    ],
)  # fmt: skip
def test_the_token_lets_act(opened: Open, book: Ledger, headers: dict[str, str], who: str) -> None:
    """As a bearer or from a browser's prompt; the audit trail says that the name is claimed."""
    client = opened(token=TOKEN)
    assert act(client, **headers).status_code == 200
    assert book.audit(1)[0]["who"] == who
    told = client.get("/api/visitor", headers=headers).json()
    assert told == {"name": who, "told": "", "may_act": True}


@pytest.mark.parametrize(
    "headers",
    [
        {}, {"Authorization": f"Bearer {TOKEN}x"}, {"Authorization": "Bearer "},
        {"Authorization": "Bearer \xe9"}, basic(TOKEN, ""), basic("ann", "ärger"),
        {"Authorization": "Basic !"}, {"Authorization": "Digest x"}, {"X-User": "ann"},
        {"remote-user": "ann", "remote-user-perm": "RW"},
    ],
)  # fmt: skip
def test_without_it_nobody_acts(opened: Open, book: Ledger, headers: dict[str, str]) -> None:
    """A browser is asked for it; the platform's headers, which anyone can send, do not help."""
    before = dump(book)
    client = opened(token=TOKEN)
    sent = {key: value.encode("latin-1") for key, value in headers.items()}
    with capture_logs() as logged:
        answer = act(client, **sent)  # type: ignore[arg-type]
    assert (answer.status_code, dump(book)) == (401, before)
    challenges = answer.headers.get_list("www-authenticate")
    assert [challenge.split()[0] for challenge in challenges] == ["Basic", "Bearer"]
    assert "Bearer TOKEN" in answer.json()["remedy"]
    tried = headers.get("Authorization", "").startswith(("Bearer", "Basic"))
    assert [item["event"] for item in logged] == ["login_failed"] * tried
    assert TOKEN not in str(logged)


def test_reading_is_free_on_loopback_only(opened: Open) -> None:
    """Where others reach the pages, all but health checks and figures ask for the token."""
    near, far = opened(token=TOKEN), opened("box.example:8090", host="0.0.0.0", token=TOKEN)  # noqa: S104
    assert near.get("/").status_code == near.get("/api/pipelines").status_code == 200
    for path in ("/", "/api/pipelines", "/api/openapi.json", "/api/events", "/login", "/nothing"):
        assert far.get(path).status_code == 401, path
    assert far.get("/", headers=basic("ann", TOKEN)).status_code == 200
    assert far.get("/api/pipelines", headers=BEARER).status_code == 200
    assert far.get("/healthz").text == "ok"
    assert far.get("/readyz").status_code == 200
    assert far.get("/metrics").status_code != 401
    assert near.get("/", headers=basic("ann", "wrong")).status_code == 401


def test_a_browser_logs_in(opened: Open) -> None:
    """`/login` has it ask its user, and leads back; where there is no token it only leads back."""
    client = opened(token=TOKEN)
    assert client.get("/login").status_code == 401
    back = client.get("/login", headers=basic("ann", TOKEN))
    assert (back.status_code, back.headers["location"]) == (303, "./")
    assert opened().get("/login").status_code == 303


def test_read_only_is_for_everybody(opened: Open, book: Ledger) -> None:
    """Neither the token nor the platform's login helps, and the remedy is told."""
    before = dump(book)
    ann = {"remote-user": "ann", "remote-user-perm": "RW"}
    for client, headers in (
        (opened(token=TOKEN, read_only=True), BEARER), (opened(read_only=True), {}),
        (opened(proxied=True, read_only=True), ann),
    ):  # fmt: skip
        answer = act(client, **headers)
        assert (answer.status_code, "http.read_only" in answer.text) == (403, True)
        look = client.post(PAUSE.replace("pause", "look"), headers={"retraind": "x", **headers})
        assert look.status_code == 403
    assert dump(book) == before


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Sec-Fetch-Site": "cross-site"}, 403), ({"Sec-Fetch-Site": "same-site"}, 403),
        ({"Sec-Fetch-Site": "same-origin"}, 200), ({"Sec-Fetch-Site": "none"}, 200),
        ({"Origin": "http://evil.example"}, 403), ({"Origin": "null"}, 403),
        ({"Origin": "http://[x"}, 403), ({"Origin": "http://127.0.0.1:8090"}, 200),
        ({"Origin": "http://127.0.0.1:9999"}, 403), ({"retraind": ""}, 403),
    ],
)  # fmt: skip
def test_pages_of_other_sites_act_for_nobody(
    opened: Open, headers: dict[str, str], status: int
) -> None:
    """Browsers add the password by themselves: so they must say that the page is ours."""
    client = opened(token=TOKEN)
    assert act(client, **basic("ann", TOKEN), **headers).status_code == status
    ann = {"remote-user": "ann", "remote-user-perm": "RW"}
    there = opened("retraind.ml.example", proxied=True)
    inside = {"Origin": "https://retraind.elsewhere.example"}
    assert act(there, **ann, **inside).status_code == 200
    assert act(there, **ann, **{"Sec-Fetch-Site": "same-site"}).status_code == 403


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("localhost:8090", 200), ("LOCALHOST", 200), ("127.0.0.2:1", 200), ("[::1]:8090", 200),
        ("pages.example", 200), ("evil.example", 421), ("192.168.0.1", 421), ("", 421),
        ("localhost.evil.example", 421), ("[::1", 421), ("127.0.0.1.evil.example:8090", 421),
    ],
)  # fmt: skip
def test_on_loopback_only_its_own_names_are_answered(opened: Open, host: str, status: int) -> None:
    """A page of another site that gives itself a name which leads here learns nothing."""
    client = opened(hosts=["Pages.example"])
    assert client.get("/api/pipelines", headers={"Host": host}).status_code == status
    there = opened("retraind.ml.example", proxied=True)
    assert there.get("/api/pipelines").status_code == 200


def test_the_token_comes_from_a_file_as_well(opened: Open, tmp_path: Path) -> None:
    """Its last line break is none of it; what cannot be used is told before anything is served."""
    path = tmp_path / "token"
    path.write_text(f"{TOKEN}\n", encoding="utf-8")
    assert act(opened(token_file=path), **BEARER).status_code == 200
    path.write_text("short", encoding="utf-8")
    broken = Settings.model_validate(
        {"http": {"token_file": path}, "pipelines": {PIPELINE: {"table": "a.b.c", "label": "y"}}}
    )
    with pytest.raises(ConfigError, match="fewer than 16"):
        doctor._pages(broken)  # told there as well, before a start is tried
    for file, told in ((path, "fewer than 16"), (tmp_path / "none", "cannot read")):
        with pytest.raises(ConfigError, match=f"http.token_file.*{told}"):
            opened(token_file=file)


@pytest.mark.parametrize(
    ("text", "variable", "told"),
    [
        ("http: {host: 0.0.0.0}", "", "http: host: others reach '0.0.0.0', so a token is needed"),
        ("http: {host: '::'}", "", "a token is needed"),
        ("http: {host: box.example}", "", "a token is needed"),
        (f"http: {{token: {TOKEN}}}", "", "http.token: may not stand in a file of settings"),
        ("", "too-short", "token: is shorter than 16 characters"),
    ],
)
def test_what_would_let_others_in_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, variable: str, told: str
) -> None:
    """A configuration mistake, told with what helps and without the token."""
    monkeypatch.setenv("RETRAIND_HTTP__TOKEN", variable)
    path = tmp_path / "retraind.yaml"
    path.write_text(BASE + text, encoding="utf-8")
    with pytest.raises(ConfigError) as caught:
        load(path)
    assert told in str(caught.value)
    assert "too-short" not in str(caught.value)
    assert TOKEN not in str(caught.value)


def test_the_token_of_the_environment_is_shown_nowhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It opens the pages to others, and no text of the settings has it; on the platform neither."""
    path = tmp_path / "retraind.yaml"
    path.write_text(BASE + "http: {host: 0.0.0.0}", encoding="utf-8")
    monkeypatch.setenv("RETRAIND_HTTP__TOKEN", TOKEN)
    settings = load(path)
    assert settings.http.token is not None
    assert settings.http.token.get_secret_value() == TOKEN
    assert TOKEN not in f"{settings!r} {settings} {settings.model_dump_json()}"
    monkeypatch.setenv("RETRAIND_HTTP__TOKEN", "")
    monkeypatch.setenv("CDSW_APP_PORT", "8100")
    assert load(path).http.loopback, "the platform binds loopback, and needs no token"
