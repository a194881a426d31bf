"""The emulated workbench's models: registered, built, deployed and really answering."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Thread
from typing import Any

import httpx
import numpy as np
import pytest
from cloudera import given
from cloudera.deployments import ModelDeployment
from cloudera.keys import API, APPLICATION
from cloudera.models import Model
from cloudera.serving import Loader
from cloudera.workbench import Workbench
from endpoint_conformance import Models, make_rows, train_models

from handlers import scorer
from handlers.wire import split

CONSTANT = """
class Constant:
    def predict(self, rows, params=None):
        return [{value}] * len(rows)

def _load_pyfunc(path):
    return Constant()
"""
FUNCTION = """
import os, time
from cml import metrics_v1

def answer(request):
    if "sleep" in request:
        time.sleep(request["sleep"])
    if "fail" in request:
        raise ValueError("no such card")
    metrics_v1.track_metric("asked", len(request))
    return {"you": request, "variable": os.environ.get("VARIABLE"), "pid": os.getpid()}
"""


@pytest.fixture(scope="module")
def loader() -> Iterator[Loader]:
    """Share the process that loads models: its imports take seconds, so they begin at once."""
    with Loader() as loader:
        Thread(target=lambda: loader.connect().close(), daemon=True).start()
        yield loader


@pytest.fixture(scope="module")
def scorers(tmp_path_factory: pytest.TempPathFactory) -> Models:
    """Train the scorers once."""
    return train_models(tmp_path_factory.mktemp("scorers"))


@pytest.fixture(scope="module")
def logged(tmp_path_factory: pytest.TempPathFactory, scorers: Models) -> dict[str, Path]:
    """Log two scorers, and a model of other code under the same name of its loader module."""
    home = tmp_path_factory.mktemp("logged")
    code = Path(str(scorer.__file__))
    for version in ("1", "2", "3"):
        given.save_model(home / version / "model", scorers[version].folder, code)
    other = home / "other.py"
    other.write_text(CONSTANT.format(value=7.5))
    given.save_model(home / "constant" / "model", scorers["1"].folder, other)
    return {name: home / name / "model" for name in ("1", "2", "3", "constant")}


@pytest.fixture
def bench(tmp_path: Path, loader: Loader, logged: dict[str, Path]) -> Iterator[Workbench]:
    """Give a workbench of one's own, whose runs are called after the models that they logged."""
    with Workbench(tmp_path, loader=loader) as bench:
        for run, model in logged.items():
            given.keep(bench, model, run)
        yield bench


@pytest.fixture
def api(bench: Workbench) -> Any:
    """Give the client of the workbench."""
    return bench.client()


def status_of(call: Callable[..., Any], *args: Any, **kwargs: Any) -> tuple[int, str]:
    """Make a call that is refused; gives its status and body."""
    with pytest.raises(sys.modules["cmlapi"].rest.ApiException) as caught:
        call(*args, **kwargs)
    return caught.value.status, caught.value.body


ROWS = make_rows(5, seed=4)
REQUEST = {"dataframe_split": split(ROWS)}


def says(bench: Workbench, model: Model) -> Any:
    """Give what a model predicts for the rows."""
    answer = given.ask(bench, model, REQUEST)
    assert answer.status_code == 200, answer.text
    return answer.json()["response"]["prediction"]


def place(bench: Workbench, deployment: ModelDeployment) -> tuple[str, str, str, str]:
    """Give the ids of a deployment's path."""
    body = deployment.body
    return bench.project_id, body["model_id"], body["build_id"], deployment.id


# -- the registry ------------------------------------------------------------------------------


