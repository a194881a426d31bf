"""The emulated workbench and the stand-in for `cmlapi`: contract, keys, lists, faults, registry."""

from __future__ import annotations

import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from datetime import datetime, timezone
from itertools import pairwise
from pathlib import Path
from typing import Any

import httpx
import pytest
import urllib3
from cloudera import given
from cloudera.contract import contract
from cloudera.keys import API, APPLICATION
from cloudera.schema import Reading, complaints
from cloudera.workbench import Workbench
from hypothesis import HealthCheck, example, settings
from hypothesis import given as drawn
from hypothesis import strategies as st

OPERATIONS = list(contract().operations.values())


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Workbench]:
    """Give a workbench of one's own."""
    with Workbench(tmp_path) as bench:
        yield bench


@pytest.fixture(scope="module")
def listed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workbench]:
    """Give a workbench with lists that no test changes: 23 models, 78 runtimes."""
    with Workbench(tmp_path_factory.mktemp("listed")) as bench:
        client = bench.client()
        for number in range(23):
            body = {"name": f"model-{number}", "description": "even" if number % 2 == 0 else "odd"}
            client.create_model(body, bench.project_id)
        yield bench


@pytest.fixture
def api(bench: Workbench) -> Any:
    """Give the client of the workbench."""
    return bench.client()


def error_of(bench: Workbench) -> type[Any]:
    """Give the client's exception, which cannot be imported before there is a client."""
    kind: type[Any] = sys.modules[
        type(bench.client()).__module__.partition(".")[0]
    ].rest.ApiException
    return kind


def refused(bench: Workbench, call: Any, *args: Any, **kwargs: Any) -> tuple[int, str]:
    """Make a call that is refused; gives its status and message."""
    with pytest.raises(error_of(bench)) as caught:
        call(*args, **kwargs)
    answer = httpx.Response(caught.value.status, content=caught.value.body).json()
    assert not complaints(contract(), contract().schemas["runtimeError"], answer)
    return caught.value.status, answer["message"]


# -- the contract ------------------------------------------------------------------------------


@pytest.mark.parametrize("operation", OPERATIONS, ids=lambda operation: operation.id)
def test_the_client_has_every_call_of_the_contract(listed: Workbench, operation: Any) -> None:
    """Each operation is a method; one argument too many, or a strange one, is a TypeError."""
    method = getattr(listed.client(), operation.call)
    with pytest.raises(TypeError, match="unexpected keyword argument 'nonsense'"):
        method(nonsense=1)
    with pytest.raises(TypeError, match="positional arguments"):
        method(*range(9))


def test_every_operation_answers_what_the_contract_says(bench: Workbench, api: Any) -> None:
    """Each of the operations succeeds, and its answer holds nothing that the contract lacks."""
    project = bench.project_id
    api.validate_api_key({"audience": "API"})
    api.get_project(project)
    api.list_runtimes()
    api.list_runtime_addons()
    _experiments(bench, api)
    _registry_and_models(bench, api)
    _jobs(bench, api)
    _applications(bench, api)
    done = {request.operation for request in bench.requests if request.status == 200}
    assert done == set(contract().operations)
    assert not bench.dropped


def _experiments(bench: Workbench, api: Any) -> None:
    project = bench.project_id
    experiment = api.create_experiment({"name": "cards"}, project)
    where = (project, experiment.id)
    assert api.list_experiments(project).experiments[0].name == "cards"
    assert len(api.list_all_experiments().experiments) == 1
    api.update_experiment({"name": "loans"}, *where)
    assert api.get_experiment(*where).name == "loans"
    run = api.create_experiment_run({"run_name": "one"}, *where)
    steps = [{"key": "auc", "value": value, "step": n} for n, value in enumerate((0.5, 0.7), 1)]
    batch = {
        "metrics": steps,
        "params": [{"key": "eta", "value": "0.1"}], "tags": [{"key": "by", "value": "us"}],
    }  # fmt: skip
    api.log_experiment_run_batch(batch, *where, run.id)
    history = api.get_experiment_run_metrics(*where, run.id, "auc").metrics
    assert [(one.value, one.step) for one in history] == [(0.5, "1"), (0.7, "2")]
    found = api.list_experiment_runs(*where, search_filter='{"metrics.auc": "0.7"}')
    assert found.experiment_runs[0].data.params[0].value == "0.1"
    api.delete_experiment_run_batch({"tags": ["by"]}, *where, run.id)
    api.update_experiment_run({"status": "EXPERIMENT_RUN_FINISHED"}, *where, run.id)
    assert api.get_experiment_run(*where, run.id).status == "EXPERIMENT_RUN_FINISHED"
    api.delete_experiment_run(*where, run.id)
    api.delete_experiment(*where)


