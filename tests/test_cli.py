"""The commands: what they say, what they print for programs, and with which status they end."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import structlog
import typer
from builders import PIPELINE, close, delta, dump, ledger, park, promote
from typer.testing import CliRunner

from config import __version__
from config.settings import Settings
from daemon import composition
from daemon.__main__ import cli, main
from daemon.ledger import Ledger
from handlers.facts import State

ROOT = Path(__file__).resolve().parent.parent
GOOD = "pipelines:\n  cards: {table: lake.bank.cards, label: fraud}\n"
GROUP = typer.main.get_command(cli)
GROUPS = {"cloudera": ["install", "jobs"]}
"""Commands that are groups of others."""
COMMANDS = sorted({*GROUP.commands, *GROUPS} - {*GROUPS})  # type: ignore[attr-defined]
NEEDED: dict[str, list[object]] = {
    "append": ["--rows", 1], "drop": ["--delta", 1],
    "explain": ["cards-1"], "reproduce": ["cards-1"], "promote": [2, "--reason", "x"],
}  # fmt: skip
"""Options that a command does not do without."""
PICKY = ["rollback", "pause", "resume", "retry", "drop", "account", "append"]
"""Commands that need one pipeline."""
HEAVY = ("pyspark", "mlflow", "xgboost", "pandas", "sklearn", "fastapi", "numpy", "pyarrow")


@pytest.fixture(autouse=True)
def _alone(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for name in list(os.environ):  # noqa: TID251 (the test must not depend on who runs it)
        if name.upper().startswith("RETRAIND_") or name == "CDSW_APP_PORT":
            monkeypatch.delenv(name)
    monkeypatch.setenv("LOGNAME", "ann")
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setenv("TERMINAL_WIDTH", "200")
    yield
    structlog.reset_defaults()


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """Write a configuration of one pipeline."""
    path = tmp_path / "retraind.yaml"
    path.write_text(f"state_dir: {tmp_path / 'state'}\n{GOOD}", encoding="utf-8")
    return path


@pytest.fixture
def book(tmp_path: Path) -> Iterator[Ledger]:
    """Give the ledger of that configuration."""
    with closing(ledger(tmp_path / "state" / "ledger.db")) as book:
        yield book


Call = Callable[..., tuple[int, str]]


@pytest.fixture
def call(config: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Call:
    """Run a command as the program does; gives its status and what it said."""

    def call(*words: object, config: Path | None = config) -> tuple[int, str]:
        given = ["--config", config] if config else []
        monkeypatch.setattr(sys, "argv", ["retraind", *map(str, [*words, *given])])
        with pytest.raises(SystemExit) as ended:
            main()
        said = capsys.readouterr()
        code = ended.value.code
        assert isinstance(code, int | None)
        return code or 0, said.out + said.err

    return call


def shell(*words: object, code: str | None = None) -> subprocess.CompletedProcess[str]:
    """Run the program, or a piece of code, as a process of its own."""
    start = ["-c", code] if code else ["-m", "daemon"]
    return subprocess.run(
        [sys.executable, *start, *map(str, words)],
        capture_output=True, text=True, cwd=ROOT, check=False,
    )  # fmt: skip


def standing(call: Call) -> dict[str, Any]:
    """Ask where the pipeline stands, as a program does."""
    status, text = call("status", "--json")
    assert status == 0
    (found,) = json.loads(text)["pipelines"]
    assert isinstance(found, dict)
    return found


def parked(found: dict[str, Any]) -> list[int]:
    """Name the parked deltas of a standing."""
    return [one["delta"] for one in found["parked"]]


# -- help ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_itself(command: str) -> None:
    """`--help` ends with 0, says in a sentence what the command does, and explains each option."""
    done = CliRunner().invoke(cli, [command, "--help"])
    assert done.exit_code == 0
    known = typer.main.get_command(cli).commands[command]  # type: ignore[attr-defined]
    first = str(known.help).split("\n\n")[0]
    assert first.endswith(".")
    assert first.split()[0] in done.output
    for option in known.params:
        assert option.help, f"{command} {option.name}"


def test_the_commands_are_the_documented_ones() -> None:
    """Each command of the contract is there, and the start page lists it with its sentence."""
    done = CliRunner().invoke(cli, ["--help"])
    assert done.exit_code == 0
    for command in COMMANDS:
        assert re.search(rf"\b{command}\b +[A-Z]", done.output), command
    asked = {
        "demo", "run", "once", "append", "status", "history", "rollback", "pause", "resume",
        "retry", "drop", "account", "doctor", "simulate",
    }  # fmt: skip
    assert asked <= set(COMMANDS)


def test_the_version_is_told(call: Call) -> None:
    """`--version` needs no configuration."""
    assert call("--version", config=None) == (0, f"retraind {__version__}\n")


def test_without_a_command_the_help_is_shown(call: Call) -> None:
    """That is wrong usage, and says so by its status."""
    status, text = call(config=None)
    assert status == 2
    assert "demo" in text


@pytest.mark.parametrize("name", [f"{g} {name}" for g, names in GROUPS.items() for name in names])
def test_every_command_of_a_group_does_as_well(name: str, call: Call, tmp_path: Path) -> None:
    """Its help is a sentence, each option has one, and a missing configuration is told."""
    group, command = name.split()
    assert set(GROUP.commands[group].commands) == set(GROUPS[group])  # type: ignore[attr-defined]
    known = GROUP.commands[group].commands[command]  # type: ignore[attr-defined]
    assert str(known.help).split("\n\n")[0].endswith(".")
    assert all(option.help for option in known.params)
    status, text = call(group, command, config=tmp_path / "absent.yaml")
    assert (status, "Cannot read the configuration" in text) == (2, True)


def test_outside_of_a_workbench_that_is_told(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    """Which settings and variables are missing, and where a key comes from."""
    for name in ("CDSW_API_URL", "CDSW_DOMAIN", "CDSW_PROJECT_ID", "CDSW_APIV2_KEY"):
        monkeypatch.delenv(name, raising=False)
    status, text = call("cloudera", "install")
    assert (status, "cloudera.url, cloudera.project_id, CDSW_APIV2_KEY" in text) == (2, True)


# -- a process of its own ------------------------------------------------------------------------


def test_the_program_ends_with_its_statuses(config: Path, book: Ledger) -> None:
    """0 done, 1 a failure that the message explains, 2 wrong configuration; never a traceback."""
    bad = config.with_name("bad.yaml")
    bad.write_text("pipeline: {}\nhttp: {port: x}\n", encoding="utf-8")
    parked = park(book, 1)
    runs: list[tuple[int, list[object]]] = [
        (0, ["--version"]),
        (1, ["retry", "--delta", parked.sequence + 1, "--config", config]),
        (2, ["status", "--config", bad]),
    ]
    for status, words in runs:
        done = shell(*words)
        assert done.returncode == status, done.stderr
        assert "Traceback" not in done.stderr
        assert bool(done.stderr) == bool(status)


def test_the_program_starts_without_what_is_slow_to_import() -> None:
    """`--help` and `status` answer at once, and on machines that lack the optional parts."""
    done = shell(code="import sys, daemon.__main__; print(*sys.modules)")
    assert done.returncode == 0, done.stderr
    loaded = {name.partition(".")[0] for name in done.stdout.split()}
    assert loaded.isdisjoint(HEAVY)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("handlers", "facts = None\n"),
        ("config", "x = 1\n"),
        ("config", "__version__ = '9'\n"),
    ],
)
def test_an_intruder_is_named(tmp_path: Path, name: str, content: str) -> None:
    """Another package of our generic names that comes first is refused with a sentence."""
    intruder = tmp_path / name
    intruder.mkdir()
    (intruder / "__init__.py").write_text(content, encoding="utf-8")
    code = (
        f"import sys; sys.path[:0] = [{str(tmp_path)!r}, {str(ROOT)!r}]; "
        "from daemon.__main__ import main; main()"
    )
    done = shell("--version", code=code)
    assert done.returncode == 2, done.stderr
    assert f"`{name}` was imported from {tmp_path}" in done.stderr
    assert "Traceback" not in done.stderr


# -- wrong usage ---------------------------------------------------------------------------------


def test_every_mistake_of_a_configuration_is_listed(call: Call, config: Path) -> None:
    """One run tells them all, each with its path in the file, and touches nothing."""
    config.write_text(
        "state_dir: state\nhtpp: {}\n"
        "pipelines:\n  cards: {table: nodots, label: fraud, poll_every: never, tasks: binary}\n",
        encoding="utf-8",
    )
    status, text = call("status")
    assert status == 2
    assert "4 mistake(s)" in text
    for mistake in ("htpp", "cards.table", "cards.poll_every", "cards.tasks"):
        assert re.search(rf"^  - (pipelines\.)?{mistake}: ", text, re.MULTILINE), text
    assert not Path("state").exists()


@pytest.mark.parametrize("command", sorted(set(COMMANDS) - {"demo"}))
def test_a_missing_configuration_is_told(call: Call, tmp_path: Path, command: str) -> None:
    """Every command that needs a configuration says which file it could not read."""
    options = NEEDED.get(command, [])
    status, text = call(command, *options, config=tmp_path / "absent.yaml")
    assert status == 2
    assert f"Cannot read the configuration {tmp_path / 'absent.yaml'}" in text


@pytest.mark.parametrize("command", ["history", *PICKY])
def test_an_unknown_pipeline_is_told(call: Call, book: Ledger, command: str) -> None:
    """The sentence names the pipelines there are; nothing is written."""
    before = dump(book)
    options = NEEDED.get(command, [])
    status, text = call(command, "[red]crads", *options)
    assert status == 2
    assert "there is no pipeline '[red]crads'" in text
    assert "cards" in text
    assert dump(book) == before


@pytest.mark.parametrize("command", PICKY)
def test_among_several_pipelines_one_must_be_named(call: Call, config: Path, command: str) -> None:
    """Only a lone pipeline may be left out."""
    more = "  others: {table: lake.bank.others, label: x, endpoint: {port: 5002}}\n"
    config.write_text(config.read_text(encoding="utf-8") + more, encoding="utf-8")
    options = NEEDED.get(command, [])
    status, text = call(command, *options)
    assert status == 2
    assert "which pipeline?" in text
    assert "cards, others" in text


@pytest.mark.parametrize("options", [[], ["--rows", 5, "--file", "rows.csv"]])
def test_append_takes_rows_or_a_file(call: Call, options: list[object]) -> None:
    """Neither and both are wrong usage."""
    status, text = call("append", *options)
    assert status == 2
    assert "give either --rows or --file" in text


def test_once_takes_one_half_or_both(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    """`--until verdict` and `--only deploy` exclude each other; the names of failures are told."""
    asked = []

    def ticks(settings: Settings, part: str) -> list[str]:
        asked.append((list(settings.pipelines), part))
        return ["cards"] if part == "deploy" else []

    monkeypatch.setattr("daemon.runner.once", ticks)
    assert call("once") == (0, "")
    assert call("once", "--until", "verdict") == (0, "")
    status, text = call("once", "--only", "deploy")
    assert status == 1
    assert text == "Not everything got through: cards. `retraind status` says why.\n"
    assert asked == [(["cards"], part) for part in ("all", "verdict", "deploy")]
    status, text = call("once", "--only", "deploy", "--until", "verdict")
    assert (status, "give either --until or --only" in text) == (2, True)
    assert call("once", "--only", "verdict")[0] == 2


@pytest.mark.parametrize(
    "words",
    [
        ["append", "--rows", 0],
        ["append", "--rows", 1, "--mode", "replace"],
        ["history", "--limit", 0],
        ["retry", "--delta", "x"],
        ["drop", "--delta", "x"],
        ["drop"],
        ["demo", "--batches", 0],
        ["stauts"],
        ["status", "--jsno"],
    ],
)
def test_wrong_options_are_told(call: Call, words: list[object]) -> None:
    """A value out of range, an unknown option or command is wrong usage."""
    status, text = call(*words, config=None)
    assert status == 2
    assert str(words[-2 if len(words) > 2 else -1]).lstrip("-") in text


# -- reading -------------------------------------------------------------------------------------


def test_status_and_history_of_a_new_state(call: Call) -> None:
    """Before the first start both commands answer."""
    assert "not running" in call("status")[1]
    assert call("history") == (0, "No decision yet.\n")
    assert json.loads(call("history", "--json")[1]) == []
    assert standing(call)["doing"] == "not looked yet"


def test_status_and_history_print_json(call: Call, book: Ledger) -> None:
    """What programs read parses, and tells the newest first."""
    park(book, 1)
    promote(book, 2, "é[red]")
    found = standing(call)
    assert found["champion"]["version"] == "é[red]"
    assert (parked(found), found["cursor"]) == ([1], 2)
    assert [item["delta"] for item in json.loads(call("history", "--json")[1])] == [2, 1]
    assert [item["delta"] for item in json.loads(call("history", "--json", "-n", 1)[1])] == [2]
    assert len(json.loads(call("history", PIPELINE, "--json")[1])) == 2


def test_status_and_history_are_drawn_literally(call: Call, book: Ledger) -> None:
    """For a person the same facts are drawn, and no text counts as markup."""
    promote(book, 1)
    call("pause", "--reason", "[red]x[/red] <script>")
    text = call("status")[1]
    assert "[red]x[/red] <script>" in text
    assert "version 1, promoted" in text
    assert "promoted: because the test says so" in call("history")[1]


def test_status_reads_beside_a_running_daemon(call: Call, book: Ledger) -> None:
    """A command neither needs nor takes the state from its owner."""
    status, text = call("status", "--json")
    assert (status, json.loads(text)["daemon"]["running"]) == (0, True)
    book.beat()


# -- operating -----------------------------------------------------------------------------------


def test_a_pause_and_a_resume_are_seen(call: Call) -> None:
    """`pause` and `resume` show in the status, with the reason."""
    assert call("pause", "-r", "maintenance")[0] == 0
    assert standing(call)["paused"] == "maintenance"
    assert call("resume")[0] == 0
    assert standing(call)["paused"] is None


def test_a_retry_is_seen(call: Call, book: Ledger) -> None:
    """What was parked is open again."""
    park(book, 1)
    park(book, 2)
    assert parked(standing(call)) == [1, 2]
    assert call("retry", "--delta", 2)[0] == 0
    found = standing(call)
    assert (parked(found), found["open"]["delta"]) == ([1], 3)
    assert "1 parked" in call("retry")[1]
    assert parked(standing(call)) == []


@pytest.mark.parametrize(("options", "wish"), [([], ""), (["--release"], "release")])
def test_a_release_is_seen(call: Call, book: Ledger, options: list[object], wish: str) -> None:
    """Only who says so trains on rows that break the contract."""
    park(book, 1)
    assert call("retry", *options)[0] == 0
    work = book.pending(PIPELINE)
    assert work is not None
    assert (work.wish, work.wisher) == (wish, "ann")


def test_a_drop_is_seen(call: Call, book: Ledger) -> None:
    """The delta is opened to be closed, with who wanted it and why; the others stay parked."""
    park(book, 1)
    park(book, 2)
    assert call("drop", "--delta", 1, "--reason", "a test rig") == (
        0,
        "cards: delta 1 is dropped at the next tick; its rows stay in the table.\n",
    )
    work = book.pending(PIPELINE)
    assert work is not None
    assert (work.wish, work.wisher, work.retry_of) == ("drop", "ann: a test rig", 1)
    assert parked(standing(call)) == [2]
    status, text = call("drop", "--delta", 1)
    assert (status, text) == (1, "Delta 1 of cards is not parked. Parked are: 2.\n")


@pytest.mark.parametrize("adds_up", [True, False])
def test_an_account_ends_with_what_it_found(
    call: Call, monkeypatch: pytest.MonkeyPatch, *, adds_up: bool
) -> None:
    """Printed or drawn, in full; the status is 1 if a snapshot is unaccounted for."""
    state = "trained" if adds_up else "unaccounted"
    line = {
        "id": 7, "committed_at": "2026-01-31T12:00:00+00:00", "operation": "append",
        "kind": "append", "rows": 5, "state": state, "delta": 1, "reason": "[red]because",
    }  # fmt: skip
    view = {
        "pipeline": PIPELINE, "snapshots": [line], "elsewhere": [],
        "totals": {state: {"snapshots": 1, "rows": 5}}, "adds_up": adds_up,
    }  # fmt: skip
    asked = []

    def reads(settings: Settings, book: Ledger, name: str) -> dict[str, Any]:
        asked.append((settings.pipelines[name].table, book.standing(name).cursor))
        return view

    monkeypatch.setattr(composition, "accounting", reads)
    code, text = call("account", "--json")
    assert (code, json.loads(text)) == (int(not adds_up), view)
    code, text = call("account", PIPELINE)
    assert code == int(not adds_up)
    for told in ("[red]because", f"1 {state} (5 rows)", "add up"):
        assert told in text
    assert asked == [("lake.bank.cards", None)] * 2


def test_a_simulation_is_printed_or_drawn(
    call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is told which pipeline, snapshot and policy; a policy's mistakes end with 2."""
    side: dict[str, Any] = {
        "state": "kept", "version": "2", "gain": None, "reason": "", "pieces": [], "serving": "1",
        "scored": {"version": "1", "rows": 9, "scores": {"log_loss": 0.5}},
    }  # fmt: skip
    total = {"trained": 1, "promoted": 0, "log_loss": 0.5}
    view = {
        "pipeline": PIPELINE, "since": 3, "turns": ["A turn."], "holes": [], "same": False,
        "policy": {"promote.min_gain": {"live": 0.0, "simulated": 9.0}},
        "deltas": [{"delta": 7, "snapshot_from": 3, "snapshot_to": 4, "rows": 50, "live": side,
                    "simulated": {**side, "state": "[red]", "scored": None, "serving": None},
                    "same": False, "hole": ""}],
        "totals": {"metric": "log_loss", "deltas": 1, "rows": 9, "live": total, "simulated": total},
        "told": "What it means.",
    }  # fmt: skip
    asked = []
    real = composition.simulation

    def simulates(*given: Any) -> dict[str, Any]:
        asked.append(given[2:])
        return view

    monkeypatch.setattr(composition, "simulation", simulates)
    policy = tmp_path / "policy.yaml"
    policy.write_text("table: lake.bank.others", encoding="utf-8")
    code, text = call("simulate", "--json", "--since", 4, "--policy", policy)
    assert (code, json.loads(text)) == (0, view)
    code, text = call("simulate", "--pipeline", PIPELINE)
    assert code == 0
    for told in ("[red]", "nothing", "0.5000", "9.0 instead of 0.0", "A turn.", "What it means."):
        assert told in text
    assert asked == [(PIPELINE, 4, policy), (PIPELINE, None, None)]
    code, text = call("simulate", "--pipeline", "crads")
    assert (code, "there is no pipeline 'crads'" in text) == (2, True)
    monkeypatch.setattr(composition, "simulation", real)
    code, text = call("simulate", "--policy", policy)
    assert (code, "table: is no policy" in text) == (2, True)


