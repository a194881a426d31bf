"""The endpoint on Cloudera AI, on an emulated workbench: the conformance suite, and every fault."""

from __future__ import annotations

import itertools
import sys
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from threading import Event, Thread
from typing import Any, cast

import pytest
from builders import PIPELINE, delta, lived, moment, record
from certificates import behind_tls, certificates
from cloudera import given
from cloudera.keys import API, APPLICATION
from cloudera.serving import Loader
from cloudera.workbench import Workbench as Emulator
from endpoint_conformance import EndpointConformance, Models, make_rows, train_models
from structlog.testing import capture_logs

from config.endpoint import ClouderaEndpoint as EndpointSettings
from config.settings import Settings
from daemon import composition
from daemon.metering import Metering, figures
from daemon.reading import Work
from handlers import modelservice, scorer
from handlers.cloudera_endpoint import ClouderaEndpoint, Waiting
from handlers.deploy import deploy
from handlers.evidence import PROOF, read_proof
from handlers.facts import Live, Model, Record, RetraindError, State, TryLater
from handlers.registry import SCORER, Registry
from handlers.shelf import Shelf
from handlers.workbench import Workbench

NAME = "retraind-cards"
FAST: dict[str, Any] = {
    "kind": "cloudera", "look_every": 0.005, "settle_within": 0.25, "retry_after": 0.05,
    "answer_within": 30.0,
}  # fmt: skip
ROWS = make_rows(5, seed=4)


@pytest.fixture(scope="module")
def loader() -> Iterator[Loader]:
    """Share the process that loads models: its imports take seconds, so they begin at once."""
    with Loader() as loader:
        Thread(target=lambda: loader.connect().close(), daemon=True).start()
        yield loader


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Models:
    """Train once for the whole module."""
    return train_models(tmp_path_factory.mktemp("models"))


@pytest.fixture(scope="module")
def logged(tmp_path_factory: pytest.TempPathFactory, models: Models) -> dict[str, Path]:
    """Log every model as its run would have."""
    home, code = tmp_path_factory.mktemp("logged"), Path(str(scorer.__file__))
    for version, trained in models.items():
        given.save_model(home / version / "model", trained.folder, code)
    return {trained.model.run_id: home / v / "model" for v, trained in models.items()}


def open_endpoint(
    bench: Emulator, home: Path, patience: float = 20.0, name: str = NAME, **changes: Any
) -> ClouderaEndpoint:
    """Open the door to a model, as a daemon would that has just started."""
    settings = EndpointSettings.model_validate({**FAST, "modelservice": bench.model_url, **changes})
    door = Workbench(given.site(bench))
    waiting = Waiting(patience, Event().wait)
    shelf = Shelf(door, name, name)
    return ClouderaEndpoint(settings, door, shelf, home, lambda: given.EXPERIMENT, waiting)


@pytest.fixture(scope="module")
def endpoint(
    tmp_path_factory: pytest.TempPathFactory, loader: Loader, logged: dict[str, Path]
) -> Iterator[ClouderaEndpoint]:
    """Share one workbench, whose platform replaces the old deployment by the new one."""
    home = tmp_path_factory.mktemp("workbench")
    with Emulator(home, loader=loader) as bench:
        for run, model in logged.items():
            given.keep(bench, model, run)
        yield open_endpoint(bench, home / "endpoint")


class TestClouderaEndpoint(EndpointConformance):
    """A model of a workbench keeps the rules of every endpoint, where the platform has no gap."""

    swaps = 6


# -- one workbench per test, on which version 1 serves ---------------------------------------


