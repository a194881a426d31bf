"""Renders the settings as a Markdown table, from the very models that read them.

`python -m config.reference [README.md]` prints it, or puts it between the markers of that file.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Literal, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from config.section import Section, fields
from config.settings import Settings

BEGIN, END = "<!-- settings -->", "<!-- /settings -->"
INTRODUCTION = """\
A setting's path is its place in the YAML file. Every setting can also come from the environment,
which wins over the file: `RETRAIND_`, then the path in capitals with `__` for each dot. So
`pipelines.cards.train.rounds` is `RETRAIND_PIPELINES__CARDS__TRAIN__ROUNDS`. A list or a mapping is
written there as JSON. A duration is a number of seconds, or has a unit: `500ms`, `90s`, `1.5m`,
`2h`, `1d`. Relative paths count from the folder in which the command is started.
"""


def rows(model: type[BaseModel] = Settings, under: str = "") -> Iterator[tuple[str, str, str]]:
    """Walk the settings in their order: path, default, meaning; a group comes before its own."""
    for name, field in fields(model).items():
        path = f"{under}{name}" + (".<name>" if get_origin(field.annotation) is dict else "")
        groups = [k for k in _kinds(field) if isinstance(k, type) and issubclass(k, Section)]
        for group in groups:
            about = f"{str(group.__doc__).partition('.')[0]}. {field.description or ''}"
            yield path, _default(field), about.strip()
            yield from rows(group, f"{path}.")
        if not groups:
            yield f"{under}{name}", _default(field), _meaning(field)


def table() -> str:
    """Give the introduction and the table, ending with a line break."""
    body = (f"| `{path}` | {default} | {meaning} |\n" for path, default, meaning in rows())
    return f"{INTRODUCTION}\n| setting | default | meaning |\n|---|---|---|\n{''.join(body)}"


def placed(text: str) -> str:
    """Give the text with the table of today between its markers."""
    before, _, rest = text.partition(BEGIN)
    return f"{before}{BEGIN}\n{table()}{END}{rest.partition(END)[2]}"


def _default(field: FieldInfo) -> str:
    value = field.get_default(call_default_factory=True)
    if field.is_required() or value is None or isinstance(value, BaseModel):
        return "required" if field.is_required() else ""
    shown = f"{value:g}" if isinstance(value, float) else json.dumps(value, default=str).strip('"')
    return f"`{shown}`"


def _meaning(field: FieldInfo) -> str:
    told = " ".join(str(field.description).split()).replace("|", "\\|")
    values = [f"`{v}`" for k in _kinds(field) if get_origin(k) is Literal for v in get_args(k)]
    return told if all(v in told for v in values) else f"{told} One of {', '.join(values)}."


def _kinds(field: FieldInfo) -> tuple[object, ...]:
    """Give a field's type and the types that it mentions."""
    return (field.annotation, *get_args(field.annotation))


if __name__ == "__main__":
    for file in map(Path, sys.argv[1:]):
        file.write_text(placed(file.read_text(encoding="utf-8")), encoding="utf-8")
    if not sys.argv[1:]:
        sys.stdout.write(table())
