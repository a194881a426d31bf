"""The door to a Cloudera AI workbench: pages, names, runtimes, and what each failure is called."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from certificates import behind_tls, certificates
from cloudera import given
from cloudera.keys import APPLICATION
from cloudera.workbench import Workbench as Emulator
from conftest import free_port

from config import machine
from config.endpoint import Cloudera
from config.settings import ConfigError
from handlers.facts import GiveUp, TryLater
from handlers.workbench import Missing, Refused, Unsure, Workbench

GET = "list_models"


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Emulator]:
    """Give a workbench of one's own."""
    with Emulator(tmp_path) as bench:
        yield bench


@pytest.fixture
def door(bench: Emulator) -> Workbench:
    """Give the door to it."""
    return Workbench(given.site(bench))


def make(door: Workbench, name: str) -> Any:
    """Make a model."""
    body = {"project_id": door.project_id, "name": name}
    return door.call("create_model", body, door.project_id)


# -- lists -----------------------------------------------------------------------------------


def test_lists_come_whole(bench: Emulator, door: Workbench) -> None:
    """All pages are walked, with everything that chose the first one said again."""
    for number in range(61):
        make(door, f"cards-{number}")
    make(door, "other")
    wanted = json.dumps({"name": "cards"})
    found = door.pages(GET, door.project_id, search_filter=wanted, sort="-created_at")
    assert [model.name for model in found] == [f"cards-{n}" for n in reversed(range(61))]
    assert not bench.dropped


def test_names_are_matched_whole(door: Workbench) -> None:
    """The platform's filter finds parts of names; what is given has exactly the name."""
    for name in ("cards", "cards-2", "my-cards", "Cards"):
        make(door, name)
    found = door.named(GET, door.project_id, field="name", value="cards")
    assert [model.name for model in found] == ["cards"]
    assert door.named(GET, door.project_id, field="name", value="card") == []


def test_the_runtime_is_the_workloads_own(bench: Emulator, door: Workbench) -> None:
    """It is found among all pages by all four parts; a configured one is taken as it is."""
    assert door.runtime() == bench.runtime
    assert Workbench(replace(door.site, runtime="mine")).runtime() == "mine"


def test_a_runtime_that_is_not_there_is_told(door: Workbench) -> None:
    """Outside of a workload, or where its runtime is gone, the setting is named."""
    gone = {**door.site.own_runtime, "full_version": "2020.01.1-b1"}
    for own in ({}, gone):
        with pytest.raises(TryLater, match=r"Set cloudera\.runtime"):
            Workbench(replace(door.site, own_runtime=own)).runtime()


# -- what goes wrong -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "word", "told"),
    [
        ("error", Unsure, "500: Internal Server Error"),
        ("deadline", Unsure, "context deadline exceeded"),
        ("too many", TryLater, "429"),
        ("drop before", Unsure, "does not answer create_model"),
        ("drop after", Unsure, "does not answer create_model"),
        ("expired key", TryLater, "CDSW_APIV2_KEY"),
    ],
)
def test_an_outage_says_whether_it_had_an_effect(
    bench: Emulator, door: Workbench, kind: Any, word: type[TryLater], told: str
) -> None:
    """Only where the request may have been carried out it is `Unsure`; it is never repeated."""
    bench.fault("CreateModel", kind)
    with pytest.raises(TryLater, match=told) as caught:
        make(door, "cards")
    assert type(caught.value) is word
    assert door.site.key not in str(caught.value)
    assert [request.operation for request in bench.requests] == ["CreateModel"]


def test_what_can_never_succeed_is_given_up(bench: Emulator, door: Workbench) -> None:
    """A bad request and a missing thing are told apart, with the workbench's own words."""
    make(door, "cards")
    with pytest.raises(Refused, match="already has a model with that name") as caught:
        make(door, "cards")
    assert caught.value.status == 400
    with pytest.raises(Missing, match="get_model with 404"):
        door.call("get_model", door.project_id, "none")
    other = Workbench(replace(door.site, key=bench.issue(APPLICATION).text))
    with pytest.raises(TryLater, match="audience API"):
        other.call(GET, door.project_id)


