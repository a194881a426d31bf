"""What tests start from: a model that was logged, registered, built and deployed."""

from __future__ import annotations

import shutil
from dataclasses import replace
from importlib import metadata
from pathlib import Path
from typing import Any

import httpx

from cloudera.builds import ModelBuild
from cloudera.deployments import ModelDeployment
from cloudera.models import Model
from cloudera.registry import RegisteredModelVersion
from cloudera.workbench import Workbench
from config.machine import Site

EXPERIMENT, PATH, NAME = "0000-0000-0000-0001", "model", "cards"
LOADER = "scorer_of_the_model"
"""All models have the same loader module, as those of the program do."""


def save_model(folder: Path, saved: Path, code: Path) -> None:
    """Write a saved scorer as MLflow's log_model would, with the code that loads it."""
    import mlflow.pyfunc  # noqa: PLC0415 (it takes seconds, and not every test needs it)

    folder.parent.mkdir(parents=True, exist_ok=True)
    module = shutil.copyfile(code, folder.parent / f"{LOADER}.py")
    mlflow.pyfunc.save_model(
        path=folder,
        loader_module=LOADER,
        data_path=str(saved),
        code_paths=[str(module)],
        pip_requirements=[f"xgboost=={metadata.version('xgboost')}"],
    )


def keep(bench: Workbench, model: Path, run: str) -> None:
    """Put a saved model where the platform keeps the artifacts of a run."""
    place = bench.project / ".experiments" / EXPERIMENT / run / "artifacts" / PATH
    shutil.copytree(model, place)


def register(bench: Workbench, run: str, **more: Any) -> RegisteredModelVersion:
    """Register the model of a run, without waiting."""
    body = {
        "project_id": bench.project_id, "experiment_id": EXPERIMENT, "run_id": run,
        "model_path": PATH, "model_name": NAME, **more,
    }  # fmt: skip
    answer = bench.client().create_registered_model(body)
    made = {version.id: version for version in bench.versions}
    return made[answer.model_versions[0].model_version_id]


def registered(bench: Workbench, run: str, **more: Any) -> RegisteredModelVersion:
    """Register the model of a run, and wait for it."""
    version = register(bench, run, **more)
    assert bench.wait(version, "READY", "REGISTRATION_FAILED") == "READY", version.body
    return version


def model_of(bench: Workbench, version: RegisteredModelVersion, **more: Any) -> Model:
    """Make a model for the versions of a registered one."""
    body = {"name": NAME, "registered_model_id": version.body["model_id"], **more}
    made = bench.client().create_model({"project_id": bench.project_id, **body}, bench.project_id)
    return next(model for model in bench.models if model.id == made.id)


def build(bench: Workbench, model: Model, version: RegisteredModelVersion) -> ModelBuild:
    """Start a build."""
    body = {"registered_model_version_id": version.id, "runtime_identifier": bench.runtime}
    made = bench.client().create_model_build(body, bench.project_id, model.id)
    return next(one for one in bench.builds if one.id == made.id)


def deploy(bench: Workbench, model: Model, built: ModelBuild, **more: Any) -> ModelDeployment:
    """Start a deployment."""
    made = bench.client().create_model_deployment(more, bench.project_id, model.id, built.id)
    return next(one for one in bench.deployments if one.id == made.id)


def deployed(
    bench: Workbench, model: Model, version: RegisteredModelVersion, **more: Any
) -> ModelDeployment:
    """Build and deploy a version, and wait for it."""
    built = build(bench, model, version)
    assert bench.wait(built, "built", "build failed") == "built"
    deployment = deploy(bench, model, built, **more)
    assert bench.wait(deployment, "deployed", "failed") == "deployed", deployment.error
    return deployment


def ask(bench: Workbench, model: Model, request: Any, **headers: str) -> httpx.Response:
    """Call a model, as its clients do."""
    body = {"accessKey": model.access_key, "request": request}
    with httpx.Client(trust_env=False, timeout=60) as client:
        return client.post(bench.model_url, json=body, headers=headers)


def site(bench: Workbench, **changes: Any) -> Site:
    """Say how a program gets into the workbench, as it would find out in a workload."""
    bench.client()  # from now on `cmlapi` is found
    found = bench.catalogue.own
    own = {name: found[name] for name in ("kernel", "edition", "editor", "full_version")}
    told = Site(bench.url, bench.project_id, bench.key.text, None, None, (), own, 20.0)
    return replace(told, **changes)