@dataclass
class Site:
    """A workbench, and the state of a daemon that may be restarted at any time."""

    bench: Emulator
    home: Path
    models: Models
    changes: dict[str, Any] = field(default_factory=dict)
    served: list[str | None] = field(default_factory=list)

    def start(self, patience: float = 0.0, name: str = NAME, **changes: Any) -> ClouderaEndpoint:
        """Start anew: nothing is known but what is on the platform and on the disk."""
        wanted = {**self.changes, **changes}
        return open_endpoint(self.bench, self.home, patience, name, **wanted)

    def up(self, version: str) -> ClouderaEndpoint:
        """Have a version serve."""
        endpoint = self.start(20.0)
        endpoint.deploy(self.models[version].model, self.models[version].folder)
        return endpoint

    def tick(self, endpoint: ClouderaEndpoint, version: str) -> str:
        """Do what the daemon does at every tick; gives the error word, or an empty text."""
        mine = self.models[version]
        try:
            deploy(endpoint, mine.model, mine.folder, ROWS, mine.scorer.score(ROWS))
        except RetraindError as error:
            return type(error).__name__
        finally:
            with suppress(TryLater):
                self.served.append(endpoint.serving())
        return ""

    def ticks(self, endpoint: ClouderaEndpoint, version: str) -> list[str]:
        """Tick until the version serves and is proven, or is given up; gives the error words."""
        words = [self.tick(endpoint, version)]
        while words[-1] not in {"", "GiveUp"}:
            assert len(words) < 2000, words[-10:]
            Event().wait(0.02)
            words.append(self.tick(endpoint, version))
        return words

    def made(self, version: str) -> tuple[int, int, int]:
        """Count the registrations, builds and deployments of a version."""
        run = self.models[version].model.run_id
        about = "model_version_metadata", "mlflow_metadata"
        versions = [v for v in self.bench.versions if v.body[about[0]][about[1]]["run_id"] == run]
        builds = [b for b in self.bench.builds if b.version in versions]
        deployments = [d for d in self.bench.deployments if d.build in builds]
        return len(versions), len(builds), len(deployments)


@pytest.fixture
def site(tmp_path: Path, loader: Loader, logged: dict[str, Path], models: Models) -> Iterator[Site]:
    """Give a workbench of one's own that has the runs."""
    with Emulator(tmp_path, loader=loader) as bench:
        for run, model in logged.items():
            given.keep(bench, model, run)
        yield Site(bench, tmp_path / "endpoint", models)
        assert not bench.overlaps()
        assert not bench.dropped