def test_who_does_not_answer_had_no_effect(door: Workbench) -> None:
    """A connection that never was is an outage, not a doubt."""
    nobody = Workbench(replace(door.site, url=f"http://127.0.0.1:{free_port()}"))
    with pytest.raises(TryLater, match=r"Check cloudera\.url") as caught:
        nobody.call(GET, "x")
    assert not isinstance(caught.value, Unsure)


def test_a_slow_answer_is_a_doubt(bench: Emulator, door: Workbench) -> None:
    """A request has a limit of time, beyond which its effect is not known."""
    bench.fault("CreateModel", "slow", seconds=1)
    with pytest.raises(Unsure):
        make(Workbench(replace(door.site, request_within=0.2)), "cards")


def test_without_the_client_the_remedy_is_told(
    door: Workbench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The workbench itself serves the client that belongs to it."""
    monkeypatch.setitem(sys.modules, "cmlapi", None)
    with pytest.raises(TryLater, match=rf"pip install {door.site.url}/api/v2/python\.tar\.gz"):
        door.call(GET, door.project_id)


# -- TLS -------------------------------------------------------------------------------------


def test_a_private_ca_is_trusted_when_it_is_named(bench: Emulator, tmp_path: Path) -> None:
    """Without the CA's certificates the workbench is not trusted, and the setting is named."""
    authority, context = certificates(tmp_path)
    strange = given.site(bench, url=behind_tls(bench._api, context))
    with pytest.raises(TryLater, match=r"cannot be trusted.*cloudera\.ca_bundle"):
        Workbench(strange).call(GET, strange.project_id)
    trusted = Workbench(replace(strange, ca_bundle=authority))
    assert list(trusted.pages(GET, strange.project_id)) == []


# -- where the workbench is ------------------------------------------------------------------


PLATFORM = (
    "CDSW_API_URL", "CDSW_DOMAIN", "CDSW_PROJECT_ID", "CDSW_APIV2_KEY", "REQUESTS_CA_BUNDLE",
    "SSL_CERT_FILE", *(f"ML_RUNTIME_{n}" for n in ("KERNEL", "EDITION", "EDITOR", "FULL_VERSION")),
)  # fmt: skip


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """Give an environment without the platform's variables."""
    for name in PLATFORM:
        monkeypatch.delenv(name, raising=False)
    return monkeypatch


def cloudera_of(**given: Any) -> Cloudera:
    """Give settings of a workbench."""
    return Cloudera.model_validate(given)


def test_a_workload_knows_its_workbench(bench: Emulator, environment: pytest.MonkeyPatch) -> None:
    """Inside a workload nothing needs to be configured; what is configured wins."""
    for name, value in bench.workload_environment().items():
        if name in PLATFORM:
            environment.setenv(name, value)
    found = machine.site(cloudera_of())
    assert found == replace(given.site(bench), request_within=60.0)
    assert Workbench(found).runtime() == bench.runtime
    assert found.key not in repr(found)
    other = machine.site(cloudera_of(url="https://ml.example.com", project_id="p", addons=["a"]))
    assert (other.url, other.project_id, other.addons) == ("https://ml.example.com", "p", ("a",))
    assert other.modelservice == "https://modelservice.ml.example.com/model"


def test_what_is_lacking_is_named(tmp_path: Path, environment: pytest.MonkeyPatch) -> None:
    """Elsewhere every setting and variable that lacks is named at once."""
    with pytest.raises(ConfigError, match=r"cloudera\.url, cloudera\.project_id, CDSW_APIV2_KEY"):
        machine.site(cloudera_of())
    environment.setenv("CDSW_APIV2_KEY", "secret")
    environment.setenv("CDSW_DOMAIN", "ml.example.com")
    assert machine.site(cloudera_of(project_id="p")).url == "https://ml.example.com"
    with pytest.raises(ConfigError, match=r"cloudera\.ca_bundle"):
        machine.site(cloudera_of(project_id="p", ca_bundle=str(tmp_path / "none")))


def test_nothing_is_imported_before_it_is_used() -> None:
    """The door opens without the client, so that everything else runs where there is none."""
    code = "import sys, handlers.workbench; sys.exit('cmlapi' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
    assert issubclass(Refused, GiveUp)
