"""What is known to go wrong on Cloudera AI, as checks: each says what was found, or the remedy.

They concern those who run inside a workload, or serve through the workbench.
"""

from __future__ import annotations

import site
from collections.abc import Callable, Iterator
from importlib import metadata, util
from pathlib import Path
from typing import TYPE_CHECKING

import psutil

from config import machine, workload
from config.endpoint import ClouderaEndpoint
from config.settings import Settings
from daemon import composition
from handlers.facts import GiveUp

if TYPE_CHECKING:
    from handlers.workbench import Workbench

Check = tuple[str, Callable[[], str]]
UNLOCKED = {"nolock", "local_lock=all", "local_lock=posix"}
"""Options of a mount whose locks do not reach other machines."""


def pitfalls(settings: Settings) -> Iterator[Check]:
    """Give the checks that concern this place and these settings."""
    served = [pipeline.endpoint for pipeline in settings.pipelines.values()]
    remote = [endpoint for endpoint in served if isinstance(endpoint, ClouderaEndpoint)]
    if workload.is_workload():
        yield "platform's MLflow", lambda: _mlflow(settings)
        yield "platform's Spark", _spark
    if workload.is_workload() or remote:
        yield "cmlapi", _cmlapi
        yield "API key", lambda: _key(composition.workbench(settings), "API")
        if any(endpoint.authorize for endpoint in remote):
            models = "Application"
            yield "API key for models", lambda: _key(composition.workbench(settings), models)
        yield "project", lambda: _project(composition.workbench(settings))
        yield "runtime", lambda: composition.workbench(settings).runtime()


def disk(folder: Path) -> str:
    """Say what kind of disk a folder is on.

    Raises:
        GiveUp: it is shared with other machines, but locks on it are not.
    """
    known = {Path(part.mountpoint): part for part in psutil.disk_partitions(all=True)}
    above = (known.get(place) for place in (folder, *folder.parents))
    found = next((part for part in above if part), None)
    if found is None or not found.fstype.startswith("nfs"):
        return f"on {found.fstype if found else 'an unknown disk'}"
    if UNLOCKED & set(found.opts.split(",")):
        raise GiveUp(
            f"{folder} is on {found.fstype}, mounted so that locks do not reach other machines.",
            "Never let two of them run on it at once, or have it mounted with locks.",
        )
    return f"on {found.fstype}, with locks that all pods see"


def _mlflow(settings: Settings) -> str:
    """Look for another MLflow over the platform's, and for the plugin that its addresses need."""
    if full := _version("mlflow"):
        raise GiveUp(
            f"mlflow {full} was installed over the platform's own, whose plugin it breaks.",
            "pip uninstall mlflow mlflow-tracing, and leave mlflow out of every requirements file; "
            "then restart the workload.",
        )
    skinny, uri = _version("mlflow-skinny"), machine.tracking(settings).value
    if not skinny:
        raise GiveUp("There is no mlflow-skinny.", "It comes with the platform's cmladdon.")
    if not uri.startswith("cml:"):
        return f"mlflow-skinny {skinny}, tracking on {machine.shown(uri)}"
    if "cml" not in metadata.entry_points(group="mlflow.tracking_store").names:
        raise GiveUp(
            f"mlflow-skinny {skinny} has no plugin for {uri}.",
            "If pip put it there, uninstall it: the platform's own, with the plugin, is below it.",
        )
    return f"mlflow-skinny {skinny} with the platform's plugin"


def _spark() -> str:
    """Look whether Spark is the addon's."""
    spec = util.find_spec("pyspark")
    if spec is None or spec.origin is None:
        raise GiveUp("There is no Spark.", "Choose a Spark 3.5 addon for this workload.")
    where = Path(spec.origin).parent
    if where.is_relative_to(site.getusersitepackages()):
        raise GiveUp(
            f"pyspark was installed by pip into {where}, where it hides the addon's.",
            "pip uninstall pyspark, then restart the workload.",
        )
    return f"pyspark in {where}"


def _cmlapi() -> str:
    if util.find_spec("cmlapi") is None:
        raise GiveUp(
            "The client of the workbench, cmlapi, is not there.",
            "pip install https://DOMAIN/api/v2/python.tar.gz, with the workbench's domain.",
        )
    return f"cmlapi {_version('cmlapi') or 'of the platform'}"


def _key(bench: Workbench, audience: str) -> str:
    answer = bench.call("validate_api_key", {"audience": audience})
    return f"good for the audience {audience}, as {answer.username}"


def _project(bench: Workbench) -> str:
    found = bench.call("get_project", bench.project_id)
    return f"{found.name} on {bench.site.url}"


def _version(distribution: str) -> str:
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return ""