def test_registering_a_name_again_adds_a_version(bench: Workbench, api: Any) -> None:
    """A version passes from REGISTERING to READY; the same name gives the same model one more."""
    first, second = given.registered(bench, "1"), given.registered(bench, "2")
    assert first.statuses == ["REGISTERING", "READY"]
    assert (first.number, second.number, len(bench.registered)) == (1, 2, 1)
    assert first.body["model_id"] == second.body["model_id"]
    found = api.list_registered_models(search_filter='{"model_name": "card"}').models[0]
    assert (found.name, found.count) == (given.NAME, 2)
    model = api.get_registered_model(found.model_id)
    about = model.model_versions[0].model_version_metadata.mlflow_metadata
    assert (model.model_versions[0].number, about.run_id) == (2, "2")
    only = api.get_registered_model(found.model_id, search_filter='{"version_number": "1"}')
    assert [version.number for version in only.model_versions] == [1]
    api.delete_registered_model_version(found.model_id, second.id)
    assert given.registered(bench, "2").number == 3


def test_registering_fails_later_and_says_why(bench: Workbench, api: Any) -> None:
    """The answer is success in any case; only the version's state and message tell the rest."""
    gone = given.register(bench, "no such run")
    bench.wait(gone, "REGISTRATION_FAILED")
    assert "no such run" in gone.body["error_message"]
    bench.fault("CreateRegisteredModel", "fail", message="could not create the directory")
    failed = given.register(bench, "1")
    bench.wait(failed, "REGISTRATION_FAILED")
    read = api.get_registered_model_version(failed.body["model_id"], failed.id)
    assert read.error_message == "could not create the directory"
    bench.fault("CreateRegisteredModel", "hang")
    hanging = given.register(bench, "1")
    given.registered(bench, "1")
    assert hanging.statuses == ["REGISTERING"]


def test_tags_of_versions_are_lost(bench: Workbench, api: Any) -> None:
    """Tags are taken and not stored, unless the workbench is one that stores them."""
    tags = [{"key": "retraind.key", "value": "7"}]
    lost = given.registered(bench, "1", tags=tags)
    assert api.get_registered_model_version(lost.body["model_id"], lost.id).tags == []
    bench.habits.keep_version_tags = True
    kept = given.registered(bench, "1", tags=tags)
    read = api.get_registered_model_version(kept.body["model_id"], kept.id)
    assert (read.tags[0].key, read.tags[0].value) == ("retraind.key", "7")


def test_models_are_registered_from_a_tracking_store(
    tmp_path: Path, loader: Loader, logged: dict[str, Path]
) -> None:
    """With a tracking URI the registry reads the artifacts of MLflow's run, and of no other."""
    import mlflow  # noqa: PLC0415 (after its environment is set)

    uri = f"sqlite:///{tmp_path}/mlflow.db"
    client = mlflow.MlflowClient(uri)
    experiment = client.create_experiment("cards", (tmp_path / "artifacts").as_uri())
    run = client.create_run(experiment).info.run_id
    client.log_artifacts(run, str(logged["1"]), "model")
    with Workbench(tmp_path / "bench", tracking_uri=uri, loader=loader) as bench:
        version = given.registered(bench, run, experiment_id=experiment)
        assert (version.folder / "MLmodel").is_file()
        wrong = given.register(bench, run, experiment_id="999")
        assert bench.wait(wrong, "REGISTRATION_FAILED")


# -- models and builds -------------------------------------------------------------------------


def test_names_of_models_are_taken_for_ever(bench: Workbench, api: Any) -> None:
    """A name is refused while a model has it, after that was deleted, and above 63 characters."""
    body = {"name": "a" * 63}
    made = api.create_model(body, bench.project_id)
    for _ in range(2):
        status, text = status_of(api.create_model, body, bench.project_id)
        assert (status, "already has a model with that name" in text) == (400, True)
        if not bench.models[0].deleted:
            api.delete_model(bench.project_id, made.id)
    assert api.list_models(bench.project_id).models == []
    assert status_of(api.create_model, {"name": "a" * 64}, bench.project_id)[0] == 400


