"""The whole story on one machine, told while it happens.

The daemon runs in this process, the endpoint in its own, and each batch is appended by yet another
process running the very command a user would type. A client asks the endpoint all the while.
"""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterator, MutableMapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from time import monotonic
from typing import Any

import structlog
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn
from rich.table import Table
from rich.text import Text

from config.loading import load
from config.settings import Settings
from daemon import composition, logs, runner
from daemon.ledger import Ledger
from daemon.service import Service
from handlers.cards import Recipe, cards
from handlers.facts import GiveUp, State, TryLater

NAME = "cards"
EXAMPLE = Path(__file__).resolve().parent.parent / "config" / "demo.yaml"
PORT = 5001
"""Of the endpoint, in the example."""
BATCH_WITHIN = 180.0
ASK_EVERY = 0.25
STYLES = {"promoted": "bold green", "kept": "cyan", "skipped": "yellow", "parked": "bold red"}
ALARMING = (
    "champion_fails", "deployment_refused", "unforeseen", "tick_failed", "rows_left_out",
)  # fmt: skip
"""Events that are shown in red."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What the demo is asked to do; `batches` of None goes on until Ctrl-C."""

    batches: int | None
    rows: int
    drift: float
    signal: bool
    seed: int


@dataclass
class Client:
    """Asks the endpoint for predictions until told to stop, and counts the answers."""

    settings: Settings
    rows: Any
    answers: Counter[str] = field(default_factory=Counter)
    failures: int = 0

    def ask(self, until: threading.Event) -> None:
        """Ask again and again; before the first deployment nobody answers, which is no failure."""
        endpoint = composition.endpoint(self.settings, NAME)
        while not until.wait(ASK_EVERY):
            try:
                self.answers[endpoint.predict(self.rows).version] += 1
            except (TryLater, GiveUp):
                self.failures += bool(self.answers)


def play(plan: Plan, folder: Path | None) -> None:
    """Tell the story: set the stage, let batches arrive, sum up."""
    # A pipe has no width, and folding sentences to 80 columns there helps nobody.
    console = Console(width=None if sys.stdout.isatty() else 160)
    home = folder or Path("retraind-state") / f"demo-{datetime.now(timezone.utc):%Y%m%d-%H%M%S}"
    settings = _stage(home)
    narrator = Narrator(console)
    logs.configure(verbose=True, render=narrator)
    console.rule("[bold]retraind demo")
    console.print(f"Everything lies in {home}; delete it afterwards as you like.\n", markup=False)
    began = monotonic()
    sample = cards(Recipe(8, plan.seed, 0, plan.drift, plan.signal)).to_pandas()
    client = Client(settings, sample)
    with runner.running(settings) as daemon, _interruptible():
        console.print(f"Dashboard  http://{settings.http.host}:{settings.http.port}")
        console.print(f"Endpoint   {composition.endpoint(settings, NAME).where}\n", markup=False)
        daemon.start()
        done = threading.Event()
        asking = threading.Thread(target=client.ask, args=[done], daemon=True)
        asking.start()
        try:
            _batches(plan, home, settings, daemon, narrator, console)
            done.wait(4 * ASK_EVERY)  # so that the last version is heard as well
        except KeyboardInterrupt:
            console.print("\nStopping.")
        finally:
            done.set()
            asking.join()
            daemon.stop()
    _sum_up(console, composition.ledger(settings), client, monotonic() - began)


@contextmanager
def _interruptible() -> Iterator[None]:
    """Let Ctrl-C and SIGTERM end the story in order, whatever libraries did to the handlers."""
    numbers = (signal.SIGINT, signal.SIGTERM)
    former = {number: signal.signal(number, signal.default_int_handler) for number in numbers}
    try:
        yield
    finally:
        for number, handler in former.items():
            signal.signal(number, handler)


def _stage(home: Path) -> Settings:
    """Copy the example configuration into the demo's folder, on ports that are free."""
    if (home / "demo.yaml").exists():
        raise GiveUp(f"{home} holds an earlier demo.", "Delete it, or name another with --state.")
    home.mkdir(parents=True, exist_ok=True)
    config = home / "demo.yaml"
    text = EXAMPLE.read_text(encoding="utf-8")
    text = text.replace(
        "state_dir: retraind-state/demo ", f"state_dir: {home.resolve()} ", 1
    ).replace(f"port: {PORT}", f"port: {_free(PORT)}", 1)
    text += "\n    # the endpoint goes when the demo ends\n      outlive: false\n"
    # Its own store, whatever the environment names: a demo must not mix with real decisions.
    text += f"\nmlflow:\n  tracking_uri: sqlite:///{home.resolve()}/mlflow.db\n"
    text += f"\nhttp:\n  port: {_free(load(EXAMPLE).http.port)}\n"
    config.write_text(text, encoding="utf-8")
    return load(config)


def _free(port: int) -> int:
    """Give this port if nobody listens there, else any free one."""
    for candidate in (port, 0):
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", candidate))
            except OSError:
                continue
            return int(probe.getsockname()[1])
    return port


