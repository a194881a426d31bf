"""Calls to models."""

from __future__ import annotations

from typing import Any

from cml.ds import post


def call_model(model_access_key: str, ipt: dict[str, Any]) -> Any:
    """Have a model answer."""
    return post("model", {"accessKey": model_access_key, "request": ipt})
