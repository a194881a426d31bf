"""What Prometheus scrapes of the daemon: the only place here that knows its client.

What the ledger keeps is read from it at each scrape, and so survives a restart; ticks, durations,
failures and lag are counted in this process.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from datetime import datetime

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.exposition import choose_encoder
from prometheus_client.metrics_core import CounterMetricFamily as Counted
from prometheus_client.metrics_core import GaugeMetricFamily as Gauged
from prometheus_client.metrics_core import InfoMetricFamily as Told
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from config import __version__
from daemon.figures import Figures, Plotter
from daemon.reading import Reading
from daemon.reign import measured
from daemon.store import now
from daemon.tally import Lag, Tally
from handlers.facts import Delta, State, TryLater

BUCKETS = (0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600, 1800, 3600)
"""Seconds: a deployment may take minutes, the reading of a small delta no second."""
CLOSED = tuple(state.value for state in State if state is not State.OPEN)


class Meter:
    """All metrics of one daemon, in a registry of their own."""

    def __init__(
        self, names: Iterable[str], book: Reading, clock: Callable[[], datetime] = now
    ) -> None:
        self.registry = CollectorRegistry()
        self.clock = clock
        self.lags: dict[str, Lag] = {}
        """How far each pipeline is behind its table, as far as it was looked at."""
        one, mine = ["pipeline"], self.registry
        self.ticks = Counter(
            "retraind_ticks", "Looks at the table, by what came of them.", [*one, "outcome"],
            registry=mine,
        )  # fmt: skip
        self.steps = Histogram(
            "retraind_step_duration_seconds", "How long the steps of the work took.",
            [*one, "step"], registry=mine, buckets=BUCKETS,
        )  # fmt: skip
        self.failures = Counter(
            "retraind_failures", "Failures that delayed or ended work, by the door they came by.",
            [*one, "door", "kind"], registry=mine,
        )  # fmt: skip
        self.snapshots = Gauge(
            "retraind_lag_snapshots", "Snapshots of the table that are not dealt with.", one,
            registry=mine,
        )  # fmt: skip
        self.rows = Gauge(
            "retraind_lag_rows", "Rows that they bring, at most.", one, registry=mine
        )  # fmt: skip
        self.seen = Gauge(
            "retraind_last_look_timestamp_seconds", "When the table was last looked at.", one,
            registry=mine,
        )  # fmt: skip
        self.registry.register(_Kept(self, names, Plotter(book)))

    def tally(self, name: str) -> Tally:
        """Give what counts the work of one pipeline."""
        return _Counting(self, name)

    def exposition(self, accept: str) -> tuple[bytes, str]:
        """Give all metrics in the format that the scraper accepts, and the format's name."""
        encode, kind = choose_encoder(accept)
        return encode(self.registry), kind


class _Counting(Tally):
    """Counts one pipeline's work in a meter."""

    def __init__(self, meter: Meter, name: str) -> None:
        self._meter = meter
        self._name = name

    def ticked(self, outcome: str) -> None:
        self._meter.ticks.labels(self._name, outcome).inc()

    def stepped(self, step: str, seconds: float) -> None:
        self._meter.steps.labels(self._name, step).observe(seconds)

    def failed(self, door: str, kind: str) -> None:
        self._meter.failures.labels(self._name, door, kind).inc()

    def looked(self) -> None:
        self._meter.seen.labels(self._name).set(self._meter.clock().timestamp())

    def lags(self, delta: Delta | None) -> None:
        snapshots = delta.snapshots if delta else ()
        committed = (snapshot.committed_at for snapshot in snapshots)
        lag = Lag(len(snapshots), delta.rows if delta else 0, min(committed, default=None))
        self._meter.snapshots.labels(self._name).set(lag.snapshots)
        self._meter.rows.labels(self._name).set(lag.rows)
        self._meter.lags[self._name] = lag


class _Kept(Collector):
    """Tells what the ledger keeps, as it is at the moment of the scrape."""

    def __init__(self, meter: Meter, names: Iterable[str], plotter: Plotter) -> None:
        self._meter = meter
        self._names = tuple(names)
        self._plotter = plotter

    def collect(self) -> Iterator[Metric]:
        """Read and tell; a ledger that cannot be read leaves the counts of this process."""
        yield Told("retraind_build", "The program that runs.", {"version": __version__})
        yield self._waiting()
        readable = Gauged("retraind_ledger_up", "Whether the ledger can be read.")
        try:
            found = self._plotter.read(self._names)
        except TryLater:
            readable.add_metric([], 0)
            yield readable
            return
        readable.add_metric([], 1)
        yield readable
        for tell in (_deltas, _standing, _serving, _live, _drift):
            yield from tell(found.items(), self._meter.clock())

    def _waiting(self) -> Metric:
        lag = _gauge("retraind_lag_seconds", "Age of the oldest commit that is not dealt with.")
        for name, behind in self._meter.lags.copy().items():
            lag.add_metric([name], _age(behind.since, self._meter.clock()))
        return lag


