"""Examines what retraind depends on, one finding a line, each with its remedy."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from rich.table import Table as Grid
from rich.text import Text

from config import access, machine, workload
from config.settings import ConfigError, Pipeline, Settings
from daemon import composition, owner
from daemon.pitfalls import disk, pitfalls
from daemon.store import Owner
from handlers.facts import GiveUp, RetraindError

if TYPE_CHECKING:
    from daemon.doors import Doors
    from handlers.herald import Target


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing examined; `told` says what was found, or what is wrong and the remedy."""

    what: str
    ok: bool
    told: str

    def as_dict(self) -> dict[str, Any]:
        """Give the finding ready for JSON."""
        return asdict(self)


def examine(settings: Settings) -> list[Finding]:
    """Examine everything; a failure of one thing does not hide the others."""
    return list(_findings(settings))


def _findings(settings: Settings) -> Iterator[Finding]:
    yield Finding("configuration", ok=True, told=f"{len(settings.pipelines)} pipeline(s)")
    yield _check("state", lambda: _state(settings))
    yield _check("disk", lambda: disk(settings.state_dir.resolve()))
    yield _check("pages", lambda: _pages(settings))
    yield _check("notify", lambda: _targets(settings))
    yield from (_check(what, look) for what, look in pitfalls(settings))
    parts = [
        _check("Java", lambda: _part(machine.java(settings))),
        _check("Spark", lambda: _part(machine.spark())),
        _check("Iceberg", lambda: _part(machine.iceberg(settings))),
        _check("MLflow", lambda: _part(machine.tracking(settings))),
    ]
    yield from parts
    if not all(part.ok for part in parts):
        return
    yield _check("Spark session", lambda: _session(settings))
    try:
        works = composition.doors(settings)
    except (ConfigError, RetraindError) as error:
        yield Finding("pipelines", ok=False, told=str(error))
        return
    for name, (pipeline, doors) in works.items():
        yield _check(f"{name}: table", partial(_table, doors, pipeline))
        yield _check(f"{name}: MLflow", partial(_registry, doors))
        yield _check(f"{name}: endpoint", partial(_endpoint, doors))


def tell(settings: Settings) -> list[Finding]:
    """Send a test message to each target.

    Raises:
        GiveUp: there is none.
    """
    targets = composition.targets(settings)
    if not targets:
        raise GiveUp(
            "Nobody is to be told anything: `notify.urls` is empty.",
            "Give the addresses in the configuration, or in RETRAIND_NOTIFY__URLS as a JSON list.",
        )
    link = settings.notify.link or workload.page() or ""
    body = f"If you can read this, the daemon can tell you what happens. {link}".strip()

    def told(target: Target) -> str:
        target.tell("retraind: a test", body)
        return "took the message"

    return [_check(f"target {target.name}", partial(told, target)) for target in targets]


def _targets(settings: Settings) -> str:
    targets = composition.targets(settings)
    if strange := [target.name for target in targets if not target.known]:
        raise GiveUp(
            f"`notify.urls` has {len(strange)} that Apprise cannot read: {', '.join(strange)}.",
            "Its documentation has the form for each service.",
        )
    listed = ", ".join(target.name for target in targets)
    return f"{listed}; `retraind notify-test` tries them" if targets else "nobody is told anything"


def _check(what: str, look: Callable[[], str]) -> Finding:
    try:
        return Finding(what, ok=True, told=look())
    except (ConfigError, RetraindError) as error:
        return Finding(what, ok=False, told=str(error))


def _part(found: machine.Found) -> str:
    return f"{machine.shown(found.value) or 'nothing to add'} ({found.why})"


def _running(settings: Settings) -> Owner | None:
    """Say which daemon runs on the state; opening the ledger proves that it can be written."""
    book = composition.ledger(settings)
    try:
        return owner.living(book)
    finally:
        book.close()


def _state(settings: Settings) -> str:
    running = _running(settings)
    who = f"owned by process {running.pid} on {running.host}" if running else "no daemon runs on it"
    return f"{settings.state_dir.resolve()}, writable, {who}"


def _pages(settings: Settings) -> str:
    from daemon.service import bind  # noqa: PLC0415 (slow to import)

    where = f"{settings.http.host}:{settings.http.port}"
    proxied = workload.is_application()
    if not proxied:
        access.token(settings.http)
    running = _running(settings)
    if running and running.url.endswith(f":{settings.http.port}"):
        return f"served on {where} by the running daemon"
    bound: socket.socket = bind(settings.http.host, settings.http.port)
    bound.close()
    told = ", where the platform's proxy expects them" if proxied else ""
    return f"{where} is free{told}"


def _session(settings: Settings) -> str:
    session = composition.sessions(settings)()
    return f"Spark {session.version} on {session.sparkContext.master}"


def _table(doors: Doors, pipeline: Pipeline) -> str:
    from handlers.rows import choose  # noqa: PLC0415 (slow to import)

    head = doors.table.head()
    columns = choose(doors.table.schema(), pipeline)
    stands = f"head {head.snapshot_id}" if head else f"no snapshot on branch {pipeline.branch}"
    return (
        f"{pipeline.table}: {stands}; learns {columns.label} from {len(columns.features)} columns"
    )


def _registry(doors: Doors) -> str:
    return f"answers; {len(doors.registry.history())} decisions kept"


def _endpoint(doors: Doors) -> str:
    serving = doors.endpoint.serving()
    answers = f"answers as version {serving}" if serving else "nothing is served yet"
    return f"{doors.endpoint.where}: {answers}"


def text(findings: list[Finding]) -> Grid:
    """Draw the findings."""
    grid = Grid.grid(padding=(0, 2))
    for finding in findings:
        mark = Text("ok", style="green") if finding.ok else Text("!!", style="bold red")
        grid.add_row(mark, finding.what, Text(finding.told))
    return grid