def _batches(
    plan: Plan, home: Path, settings: Settings, daemon: Service, narrator: Narrator,
    console: Console,
) -> None:  # fmt: skip
    book = composition.ledger(settings)
    batch = 0
    while plan.batches is None or batch < plan.batches:
        rows = plan.rows * (1 if batch else 2)
        command = _command(plan, home, batch, rows)
        shown = f"retraind append --rows {rows} --batch {batch}"
        console.print(Text(f"\n$ {shown}", style="bold"))
        _append(command, console)
        batch += 1
        _await(book, batch, daemon, narrator)
    book.close()


def _command(plan: Plan, home: Path, batch: int, rows: int) -> list[str]:
    signal = "--signal" if plan.signal else "--no-signal"
    options = ["--rows", rows, "--batch", batch, "--drift", plan.drift, "--seed", plan.seed, signal]
    command = [sys.executable, "-m", "daemon", "append", "--config", home / "demo.yaml", *options]
    return [str(part) for part in command]


def _append(command: list[str], console: Console) -> None:
    """Append from another process, as a producer would."""
    root = Path(__file__).resolve().parent.parent
    command = [*command[:5], str(Path(command[5]).resolve()), *command[6:]]
    done = subprocess.run(command, capture_output=True, text=True, cwd=root, check=False)  # noqa: S603 (our own command)
    if done.returncode:
        raise GiveUp(f"The batch could not be appended: {done.stderr.strip()}")
    console.print(Text(f"  another process committed {done.stdout.strip()}", style="bright_black"))


def _await(book: Ledger, batch: int, daemon: Service, narrator: Narrator) -> None:
    """Wait until the batch is decided and the champion serves, showing the rounds go by."""
    until = monotonic() + BATCH_WITHIN
    pause = threading.Event()
    with narrator.bar() as show:
        while monotonic() < until:
            show(daemon.activity()[NAME])
            decided = len(book.history(NAME, batch)) >= batch
            champion = book.champion(NAME)
            served = champion is None or book.proven(NAME) == champion.model.version
            if decided and served:
                return
            pause.wait(0.1)
    raise GiveUp(
        f"Batch {batch - 1} was not decided within {BATCH_WITHIN:.0f} s: "
        f"{book.standing(NAME).doing}."
    )


class Narrator:
    """Turns the daemon's log events into the lines of a story."""

    def __init__(self, console: Console) -> None:
        self._console = console

    def __call__(self, _logger: object, _method: str, event: MutableMapping[str, Any]) -> str:
        """Print one event; structlog then drops it."""
        if line := self._line(event):
            self._console.print(line)
        raise structlog.DropEvent

    @contextmanager
    def bar(self) -> Iterator[Any]:
        """Give a function that shows a step; on a terminal as a bar that vanishes at the end."""
        if not self._console.is_terminal:
            yield lambda _step: None
            return
        columns = (TextColumn("  {task.description}"), BarColumn(), TextColumn("{task.completed}"))
        with Progress(*columns, console=self._console, transient=True) as progress:
            task = progress.add_task("", visible=False)

            def show(step: Any) -> None:  # noqa: ANN401 (a Step)
                progress.update(
                    task, description=step.name, completed=step.done, total=step.total or None,
                    visible=step.total > 1,
                )  # fmt: skip

            yield show

    @staticmethod
    def _line(event: MutableMapping[str, Any]) -> Text | None:
        name = event["event"]
        if name == "delta_opened":
            counts = f"{event['snapshots']} snapshot(s), {event['rows']:,} rows"
            return Text(f"  delta {event['delta']}: {counts}")
        if name == "delta_closed":
            line = Text(f"  delta {event['delta']}: ")
            return line.append(event["reason"], style=STYLES.get(event["state"], ""))
        if name == "deployed":
            return Text(f"  endpoint {event['proof']}", style="green")
        if name in ("waiting", "delta_postponed") and "does not exist" not in event["trouble"]:
            return Text(f"  {event['trouble']}", style="yellow")
        if name in ALARMING:
            told = event.get("reason") or event.get("exception") or f"{event.get('rows')} rows"
            return Text(f"  {name}: {told}", style="red")
        return None


def _sum_up(console: Console, book: Ledger, client: Client, seconds: float) -> None:
    console.print()
    table = Table(title="What was decided", title_justify="left", box=None, pad_edge=False)
    for column in ("delta", "rows", "challenger", "against", "verdict", "serves then"):
        table.add_column(column, justify="left" if column == "verdict" else "right")
    serves = "-"
    records = list(reversed(book.history(NAME, 10_000)))
    for record in records:
        verdict = record.verdict
        if record.state is State.PROMOTED and record.model:
            serves = record.model.version
        rival = (verdict.champion or verdict.trivial) if verdict else {}
        scores = [s.get(verdict.metric) if verdict else None for s in
                  ((verdict.challenger if verdict else {}), rival)]  # fmt: skip
        table.add_row(
            str(record.sequence), f"{record.delta.rows:,}",
            *(f"{score:.4f}" if score is not None else "-" for score in scores),
            Text(record.state.value, style=STYLES.get(record.state.value, "")), serves,
        )  # fmt: skip
    console.print(table)
    states = Counter(record.state.value for record in records)
    told = ", ".join(f"{count} {state}" for state, count in states.items()) or "nothing decided"
    versions = ", ".join(f"{n} by version {v}" for v, n in sorted(client.answers.items()))
    console.print(
        f"\n{told} in {seconds:.0f} s. The endpoint answered {client.answers.total()} requests "
        f"({versions or 'none'}), {client.failures} failed.",
        markup=False,
    )