def test_the_registry_link_cannot_be_patched(bench: Workbench, api: Any) -> None:
    """`registered_model_id` is dropped from a change, and its builds need a model with the link."""
    version = given.registered(bench, "1")
    made = api.create_model({"name": "unlinked"}, bench.project_id)
    change = {"registered_model_id": version.body["model_id"]}
    assert api.update_model(change, bench.project_id, made.id).registered_model_id is None
    assert [drop.field for drop in bench.dropped] == ["registered_model_id"]
    body = {"registered_model_version_id": version.id, "runtime_identifier": bench.runtime}
    build = (api.create_model_build, body, bench.project_id, made.id)
    assert status_of(*build)[0] == 400
    linked = given.model_of(bench, version).id
    for wrong in ({"runtime_identifier": "none"}, {"registered_model_version_id": "none"}):
        assert status_of(build[0], {**body, **wrong}, bench.project_id, linked)[0] == 400


def test_builds_pass_through_their_states(bench: Workbench) -> None:
    """queued, building, pushing, built; or `build failed`; or for ever in the one that was said."""
    version = given.registered(bench, "1")
    model = given.model_of(bench, version)
    good = given.build(bench, model, version)
    bench.wait(good, "built")
    assert good.statuses == ["queued", "building", "pushing", "built"]
    bench.fault("CreateModelBuild", "fail")
    bad = given.build(bench, model, version)
    bench.wait(bad, "build failed")
    bench.fault("CreateModelBuild", "fail", state="timedout")
    bench.wait(given.build(bench, model, version), "timedout")
    hanging = []
    for state in ("pushing", "building"):
        bench.fault("CreateModelBuild", "hang", state=state)
        hanging.append(given.build(bench, model, version))
    bench.wait(given.build(bench, model, version), "built")
    assert [build.status for build in hanging] == ["pushing", "building"]
    bench.fault("CreateRegisteredModel", "hang")
    unready = given.register(bench, "2")
    assert bench.wait(given.build(bench, model, unready), "built", "build failed") == "build failed"


# -- deployments -------------------------------------------------------------------------------


def test_a_deployed_version_answers_as_the_scorer_does(bench: Workbench, scorers: Models) -> None:
    """What was logged is what answers, to the last bit; and again with the next version."""
    versions = [given.registered(bench, run) for run in ("1", "2")]
    model = given.model_of(bench, versions[0])
    key = model.access_key
    for version in versions:
        given.deployed(bench, model, version)
        expected = scorers[str(version.number)].scorer.score(ROWS)
        assert np.array_equal(np.float32(says(bench, model)), expected)
    assert [call.version for call in bench.calls] == [1, 2]
    assert [call.version_id for call in bench.calls] == [version.id for version in versions]
    assert model.access_key == key


def test_a_new_deployment_takes_over_without_a_gap(bench: Workbench) -> None:
    """The old one is stopped at the moment the new one is deployed; older builds can come back."""
    versions = [given.registered(bench, run) for run in ("1", "2")]
    model = given.model_of(bench, versions[0])
    old, new = (given.deployed(bench, model, version) for version in versions)
    bench.wait(old, "stopped")
    assert old.statuses == ["deploying", "deployed", "stopping", "stopped"]
    assert old.build
    back = given.deploy(bench, model, old.build)
    bench.wait(back, "deployed")
    bench.wait(new, "stopped")
    assert says(bench, model)
    assert bench.calls[-1].version == 1
    assert bench.overlaps() == []
    assert bench.gaps() == []


def test_the_old_deployment_may_stop_first(bench: Workbench, api: Any) -> None:
    """Where the old one stops before the new one is up, nothing answers in between."""
    version = given.registered(bench, "1")
    model = given.model_of(bench, version)
    old = given.deployed(bench, model, version)
    assert old.build
    bench.habits.stop_old_first = True
    bench.pace.deploying = 0.3
    new = given.deploy(bench, model, old.build)
    bench.wait(old, "stopped")
    assert given.ask(bench, model, REQUEST).status_code == bench.habits.no_deployment
    bench.habits.refuse_second_deployment = True
    assert status_of(api.create_model_deployment, {}, *place(bench, old)[:3])[0] == 400
    bench.wait(new, "deployed")
    assert len(bench.gaps()) == 1
    assert says(bench, model)


