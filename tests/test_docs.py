"""What the documents say is so: commands, options, settings, files and examples that they name."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from textwrap import dedent
from typing import Any

import pytest
import typer
from fastapi import FastAPI
from starlette.routing import Mount

from config import __version__, reference
from config.loading import load
from config.settings import Pipeline, Settings
from daemon import dashboard
from daemon.__main__ import cli
from daemon.ledger import Ledger

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
EXAMPLES = sorted((ROOT / "config").glob("*.yaml"))
GROUP = typer.main.get_command(cli)
assert isinstance(GROUP, typer.core.TyperGroup)


def leaves(group: typer.core.TyperGroup, before: str = "") -> Iterator[tuple[str, Any]]:
    """Give the commands by what is typed, those below a group as well."""
    for name, command in group.commands.items():
        if isinstance(command, typer.core.TyperGroup):
            yield from leaves(command, f"{before}{name} ")
        else:
            yield f"{before}{name}", command


COMMANDS = dict(leaves(GROUP))

FENCE = re.compile(r"^ *```(\w*)\n(.*?)^ *```$", re.MULTILINE | re.DOTALL)
SPAN = re.compile(r"`([^`]+)`")
CALL = re.compile(r"(?:(?:^|\s)retraind|-m daemon) ([a-z]+)([^|;&>#\n]*)", re.MULTILINE)
OURS = re.compile(r"(?:config|handlers|daemon|tests|\.ci)/[\w./-]*|[\w-]+\.(?:md|toml|txt)|LICENSE")

DEMO = (
    "python3 -m venv .venv && .venv/bin/pip install -q -r requirements.txt "
    "&& .venv/bin/python -m daemon demo --batches 6"
)
TESTS = (
    "python3 -m venv .venv && .venv/bin/pip install -q -r tests/requirements.txt "
    "&& .venv/bin/python -m pytest -n 2"
)

# Where packages come from is a matter of the machine, as is where the checkout lies.
LOCAL = re.compile(
    r"(?<![\w.])/(?:work|root|Users)/"
    r"|https?://[\w.-]*(?:pypi|pythonhosted|artifactory|jfrog|nexus|mirror|registry)"
    r"|https?://(?!127\.|0\.0\.0\.0)\d+\.\d+\.\d+\.\d+"
    r"|https?://\S+/simple\b|--(?:extra-)?index-url[ =]|--trusted-host[ =]"
)


def spans(text: str) -> list[str]:
    """Give what a text sets in backticks, outside of its blocks, each on one line."""
    return [" ".join(span.split()) for span in SPAN.findall(FENCE.sub("", text))]


def blocks(*kinds: str) -> list[str]:
    """Give the README's blocks of these languages."""
    return [dedent(body) for kind, body in FENCE.findall(README) if kind in kinds]


def code(path: Path) -> list[str]:
    """Give what a document presents as code; in YAML, in backticks or indented in a comment."""
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".md":
        return [*spans(text), *(body for kind, body in FENCE.findall(text) if kind != "yaml")]
    comments = "\n".join(re.findall(r"#(.*)$", text, re.MULTILINE))
    return [*spans(comments), *re.findall(r"^ {2,}(.+)$", comments, re.MULTILINE)]


def calls() -> Iterator[str]:
    """Give every command line of ours that a document shows, without what calls the program."""
    for path in (ROOT / "README.md", *EXAMPLES):
        for text in code(path):
            yield from (f"{name}{rest}".strip() for name, rest in CALL.findall(text))


