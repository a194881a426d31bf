"""The commands: `python -m daemon COMMAND`, or `retraind COMMAND` once installed.

Exit status: 0 done, 1 a failure that the message explains, 2 wrong usage or configuration.
Everything heavy is imported by the command that needs it, so that `--help` answers at once.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Literal

import typer

from daemon import cloudera
from daemon.console import AsJson, Config, Name, load_settings, opened, pick, show, waiting

cli = typer.Typer(
    name="retraind",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
    help="Retrains on what is new in an Iceberg table, and serves the better model.",
    epilog="Start with `retraind demo`. Then copy config/demo.yaml and `retraind run --config` it.",
)

cli.add_typer(cloudera.cli)

Run = Annotated[
    str,
    typer.Argument(metavar="RUN", help="An MLflow run's id or name (pipeline-delta: cards-7)."),
]
Reason = Annotated[str, typer.Option("--reason", "-r", help="Why; kept in the audit trail.")]
Verbose = Annotated[bool, typer.Option("--verbose", "-v", help="Log every tick.")]


def main() -> None:
    """Run a command and turn what went wrong into a sentence and an exit status."""
    _at_home()
    from config.settings import ConfigError  # noqa: PLC0415 (`--help` starts fast)
    from daemon.store import NotOwner  # noqa: PLC0415
    from handlers.facts import RetraindError  # noqa: PLC0415

    try:
        cli()
    except ConfigError as error:
        _fail(str(error), 2)
    except (RetraindError, NotOwner) as error:
        _fail(str(error), 1)


def _fail(text: str, code: int) -> None:
    typer.echo(text, err=True)
    sys.exit(code)


def _at_home() -> None:
    """Refuse to run with another package's `config` or `handlers`: the names are generic."""
    import config  # noqa: PLC0415
    import handlers  # noqa: PLC0415

    home = Path(__file__).resolve().parent.parent
    for module in (config, handlers):
        found = Path(str(module.__file__)).resolve().parent.parent
        if found != home:
            _fail(
                f"`{module.__name__}` was imported from {found}, not from {home}: another package "
                f"of that name comes first. Give retraind a virtual environment of its own.", 2,
            )  # fmt: skip


def _version(wanted: bool) -> None:
    if wanted:
        from config import __version__  # noqa: PLC0415 (not before `_at_home` has looked)

        typer.echo(f"retraind {__version__}")
        raise typer.Exit


@cli.callback()
def root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Take the options that stand before a command."""


@cli.command()
def demo(
    batches: Annotated[
        int | None, typer.Option(min=1, help="End by itself after this many batches.")
    ] = None,
    rows: Annotated[
        int, typer.Option(min=500, help="Rows of a batch; the first has twice.")
    ] = 4000,
    drift: Annotated[float, typer.Option(min=0, help="How much the label's rule moves.")] = 1.0,
    signal: Annotated[
        bool, typer.Option(help="With --no-signal the label is drawn at random.")
    ] = True,
    state: Annotated[
        Path | None, typer.Option(help="Folder to use; default a new one under retraind-state.")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the generated rows.")] = 0,
) -> None:
    """See the whole story on this machine: table, daemon, endpoint, and batches that arrive.

    Needs no account, no Java and no Spark beforehand. Ends with Ctrl-C, or by itself after
    `--batches`. What it makes lies in one folder that may be deleted afterwards.
    """
    from daemon import demo as story  # noqa: PLC0415

    story.play(story.Plan(batches, rows, drift, signal, seed), state)


@cli.command()
def run(config: Config = None, *, verbose: Verbose = False) -> None:
    """Run the daemon until SIGTERM or Ctrl-C: watch the tables, retrain, judge, redeploy.

    A second signal leaves at once; nothing is lost, the next start finishes what was open.
    """
    settings = load_settings(config, verbose=verbose)
    from daemon import runner  # noqa: PLC0415

    runner.run(settings)


@cli.command()
def once(
    config: Config = None,
    until: Annotated[
        Literal["verdict"] | None,
        typer.Option(help="Go up to the verdicts: train and judge, but deploy nothing."),
    ] = None,
    only: Annotated[
        Literal["deploy"] | None,
        typer.Option(help="Only bring the endpoints to their champions; no table is looked at."),
    ] = None,
    *,
    verbose: Verbose = False,
) -> None:
    """Look at every table once, do what there is to do, and exit (for cron, CI or a job).

    `--until verdict` and `--only deploy` are its two halves, for jobs that follow each other.
    """
    if until and only:
        msg = "give either --until or --only"
        raise typer.BadParameter(msg)
    settings = load_settings(config, verbose=verbose)
    from daemon import runner  # noqa: PLC0415

    with waiting("bringing endpoints to their champions" if only else "looking at every table"):
        failed = runner.once(settings, until or only or "all")
    if failed:
        _fail(f"Not everything got through: {', '.join(failed)}. `retraind status` says why.", 1)


@cli.command()
def append(
    pipeline: Name = None,
    config: Config = None,
    rows: Annotated[
        int | None, typer.Option(min=1, help="Append this many generated rows.")
    ] = None,
    file: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Append the rows of a .parquet or .csv file."),
    ] = None,
    mode: Annotated[
        Literal["append", "overwrite", "merge"],
        typer.Option(help="overwrite replaces all rows, merge matches on row_key."),
    ] = "append",
    batch: Annotated[
        int | None, typer.Option(min=0, help="Ordinal of the generated batch; default the next.")
    ] = None,
    drift: Annotated[float, typer.Option(min=0, help="How much the label's rule moves.")] = 1.0,
    signal: Annotated[
        bool, typer.Option(help="With --no-signal the label is drawn at random.")
    ] = True,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the generated rows.")] = 0,
    *,
    if_new: Annotated[
        bool, typer.Option("--if-new", help="Only create the table; one with rows is left alone.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Append a batch to a pipeline's table; creates the table on first use.

    `--rows` generates card transactions as in the demo; `--file` takes your own rows.
    """
    from daemon import produce  # noqa: PLC0415
    from handlers.cards import Recipe  # noqa: PLC0415

    if (rows is None) == (file is None):
        msg = "give either --rows or --file"
        raise typer.BadParameter(msg)
    settings = load_settings(config)
    name = pick(settings, pipeline)
    source = file or Recipe(rows or 0, seed, batch or 0, drift, signal)
    with waiting(f"committing to {settings.pipelines[name].table}"):
        done = produce.append(settings, name, source, mode, follow=batch is None, if_new=if_new)
    told = f"{done['rows']} rows" if done["rows"] else "Nothing was appended; the head is"
    show(done, as_json, f"{told} in snapshot {done['snapshot']} of {done['table']}")