def test_the_gateway_gives_up_on_a_deployment_that_goes_on(bench: Workbench, api: Any) -> None:
    """500 "context deadline exceeded" is no failure: the deployment is found, and comes up."""
    version = given.registered(bench, "1")
    model = given.model_of(bench, version)
    build = given.build(bench, model, version)
    bench.wait(build, "built")
    bench.fault("CreateModelDeployment", "deadline", seconds=0.1)
    where = (bench.project_id, model.id, build.id)
    status, text = status_of(api.create_model_deployment, {}, *where)
    assert (status, json.loads(text)["message"]) == (500, "context deadline exceeded")
    (found,) = api.list_model_deployments(*where).model_deployments
    (deployment,) = bench.deployments
    assert found.id == deployment.id
    bench.wait(deployment, "deployed")
    bench.fault("CreateModelDeployment", "error")
    assert status_of(api.create_model_deployment, {}, *where)[0] == 500
    assert len(bench.deployments) == 1


def test_deployments_fail_hang_and_lie(bench: Workbench) -> None:
    """Each order hits one deployment; the one that serves is left alone until the next is up."""
    versions = [given.registered(bench, run) for run in ("1", "2")]
    model = given.model_of(bench, versions[0])
    first = given.deployed(bench, model, versions[1])
    assert first.build
    bench.fault("CreateModelDeployment", "fail")
    assert bench.wait(given.deploy(bench, model, first.build), "deployed", "failed") == "failed"
    bench.fault("CreateModelDeployment", "hang", state="deploying")
    hanging = given.deploy(bench, model, first.build)
    right = says(bench, model)
    assert bench.calls[-1].deployment_id == first.id
    bench.fault("CreateModelDeployment", "other version")
    bench.wait(given.deploy(bench, model, first.build), "deployed")
    assert says(bench, model) != right
    assert bench.calls[-1].version == 1
    bench.fault("CreateModelDeployment", "garbage", value=["?"])
    bench.wait(given.deploy(bench, model, first.build), "deployed")
    assert says(bench, model) == ["?"]
    assert hanging.status == "deploying"


def test_a_model_that_does_not_load_is_a_failed_deployment(bench: Workbench) -> None:
    """What cannot be loaded never serves, and the old version answers on."""
    versions = [given.registered(bench, run) for run in ("1", "2")]
    model = given.model_of(bench, versions[0])
    given.deployed(bench, model, versions[0])
    (booster,) = versions[1].folder.rglob("model.ubj")
    booster.write_bytes(b"not a booster")
    build = given.build(bench, model, versions[1])
    bench.wait(build, "built")
    broken = given.deploy(bench, model, build)
    assert bench.wait(broken, "deployed", "failed") == "failed"
    assert "damaged" in broken.error
    assert says(bench, model)
    assert bench.calls[-1].version == 1


def test_loader_modules_of_one_name_are_kept_apart(bench: Workbench, scorers: Models) -> None:
    """Two models whose code has the same module's name each run their own; frames are records."""
    found: dict[str, Any] = {}
    for run in ("3", "constant"):
        version = given.registered(bench, run, model_name=run)
        model = given.model_of(bench, version, name=run)
        given.deployed(bench, model, version)
        found[run] = says(bench, model)
    assert found["constant"] == [7.5] * len(ROWS)
    classes = scorers["3"].scorer.classes
    probabilities = [[row[name] for name in classes] for row in found["3"]]
    assert np.array_equal(np.array(probabilities, np.float32), scorers["3"].scorer.score(ROWS))


