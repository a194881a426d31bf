"""The composition root: the only place that opens doors and introduces them to each other."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Event, Lock, Thread
from typing import TYPE_CHECKING, Any

import structlog

from config import machine, workload
from config.endpoint import LocalEndpoint as LocalSettings
from config.endpoint import MlflowEndpoint as MlflowSettings
from config.policy import load_policy
from config.settings import ConfigError, Pipeline, Settings
from daemon.ledger import Ledger
from daemon.tally import NOBODY, Tally

if TYPE_CHECKING:
    from daemon.doors import Doors
    from daemon.notifier import Notifier
    from daemon.service import Clockwork
    from handlers.endpoint import Endpoint
    from handlers.herald import Target
    from handlers.registry import Registry
    from handlers.spark import Sessions
    from handlers.workbench import Workbench

log = structlog.get_logger(__name__)


def ledger(settings: Settings) -> Ledger:
    """Open the ledger."""
    return Ledger(settings.state_dir / "ledger.db")


def endpoint(settings: Settings, name: str, patience: float = 0.0) -> Endpoint:
    """Open the door to a pipeline's endpoint; it waits `patience` seconds for a slow platform."""
    from handlers.endpoint import LocalEndpoint  # noqa: PLC0415 (commands start fast)

    wanted, home = settings.pipelines[name].endpoint, settings.state_dir.resolve() / "endpoints"
    if isinstance(wanted, LocalSettings):
        return LocalEndpoint(wanted, home / name)
    if isinstance(wanted, MlflowSettings):
        from handlers.mlflow_endpoint import MlflowEndpoint  # noqa: PLC0415 (see above)

        uris = machine.tracking(settings).value, settings.mlflow.registry_uri
        return MlflowEndpoint(wanted, wanted.name(name), home / name, uris)
    from handlers.cloudera_endpoint import ClouderaEndpoint, Waiting  # noqa: PLC0415 (see above)
    from handlers.shelf import Shelf  # noqa: PLC0415

    def experiment() -> str:
        return _registry(settings, machine.tracking(settings), name).experiment()

    bench = workbench(settings)
    # The platform's own MLflow registers under this name, too: then there is nothing to register.
    shelf = Shelf(bench, wanted.name(name), f"{settings.mlflow.experiment}-{name}")
    waiting = Waiting(patience, Event().wait)
    return ClouderaEndpoint(wanted, bench, shelf, home / name, experiment, waiting)


def workbench(settings: Settings) -> Workbench:
    """Open the door to the workbench; nothing is reached before it is used."""
    from handlers.workbench import Workbench  # noqa: PLC0415 (commands start fast)

    return Workbench(machine.site(settings.cloudera))


def sessions(settings: Settings) -> Sessions:
    """Give the way to Spark, on the parts this machine has."""
    from handlers.spark import sessions as to_spark  # noqa: PLC0415 (commands start fast)

    return to_spark(machine.look(settings), settings)


def doors(
    settings: Settings, patience: float = 0.0, *, warm: bool = True
) -> dict[str, tuple[Pipeline, Doors]]:
    """Open the doors of every pipeline; nothing is reached before it is used, but `warm` Spark."""
    from handlers.spark import sessions as to_spark  # noqa: PLC0415 (commands start fast)

    found = machine.look(settings)
    found.export(settings)
    spark = to_spark(found, settings)
    # Spark takes seconds to start, and so do the imports below: let them overlap.
    if warm:
        Thread(target=_warm, args=[spark], daemon=True).start()
    from daemon.doors import Doors  # noqa: PLC0415 (after export, and slow)
    from handlers.table import Table  # noqa: PLC0415
    from handlers.train import check_parameters  # noqa: PLC0415

    opened = {}
    for name, pipeline in settings.pipelines.items():
        check_parameters(pipeline.task, pipeline.train)
        registry = _registry(settings, found.tracking, name)
        table = Table(spark, pipeline.table, pipeline.branch)
        opened[name] = pipeline, Doors(table, registry, endpoint(settings, name, patience))
    return opened


def clockworks(
    settings: Settings, book: Ledger, stopping: Event, patience: float = 0.0, *,
    warm: bool = True, counted: Callable[[str], Tally] = lambda _: NOBODY,
) -> dict[str, Clockwork]:  # fmt: skip
    """Build what keeps each pipeline level; see `endpoint` for the patience."""
    opened = doors(settings, patience, warm=warm)
    from daemon.reconcile import Reconciler  # noqa: PLC0415 (slow)
    from daemon.service import Activity, Clockwork  # noqa: PLC0415

    works = {}
    for name, (pipeline, its) in opened.items():
        tally = counted(name)
        activity = Activity(stopping, tally)
        models = settings.state_dir.resolve() / "models" / name
        reconciler = Reconciler(name, pipeline, its, book, models, activity, tally=tally)
        works[name] = Clockwork(reconciler, pipeline.poll_every, activity, Lock())
    return works