@cli.command()
def status(config: Config = None, *, as_json: AsJson = False) -> None:
    """Show where each pipeline stands: what serves, what is new, what it waits for."""
    from daemon import views  # noqa: PLC0415
    from daemon.screen import status_text  # noqa: PLC0415

    settings, book = opened(config)
    view = views.status(settings, book)
    show(view, as_json, status_text(view))


@cli.command()
def history(
    pipeline: Name = None,
    config: Config = None,
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, help="How many to show.")] = 20,
    *,
    as_json: AsJson = False,
) -> None:
    """Show every decision taken, newest first, each with the sentence that explains it."""
    from daemon import views  # noqa: PLC0415
    from daemon.screen import history_text  # noqa: PLC0415

    settings, book = opened(config)
    name = pick(settings, pipeline) if pipeline else None
    view = views.history(book.history(name, limit), book.forced(name))
    show(view, as_json, history_text(view))


@cli.command()
def account(pipeline: Name = None, config: Config = None, *, as_json: AsJson = False) -> None:
    """Account for every snapshot of a table; ends with status 1 if one is unaccounted for."""
    from daemon import composition  # noqa: PLC0415
    from daemon.screen import account_text  # noqa: PLC0415

    settings, book = opened(config)
    name = pick(settings, pipeline)
    with waiting(f"reading the log of {settings.pipelines[name].table}"):
        view = composition.accounting(settings, book, name)
    show(view, as_json, account_text(view))
    if not view["adds_up"]:
        raise typer.Exit(1)


@cli.command()
def reproduce(run: Run, config: Config = None, *, as_json: AsJson = False) -> None:
    """Read the same snapshots, train again, and say whether the same model comes out.

    Ends with status 1 if it does not, and says what differs. Nothing is changed.
    """
    from daemon import composition  # noqa: PLC0415
    from daemon.screen import reproduction_text  # noqa: PLC0415

    settings, book = opened(config)
    with waiting(f"making the model of {run} again"):
        view = composition.reproduction(settings, book, run)
    show(view, as_json, reproduction_text(view))
    if not view["reproduced"]:
        raise typer.Exit(1)


@cli.command()
def explain(run: Run, config: Config = None, *, as_json: AsJson = False) -> None:
    """Explain a model: what it looks at, how far to trust it, where it beats the champion."""
    from daemon import composition  # noqa: PLC0415
    from daemon.screen import explanation_text  # noqa: PLC0415

    settings, book = opened(config)
    view = composition.explanation(settings, book, run)
    show(view, as_json, explanation_text(view))


@cli.command()
def simulate(
    config: Config = None,
    pipeline: Annotated[
        str | None, typer.Option(help="Its name; may be left out if there is only one.")
    ] = None,
    since: Annotated[
        int | None,
        typer.Option(
            metavar="SNAPSHOT",
            help="Begin with the delta that this snapshot is in; default the first.",
        ),
    ] = None,
    policy: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="YAML file with the settings of the pipeline that differ; default its own.",
        ),
    ] = None,
    *,
    as_json: AsJson = False,
) -> None:
    """Replay the table's history under another policy, beside what was done; changes nothing.

    Trains and judges as it would have done then, and says what would have been promoted and
    served, and how well that would have scored.
    """
    from daemon import composition  # noqa: PLC0415
    from daemon.screen import simulation_text  # noqa: PLC0415

    settings, book = opened(config)
    name = pick(settings, pipeline)
    with waiting(f"replaying the history of {name}"):
        view = composition.simulation(settings, book, name, since, policy)
    show(view, as_json, simulation_text(view))