@dataclass(frozen=True)
class Case:
    """What goes wrong while version 2 takes over, and what must come of it."""

    operation: str
    kind: Any
    word: str
    """The error word that the tick has for it."""
    made: tuple[int, int, int] = (1, 1, 1)
    """Registrations, builds and deployments of version 2, all in all."""
    end: str = ""
    """The word of the last tick; empty where version 2 serves in the end."""
    how: dict[str, Any] = field(default_factory=dict)
    changes: dict[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        """Name the case."""
        state = f" {self.how['state']}" if self.how.get("state") else ""
        always = " always" if self.how.get("times", 1) is None else ""
        return f"{self.operation}: {self.kind}{state}{always}"


REGISTER, BUILD, DEPLOY = "CreateRegisteredModel", "CreateModelBuild", "CreateModelDeployment"
ALWAYS = {"times": None}
SHORT = {"register_within": 0.5, "build_within": 0.5, "deploy_within": 0.5}
CASES = [
    # A request that is lost, with or without its effect: nothing is ever made twice.
    *(Case(operation, kind, "Underway") for operation in (REGISTER, BUILD, DEPLOY)
      for kind in ("error", "deadline", "drop before", "drop after")),
    *(Case(operation, "too many", "TryLater") for operation in (REGISTER, BUILD, DEPLOY)),
    *(Case(operation, "error", "Unsure", how={"times": 2}) for operation in (
        "ListModelBuilds", "ListModelDeployments", "ListRegisteredModels", "ListRuntimes")),
    *(Case(operation, "drop before", "Unsure", how={"times": 8}) for operation in (
        "ListModelBuilds", "GetRegisteredModel")),
    # What the platform fails at is made again; it is not the model's fault.
    Case(REGISTER, "fail", "TryLater", (2, 1, 1)),
    Case(REGISTER, "fail", "TryLater", (2, 1, 1), how={"state": "UPLOAD_FAILED"}),
    Case(REGISTER, "hang", "Underway", (2, 1, 1), changes=SHORT),
    Case(BUILD, "fail", "TryLater", (1, 2, 1)),
    Case(BUILD, "fail", "TryLater", (1, 4, 1), how={"times": 3}),
    Case(BUILD, "fail", "TryLater", (1, 2, 1), how={"state": "timedout"}),
    *(Case(BUILD, "hang", "Underway", (1, 2, 1), how={"state": state}, changes=SHORT)
      for state in ("queued", "building", "pushing")),
    # A deployment is tried twice.
    Case(DEPLOY, "fail", "TryLater", (1, 1, 2)),
    Case(DEPLOY, "fail", "TryLater", (1, 1, 2), "GiveUp", ALWAYS),
    Case(DEPLOY, "hang", "TryLater", (1, 1, 2), changes=SHORT),
    # It comes up, and answers wrong.
    Case(DEPLOY, "other version", "GiveUp", (1, 1, 1), "GiveUp"),
    Case(DEPLOY, "garbage", "GiveUp", (1, 1, 1), "GiveUp"),
    Case(DEPLOY, "garbage", "GiveUp", (1, 1, 1), "GiveUp", {"value": [0.5] * 5}),
    # It answers well, but its address does not let it.
    Case("modelservice", "busy", "", how={"times": 3}),
    Case("modelservice", "too many", ""),
    Case("modelservice", "busy", "TryLater", how={"times": 6}, changes={"answer_within": 0.1}),
    Case("modelservice", "slow", "TryLater", how={"seconds": 0.5}, changes={"answer_within": 0.2}),
    *(Case("modelservice", kind, "TryLater") for kind in (
        "error", "drop before", "drop after", "deadline")),
    Case("modelservice", "refused key", "NotAccepted"),
]  # fmt: skip


@pytest.mark.parametrize("case", CASES, ids=str)
def test_every_fault_heals(case: Case, site: Site) -> None:
    """Version 1 serves until version 2 does, or is given up; nothing is made twice without need."""
    site.up("1")
    site.changes = case.changes
    site.bench.fault(case.operation, case.kind, **case.how)
    endpoint = site.start()
    words = site.ticks(endpoint, "2")
    assert case.word in words
    assert words[-1] == case.end
    assert site.made("2") == case.made
    wrong = case.kind in {"other version", "garbage"}
    assert set(site.served) <= {"1", "2"}
    assert endpoint.serving() == ("1" if case.end and not wrong else "2")
    assert site.bench.gaps() == []
    assert len(site.bench.models) == 1
    site.bench.lift()
    if case.end:  # the daemon falls back to the champion before
        assert site.ticks(endpoint, "1")[-1] == ""
        assert endpoint.serving() == "1"
        assert site.made("1") == (1, 1, 2 if wrong else 1)


class Killed(BaseException):
    """The end of a daemon, in the midst of things."""


@pytest.mark.parametrize("moment", ["before", "after"])
def test_a_kill_at_any_request_heals(site: Site, moment: str, logged: dict[str, Path]) -> None:
    """Whichever request is the last one, the next start makes nothing twice and gets through.

    After one is before the next one, but for those that make something, whose answer gets lost.
    """
    kills = 0
    site.changes = {"look_every": 0.05}
    while True:
        run, name = f"run-k{kills}", f"killed-{kills}"
        given.keep(site.bench, logged["run-1"], run)
        mine = Model("1", run)
        site.home = site.home.with_name(name)
        endpoint = site.start(20.0, name)
        killed = _kill(endpoint, kills, moment, mine, site.models["1"].folder)
        endpoint = site.start(20.0, name)
        endpoint.deploy(mine, site.models["1"].folder)
        assert endpoint.serving() == "1"
        model = next(one for one in site.bench.models if one.body["name"] == name)
        its = [one for one in site.bench.builds if one.body["model_id"] == model.id]
        up = [one for one in site.bench.deployments if one.body["model_id"] == model.id]
        versions = [v for one in site.bench.registered for v in one.versions if _run(v) == run]
        assert (len(versions), len(its), len(up)) == (1, 1, 1), kills
        if not killed:
            break
        kills += 1
    assert kills > 12 if moment == "before" else kills == 4


def _run(version: Any) -> Any:
    return version.body["model_version_metadata"]["mlflow_metadata"]["run_id"]


def _kill(endpoint: ClouderaEndpoint, number: int, moment: str, model: Model, folder: Path) -> bool:
    """Deploy until the request of that number, and end there; False if it was not needed."""
    door, sent = endpoint._workbench, itertools.count()
    call = door.call

    def die(name: str, *args: Any, **kwargs: Any) -> Any:
        counts = moment == "before" or name.startswith("create")
        last = counts and next(sent) == number
        if last and moment == "before":
            raise Killed
        made = call(name, *args, **kwargs)
        if last:
            raise Killed
        return made

    door.call = die  # type: ignore[method-assign]
    try:
        endpoint.deploy(model, folder)
    except Killed:
        return True
    return False


# -- a platform that stops the old deployment first ------------------------------------------


def test_a_gap_of_the_platform_is_told_as_it_is(site: Site) -> None:
    """Where the old deployment is stopped first, nothing serves for a while, and we say so."""
    site.up("1")
    site.bench.habits.stop_old_first = True
    site.bench.pace.deploying = 0.1
    endpoint = site.start()
    assert site.ticks(endpoint, "2")[-1] == ""
    assert set(site.served) == {"1", None, "2"}
    assert len(site.bench.gaps()) == 1
    assert site.made("2") == (1, 1, 1)


def test_after_a_failure_in_a_gap_the_old_one_is_restored(site: Site) -> None:
    """Where the old one is gone when the new one fails, it is deployed again at once."""
    site.up("1")
    site.bench.habits.stop_old_first = True
    site.changes = {"retry_after": 0.3}
    site.bench.fault(DEPLOY, "fail")
    endpoint = site.start()
    words = site.ticks(endpoint, "2")
    assert words[-1] == ""
    assert site.made("1") == (1, 1, 2)
    assert site.made("2") == (1, 1, 2)
    down = site.served.index(None)
    assert site.served.index("1", down) < site.served.index("2", down)


def test_what_found_no_room_is_stopped_and_the_old_one_restored(site: Site) -> None:
    """A full project keeps a deployment waiting for ever: it makes way, and is tried again."""
    site.up("1")
    site.bench.habits.stop_old_first = True
    site.changes = {"deploy_within": 0.5, "retry_after": 0.3}
    site.bench.fault(DEPLOY, "hang")
    endpoint = site.start()
    assert site.ticks(endpoint, "2")[-1] == ""
    assert site.made("1")[2] == 2
    assert "1" in site.served[site.served.index(None) :]


def test_a_platform_that_refuses_a_second_deployment_is_waited_for(site: Site) -> None:
    """Another champion meanwhile waits until the first one is up or down."""
    site.up("1")
    site.bench.habits.refuse_second_deployment = True
    site.bench.pace.deploying = 0.2
    endpoint = site.start()
    while site.made("2")[2] == 0:
        assert site.tick(endpoint, "2") == "Underway"
    assert site.ticks(endpoint, "3")[-1] == ""
    assert endpoint.serving() == "3"
    refused = [r for r in site.bench.requests if r.operation == DEPLOY and r.status != 200]
    assert refused == []


# -- identity ---------------------------------------------------------------------------------


@pytest.mark.parametrize("wrapped", [True, False])
def test_both_shapes_of_answers_name_their_version(site: Site, wrapped: bool) -> None:  # noqa: FBT001 (pytest passes it)
    """A wrapped answer names its deployment; a bare one is dated by a look before and after."""
    site.bench.habits.wrapped_answers = site.bench.habits.success_key = wrapped
    for version in ("1", "3", "1"):
        endpoint = site.up(version)
        assert site.models[version].agrees(endpoint.predict(ROWS), ROWS)


def test_many_rows_go_in_several_requests(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is larger than the platform takes is cut, and comes back in order."""
    endpoint, rows = site.up("3"), make_rows(300, seed=5)
    monkeypatch.setattr(modelservice, "LARGEST_BODY", 3000)
    before = len(site.bench.calls)
    assert site.models["3"].agrees(endpoint.predict(rows), rows)
    assert len(site.bench.calls) - before > 5


def test_a_model_that_asks_for_a_key_gets_it(site: Site) -> None:
    """The API key goes along where the model asks for one; without it that is told."""
    site.bench.habits.model_authentication = True
    endpoint = site.up("1")
    assert site.models["1"].agrees(endpoint.predict(ROWS), ROWS)
    with pytest.raises(TryLater, match=r"endpoint\.authorize"):
        site.start(authorize=False).predict(ROWS)


def test_a_deployment_of_somebody_else_is_replaced(site: Site) -> None:
    """A build that is not ours serves as no version of ours; the next tick puts ours back."""
    endpoint = site.up("1")
    model = site.bench.models[0]
    given.deployed(site.bench, model, given.registered(site.bench, "run-2", model_name=NAME))
    strange = endpoint.serving()
    assert strange is not None
    assert strange.startswith("build ")
    assert site.ticks(endpoint, "1")[-1] == ""
    assert endpoint.serving() == "1"
    assert site.made("1") == (1, 1, 2)


def test_a_deployment_that_was_stopped_comes_back(site: Site) -> None:
    """Somebody stops it in the workbench: it is deployed again from its build."""
    endpoint = site.up("1")
    site.start().stop()
    assert endpoint.serving() is None
    assert site.ticks(endpoint, "1")[-1] == ""
    assert site.made("1") == (1, 1, 2)


def test_a_model_that_was_deleted_is_told_with_the_way_out(site: Site) -> None:
    """Its name cannot be used again; what is deployed of it serves on unseen."""
    site.up("1")
    site.bench.client().delete_model(site.bench.project_id, site.bench.models[0].id)
    endpoint = site.start()
    assert endpoint.serving() is None
    mine = site.models["1"]
    with pytest.raises(TryLater, match=r"already has a model.*endpoint\.model"):
        endpoint.deploy(mine.model, mine.folder)
    other = site.start(20.0, "retraind-cards-2")
    other.deploy(mine.model, mine.folder)
    assert other.serving() == "1"


def test_a_model_of_somebody_else_is_left_alone(site: Site) -> None:
    """A model of that name that serves something else is not built on."""
    site.bench.client().create_model(
        {"project_id": site.bench.project_id, "name": NAME}, site.bench.project_id
    )
    mine = site.models["1"]
    with pytest.raises(TryLater, match="does not serve the registered model"):
        site.start(20.0).deploy(mine.model, mine.folder)
    assert site.bench.builds == []


def test_a_version_that_the_platform_registered_is_found(site: Site) -> None:
    """The platform's own MLflow registers under the same name: nothing is registered again."""
    given.registered(site.bench, "run-1", model_name=NAME)
    site.up("1")
    assert site.made("1") == (1, 1, 1)


@pytest.mark.parametrize("lost", ["comment", "run_id"])
def test_a_mark_that_the_platform_loses_makes_nothing_twice(site: Site, lost: str) -> None:
    """What we made is recognised by a second mark, also after a restart."""
    site.up("1")
    version, build = site.bench.versions[0], site.bench.builds[0]
    if lost == "comment":
        build.body["comment"] = ""
    else:
        del version.body["model_version_metadata"]
        build.body["comment"] = ""
    site.start().stop()
    endpoint = site.up("1")
    assert endpoint.serving() == "1"
    assert (len(site.bench.versions), len(site.bench.builds)) == (1, 1)


def test_an_expired_key_is_told_and_a_new_one_goes_on(site: Site) -> None:
    """A key that expires stops nothing that serves; a restart with a new one goes on."""
    site.up("1")
    endpoint = site.start()
    site.bench.fault(BUILD, "expired key")
    while site.tick(endpoint, "2") != "TryLater":
        assert len(site.served) < 1000
    with pytest.raises(TryLater, match="CDSW_APIV2_KEY"):
        endpoint.serving()
    site.bench.key = site.bench.issue(API, APPLICATION)
    assert site.ticks(site.start(), "2")[-1] == ""
    assert site.made("2") == (1, 1, 1)


# -- old builds --------------------------------------------------------------------------------


def test_old_builds_are_deleted_but_never_the_two_that_count(
    site: Site, logged: dict[str, Path]
) -> None:
    """The newest, the serving one and the one before it stay; so do builds of other people."""
    site.changes = {"keep_builds": 2}
    site.up("1")
    given.keep(site.bench, logged["run-1"], "run-x")
    other = given.registered(site.bench, "run-x", model_name=NAME)
    foreign = given.build(site.bench, site.bench.models[0], other)
    site.bench.wait(foreign, "built")
    for version in ("2", "3", "1", "4"):
        site.up(version)
    left = [b.body.get("comment", "") for b in site.bench.builds if not b.deleted]
    held = {text.split()[2] for text in left if text}
    assert {"1", "4"} <= held
    assert "2" not in held
    assert not foreign.deleted
    assert site.up("2").serving() == "2"


def test_a_build_that_cannot_be_deleted_waits(site: Site) -> None:
    """Tidying up never keeps a deployment from being done."""
    site.changes = {"keep_builds": 2}
    site.bench.fault("DeleteModelBuild", "error", times=None)
    for version in ("1", "2", "3", "4"):
        assert site.up(version).serving() == version


def test_a_logged_model_goes_all_the_way(
    tmp_path: Path, loader: Loader, models: Models, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A model as MLflow keeps it is registered, built and deployed, and proven by its own rows."""
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    registry = Registry(uri, None, "cards", "lab", tmp_path / "artifacts", "test")
    closed = record(Work(PIPELINE, 2, delta(2), moment()), State.PROMOTED)
    model = registry.record(closed, models["3"].scorer, make_rows(40)).model
    assert model is not None
    with Emulator(tmp_path / "bench", tracking_uri=uri, loader=loader) as bench:
        for name, value in bench.workload_environment().items():
            if name.startswith(("CDSW_", "ML_RUNTIME_")):
                monkeypatch.setenv(name, value)
        monkeypatch.delenv("CDSW_APP_PORT", raising=False)
        bench.client()
        wanted = {
            "table": "a.b",
            "label": "y",
            "endpoint": {**FAST, "modelservice": bench.model_url},
        }
        settings = Settings.model_validate({
            "state_dir": tmp_path / "state", "pipelines": {"cards": wanted},
            "mlflow": {"tracking_uri": uri, "experiment": "lab"},
        })  # fmt: skip
        door = composition.endpoint(settings, "cards", patience=20)
        folder = registry.fetch(model, tmp_path / "fetched")
        sample, expected = read_proof(folder / PROOF)
        told = deploy(door, model, folder / SCORER, sample, expected)
        assert told == f"answers as version {model.version}; 40 held-out predictions agree"
        assert bench.models[0].body["name"] == NAME
        assert bench.registered[0].body["name"] == "lab-cards"
        (build,) = bench.builds
        assert build.body["runtime_identifier"] == bench.runtime


# -- metrics -----------------------------------------------------------------------------------


def decided(version: str) -> Record:
    """Give a decision that scored what served before."""
    work = Work(PIPELINE, 2, delta(2), moment())
    return replace(record(work, State.KEPT, against=version), live=lived(version, 0.41, alarm=2.0))


@pytest.fixture
def store(site: Site, monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """Give what the workbench's store holds, which is found as in a workload."""
    found = site.bench.workload_environment()
    for name in ("CDSW_DS_API_URL", "CDSW_APIV2_KEY"):
        monkeypatch.setenv(name, found[name])
    return site.bench.modelservice.metrics.entries


def test_live_scores_go_to_the_deployments_metrics(site: Site, store: list[dict[str, Any]]) -> None:
    """Each decision adds one entry to the series of the deployment that served, and no other."""
    metering = Metering(PIPELINE, site.up("1"))
    for version in ("1", "2"):
        metering.tell(decided(version))
        metering.wait(5)
    (entry,) = store
    assert entry["modelDeploymentCrn"] == site.bench.deployments[0].crn
    assert entry["metrics"] == figures(cast("Live", decided("1").live))
    assert entry["metrics"]["live_loss"] == 0.41
    assert entry["startTimeStampMs"] <= entry["endTimeStampMs"]


def test_metrics_that_are_not_taken_are_told_once(
    site: Site, store: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A store that fails changes nothing; one that comes back is used again."""
    metering, mine = Metering(PIPELINE, site.up("1")), decided("1")
    good = site.bench.workload_environment()["CDSW_DS_API_URL"]
    with capture_logs() as logs:
        for url in ("http://127.0.0.1:9", "http://127.0.0.1:9", good, good):
            monkeypatch.setenv("CDSW_DS_API_URL", url)
            metering.tell(mine)
            metering.wait(5)
    assert [event["event"] for event in logs].count("metrics_not_sent") == 1
    assert len(store) == 2


def test_metrics_need_a_place(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the platform's package, or with another endpoint, nothing is sent or said."""
    monkeypatch.setitem(sys.modules, "cml", None)
    with capture_logs() as logs:
        for endpoint in (site.up("1"), object()):
            metering = Metering(PIPELINE, endpoint)
            metering.tell(decided("1"))
            metering.wait(5)
    assert [event for event in logs if event["event"] == "metrics_not_sent"] == []


def test_a_private_ca_is_trusted_all_the_way(site: Site, tmp_path: Path) -> None:
    """API and modelservice are reached behind certificates of a private CA, once it is named."""
    authority, context = certificates(tmp_path)
    url, model = (behind_tls(part, context) for part in (site.bench._api, site.bench._models))
    settings = EndpointSettings.model_validate({**FAST, "modelservice": f"{model}/model"})
    found = given.site(site.bench, url=url, ca_bundle=authority)
    mine, ways = site.models["1"], []
    for its in (found, replace(found, ca_bundle=None)):
        door = Workbench(its)
        waiting = Waiting(20.0, Event().wait)
        shelf = Shelf(door, NAME, NAME)
        ways.append(
            ClouderaEndpoint(settings, door, shelf, site.home, lambda: given.EXPERIMENT, waiting)
        )
    ways[0].deploy(mine.model, mine.folder)
    assert mine.agrees(ways[0].predict(ROWS), ROWS)
    with pytest.raises(TryLater, match=r"cloudera\.ca_bundle"):
        ways[1].serving()
