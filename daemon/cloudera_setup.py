"""The script that sets a Cloudera AI project up: installs this checkout, and creates the table.

MLflow and Spark are the platform's own, and stay as they are: with another MLflow its plugin
breaks. The table is created by a first batch of generated rows, or by what `RETRAIND_COMMAND` says.
Where there is a table already, nothing is appended. It may be run any number of times.
"""

import os
import sys
import tempfile
from importlib import metadata

PLATFORM = ("mlflow", "mlflow-skinny", "pyspark")
FIRST_BATCH = ("append", "--rows", "4000", "--if-new")


def platform() -> dict[str, str]:
    """Give the versions of what the platform brings; a part that no package names is left out."""
    found = {}
    for name in PLATFORM:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def set_up() -> None:
    """Install, and create the table.

    Raises:
        RuntimeError: a command failed, or the platform's parts were changed.
    """
    from config import workload  # noqa: PLC0415 (once the kernel knows where it is)
    from daemon.child import carry_out  # noqa: PLC0415

    before = platform()
    with tempfile.NamedTemporaryFile("w", suffix=".txt") as keep:
        keep.writelines(f"{name}=={version}\n" for name, version in before.items())
        keep.flush()
        carry_out(["-m", "pip", "install", "--editable", ".", "--constraint", keep.name])
    if (after := platform()) != before:
        raise RuntimeError(f"pip changed what the platform brings: {before} became {after}")
    carry_out(["-m", "daemon", *(workload.command() or FIRST_BATCH)])


if __name__ == "__main__":
    sys.path.insert(0, os.getcwd())  # noqa: PTH109 (the kernel has no `__file__` to start from)
    set_up()
