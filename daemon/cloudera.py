"""The commands `retraind cloudera ...`: a project's application and jobs, from anywhere."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from daemon.console import AsJson, Config, Name, load_settings, pick, show, waiting

if TYPE_CHECKING:
    from config.settings import Settings
    from daemon.provision import Change, Project

cli = typer.Typer(
    name="cloudera",
    no_args_is_help=True,
    rich_markup_mode="markdown",
    help="Put retraind into a Cloudera AI project, through its API: the application, or jobs.",
)
APPLICATION, SETUP = "retraind", "Set up retraind"
SCRIPTS = "daemon/cloudera_{}.py"

Name_ = Annotated[str, typer.Option("--name", help="Name of the application.")]
Subdomain = Annotated[str, typer.Option(help="First part of its address.")]
There = Annotated[
    str,
    typer.Option(
        "--project-config", metavar="FILE",
        help="The settings that the workloads read: a path in the project.",
    ),
]  # fmt: skip
Environment = Annotated[
    list[str] | None,
    typer.Option("--env", metavar="NAME=VALUE", help="One more variable of the workloads."),
]
Kernel = Annotated[str, typer.Option(help="Kernel of the runtime; the newest one is taken.")]
Editor = Annotated[str, typer.Option(help="Editor of the runtime.")]
Edition = Annotated[str, typer.Option(help="Edition of the runtime.")]
Spark = Annotated[str, typer.Option(help="Version of the Spark addon, as its name begins.")]
Cpu = Annotated[float, typer.Option(min=0.5, help="Virtual cores of each workload.")]
Memory = Annotated[float, typer.Option(min=1, help="Gigabytes of memory of each workload.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Say what would be done; do nothing.")]
Within = Annotated[float, typer.Option(min=1, help="Seconds to wait for each start or run.")]


@cli.command()
def install(
    config: Config = None,
    name: Name_ = APPLICATION,
    subdomain: Subdomain = APPLICATION,
    project_config: There = "config/cloudera.yaml",
    env: Environment = None,
    kernel: Kernel = "Python 3.11",
    editor: Editor = "PBJ Workbench",
    edition: Edition = "Standard",
    spark: Spark = "3.5",
    cpu: Cpu = 2,
    memory: Memory = 4,
    within: Within = 1800,
    *,
    setup: Annotated[
        bool | None,
        typer.Option(help="Run the set-up, or do not; default once, until it has succeeded."),
    ] = None,
    dry_run: DryRun = False,
    as_json: AsJson = False,
) -> None:
    """Set a project up and start the application there, or change what differs.

    The project must hold this checkout. Its set-up is a job, which installs the packages and
    creates the table. The command may be repeated: only what is not as wanted is changed.
    """
    from daemon.provision import Machine  # noqa: PLC0415 (commands start fast)

    settings = load_settings(config)
    project = _project(settings, dry_run=dry_run)
    size = project.size(Machine(kernel, editor, edition, spark, cpu, memory), settings.cloudera)
    variables = {"RETRAIND_CONFIG": project_config, **_variables(env)}
    scheme, _, domain = project.bench.site.url.partition("//")
    address = f"{scheme}//{subdomain}.{domain}"
    with waiting("bringing the project to what is wanted"):
        changes = []
        if setup is not False:
            script = SCRIPTS.format("setup")
            wanted = {"name": SETUP, "script": script, "environment": variables, **size}
            changes.append(_set_up(project, wanted, within, again=bool(setup)))
        if settings.notify.link is None:  # an application is not told its own address
            variables = {"RETRAIND_NOTIFY__LINK": address, **variables}
        variables = {**variables, "CDSW_APP_POLLING_ENDPOINT": "/healthz"}
        script = SCRIPTS.format("app")
        wanted = {
            "name": name, "subdomain": subdomain, "script": script, "environment": variables,
            "description": "Retrains on what is new in a table, and serves the better model.",
            "bypass_authentication": False, **size,
        }  # fmt: skip
        change = project.start_application(project.bring("application", wanted))
        if not dry_run:
            project.await_application(change, within)
        changes.append(change)
    _report(changes, size, as_json, dry_run=dry_run, more={"url": address})


@cli.command()
def jobs(
    pipeline: Name = None,
    config: Config = None,
    project_config: There = "config/cloudera.yaml",
    env: Environment = None,
    rows: Annotated[int, typer.Option(min=1, help="Rows of each new batch.")] = 1440,
    kernel: Kernel = "Python 3.11",
    editor: Editor = "PBJ Workbench",
    edition: Edition = "Standard",
    spark: Spark = "3.5",
    cpu: Cpu = 2,
    memory: Memory = 4,
    *,
    start: Annotated[bool, typer.Option("--start", help="Then start the chain.")] = False,
    dry_run: DryRun = False,
    as_json: AsJson = False,
) -> None:
    """Make the lab's three jobs, each of which starts when the one before has succeeded.

    New Batch appends generated rows, Retrain XGBoost trains and judges, API Redeployment serves the
    champion. They share the ledger with each other, and run where no application does.
    """
    from daemon.provision import Machine  # noqa: PLC0415 (commands start fast)

    settings = load_settings(config)
    chosen = pick(settings, pipeline)
    project = _project(settings, dry_run=dry_run)
    size = project.size(Machine(kernel, editor, edition, spark, cpu, memory), settings.cloudera)
    commands = {
        "New Batch": f"append {chosen} --rows {rows}",
        "Retrain XGBoost": "once --until verdict",
        "API Redeployment": "once --only deploy",
    }
    changes: list[Change] = []
    for name, command in commands.items():
        wanted: dict[str, Any] = {
            "name": name, "script": SCRIPTS.format("job"), **size,
            "environment": {
                "RETRAIND_CONFIG": project_config, **_variables(env), "RETRAIND_COMMAND": command,
            },
        }  # fmt: skip
        if changes:
            wanted["parent_id"] = changes[-1].id
        changes.append(project.bring("job", wanted))
    run = project.start_job(changes[0]) if start and not dry_run else None
    _report(changes, size, as_json, dry_run=dry_run, more={"run": run} if run else {})


def _project(settings: Settings, *, dry_run: bool) -> Project:
    from daemon import composition  # noqa: PLC0415 (commands start fast)
    from daemon.provision import Project  # noqa: PLC0415

    return Project(composition.workbench(settings), dry_run=dry_run)


def _set_up(project: Project, wanted: dict[str, Any], within: float, *, again: bool) -> Change:
    """Bring the job of the set-up level, and run it unless it has done its work."""
    from dataclasses import replace  # noqa: PLC0415 (one use)

    change = project.bring("job", wanted)
    if project.dry_run:
        return change
    if again or change.done != "as wanted" or not project.succeeded(change):
        project.await_run(change, project.start_job(change), within)
        return replace(change, told=f"{change.told}; it succeeded".lstrip("; "))
    return change


def _variables(given: list[str] | None) -> dict[str, str]:
    """Read `NAME=VALUE`."""
    found = {}
    for text in given or ():
        name, equals, value = text.partition("=")
        if not equals or not name.isidentifier():
            msg = f"{text!r} is not NAME=VALUE"
            raise typer.BadParameter(msg, param_hint="--env")
        found[name] = value
    return found


def _report(
    changes: list[Change], size: dict[str, Any], as_json: bool, *, dry_run: bool,
    more: dict[str, str],
) -> None:  # fmt: skip
    """Show what was done, and what the workloads run on."""
    view = {"dry_run": dry_run, "changes": [c.as_dict() for c in changes], "on": size, **more}
    would = "would be " if dry_run else ""
    lines = []
    for change in changes:
        done = change.done if change.done == "as wanted" else f"{would}{change.done}"
        told = f" ({change.told})" if change.told else ""
        lines.append(f"{change.kind} {change.name}: {done}{told}")
    addons = ", ".join(size["runtime_addon_identifiers"])
    lines.append(f"on {size['runtime_identifier']} with {addons}")
    lines += [str(value) for value in more.values()] if not dry_run else []
    show(view, as_json, "\n".join(lines))
