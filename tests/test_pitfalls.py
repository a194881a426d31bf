"""What `doctor` finds on Cloudera AI: each known pitfall is told with its remedy."""

from __future__ import annotations

import site as python_site
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest
from cloudera.keys import APPLICATION
from cloudera.serving import SITE
from cloudera.workbench import Workbench

from config.settings import Settings
from daemon import pitfalls
from daemon.doctor import _check
from handlers.facts import GiveUp

PLUGIN = SimpleNamespace(names={"cml"})


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Workbench]:
    """Give a workbench of one's own."""
    with Workbench(tmp_path) as bench:
        yield bench


@pytest.fixture(autouse=True)
def _inside(bench: Workbench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(SITE))
    told = bench.workload_environment(MLFLOW_TRACKING_URI="cml://localhost")
    for name, value in told.items():
        if name.startswith(("CDSW", "ML")):
            monkeypatch.setenv(name, value)
    installed(monkeypatch, **{"mlflow-skinny": "2.19.0"})


def installed(
    monkeypatch: pytest.MonkeyPatch, plugin: Any = PLUGIN, spark: str = "/opt/spark/x", **names: str
) -> None:
    """Let exactly these distributions be installed."""

    def version(name: str) -> str:
        if name in names:
            return names[name]
        raise metadata.PackageNotFoundError(name)

    stub = SimpleNamespace(
        version=version, PackageNotFoundError=metadata.PackageNotFoundError,
        entry_points=lambda group: plugin,  # noqa: ARG005 (by keyword)
    )  # fmt: skip
    origin = f"{spark}/pyspark/__init__.py"
    specs = {"pyspark": SimpleNamespace(origin=origin) if spark else None, "cmlapi": "there"}
    monkeypatch.setattr(pitfalls, "metadata", stub)
    monkeypatch.setattr(pitfalls, "util", SimpleNamespace(find_spec=specs.get))


def settings(**endpoint: Any) -> Settings:
    """Give settings with this endpoint."""
    cards = {"table": "a.b", "label": "y", "endpoint": endpoint or {"port": 5001}}
    return Settings.model_validate({"pipelines": {"cards": cards}})


def found(wanted: Settings) -> dict[str, tuple[bool, str]]:
    """Run all checks."""
    findings = [_check(what, look) for what, look in pitfalls.pitfalls(wanted)]
    return {finding.what: (finding.ok, finding.told) for finding in findings}


def test_a_workload_as_it_should_be(bench: Workbench) -> None:
    """Every part is there, and says which it is."""
    told = found(settings())
    assert all(ok for ok, _ in told.values()), told
    assert {what: text for what, (_, text) in told.items()} == {
        "platform's MLflow": "mlflow-skinny 2.19.0 with the platform's plugin",
        "platform's Spark": "pyspark in /opt/spark/x/pyspark",
        "cmlapi": "cmlapi of the platform",
        "API key": "good for the audience API, as analyst",
        "project": f"retraind on {bench.url}",
        "runtime": bench.runtime,
    }


def test_elsewhere_nothing_of_it_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    """A laptop has none of it; one that serves through a workbench needs the way there."""
    monkeypatch.delenv("CDSW_ENGINE_ID")
    assert found(settings()) == {}
    assert set(found(settings(kind="cloudera"))) == {"cmlapi", "API key", "project", "runtime"}


@pytest.mark.parametrize(
    ("change", "what", "told"),
    [
        ({"mlflow": "3.16.1"}, "platform's MLflow", "pip uninstall mlflow mlflow-tracing"),
        ({"plugin": SimpleNamespace(names=set())}, "platform's MLflow", "no plugin for cml://"),
        ({"mlflow-skinny": ""}, "platform's MLflow", "cmladdon"),
        ({"spark": ""}, "platform's Spark", "Choose a Spark 3.5 addon"),
        ({"spark": python_site.getusersitepackages()}, "platform's Spark", "pip uninstall pyspark"),
    ],
)
def test_parts_that_are_not_the_platforms_are_told(
    monkeypatch: pytest.MonkeyPatch, change: dict[str, Any], what: str, told: str
) -> None:
    """Another MLflow or Spark hides the platform's, or it was not chosen at all."""
    installed(monkeypatch, **{"mlflow-skinny": "2.19.0", **change})
    ok, text = found(settings())[what]
    assert (ok, told in text) == (False, True)


def test_a_way_to_the_workbench_that_is_closed_is_told(
    bench: Workbench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No client, a key that expired or is for something else, another project."""
    monkeypatch.setattr(pitfalls, "util", SimpleNamespace(find_spec=lambda _: None))
    assert "/api/v2/python.tar.gz" in found(settings())["cmlapi"][1]
    monkeypatch.setenv("CDSW_PROJECT_ID", "0000-0000-0000-0000")
    assert found(settings())["project"][0] is False
    monkeypatch.setenv("CDSW_APIV2_KEY", bench.issue(APPLICATION).text)
    ok, text = found(settings(kind="cloudera", authorize=True))["API key"]
    assert (ok, "audience API" in text) == (False, True)
    bench.key.expire()
    monkeypatch.setenv("CDSW_APIV2_KEY", bench.key.text)
    assert "It may have expired" in found(settings())["API key"][1]


def test_a_disk_without_locks_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The project's disk is NFS; where its locks stay on one machine, two pods could both write."""

    def mounted(kind: str, options: str) -> None:
        root = SimpleNamespace(mountpoint="/", fstype="ext4", opts="rw")
        project = SimpleNamespace(mountpoint=str(tmp_path), fstype=kind, opts=options)
        monkeypatch.setattr(psutil, "disk_partitions", lambda all: [root, project])  # noqa: A006, ARG005

    mounted("nfs4", "rw,vers=4.1")
    assert pitfalls.disk(tmp_path / "state") == "on nfs4, with locks that all pods see"
    mounted("ext4", "rw")
    assert pitfalls.disk(tmp_path / "state") == "on ext4"
    mounted("nfs", "rw,nolock")
    with pytest.raises(GiveUp, match="locks do not reach other machines"):
        pitfalls.disk(tmp_path / "state")
