"""Data connections: sessions described by EMULATED_CONNECTIONS, {name: {property: value}}."""

from __future__ import annotations

import json
import os
from typing import Any


class SparkConnection:
    """A connection to the lake."""

    def __init__(self, properties: dict[str, str]) -> None:
        self._properties = properties

    def get_spark_session(self) -> Any:
        """Give a session with the connection's properties."""
        from pyspark.sql import SparkSession  # noqa: PLC0415 (not every workload has Spark)

        builder = SparkSession.builder.appName("connection")
        for name, value in self._properties.items():
            builder = builder.config(name, value)
        return builder.getOrCreate()


def get_connection(name: str, parameters: Any = None) -> SparkConnection:  # noqa: ARG001
    """Give a connection of the environment.

    Raises:
        ValueError: there is none of this name.
    """
    known = json.loads(os.environ.get("EMULATED_CONNECTIONS", "{}"))  # noqa: TID251
    if name not in known:
        raise ValueError(f"no data connection {name!r}")
    return SparkConnection(known[name])
