"""Another program that commits: a process with a Spark session of its own, driven by SQL.

Each line on its standard input is a statement, answered by a line of JSON: `rows` or `error`.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

Row = dict[str, Any]


class Committer:
    """The tests' end of the process, which ends when its standard input closes."""

    def __init__(self, java_home: str, properties: Mapping[str, str], log: Path) -> None:
        with log.open("w", encoding="utf-8") as errors:
            self._process = subprocess.Popen(
                [sys.executable, __file__, java_home, json.dumps(dict(properties))],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, text=True,
            )  # fmt: skip

    def sql(self, statement: str) -> list[Row]:
        """Run a statement in the process and give its rows."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        print(" ".join(statement.split()), file=self._process.stdin, flush=True)
        answer = json.loads(self._process.stdout.readline())
        assert "error" not in answer, f"{statement}: {answer['error']}"
        rows: list[Row] = answer["rows"]
        return rows

    def close(self) -> None:
        """End the process."""
        with self._process:  # closes its standard input and waits
            pass


def main(java_home: str, properties: str) -> None:
    """Answer until the standard input ends."""
    os.environ["JAVA_HOME"] = java_home  # noqa: TID251 (a program of its own)
    from py4j.protocol import Py4JError  # noqa: PLC0415 (the tests' end needs no Spark)
    from pyspark.errors import PySparkException  # noqa: PLC0415
    from pyspark.sql import SparkSession  # noqa: PLC0415

    builder = SparkSession.builder
    for key, value in json.loads(properties).items():
        builder = builder.config(key, value)
    session = builder.getOrCreate()
    for statement in sys.stdin:
        answer: dict[str, Any]
        try:
            answer = {"rows": [row.asDict() for row in session.sql(statement).collect()]}
        except (PySparkException, Py4JError) as error:
            answer = {"error": str(error)}
        print(json.dumps(answer, default=str), flush=True)  # noqa: T201 (the answer)


if __name__ == "__main__":
    main(*sys.argv[1:])