def files() -> list[str]:
    """Name the repository's files: those that git knows, or would take."""
    git = shutil.which("git")
    if git is None or not (ROOT / ".git").exists():
        pytest.skip("this is no git checkout")
    command = [git, "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout
    return [name for name in listed.split("\0") if (ROOT / name).is_file()]


@pytest.mark.parametrize("call", sorted(set(calls())))
def test_every_command_line_shown_is_understood(call: str) -> None:
    """Command, options and values of each call in the README and the examples are taken."""
    name, *arguments = shlex.split(call)
    if name not in COMMANDS and arguments:
        name = f"{name} {arguments.pop(0)}"
    assert name in COMMANDS, f"there is no command {name}"
    COMMANDS[name].make_context(name, arguments)


def test_every_option_named_alone_exists() -> None:
    """An option in backticks without its command is an option of some command."""
    known = {"--help"}
    for command in (GROUP, *COMMANDS.values()):
        for parameter in command.params:
            known |= {*parameter.opts, *parameter.secondary_opts}
    named = {span.split()[0] for path in (ROOT / "README.md", *EXAMPLES) for span in code(path)
             if span.startswith("--")}  # fmt: skip
    assert named
    assert named <= known


def test_every_command_is_told() -> None:
    """The README's table of commands leaves none out."""
    table = README.partition("## Commands")[2].partition("##")[0]
    assert set(re.findall(r"^\| `retraind ((?:cloudera )?[\w-]+)", table, re.MULTILINE)) == set(
        COMMANDS
    )


def test_the_table_of_settings_is_the_generated_one() -> None:
    """The README shows the settings as they are; `python -m config.reference README.md` helps."""
    assert README.count(reference.BEGIN) == README.count(reference.END) == 1
    assert reference.placed(README) == README


def test_every_setting_named_exists() -> None:
    """A dotted path in backticks that begins like a setting's is one, whole or in a pipeline."""
    paths = {path for path, _, _ in reference.rows()}
    paths |= {path.partition(".<name>.")[2] for path in paths}
    paths |= {path.replace("<name>", "cards") for path in paths}
    first = {*Settings.model_fields, *Pipeline.model_fields}
    named = {s for s in spans(README) if re.fullmatch(r"[a-z_]+(\.([a-z_]+|<name>))+", s)}
    named = {name for name in named if name.partition(".")[0] in first}
    assert "train.holdout" in named
    assert named - {"mlflow.db", "mlflow.pyfunc"} <= paths


def test_every_name_of_the_program_exists() -> None:
    """A name with an underscore, a tag or a page in backticks occurs in the program."""
    sources = "\n".join(
        path.read_text(encoding="utf-8")
        for room in ("config", "handlers", "daemon")
        for path in (ROOT / room).glob("*.py")
    )
    pattern = r"retraind\.[a-z_]+|[a-z]+(?:_[a-z]+)+|/[a-z]+(?:/[a-z]+)*"
    named = {span for span in spans(README) if re.fullmatch(pattern, span)}
    assert {"retraind.verdict", "row_key", "/healthz"} <= named
    named = {name for name in named if not name.startswith("/api")}
    named = {name for name in named if not name.startswith("retraind_")}  # see test_monitoring
    assert {name for name in named if name not in sources} == set()


def test_the_paths_of_the_api_are_those_of_its_document(tmp_path: Path) -> None:
    """What the README shows under `/api` is in the document, and all that is there is told."""
    settings = Settings(pipelines={"cards": Pipeline(table="lake.bank.cards", label="fraud")})
    with closing(Ledger(tmp_path / "ledger.db")) as book:
        pages = dashboard.app(settings, book, dict, list)
        mounted = [route.app for route in pages.routes if isinstance(route, Mount)]
    (api,) = (app for app in mounted if isinstance(app, FastAPI))
    patterns = {
        re.sub(r"\\{(\w+)\\}", lambda m: r"\d+" if m[1] == "delta" else r"\w+", re.escape(path))
        for path in api.openapi()["paths"]
    }
    named = set(re.findall(r"/api(/[a-z]\w*(?:/\w+)*)(?![.\w])", README))
    assert [path for path in named if not any(re.fullmatch(p, path) for p in patterns)] == []
    assert [p for p in patterns if not any(re.fullmatch(p, path) for path in named)] == []


def test_every_file_named_exists() -> None:
    """A link or a path of the repository in the README leads to a file or a folder."""
    links = re.findall(r"\]\((?!https?:|#)([^)#]+)", README)
    named = [name for text in [*spans(README), *blocks("sh")] for name in text.split()]
    ours = {name for name in named if OURS.fullmatch(name)}
    assert "CHANGELOG.md" in links
    assert ".ci/run" in ours
    assert [name for name in sorted({*links, *ours}) if not (ROOT / name).exists()] == []


def test_the_layout_names_every_folder() -> None:
    """The rooms that the README lists are those that there are."""
    told = re.findall(r"^(\.?\w+)/  ", README, re.MULTILINE)
    assert sorted(told) == sorted({n.partition("/")[0] for n in files() if "/" in n})


@pytest.mark.parametrize("block", blocks("yaml"), ids=lambda text: text.partition("\n")[0])
def test_every_configuration_shown_loads(
    block: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A YAML block of the README is a configuration that is taken as it stands."""
    for name in list(os.environ):  # noqa: TID251 (the test must not depend on who runs it)
        if name.upper().startswith("RETRAIND_") or name == "CDSW_APP_PORT":
            monkeypatch.delenv(name)
    path = tmp_path / "shown.yaml"
    path.write_text(block, encoding="utf-8")
    assert load(path).pipelines


def test_the_two_commands_are_the_ones_that_are_checked() -> None:
    """The README shows both commands exactly; `.ci/run` takes the steps of the second one."""
    assert {DEMO, TESTS} <= {body.strip() for body in blocks("sh")}
    run = (ROOT / ".ci" / "run").read_text(encoding="utf-8").replace('"', "")
    lines = run.replace("$VENV", ".venv").splitlines()
    for step in TESTS.split(" && ")[1:]:
        assert step in lines
    for step in DEMO.split(" && ")[1:2]:
        assert (ROOT / step.split()[-1]).is_file()


def test_the_version_is_one_and_told() -> None:
    """The changelog has the program's version, and the package takes it from the program."""
    assert f"## [{__version__}]" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    assert 'version = { attr = "config.__version__" }' in project


def test_no_file_tells_of_the_machine_it_was_made_on() -> None:
    """No file of the repository holds a local path, or the address of a package registry."""
    found = [
        f"{name}: {match[0]}"
        for name in files()
        for match in LOCAL.finditer((ROOT / name).read_text(encoding="utf-8", errors="replace"))
    ]
    assert found == []


def test_each_promise_has_its_test() -> None:
    """The table of promises links each to a test that is there."""
    section = README.partition("## What it promises")[2].partition("\n## ")[0]
    rows = [row for row in section.splitlines() if row.startswith("| ")][1:]
    assert len(rows) > 6
    for row in rows:
        found = re.search(r"\[(\w+)\]\(([\w/.]+)\) \|$", row)
        assert found, row
        text = (ROOT / found[2]).read_text(encoding="utf-8")
        assert f"def {found[1]}(" in text or f"class {found[1]}" in text, row