def test_one_call_can_do_it_all(bench: Workbench, api: Any) -> None:
    """A model can be made with its first build and deployment, and a build with its deployment."""
    version = given.registered(bench, "constant")
    config = {"registered_model_version_id": version.id, "runtime_identifier": bench.runtime}
    body = {
        "name": "all", "registered_model_id": version.body["model_id"], "auto_build_model": True,
        "auto_build_config": config, "auto_deploy_model": True,
        "auto_deployment_config": {"cpu": 0.5, "environment": {"A": "1"}},
    }  # fmt: skip
    made = api.create_model(body, bench.project_id)
    bench.wait(bench.builds[0], "built")
    (deployment,) = bench.deployments
    bench.wait(deployment, "deployed")
    assert (deployment.body["cpu"], deployment.body["environment"]) == (0.5, '{"A": "1"}')
    api.create_model_build({**config, "auto_deploy_model": True}, bench.project_id, made.id)
    bench.wait(bench.builds[1], "built")
    bench.wait(bench.deployments[1], "deployed")


def test_deployments_without_room_wait_for_ever(bench: Workbench, api: Any) -> None:
    """A deployment above the quota stays deploying, also when there is room, until restarted."""
    version = given.registered(bench, "constant")
    model = given.model_of(bench, version)
    bench.quota(2)
    first = given.deployed(bench, model, version, cpu=1.5)
    assert first.build
    second = given.deploy(bench, model, first.build, cpu=1.0)
    api.stop_model_deployment(*place(bench, first))
    bench.wait(first, "stopped")
    assert second.status == "deploying"
    api.stop_model_deployment(*place(bench, second))
    bench.wait(second, "stopped")
    api.restart_model_deployment(*place(bench, second))
    assert bench.wait(second, "deployed")


def test_a_deleted_model_serves_on_unseen(bench: Workbench, api: Any) -> None:
    """Deployments that were not stopped answer after their model was deleted."""
    version = given.registered(bench, "constant")
    model = given.model_of(bench, version)
    given.deployed(bench, model, version)
    api.delete_model(bench.project_id, model.id)
    assert status_of(api.get_model, bench.project_id, model.id)[0] == 404
    assert says(bench, model)


# -- modelservice ------------------------------------------------------------------------------


def function_model(bench: Workbench, **more: Any) -> Model:
    """Deploy a function of the project."""
    (bench.project / "answer.py").write_text(FUNCTION)
    api, project = bench.client(), bench.project_id
    made = api.create_model({"name": "function", **more}, project)
    body = {"file_path": "answer.py", "function_name": "answer"}
    api.create_model_build({**body, "runtime_identifier": bench.runtime}, project, made.id)
    bench.wait(bench.builds[-1], "built")
    ds = bench.workload_environment()["CDSW_DS_API_URL"]
    environment = {"VARIABLE": "set", "CDSW_DS_API_URL": ds}
    api.create_model_deployment({"environment": environment}, project, made.id, bench.builds[-1].id)
    bench.wait(bench.deployments[-1], "deployed")
    return bench.models[-1]


def test_answers_have_the_documented_shapes(bench: Workbench) -> None:
    """A registry model's answer is wrapped or plain, with `success` or without."""
    version = given.registered(bench, "constant")
    model = given.model_of(bench, version)
    deployment = given.deployed(bench, model, version)
    wrapped = given.ask(bench, model, REQUEST).json()
    assert wrapped["success"] is True
    assert wrapped["response"].keys() == {"prediction", "uuid", "model_deployment_crn"}
    assert wrapped["response"]["model_deployment_crn"] == deployment.crn
    bench.habits.wrapped_answers = bench.habits.success_key = False
    assert given.ask(bench, model, REQUEST).json() == {"response": [7.5] * 5}
    records = [dict.fromkeys(REQUEST["dataframe_split"]["columns"], 1.0)]
    for request in ({"inputs": [[1.0, 2.0]]}, {"dataframe_records": records}):
        assert given.ask(bench, model, request).json() == {"response": [7.5]}


def test_functions_of_the_project_answer_too(bench: Workbench) -> None:
    """A function gets the request and its own environment; its value is the response."""
    model = function_model(bench)
    answer = given.ask(bench, model, {"a": 1}).json()
    assert answer["response"]["you"] == {"a": 1}
    assert answer["response"]["variable"] == "set"
    failed = given.ask(bench, model, {"fail": 1})
    assert (failed.status_code, failed.json()["success"]) == (bench.habits.model_error, False)
    assert "no such card" in failed.json()["error"]


