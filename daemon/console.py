"""What the commands share: options, the way to settings and ledger, and how results are shown.

As `--help` answers at once, nothing heavy is imported here.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from config.settings import Settings
    from daemon.ledger import Ledger

Config = Annotated[
    Path | None,
    typer.Option(
        "--config", "-c", envvar="RETRAIND_CONFIG", metavar="FILE",
        help="YAML file with the settings; environment variables RETRAIND_... win over it.",
    ),
]  # fmt: skip
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for programs.")]
Name = Annotated[
    str | None,
    typer.Argument(metavar="[PIPELINE]", help="Its name; may be left out if there is only one."),
]


def load_settings(path: Path | None, *, verbose: bool = False) -> Settings:
    """Read the settings; from here on, logs are events."""
    from config.loading import load  # noqa: PLC0415
    from daemon import logs  # noqa: PLC0415

    logs.configure(verbose=verbose)
    return load(path)


def opened(path: Path | None) -> tuple[Settings, Ledger]:
    """Read the settings, and open the ledger that they name."""
    from daemon import composition  # noqa: PLC0415

    settings = load_settings(path)
    return settings, composition.ledger(settings)


def pick(settings: Settings, name: str | None) -> str:
    """Give the pipeline that is meant: the one that is named, or the only one."""
    names = list(settings.pipelines)
    if name is None and len(names) == 1:
        return names[0]
    if name not in settings.pipelines:
        given = f"there is no pipeline {name!r}" if name else "which pipeline?"
        msg = f"{given}; the configuration has: {', '.join(names)}"
        raise typer.BadParameter(msg)
    return name


@contextmanager
def waiting(what: str) -> Iterator[None]:
    """Show on a terminal that long work is under way."""
    from rich.console import Console  # noqa: PLC0415

    console = Console(stderr=True)
    if not console.is_terminal:
        yield
        return
    with console.status(f"{what} ..."):
        yield


def show(view: Any, as_json: bool, drawn: Any) -> None:  # noqa: ANN401, FBT001 (whatever the command shows, by its option)
    """Print a view as JSON, or draw it."""
    if as_json:
        typer.echo(json.dumps(view, indent=2))
        return
    from rich.console import Console  # noqa: PLC0415

    console = Console()
    if not console.is_terminal:
        console = Console(width=200)  # a pipe has no width; do not fold sentences to 80 columns
    console.print(drawn, markup=False)