def test_a_rollback_is_seen(call: Call, book: Ledger) -> None:
    """The champion is another, with how and why; the running daemon deploys it."""
    promote(book, 1)
    promote(book, 2)
    assert call("rollback", "--reason", "answers oddly") == (
        0,
        "cards: version 1 is champion instead of 2.\n",
    )
    champion = standing(call)["champion"]
    assert (champion["version"], champion["how"]) == ("1", "rolled back")
    assert champion["reason"] == "answers oddly"


def test_a_forced_promotion_is_seen(call: Call, book: Ledger) -> None:
    """What lost is champion, with who and why; the history tells it, and a rollback undoes it."""
    promote(book, 1)
    close(book, book.open(PIPELINE, delta(2)), State.KEPT, 2)
    assert call("promote", 2, "--reason", "the law asks", "--pipeline", PIPELINE) == (
        0,
        "cards: version 2 is champion instead of 1, forced.\n",
    )
    champion = standing(call)["champion"]
    assert (champion["version"], champion["how"]) == ("2", "forced")
    assert champion["reason"] == "forced by ann: the law asks"
    assert "kept, then forced" in call("history")[1]
    assert call("rollback")[0] == 0
    assert standing(call)["champion"]["version"] == "1"


@pytest.mark.parametrize("why", [[], ["--reason", " "]])
def test_a_forced_promotion_needs_a_reason(call: Call, book: Ledger, why: list[object]) -> None:
    """Without one it is wrong usage, and nothing was changed."""
    close(book, book.open(PIPELINE, delta(1)), State.KEPT, 1)
    before = dump(book)
    status, text = call("promote", 1, *why)
    assert (status, "--reason" in text, dump(book) == before) == (2, True, True)