def _registry_and_models(bench: Workbench, api: Any) -> None:
    project = bench.project_id
    version = given.register(bench, "run")
    registered = version.body["model_id"]
    api.update_registered_model({"model_id": registered, "description": "of cards"})
    api.update_registered_model_version(
        {"model_version_id": version.id, "notes": "good"}, registered
    )
    assert api.get_registered_model_version(registered, version.id).notes == "good"
    assert api.list_registered_models().models[0].description == "of cards"
    assert api.get_registered_model(registered).model_versions[0].number == 1
    model = given.model_of(bench, version)
    where = (project, model.id)
    assert (
        api.list_models(project).models[0].access_key == api.list_all_models().models[0].access_key
    )
    api.update_model({"description": "new"}, *where)
    assert api.get_model(*where).description == "new"
    build = given.build(bench, model, version)
    assert api.list_model_builds(*where).model_builds[0].id == build.id
    assert api.get_model_build(*where, build.id).status in ("queued", "building")
    deployment = given.deploy(bench, model, build)
    place = (*where, build.id, deployment.id)
    assert api.list_model_deployments(*place[:3]).model_deployments[0].status == "deploying"
    assert api.get_model_deployment(*place).environment == "{}"
    api.stop_model_deployment(*place)
    api.restart_model_deployment(*place)
    api.delete_model_build(*where, build.id)
    api.delete_model(*where)
    api.delete_registered_model_version(registered, version.id)
    api.delete_registered_model(registered)


def _jobs(bench: Workbench, api: Any) -> None:
    project = bench.project_id
    (bench.project / "wait.py").write_text("import time; time.sleep(60)")
    body = {"name": "wait", "script": "wait.py", "runtime_identifier": bench.runtime}
    job = api.create_job({**body, "environment": {"A": "1"}}, project)
    assert job.environment == '{"A": "1"}'
    api.update_job({"environment": '{"A": "2"}'}, project, job.id)
    assert api.get_job(project, job.id).environment == '{"A": "2"}'
    assert len(api.list_jobs(project).jobs) == 1
    run = api.create_job_run({}, project, job.id)
    assert api.list_job_runs(project, job.id).job_runs[0].id == run.id
    assert isinstance(api.get_job_run(project, job.id, run.id).scheduling_at, datetime)
    api.stop_job_run(project, job.id, run.id)
    api.delete_job(project, job.id)


def _applications(bench: Workbench, api: Any) -> None:
    project = bench.project_id
    body = {"name": "wait", "subdomain": "wait", "script": "wait.py"}
    made = api.create_application({**body, "runtime_identifier": bench.runtime}, project)
    assert made.status == "APPLICATION_STARTING"
    assert api.list_applications(project).applications[0].subdomain == "wait"
    api.update_application({"environment": '{"A": "1"}'}, project, made.id)
    assert api.get_application(project, made.id).environment == '{"A": "1"}'
    api.stop_application(project, made.id)
    api.restart_application(project, made.id)
    api.delete_application(project, made.id)