@cli.command()
def rollback(
    pipeline: Name = None,
    config: Config = None,
    to: Annotated[
        str | None, typer.Option(metavar="VERSION", help="Default the champion before this one.")
    ] = None,
    reason: Reason = "",
) -> None:
    """Make an earlier champion the champion again; the daemon deploys it at its next tick."""
    from daemon import operate  # noqa: PLC0415

    settings, book = opened(config)
    typer.echo(operate.rollback(book, pick(settings, pipeline), to, reason))


@cli.command()
def promote(
    version: Annotated[
        str, typer.Argument(metavar="VERSION", help="A version that `history` shows.")
    ],
    reason: Annotated[
        str, typer.Option("--reason", "-r", help="Why; shown beside it wherever it is.")
    ],
    pipeline: Annotated[
        str | None, typer.Option(metavar="NAME", help="May be left out if there is only one.")
    ] = None,
    config: Config = None,
) -> None:
    """Make a version champion that did not win; `rollback` takes that back."""
    from daemon import operate  # noqa: PLC0415

    if not reason.strip():
        msg = "say why"
        raise typer.BadParameter(msg, param_hint="--reason")
    settings, book = opened(config)
    typer.echo(operate.promote(book, pick(settings, pipeline), version, reason))


@cli.command()
def pause(pipeline: Name = None, config: Config = None, reason: Reason = "") -> None:
    """Stop acting on new snapshots. Looking goes on, and nothing is lost."""
    from daemon import operate  # noqa: PLC0415

    settings, book = opened(config)
    typer.echo(operate.pause(book, pick(settings, pipeline), reason))


@cli.command()
def resume(pipeline: Name = None, config: Config = None) -> None:
    """Act on new snapshots again, from where the pause began."""
    from daemon import operate  # noqa: PLC0415

    settings, book = opened(config)
    typer.echo(operate.resume(book, pick(settings, pipeline)))


@cli.command()
def retry(
    pipeline: Name = None,
    config: Config = None,
    delta: Annotated[
        int | None, typer.Option(help="Only this parked delta; default all of them.")
    ] = None,
    *,
    release: Annotated[
        bool, typer.Option("--release", help="Train on them even if they break the data contract.")
    ] = False,
) -> None:
    """Take up parked deltas again, and try at once what waits for its next attempt."""
    from daemon import operate  # noqa: PLC0415

    settings, book = opened(config)
    typer.echo(operate.retry(book, pick(settings, pipeline), delta, release=release))


@cli.command()
def drop(
    delta: Annotated[int, typer.Option(help="The parked delta to close.")],
    pipeline: Name = None,
    config: Config = None,
    reason: Reason = "",
) -> None:
    """Close a parked delta for good: its rows are never trained on, and that is recorded."""
    from daemon import operate  # noqa: PLC0415

    settings, book = opened(config)
    typer.echo(operate.drop(book, pick(settings, pipeline), delta, reason))


@cli.command("stop-endpoint")
def stop_endpoint(pipeline: Name = None, config: Config = None) -> None:
    """Stop an endpoint that outlived its daemon; a running daemon would start it again."""
    from daemon import composition, operate  # noqa: PLC0415

    settings, book = opened(config)
    name = pick(settings, pipeline)
    typer.echo(operate.stop_endpoint(book, name, composition.endpoint(settings, name)))


@cli.command("notify-test")
def notify_test(config: Config = None, *, as_json: AsJson = False) -> None:
    """Send a test message to everyone who is to be told; ends with status 1 if one did not take it.

    Says which did, by their place in `notify.urls`. The addresses are secrets and are not shown.
    """
    from daemon import doctor as clinic  # noqa: PLC0415

    settings = load_settings(config)
    with waiting("sending"):
        findings = clinic.tell(settings)
    view = [finding.as_dict() for finding in findings]
    show(view, as_json, clinic.text(findings))
    if not all(finding.ok for finding in findings):
        raise typer.Exit(1)


@cli.command()
def doctor(config: Config = None, *, as_json: AsJson = False) -> None:
    """Check configuration, Java, Spark, catalog, tables, MLflow and endpoints, with remedies."""
    from daemon import doctor as clinic  # noqa: PLC0415

    settings = load_settings(config)
    with waiting("examining"):
        findings = clinic.examine(settings)
    view = [finding.as_dict() for finding in findings]
    show(view, as_json, clinic.text(findings))
    if not all(finding.ok for finding in findings):
        raise typer.Exit(1)


if __name__ == "__main__":
    main()