def notifier(settings: Settings, book: Ledger, url: str = "") -> Notifier | None:
    """Build what tells people what happened, if anybody is to be told; `url` leads to the pages."""
    from daemon.outbox import Outbox  # noqa: PLC0415 (commands start fast)

    if not settings.notify.urls:
        Outbox(book).forget()
        return None
    from daemon.notifier import Notifier  # noqa: PLC0415 (brings Apprise, see above)

    told = targets(settings)
    for target in told:
        if not target.known:
            log.error("notify_target_unknown", target=target.name)
    link = settings.notify.link or workload.page() or url
    return Notifier(settings.notify, settings.pipelines, book, told, link)


def targets(settings: Settings) -> tuple[Target, ...]:
    """Open the doors to those who are told; nothing is reached before they are."""
    from handlers.herald import targets as of  # noqa: PLC0415 (commands start fast)

    return of(url.get_secret_value() for url in settings.notify.urls)


def accounting(settings: Settings, book: Ledger, name: str) -> dict[str, Any]:
    """Hold the log of a pipeline's table against the ledger."""
    from daemon.accounting import accounting as account  # noqa: PLC0415 (commands start fast)
    from handlers.table import Table  # noqa: PLC0415

    wanted = settings.pipelines[name]
    table = Table(sessions(settings), wanted.table, wanted.branch)
    return account(book.standing(name), table.log(), table.elsewhere(), book.fates(name))


def reproduction(settings: Settings, book: Ledger, run: str) -> dict[str, Any]:
    """Make a model on record once more."""
    from daemon.reproduce import reproduce  # noqa: PLC0415 (slow)

    record = book.by_run(run)
    if record.pipeline not in settings.pipelines:
        msg = f"the run {run!r} belongs to pipeline {record.pipeline!r}, which is not configured"
        raise ConfigError(msg)
    pipeline, its = doors(settings)[record.pipeline]
    with TemporaryDirectory() as models:  # the daemon's own copies are left alone
        return reproduce(record, pipeline, its, book, Path(models))


def simulation(
    settings: Settings, book: Ledger, name: str, since: int | None, policy: Path | None
) -> dict[str, Any]:
    """Replay a pipeline's history under another policy."""
    live = settings.pipelines[name]
    wanted = load_policy(policy, live)
    opened = doors(settings)
    from daemon.comparison import comparison  # noqa: PLC0415 (slow)
    from daemon.simulate import replay  # noqa: PLC0415
    from handlers.train import check_parameters  # noqa: PLC0415

    check_parameters(wanted.task, wanted.train)
    with TemporaryDirectory() as scratch:  # all that it writes
        replayed = replay(name, live, wanted, opened[name][1], book, since, Path(scratch))
    return comparison(name, live, wanted, replayed)


def explanation(settings: Settings, book: Ledger, run: str) -> dict[str, Any]:
    """Fetch what was kept to explain a run's model."""
    from daemon.views import decision  # noqa: PLC0415 (commands start fast)

    record = book.by_run(run)
    found = machine.look(settings)
    found.export(settings)
    registry = _registry(settings, found.tracking, record.pipeline)
    run_id = record.model.run_id if record.model else None
    return {
        "decision": decision(record, book.forced(record.pipeline)),
        "explanation": registry.explanation(run_id) if run_id else None,
        "pictures": registry.pictures(run_id) if run_id else [],
    }


def what_if(settings: Settings, book: Ledger, run: str, given: Mapping[str, str]) -> dict[str, Any]:
    """Score a row by a run's model and by the champion that it was compared with."""
    from daemon.what_if import what_if as score  # noqa: PLC0415 (slow)

    record = book.by_run(run)
    found = machine.look(settings)
    found.export(settings)
    registry = _registry(settings, found.tracking, record.pipeline)
    # Not where the daemon keeps its own: who fetches tidies up what others left half fetched.
    home = settings.state_dir.resolve() / "what-if" / record.pipeline
    return score(record, book, lambda model: registry.fetch(model, home), given)


def _registry(settings: Settings, tracking: machine.Found, name: str) -> Registry:
    from handlers.registry import Registry  # noqa: PLC0415 (after export, and slow)

    embedded = tracking.value.startswith("sqlite:")
    artifacts = settings.state_dir.resolve() / "mlartifacts" / name if embedded else None
    return Registry(
        tracking.value, settings.mlflow.registry_uri, name, settings.mlflow.experiment,
        artifacts, machine.code_version(),
    )  # fmt: skip


def _warm(spark: Sessions) -> None:
    from handlers.facts import TryLater  # noqa: PLC0415

    try:
        spark()
    except TryLater:
        return  # the first tick meets the same trouble and tells it
