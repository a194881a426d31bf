"""Reads a policy: the settings of one pipeline by which a simulation differs from the live one."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from config.loading import nearest, read, sentence
from config.settings import ConfigError, Pipeline

POLICY = ("features", "ignore", "validate", "train", "promote")
"""What a policy may set: how rows are checked and learnt from, and what is promoted."""
OTHER_ROWS = "decides which rows are held out; the two would be judged on different ones"
RECUT = "the recorded deltas are replayed as they were cut; leave it out"
REFUSED = {
    "delta": RECUT,
    "row_key": OTHER_ROWS,
    "train.holdout": OTHER_ROWS,
    "train.salt": OTHER_ROWS,
}
"""Settings that a simulation cannot vary, and why."""


def load_policy(path: Path | None, live: Pipeline) -> Pipeline:
    """Give the live pipeline under the policy of a YAML file (None: its own).

    A setting of the file replaces the live one; those that it does not name stay.

    Raises:
        ConfigError: unreadable file, bad YAML, or bad settings; lists every mistake at once.
    """
    given = read(path, "policy", "policy", POLICY[-1]) if path else {}
    mistakes = list(_mistakes(given))
    fit = {name: value for name, value in given.items() if name in POLICY}
    try:
        policy = Pipeline.model_validate(_merged(live.model_dump(by_alias=True), fit))
    except ValidationError as error:
        mistakes += [sentence(item, Pipeline) for item in error.errors()]
    if mistakes:
        listed = "\n".join(f"  - {mistake}" for mistake in mistakes)
        msg = f"The policy in {path} has {len(mistakes)} mistake(s):\n{listed}"
        raise ConfigError(msg)
    return policy


def changes(live: Pipeline, policy: Pipeline) -> dict[str, tuple[Any, Any]]:
    """Name the settings that differ by their paths, each with its live value and the other."""
    ours, theirs = _flat(live), _flat(policy)
    return {path: (ours[path], theirs[path]) for path in ours if ours[path] != theirs[path]}


def _flat(pipeline: Pipeline) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in pipeline.model_dump(mode="json", by_alias=True).items():
        group = value if isinstance(value, dict) else {"": value}
        found |= {f"{name}.{key}" if key else name: setting for key, setting in group.items()}
    return found


def _mistakes(given: Mapping[Any, Any]) -> Iterator[str]:
    groups = {name: value for name, value in given.items() if isinstance(value, dict)}
    paths = [*given, *(f"{name}.{key}" for name, group in groups.items() for key in group)]
    yield from (f"{path}: {REFUSED[path]}" for path in paths if path in REFUSED)
    for name in given:
        if name in Pipeline.model_fields and name not in (*POLICY, *REFUSED):
            yield f"{name}: is no policy; known: {', '.join(POLICY)}"
        elif name not in (*POLICY, *REFUSED):
            yield f"{name}: unknown setting{nearest(str(name), Pipeline)}"


def _merged(live: dict[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """Lay the given settings over the live ones, group by group."""
    return live | {
        name: {**live[name], **value}
        if isinstance(live[name], dict) and isinstance(value, dict)
        else value
        for name, value in given.items()
    }