Found = Iterable[tuple[str, Figures]]


def _gauge(name: str, about: str, *labels: str) -> Gauged:
    return Gauged(name, about, labels=["pipeline", *labels])


def _age(since: datetime | None, moment: datetime) -> float:
    """Give the seconds since then; none where there is no then, or the clock was set back."""
    return max(0.0, (moment - since).total_seconds()) if since else 0.0


def _deltas(found: Found, moment: datetime) -> Iterator[Metric]:
    closed = Counted(
        "retraind_deltas", "Deltas that were closed, by how.", labels=["pipeline", "state"]
    )
    opened = _gauge("retraind_open_deltas", "Deltas that are being dealt with.")
    age = _gauge("retraind_open_delta_age_seconds", "Time since the oldest of them was opened.")
    attempts = _gauge("retraind_open_delta_attempts", "Attempts at it that failed.")
    parked = _gauge("retraind_parked_deltas", "Deltas that wait for a person.")
    for name, figures in found:
        for state in CLOSED:
            closed.add_metric([name, state], figures.states.get(state, 0))
        opened.add_metric([name], figures.states.get(State.OPEN.value, 0))
        age.add_metric([name], _age(figures.opened_at, moment))
        attempts.add_metric([name], figures.attempts)
        parked.add_metric([name], figures.parked)
    yield from (closed, opened, age, attempts, parked)


def _standing(found: Found, moment: datetime) -> Iterator[Metric]:
    del moment
    paused = _gauge("retraind_paused", "Whether a person or a policy stopped the pipeline.")
    halted = _gauge("retraind_halted", "Whether it was a policy.")
    decided = _gauge("retraind_last_verdict_timestamp_seconds", "When the last verdict fell.")
    for name, figures in found:
        paused.add_metric([name], figures.paused)
        halted.add_metric([name], figures.halted)
        if figures.judged:
            decided.add_metric([name], figures.judged.closed_at.timestamp())
    yield from (paused, halted, decided)


def _serving(found: Found, moment: datetime) -> Iterator[Metric]:
    del moment
    champion = Told("retraind_champion", "The version that should serve.", labels=["pipeline"])
    since = _gauge("retraind_champion_since_timestamp_seconds", "Since when it should.")
    level = _gauge("retraind_endpoint_level", "Whether the endpoint was proven to serve it.")
    for name, figures in found:
        if figures.champion is None or figures.since is None:
            continue
        champion.add_metric([name], {"version": figures.champion})
        since.add_metric([name], figures.since.timestamp())
        level.add_metric([name], figures.deployed == figures.champion)
    yield from (champion, since, level)


def _live(found: Found, moment: datetime) -> Iterator[Metric]:
    del moment
    loss = _gauge(
        "retraind_live_loss", "Mean loss of what served, on the newest delta, before learning.",
        "measure",
    )  # fmt: skip
    promised = _gauge("retraind_live_promised_loss", "The loss that it promised.", "measure")
    rows = _gauge("retraind_live_rows", "Rows of that delta which it was scored on.")
    score = _gauge("retraind_live_score", "Its scores on them.", "metric")
    evidence = _gauge("retraind_live_evidence", "Evidence that its loss is above the promise.")
    alarm = _gauge("retraind_live_alarm", "Whether the champion does worse than it promised.")
    for name, figures in found:
        if figures.judged is None or (live := figures.live) is None:
            continue
        measure = measured(figures.judged)
        loss.add_metric([name, measure], live.loss.gain)
        if live.promised is not None:
            promised.add_metric([name, measure], live.promised)
        rows.add_metric([name], live.rows)
        for metric, value in live.scores.items():
            score.add_metric([name, metric], value)
        evidence.add_metric([name], live.alarm)
        alarm.add_metric([name], figures.alarmed)
    yield from (loss, promised, rows, score, evidence, alarm)


def _drift(found: Found, moment: datetime) -> Iterator[Metric]:
    """Tell at most as many columns as a record keeps, so that a wide table stays cheap."""
    del moment
    psi = _gauge(
        "retraind_drift_psi", "How far a column, or the predictions, moved since training (PSI).",
        "column", "kind",
    )  # fmt: skip
    for name, figures in found:
        for moved in figures.judged.drift if figures.judged else ():
            psi.add_metric([name, moved.name, moved.kind], moved.psi)
    yield psi