def test_typed_requests_refuse_unknown_fields_and_dicts_do_not(bench: Workbench, api: Any) -> None:
    """A typo is a TypeError in a typed body; in a dict it is lost, and only the test hears."""
    kind = sys.modules["cmlapi"].CreateModelRequest
    with pytest.raises(TypeError, match="replicas"):
        kind(name="a", replicas=2)
    made = api.create_model(kind(name="a", project_id=bench.project_id), bench.project_id)
    assert (made.name, made.to_dict()["project"]["name"]) == ("a", "retraind")
    assert made.created_at.tzinfo == timezone.utc
    api.create_model({"name": "b", "auto_build_config": {"cpu": 1}, "mem": 1}, bench.project_id)
    assert [drop.field for drop in bench.dropped] == ["auto_build_config.cpu", "mem"]
    bench.habits.refuse_unknown_fields = True
    assert refused(bench, api.create_model, {"name": "c", "mem": 1}, bench.project_id)[0] == 400


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ({"name": 1}, "name must be text"),
        ({"name": "a", "disable_authentication": "no"}, "true or false"),
        ({"name": "a", "run_as": 1.5}, "whole number"),
        ({"name": "a", "auto_build_config": []}, "must be an object"),
        ({"name": "a", "accelerator_label_id": "x"}, "whole number"),
        ({}, "missing in the body: name"),
    ],
)
def test_requests_of_other_types_are_refused(
    bench: Workbench, api: Any, body: dict[str, Any], words: str
) -> None:
    """What the contract types otherwise, or practice requires, is a 400 that says so."""
    status, message = refused(bench, api.create_model, body, bench.project_id)
    assert status == 400
    assert words in message


def test_numbers_may_be_text_and_int64_always_is(bench: Workbench, api: Any) -> None:
    """A number may come as text, and the 64-bit ones are answered as text."""
    body = {"name": "j", "script": "j.py", "runtime_identifier": bench.runtime}
    job = api.create_job({**body, "cpu": "2", "timeout": 60}, bench.project_id)
    assert (job.cpu, job.timeout) == (2.0, "60")


def test_missing_arguments_are_noticed_by_the_client(bench: Workbench, api: Any) -> None:
    """A required argument is asked for by name; keywords do as well as places."""
    with pytest.raises(ValueError, match="required parameter `model_id` when calling `get_model`"):
        api.get_model(bench.project_id)
    made = api.create_model(project_id=bench.project_id, body={"name": "a"})
    assert api.get_model(model_id=made.id, project_id=bench.project_id) == made
    assert api.get_model(bench.project_id, made.id, async_req=True).get().id == made.id
    assert refused(bench, api.get_model, bench.project_id, "other") == (
        404,
        "model other not found",
    )
    assert refused(bench, api.list_models, "other")[0] == 404


