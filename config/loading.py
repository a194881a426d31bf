"""Reads the settings from one YAML file and the environment.

Precedence: environment (`RETRAIND_` prefix, `__` between levels), then the file, then defaults.
Unknown keys are refused; all mistakes are reported at once, each with its path in the file.
"""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args, get_origin

import yaml
from pydantic import BaseModel, SecretStr, ValidationError
from pydantic_settings import SettingsError

from config.section import fields
from config.settings import ConfigError, Settings
from config.workload import COMMAND_VARIABLE, CONFIG_VARIABLE

NO_SETTINGS = (CONFIG_VARIABLE, COMMAND_VARIABLE)


def load(path: Path | None) -> Settings:
    """Read the settings from a YAML file (None: the environment alone).

    Raises:
        ConfigError: unreadable file, bad YAML, or bad settings; lists every mistake at once.
    """
    where = str(path) if path else "the environment"
    values = read(path, "configuration", "config", "pipelines") if path else {}
    # A leading underscore would be an instruction to pydantic-settings instead of a setting.
    odd = [key for key in values if not isinstance(key, str) or key.startswith("_")]
    mistakes = [f"{key}: unknown setting{nearest(str(key), Settings)}" for key in odd]
    mistakes += [*_committed(values), *_unknown_variables()]
    try:
        settings = Settings(**{key: value for key, value in values.items() if key not in odd})
    except ValidationError as error:
        mistakes += [sentence(item) for item in error.errors()]
    except SettingsError as error:
        mistakes += _unparsed(str(error))
    if mistakes:
        listed = "\n".join(f"  - {mistake}" for mistake in mistakes)
        msg = f"The configuration in {where} has {len(mistakes)} mistake(s):\n{listed}"
        raise ConfigError(msg)
    return settings


def _committed(values: dict[Any, Any]) -> Iterator[str]:
    """Refuse a secret in a file that may well be committed."""
    if isinstance(http := values.get("http"), dict) and "token" in http:
        yield (
            "http.token: may not stand in a file of settings, which others read; "
            "set RETRAIND_HTTP__TOKEN, or name a file of its own as http.token_file"
        )


def read(path: Path, what: str, option: str, first: str) -> dict[Any, Any]:
    """Read a file that must hold a mapping; the words tell what it is, should it not.

    Raises:
        ConfigError: unreadable file, bad YAML, or no mapping.
    """
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        msg = f"Cannot read the {what} {path}: {error.strerror}. Check --{option}."
        raise ConfigError(msg) from error
    except (yaml.YAMLError, ValueError) as error:  # ValueError: no UTF-8, or a date like 2026-99-99
        msg = f"The {what} {path} is not valid YAML: {_wrong(error)}"
        raise ConfigError(msg) from error
    if not isinstance(values, dict):
        msg = f"The {what} {path} must be a mapping with `{first}:` at its top level."
        raise ConfigError(msg)
    return values


def _wrong(error: Exception) -> str:
    """Say what is wrong where, without the lines around it: they may hold secrets."""
    mark = error.problem_mark if isinstance(error, yaml.MarkedYAMLError) else None
    if not isinstance(error, yaml.MarkedYAMLError) or mark is None:
        return str(error)
    return f"{error.problem} in line {mark.line + 1}, column {mark.column + 1}"


def _unknown_variables() -> Iterator[str]:
    for name in sorted(os.environ):
        if name.upper().startswith("RETRAIND_") and name not in NO_SETTINGS:
            field = name.lower().removeprefix("retraind_").split("__")[0]
            if field not in fields(Settings):
                yield f"environment {name}: unknown setting{nearest(field, Settings)}"


def _unparsed(error: str) -> Iterator[str]:
    """Name the variables that pydantic-settings could not read; it names only the setting."""
    field = found[1] if (found := re.search(r'field "(\w+)"', error)) else ""
    for name in sorted(os.environ):
        if name.upper().startswith(f"RETRAIND_{field}".upper()):
            yield f"environment {name}: cannot be read; a list or a mapping is written as JSON"


def sentence(item: Any, root: type[BaseModel] = Settings) -> str:  # noqa: ANN401 (pydantic's ErrorDetails, kept untyped for 2.x)
    """Turn one pydantic error into `path: what is wrong (what was given)`."""
    location = [str(part) for part in item["loc"] if part != "[key]"]
    path = ".".join(_walk(location, root)[0]) or "settings"
    if item["type"] == "extra_forbidden":
        return f"{path}: unknown setting{nearest(location[-1], _model_at(location[:-1], root))}"
    if item["type"] == "missing":
        return f"{path}: is required"
    message = item["msg"].removeprefix("Value error, ")
    if item["type"] == "string_pattern_mismatch":
        named = fields(_model_at(location[:-1], root))
        field = named.get(location[-1], fields(Settings)["pipelines"])
        message = f"does not fit; expected: {str(field.description).rstrip('.')}"
    hidden = location[:1] == ["notify"] or _secret(location, root)
    untold = isinstance(item["input"], dict | BaseModel) or hidden
    given = "" if untold else f" (given: {item['input']!r})"
    return f"{path}: {message}{given}"


def _secret(location: list[str], root: type[BaseModel]) -> bool:
    field = fields(_model_at(location[:-1], root)).get(location[-1]) if location else None
    return field is not None and SecretStr in get_args(field.annotation)


def nearest(name: str, model: type[BaseModel]) -> str:
    """Name the setting that was meant, or all that there are."""
    close = difflib.get_close_matches(name, fields(model), n=1)
    return f"; did you mean {close[0]!r}?" if close else f"; known: {', '.join(fields(model))}"


def _walk(location: list[str], root: type[BaseModel]) -> tuple[list[str], type[BaseModel]]:
    """Follow a path into the settings; gives it as the file has it, and the group at its end.

    The keys of mappings are stepped over. Where there are groups of several kinds, pydantic names
    in between the one that the file chose.
    """
    model, kinds, path = root, dict[str, type[BaseModel]](), list[str]()
    is_key = False
    for part in location:
        if part in kinds:
            model, kinds = kinds[part], {}
            continue
        path.append(part)
        field = None if is_key else fields(model).get(part)  # a pipeline may be called `train`
        is_key = field is not None and get_origin(field.annotation) is dict
        named = [field.annotation, *get_args(field.annotation)] if field else []
        groups = [k for k in named if isinstance(k, type) and issubclass(k, BaseModel)]
        chosen = groups if len(groups) > 1 else []
        kinds = {get_args(k.model_fields["kind"].annotation)[0]: k for k in chosen}
        model = groups[0] if groups else model
    return path, model


def _model_at(location: list[str], root: type[BaseModel]) -> type[BaseModel]:
    return _walk(location, root)[1]
