"""A stand-in for Cloudera's client of API v2, with the real one's surface.

The real one is generated from the workbench's specification and served by the workbench; this one
is derived from our subset of it when it is imported, so it cannot offer what the subset lacks.
"""

from __future__ import annotations

import os
from typing import Any

from cmlapi import rest, utils
from cmlapi.api_client import ApiClient, CMLServiceApi, Configuration
from cmlapi.models import MODELS

__all__ = [
    "ApiClient",
    "CMLServiceApi",
    "Configuration",
    "default_client",
    "rest",
    "utils",
]


def default_client(url: str | None = None, cml_api_key: str | None = None) -> CMLServiceApi:
    """Connect with what a workload finds in its environment, or with what is given.

    Raises:
        ValueError: neither says where the workbench is, or with which key.
    """
    found = os.environ  # noqa: TID251 (here is where a workload's client looks)
    url = url or found.get("CDSW_API_URL") or _of_domain(found.get("CDSW_DOMAIN"))
    key = cml_api_key or found.get("CDSW_APIV2_KEY")
    if not url or not key:
        raise ValueError("Need to provide both the url and the cml_api_key.")
    configuration = Configuration()
    configuration.host = url.rstrip("/").removesuffix("/api/v1")
    client = ApiClient(configuration)
    client.set_default_header("authorization", f"Bearer {key}")
    return CMLServiceApi(client)


def _of_domain(domain: str | None) -> str | None:
    return f"https://{domain}" if domain else None


def __getattr__(name: str) -> Any:
    """Give the class of a schema, as `cmlapi.CreateModelRequest`."""
    try:
        return MODELS[name]
    except KeyError:
        raise AttributeError(f"module 'cmlapi' has no attribute {name!r}") from None


def __dir__() -> list[str]:
    return sorted({*globals(), *MODELS})