def test_a_child_process_finds_the_client_and_its_key(bench: Workbench) -> None:
    """The environment of a workload is all that `default_client` needs; without it, ValueError."""
    script = f"import cmlapi; print(cmlapi.default_client().get_project('{bench.project_id}').name)"
    environment = bench.workload_environment()
    found = subprocess.run(
        [sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=True
    )
    assert found.stdout == "retraind\n"
    del environment["CDSW_APIV2_KEY"]
    found = subprocess.run(
        [sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=False
    )
    assert "ValueError" in found.stderr


def values(schema: Any) -> st.SearchStrategy[Any]:
    """Draw values of a schema."""
    schema = contract().resolve(schema)
    if "enum" in schema:
        return st.sampled_from(schema["enum"])
    if schema["type"] == "array":
        return st.lists(values(schema["items"]), max_size=2)
    if schema["type"] == "object":
        if "additionalProperties" in schema:
            return st.dictionaries(st.text(max_size=3), values(schema["additionalProperties"]))
        fields = {k: values(v) for k, v in schema["properties"].items() if not v.get("readOnly")}
        return st.fixed_dictionaries({}, optional=fields)
    forms = {
        "int64": st.integers(-(2**63), 2**63 - 1).map(str), "boolean": st.booleans(),
        "int32": st.integers(-(2**31) + 1, 2**31 - 1), "number": st.floats(allow_nan=False),
        "date-time": st.datetimes().map(lambda moment: f"{moment.isoformat()}Z"),
    }  # fmt: skip
    by_type = forms.get(schema["type"], st.text(max_size=5))
    return forms.get(schema.get("format", ""), by_type)


@drawn(st.data())
@settings(max_examples=100, deadline=None, suppress_health_check=list(HealthCheck))
def test_what_fits_the_contract_is_read_as_it_is(data: st.DataObject) -> None:
    """Whatever a schema allows is taken without a change, and is an answer that it allows."""
    name = data.draw(st.sampled_from([one.body for one in OPERATIONS if one.body]))
    schema = contract().schemas[name]
    value = data.draw(values(schema))
    reading = Reading(contract())
    assert reading.read(schema, value) == value
    assert not reading.dropped
    assert not complaints(contract(), schema, value)
    assert complaints(contract(), schema, {"nonsense": 1})


def test_a_workbench_can_be_started_by_hand(tmp_path: Path) -> None:
    """The command says how to reach it, in words that a shell understands."""
    command = [sys.executable, "-m", "tests.cloudera", "--home", str(tmp_path)]
    root = Path(__file__).parents[1]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=root) as process:
        try:
            assert process.stdout
            told = [process.stdout.readline() for _ in range(5)]
            address = next(line.partition("=")[2] for line in told if "CDSW_API_URL" in line)
            answer = httpx.get(address.strip().replace("v1", "v2/runtimes"), trust_env=False)
            assert answer.status_code == 401
            process.terminate()
            assert process.wait(10) == 0
        finally:
            process.kill()


# -- keys --------------------------------------------------------------------------------------


def test_keys_have_an_audience_and_an_end(bench: Workbench) -> None:
    """A key for another audience is a 403, one that has expired or is unknown a 401."""
    good, other, late = bench.issue(API), bench.issue(APPLICATION), bench.issue(API, lives=0.0)
    assert bench.client(good).validate_api_key({"audience": "API"}).valid
    for key, audience, status in [
        (good, "Application", 403), (other, "API", 403), (late, "API", 401), (good, "Else", 400),
    ]:  # fmt: skip
        call = bench.client(key).validate_api_key
        assert refused(bench, call, {"audience": audience})[0] == status
    assert refused(bench, bench.client(other).list_runtimes)[0] == 403
    assert httpx.get(f"{bench.url}/api/v2/runtimes", trust_env=False).status_code == 401
    good.expire()
    assert refused(bench, bench.client(good).list_runtimes)[0] == 401


# -- lists -------------------------------------------------------------------------------------


@drawn(st.integers(1, 30), st.sampled_from(["", "model-1", "model-2", "MODEL", "del-3"]))
@settings(max_examples=25, deadline=None)
@example(23, "")
def test_pages_give_each_item_once(listed: Workbench, size: int, part: str) -> None:
    """Whatever the size of a page and the filter, all pages together are the list."""
    cursor = sys.modules["cmlapi"].utils.Cursor(
        listed.client().list_models, project_id=listed.project_id, page_size=size,
        search_filter=f'{{"name": "{part}"}}',
    )  # fmt: skip
    names = [model.name for model in cursor.items()]
    assert names == [f"model-{n}" for n in range(23) if part in f"model-{n}"]


def test_a_page_has_ten_items_and_the_next_must_ask_the_same(listed: Workbench) -> None:
    """Ten items unless asked otherwise; a token is good for the very same list only."""
    client, project = listed.client(), listed.project_id
    first = client.list_models(project, sort="-created_at")
    assert [model.name for model in first.models] == [f"model-{n}" for n in range(22, 12, -1)]
    token = first.next_page_token
    assert (
        client.list_models(project, sort="-created_at", page_token=token).models[0].name
        == "model-12"
    )
    for other in ({}, {"sort": "name"}, {"sort": "-created_at", "page_size": 5}):
        assert refused(listed, client.list_models, project, page_token=token, **other)[0] == 400
    last = client.list_models(project, page_size=23)
    assert (len(last.models), last.next_page_token) == (23, "")


def test_lists_take_documented_keys_only(listed: Workbench) -> None:
    """Filters look for parts of a text, and for their documented keys; sorts likewise."""
    client, project = listed.client(), listed.project_id
    found = client.list_models(project, search_filter='{"description": "od", "name": "1"}')
    assert {model.name for model in found.models} == {
        f"model-{n}" for n in (1, 11, 13, 15, 17, 19, 21)
    }
    refuse = [
        {"search_filter": '{"id": "1"}'}, {"search_filter": "name"}, {"sort": "access_key"},
    ]  # fmt: skip
    for query in refuse:
        assert refused(listed, client.list_models, project, **query)[0] == 400
    with httpx.Client(trust_env=False) as raw:
        url = f"{listed.url}/api/v2/runtimes?page_size=x"
        head = {"Authorization": f"Bearer {listed.key.text}"}
        assert raw.get(url, headers=head).status_code == 400


def test_one_runtime_of_many_is_the_workloads_own(listed: Workbench) -> None:
    """78 runtimes; of the same kernel and edition several, and one page misses the newest."""
    client = listed.client()
    wanted = '{"kernel": "Python 3.11", "edition": "Standard", "editor": "PBJ Workbench"}'
    found = client.list_runtimes(search_filter=wanted).runtimes
    assert len({runtime.image_identifier for runtime in found}) == 4
    mine = listed.workload_environment()["ML_RUNTIME_FULL_VERSION"]
    same = [one.image_identifier for one in found if one.full_version == mine]
    assert same == [listed.runtime]
    assert listed.runtime not in [one.image_identifier for one in client.list_runtimes().runtimes]
    every = sys.modules["cmlapi"].utils.Cursor(client.list_runtimes).items()
    assert len(list(every)) == 78
    spark = client.list_runtime_addons(
        search_filter='{"component": "Spark", "status": "AVAILABLE"}'
    )
    assert "sparkconnect354-732-26" in {addon.identifier for addon in spark.runtime_addons}


# -- faults ------------------------------------------------------------------------------------


def names(bench: Workbench) -> list[str]:
    """Name the models that there are."""
    return [model.body["name"] for model in bench.models]


def test_faults_hit_the_operation_and_the_number_of_times_that_were_ordered(
    bench: Workbench, api: Any
) -> None:
    """A fault leaves other operations alone, waits for its turn, ends, and can be lifted."""
    project = bench.project_id
    bench.fault("CreateModel", "error", times=2, after=1)
    outcomes = []
    for name in "abcd":
        api.list_models(project)
        try:
            api.create_model({"name": name}, project)
        except error_of(bench) as error:
            outcomes.append(error.status)
    assert (names(bench), outcomes) == (["a", "d"], [500, 500])
    forever = bench.fault("*", "too many", times=None)
    assert [refused(bench, api.list_runtimes)[0] for _ in range(3)] == [429, 429, 429]
    forever.lift()
    assert api.list_runtimes().runtimes
    assert forever.hits == 3
    with pytest.raises(ValueError, match="no operation"):
        bench.fault("CreateModell", "error")


def test_lost_connections_come_before_or_after_the_effect(bench: Workbench, api: Any) -> None:
    """A request whose connection is lost may have been done or not, and its sender cannot tell."""
    bench.fault("CreateModel", "drop before")
    with pytest.raises(urllib3.exceptions.ProtocolError):
        api.create_model({"name": "before"}, bench.project_id)
    bench.fault("CreateModel", "drop after")
    with pytest.raises(urllib3.exceptions.ProtocolError):
        api.create_model({"name": "after"}, bench.project_id)
    assert names(bench) == ["after"]
    assert [request.status for request in bench.requests] == [0, 0]


def test_slow_answers_and_expired_keys(bench: Workbench, api: Any) -> None:
    """An answer can take its time; a key that expires is good for nothing ever after."""
    bench.fault("ListRuntimes", "slow", seconds=0.2)
    began = time.monotonic()
    api.list_runtimes()
    assert time.monotonic() - began >= 0.2
    bench.fault("ListRuntimes", "expired key")
    assert [refused(bench, api.list_runtimes)[0] for _ in range(2)] == [401, 401]


def test_the_world_can_be_looked_at(bench: Workbench, api: Any) -> None:
    """Every request is kept with its operation, body and status, also the ones that fail."""
    made = api.create_model({"name": "a"}, bench.project_id)
    refused(bench, api.create_model, {"name": "a"}, bench.project_id)
    api.update_model({"description": "d"}, bench.project_id, made.id)
    assert [(r.operation, r.body, r.status) for r in bench.requests] == [
        ("CreateModel", {"name": "a"}, 200),
        ("CreateModel", {"name": "a"}, 400),
        ("UpdateModel", {"description": "d"}, 200),
    ]
    assert Counter(request.user for request in bench.requests) == {"analyst": 3}


def test_histories_are_in_order(bench: Workbench) -> None:
    """States come one after the other, with the seconds between them that the pace says."""
    bench.pace.registering = 0.05
    version = given.register(bench, "no such run")
    bench.wait(version, "REGISTRATION_FAILED")
    assert all(one.at <= other.at for one, other in pairwise(version.history))
    assert version.history[1].at - version.history[0].at >= 0.05