def test_the_access_key_is_in_the_body_or_the_address(bench: Workbench) -> None:
    """Either place will do; a wrong key, none at all, and an ordered refusal are refused."""
    model = function_model(bench)
    with httpx.Client(trust_env=False) as client:
        url = f"{bench.model_url}?accessKey={model.access_key}"
        assert client.post(url, json={"request": {}}).status_code == 200
        bad = bench.habits.bad_access_key
        assert client.post(bench.model_url, json={"request": {}}).status_code == bad
        assert (
            client.post(bench.model_url, json={"accessKey": "m", "request": {}}).status_code == bad
        )
        bench.fault("modelservice", "refused key")
        assert client.post(url, json={"request": {}}).status_code == bad
        assert client.post(url, content=b"[]").status_code == 400
        assert client.post(url, json={"request": "x" * 5_000_000}).status_code == 413


def test_authentic_models_want_a_key_for_applications(bench: Workbench) -> None:
    """With authentication a call needs a bearer key of the audience Application."""
    bench.habits.model_authentication = True
    model = function_model(bench)
    keys = {"none": 401, bench.issue(API).text: 401, bench.issue(APPLICATION).text: 200}
    for key, status in keys.items():
        assert given.ask(bench, model, {}, Authorization=f"Bearer {key}").status_code == status
    bench.habits.model_authentication = False
    assert not bench.client().create_model({"name": "open"}, bench.project_id).auth_enabled


def test_a_replica_answers_one_request_at_a_time(bench: Workbench) -> None:
    """Requests wait for their turn; too many are `model.busy`; too slow ones are given up."""
    model = function_model(bench)
    began = time.monotonic()
    with ThreadPoolExecutor(3) as pool:
        answers = list(pool.map(lambda _: given.ask(bench, model, {"sleep": 0.1}), range(3)))
    assert time.monotonic() - began >= 0.3
    assert len({answer.json()["response"]["pid"] for answer in answers}) == 1
    bench.habits.model_queue = 0
    with ThreadPoolExecutor(2) as pool:
        answers = list(pool.map(lambda _: given.ask(bench, model, {"sleep": 0.2}), range(2)))
    assert sorted(answer.status_code for answer in answers) == [200, 429]
    bench.fault("modelservice", "busy")
    busy = given.ask(bench, model, {})
    assert (busy.status_code, busy.json()["code"]) == (429, "model.busy")
    bench.pace.model_timeout = 0.1
    assert given.ask(bench, model, {"sleep": 5}).status_code == 504
    bench.pace.model_timeout = 30
    assert given.ask(bench, model, {}).status_code == 200


def test_workloads_call_models_and_track_metrics(bench: Workbench) -> None:
    """The `cml` package reaches models and the metrics of each deployment."""
    model = function_model(bench)
    script = f"""
from cml import metrics_v1, models_v1
crn = {bench.deployments[-1].crn!r}
answer = models_v1.call_model(model_access_key={model.access_key!r}, ipt={{"a": 1}})
print(answer["response"]["you"])
(found,) = metrics_v1.read_metrics(model_deployment_crn=crn)["metrics"]
metrics_v1.track_delayed_metrics({{"truth": 1}}, found["predictionUuid"])
metrics_v1.track_aggregate_metrics({{"auc": 0.9}}, 1, 2, model_deployment_crn=crn)
print([one["metrics"] for one in metrics_v1.read_metrics(model_deployment_crn=crn)["metrics"]])
print(metrics_v1.read_metrics(crn, start_timestamp_ms=3)["metrics"][0]["metrics"])
"""
    found = subprocess.run(
        [sys.executable, "-c", script], env=bench.workload_environment(), capture_output=True,
        text=True, check=False,
    )  # fmt: skip
    assert found.stdout.splitlines() == [
        "{'a': 1}",
        "[{'asked': 1, 'truth': 1}, {'auc': 0.9}]",
        "{'asked': 1, 'truth': 1}",
    ], found.stderr