@pytest.mark.parametrize(
    "words",
    [
        ["rollback"], ["rollback", "--to", 3], ["retry", "--delta", 1], ["drop", "--delta", 1],
        ["promote", 3, "--reason", "x"],
    ],
)  # fmt: skip
def test_what_cannot_be_done_is_told(call: Call, book: Ledger, words: list[object]) -> None:
    """The status is 1, the message a sentence, and nothing was changed."""
    before = dump(book)
    status, text = call(*words)
    assert status == 1
    assert re.fullmatch(r"[A-Z`c].*\.\n", text), text
    assert "Traceback" not in text
    assert dump(book) == before


def test_a_state_that_cannot_be_used_is_told(call: Call, tmp_path: Path) -> None:
    """A ledger in a bad place ends with a message and 1."""
    (tmp_path / "state").write_text("in the way", encoding="utf-8")
    status, text = call("status")
    assert status == 1
    assert "cannot be opened" in text


def test_a_damaged_ledger_is_told(call: Call, tmp_path: Path) -> None:
    """A ledger that is no database ends with a message and 1, and is left as it is."""
    (tmp_path / "state").mkdir()
    shutil.copy(__file__, tmp_path / "state" / "ledger.db")
    status, text = call("status")
    assert status == 1
    assert "not a database" in text


def test_the_configuration_may_come_from_the_environment(
    call: Call, config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`RETRAIND_CONFIG` names the file, and single variables win over it."""
    monkeypatch.setenv("RETRAIND_CONFIG", str(config))
    monkeypatch.setenv("RETRAIND_PIPELINES__CARDS__BRANCH", "audit")
    status, text = call("status", "--json", config=None)
    assert status == 0
    assert json.loads(text)["pipelines"][0]["branch"] == "audit"
