"""What a project can choose from: runtimes over many pages, and addons."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import Any

from cloudera.errors import Refused
from cloudera.state import Call

REPOSITORY = "registry.example.com/cloudera/cdsw"
VERSIONS = ("2026.08.1-b5", "2026.04.2-b16", "2025.12.1-b3", "2025.06.2-b9")
KERNELS = ("Python 3.10", "Python 3.11", "Python 3.12", "Python 3.13")
EDITIONS = ("Standard", "Nvidia GPU")
EDITORS = ("JupyterLab", "PBJ Workbench")
OTHERS = 14
"""With those of other kernels there are 78, as on one site."""
RUNTIME = {"kernel": "Python 3.11", "edition": "Standard", "editor": "PBJ Workbench"}
"""The kind of runtime that the workbench's own workloads have, in the newest version."""
ADDONS = {
    "sparkconnect354-732-26": ("Spark", "Spark 3.5.4 - CDP 7.3.2"),
    "sparkconnect411-26": ("Spark", "Spark 4.1.1"),
    "sparkconnect354-731-26": ("Spark", "Spark 3.5.4 - CDP 7.3.1"),
    "hadoop-cli-7.3.2-26": ("HadoopCLI", "Hadoop CLI - CDP 7.3.2"),
    "cmladdon-2.0.59-b252": ("CMLAddon", "Cloudera AI addon"),
}


def _runtimes() -> list[dict[str, Any]]:
    made = []
    for version in reversed(VERSIONS):  # the oldest first: one page never shows the newest
        kinds = itertools.product(KERNELS, EDITIONS, EDITORS)
        made += [_runtime(*kind, version) for kind in kinds]
    for number in range(OTHERS):
        kernel = ("R 4.4", "Scala 2.12")[number % 2]
        made.append(_runtime(kernel, "Standard", "Workbench", f"2025.{number + 1:02}.1-b1"))
    return made


def _runtime(kernel: str, edition: str, editor: str, version: str) -> dict[str, Any]:
    words = f"{editor} {kernel} {edition}".lower()
    image = "-".join(["ml-runtime", *words.replace("python ", "python").split()])
    return {
        "image_identifier": f"{REPOSITORY}/{image}:{version}", "editor": editor, "kernel": kernel,
        "edition": edition, "description": f"{edition} edition {kernel} runtime",
        "full_version": version, "status": "ENABLED", "register_user_id": 0,
    }  # fmt: skip


class Catalogue:
    """The operations on runtimes and addons."""

    def __init__(self) -> None:
        self.runtimes = _runtimes()
        self.addons = [
            {
                "id": number, "identifier": identifier, "component": component,
                "display_name": name, "status": "AVAILABLE", "manageable": True, "reason": "",
                "created_at": "2026-09-01T00:00:00Z",
            }
            for number, (identifier, (component, name)) in enumerate(ADDONS.items(), 1)
        ]  # fmt: skip

    def list_runtimes(self, _: Call) -> list[dict[str, Any]]:
        """List the runtimes."""
        return list(self.runtimes)

    def list_runtime_addons(self, _: Call) -> list[dict[str, Any]]:
        """List the addons."""
        return list(self.addons)

    def check(self, body: Mapping[str, Any]) -> None:
        """Let pass what names a runtime and addons that there are.

        Raises:
            Refused: there is no such runtime or addon.
        """
        known = {runtime["image_identifier"] for runtime in self.runtimes}
        if body.get("runtime_identifier") not in known:
            raise Refused(400, f"there is no runtime {body.get('runtime_identifier')!r}")
        have = {addon["identifier"] for addon in self.addons if addon["status"] == "AVAILABLE"}
        if strange := set(body.get("runtime_addon_identifiers", [])) - have:
            raise Refused(400, f"there are no runtime addons {sorted(strange)}")

    @property
    def own(self) -> dict[str, Any]:
        """Give the runtime of the workbench's own workloads."""
        return next(
            one
            for one in self.runtimes
            if RUNTIME.items() <= one.items() and one["full_version"] == VERSIONS[0]
        )
