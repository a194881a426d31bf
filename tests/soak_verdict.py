"""Holds what the daemon decided against what was committed: the promises, one by one.

The ledger and MLflow's store are read as the files that they are, past the program. Which rows a
delta should have read is computed from the states that the book kept, what the endpoint should have
answered from the boosters that MLflow keeps.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import pandas as pd
import psutil
import xgboost as xgb
from soak_rows import UNLABELLED
from soak_site import MIN_GAIN, NAME, Site, asked
from soak_table import SHIFT, Book, Images, ids, image
from soak_watch import PROBES, Prober

Record = dict[str, Any]
TRAINED = frozenset({"promoted", "kept"})
SET_ASIDE = frozenset({"parked", "dropped"})
PASSING = frozenset({"split", "abandoned"})
"""A delta in one of these states leaves its rows to another one."""
UNFORESEEN = frozenset({"unforeseen", "tick_failed", "ownership_lost", "left_at_last_rung"})
"""Events that the daemon's log should not hold."""
PATIENCE = 15.0
"""Seconds that may pass between a request that fails and the fault that explains it."""


@dataclass(slots=True)
class Finding:
    """What was counted, and every promise that was broken."""

    broken: list[str] = field(default_factory=list)
    states: Counter[str] = field(default_factory=Counter)
    trained: set[int] = field(default_factory=set)
    aside: set[int] = field(default_factory=set)
    """Parked, dropped, or left out by policy."""
    back: set[int] = field(default_factory=set)
    """Rows that came back by a rollback, and that their delta could not read."""
    lost: set[int] = field(default_factory=set)
    twice: set[int] = field(default_factory=set)
    """Sequences of deltas."""
    named: set[int] = field(default_factory=set)
    """Snapshots that a decision names."""
    wrong: int = 0
    """Predictions that are not those of the version that claims to have made them."""

    def check(self, fine: object, what: str) -> None:
        """Note a broken promise."""
        if not fine:
            self.broken.append(what)


class Rows:
    """Follows the rows through the decisions; `proof` gives the rows that a run held out."""

    def __init__(
        self, book: Book, found: Finding, rewrites: str, proof: Callable[[str], Images]
    ) -> None:
        self._book = book
        self._found = found
        self._rewrites = rewrites
        self._proof = proof
        self._closed: list[Record] = []
        self._ranges: dict[tuple[int | None, int, str], int] = {}
        self._events: dict[tuple[int, int], int] = {}
        """An image and the snapshot that brought it -> the delta that was trained on it."""
        self._last_whole = 0
        self._cursor: int | None = None
        self._held_out: set[int] = set()
        """Ids that were ever held out."""
        self._learnt: set[int] = set()
        """Ids that were ever trained on."""

    def follow(self, record: Record) -> None:
        """Take up the next decision."""
        state, delta = record["state"], record["delta"]
        self._found.states[state] += 1
        if state in PASSING:
            return
        unknown = {delta["end_id"], delta["start_id"]} - {None} - set(self._book.known)
        self._found.check(not unknown, f"delta {record['sequence']}: unknown snapshots {unknown}")
        if unknown:
            return
        self._found.named |= {one["snapshot_id"] for one in record["snapshots"]}
        self._check_range(record)
        self._check_whole(record)
        wanted = self.wanted(delta)
        if state in TRAINED:
            self._check_claims(record, wanted)
            self._count(record, wanted)
            self._found.trained |= wanted
        elif state in SET_ASIDE:
            self._found.aside |= wanted
        self._closed.append(record)
        if self._rewrites == "skip":
            self._found.aside |= self._left_out(record)
        if record["retry_of"] is None:
            self.check_covered(delta["end_id"])
            self._cursor = delta["end_id"]

    def wanted(self, delta: Record) -> Images:
        """Give the rows that a delta is about, by the way in which it is read."""
        end = self._book.state(delta["end_id"])
        if way(delta) == "whole":
            return end
        new = end - self._book.state(delta["start_id"])
        if way(delta) == "apart":
            arrival = self._book.arrival(delta["end_id"], new)
            return frozenset(one for one in new if self._appends(arrival[one]))
        return new

    def _appends(self, number: int) -> bool:
        return self._book.known[number].operation == "append"

    def _left_out(self, record: Record) -> set[int]:
        """Give the rows that the policy leaves out: they came by rewrites, and that is recorded."""
        found: set[int] = set()
        for one in record["snapshots"]:
            if one["state"] == "rewritten":
                known = self._book.known[one["snapshot_id"]]
                found |= self._book.state(known.id) - self._book.state(known.parent_id)
        return found

    # -- one decision ------------------------------------------------------------------------

    def _check_range(self, record: Record) -> None:
        """The delta names the snapshots between its ends, each once and in order."""
        delta = record["delta"]
        told = [one["snapshot_id"] for one in record["snapshots"]]
        true: list[int] = []
        for known in self._book.ancestors(delta["end_id"]):
            if known.id == delta["start_id"]:
                break
            if delta["start_id"] is None and len(true) == len(told):
                break  # as far back as the table kept them then
            true.append(known.id)
        self._found.check(
            told == true[::-1],
            f"delta {record['sequence']} names {told}, but between its ends are {true[::-1]}",
        )

    def _check_whole(self, record: Record) -> None:
        """The whole table is read anew only where what came since the cursor cannot be told."""
        if way(record["delta"]) != "whole" or self._cursor is None or self._rewrites == "full":
            return
        needed = {self._cursor} | {
            one.id for one in self._book.between(self._cursor, record["delta"]["end_id"])
        }
        opened = datetime.fromisoformat(record["opened_at"])
        expired = [one for one in needed if self._book.lost(one, opened)]
        self._found.check(
            expired or record["retry_of"],
            f"delta {record['sequence']} reads the whole table, but nothing since {self._cursor} "
            f"was expired",
        )

    def _check_claims(self, record: Record, wanted: Images) -> None:
        """The rows that it claims are those that are new, and the right ones were held out."""
        learnt, sequence = record["learnt"], record["sequence"]
        told = learnt["train_rows"], learnt["held_out_rows"], learnt["unlabelled_rows"]
        modulus, rest = UNLABELLED
        unlabelled = frozenset(one for one in wanted if one // SHIFT % modulus == rest)
        labelled, held = wanted - unlabelled, self._proof(record["model"]["run_id"])
        true = len(labelled) - len(held), len(held), len(unlabelled)
        self._found.check(
            told == true and held <= labelled,
            f"delta {sequence} ({way(record['delta'])}) claims {told} training, held-out and "
            f"unlabelled rows, but {true} are new; {len(held - labelled)} strangers are held out",
        )
        self._held_out |= ids(held)
        self._learnt |= ids(labelled - held)
        both = self._held_out & self._learnt
        self._found.check(not both, f"delta {sequence}: {len(both)} ids held out and trained on")

    def _count(self, record: Record, wanted: Images) -> None:
        """Count how often each arrival of a row was trained on.

        A recorded read of the whole table may repeat what was trained on, and so may a person who
        retries what was parked before that.
        """
        delta, sequence = record["delta"], record["sequence"]
        span = delta["start_id"], delta["end_id"], way(delta)
        if record["retry_of"] is None and span[0] is not None:
            self._found.check(span not in self._ranges, f"range {span} was trained on twice")
            if span in self._ranges:
                self._found.twice.add(sequence)
            self._ranges[span] = sequence
        events = set(self._book.arrival(delta["end_id"], wanted).items())
        known = way(delta) == "whole" or (record["retry_of"] or sequence) < self._last_whole
        again = {event for event in events if event in self._events}
        if again and not known:
            self._found.twice.add(sequence)
            others = sorted({self._events[event] for event in again})
            self._found.broken.append(
                f"delta {sequence} trains on {len(again)} rows that deltas {others} had"
            )
        self._events |= {event: sequence for event in events}  # noqa: C420
        if way(delta) == "whole":
            self._last_whole = sequence

    # -- where the cursor stood --------------------------------------------------------------

    def check_end(self) -> None:
        """Every row and every snapshot that is there in the end was dealt with."""
        self.check_covered(self._book.head)
        unseen = set(self._book.history()) - self._found.named
        self._found.check(not unseen, f"no decision names the snapshots {sorted(unseen)}")

    def check_covered(self, at: int) -> None:
        """Every row that is there was trained on or set aside, for a reason that is recorded."""
        found = self._found
        open_ = self._book.state(at) - found.trained - found.aside - found.back - found.lost
        arrival = self._book.arrival(at, open_)
        back = {one for one in open_ if self._came_back(one, arrival[one])}
        lost = open_ - back
        found.back |= back
        found.lost |= lost
        came = sorted({arrival[one] for one in lost})
        found.check(not lost, f"at {at} {len(lost)} rows are lost, which came with {came[:5]}")

    def _came_back(self, one: int, arrival: int) -> bool:
        """Say whether a delta that names the row's snapshot ended where the row was gone."""
        return any(
            arrival in {named["snapshot_id"] for named in record["snapshots"]}
            and one not in self._book.state(record["delta"]["end_id"])
            for record in self._closed
        )


def way(delta: Record) -> str:
    """Say how the rows of a delta are read."""
    return "whole" if delta["start_id"] is None else str(delta["way"])


def check_rows(rows: Rows, closed: Iterable[Record]) -> None:
    """Follow all rows, up to those that are in the table in the end."""
    for record in closed:
        rows.follow(record)
    rows.check_end()


# -- the rest of the promises ----------------------------------------------------------------


def check_verdicts(closed: Iterable[Record], found: Finding) -> None:
    """No model was promoted that lost its comparison."""
    for record in closed:
        if record["state"] != "promoted":
            continue
        verdict = record["verdict"]
        rival = verdict["champion"] or verdict["trivial"]
        gain = rival[verdict["metric"]] - verdict["challenger"][verdict["metric"]]
        found.check(
            gain > MIN_GAIN and verdict["decision"] == "promote",
            f"delta {record['sequence']} was promoted with a gain of {gain:+.4f}",
        )


@dataclass(frozen=True, slots=True)
class Run:
    """One run as MLflow keeps it."""

    id: str
    status: str
    key: str | None
    """What names the decision; None where the run counts for nothing."""
    home: Path
    """Where its artifacts are."""

    def record(self) -> Record:
        """Read the record that it keeps."""
        found: Record = json.loads((self.home / "retraind.json").read_text(encoding="utf-8"))
        return found

    def proof(self) -> Images:
        """Read which rows were held out."""
        rows = pd.read_parquet(self.home / "proof.parquet")
        pairs = zip(rows["serial"].astype(int), rows["version"].astype(int), strict=True)
        return frozenset(image(*pair) for pair in pairs)

    def predictions(self) -> list[float]:
        """Score what the probes ask with the booster alone."""
        booster = xgb.Booster(model_file=self.home / "model/data/scorer/model.ubj")
        names = booster.feature_names or []
        wanted = np.array([[row.get(n, np.nan) for n in names] for row in PROBES], dtype=float)
        matrix = xgb.DMatrix(wanted, feature_names=names, feature_types=booster.feature_types)
        return [float(score) for score in booster.predict(matrix)]


def runs(site: Site) -> list[Run]:
    """Read MLflow's store."""
    rows = asked(
        site.state / "mlflow.db",
        "SELECT runs.run_uuid, status, artifact_uri, value FROM runs LEFT JOIN tags "
        "ON tags.run_uuid = runs.run_uuid AND tags.key = 'retraind.run_key'",
    )
    return [
        Run(row["run_uuid"], row["status"], row["value"], Path(urlsplit(row["artifact_uri"]).path))
        for row in rows
    ]


def check_evidence(closed: Iterable[Record], kept: Iterable[Run], found: Finding) -> None:
    """Each closed delta has one run with its key, no other run has one, and none goes on."""
    running = [run.id for run in kept if run.status == "RUNNING"]
    found.check(not running, f"MLflow runs are RUNNING for ever: {running}")
    keys = Counter(run.key for run in kept if run.key)
    wanted = {key(record) for record in closed}
    found.check(max(keys.values(), default=1) == 1, f"a decision has two runs: {keys}")
    found.check(set(keys) >= wanted, f"no run tells of {sorted(wanted - set(keys))}")
    found.check(set(keys) <= wanted, f"no decision belongs to {sorted(set(keys) - wanted)}")


def check_records(closed: Iterable[Record], kept: Iterable[Run], found: Finding) -> None:
    """MLflow and the ledger keep the very same record."""
    told = {run.key: run for run in kept}
    for record in closed:
        run = told.get(key(record))
        same = run is None or run.record() == record
        found.check(same, f"delta {record['sequence']}: MLflow keeps another record")


def key(record: Record) -> str:
    """Name a decision as its run should."""
    delta = record["delta"]
    start = "origin" if delta["start_id"] is None else delta["start_id"]
    span = f"{start}..{delta['end_id']}"
    return f"{NAME}#{record['sequence']}:{delta['table_uuid']}:{delta['branch']}:{span}"


def check_answers(
    prober: Prober, predictions: Mapping[str, Sequence[float]], found: Finding
) -> None:
    """Whatever answered was promoted once, and answered as its model in MLflow does."""
    for version, answers in prober.answers.items():
        true = predictions.get(version)
        found.check(true, f"version {version} answered, but was never promoted")
        for answer, times in answers.items():
            if true is None or not np.allclose(answer, true, rtol=0, atol=1e-6):
                found.wrong += times
                found.broken.append(f"version {version} answered {answer}, its model says {true}")


def check_outages(prober: Prober, struck: Iterable[float], found: Finding) -> None:
    """The endpoint answers all the time, but for what was done to it."""
    for outage in prober.outages:
        excused = any(outage.began - PATIENCE <= at <= outage.ended for at in struck)
        found.check(excused, f"the endpoint did not answer, for no reason of ours: {outage}")


def check_serving(site: Site, found: Finding) -> None:
    """The champion serves, from one process."""
    champion, serves = site.champion(), site.serves()
    found.check(serves == champion, f"version {serves} answers, the champion is {champion}")
    servers = [p.pid for p in psutil.process_iter() if _serves(p, site)]
    found.check(len(servers) == 1, f"these processes serve: {servers}")


def _serves(process: psutil.Process, site: Site) -> bool:
    try:
        line = process.cmdline()
    except psutil.Error:
        return False
    return "handlers.serve" in line and str(site.state) in " ".join(line)


def check_account(site: Site, book: Book, found: Finding) -> None:
    """Every snapshot of the branch's history has one state in `account`, and they add up."""
    done = site.run("account", "--json")
    found.check(done.returncode == 0, f"`account` failed: {done.stdout[-500:]}{done.stderr[-500:]}")
    if done.returncode:
        return
    view, history = json.loads(done.stdout), book.history()
    told = [line["id"] for line in view["snapshots"]]
    beside = {line["id"] for line in view["elsewhere"]}
    states = {line["state"] for line in view["snapshots"]}
    found.check(view["adds_up"], "`account` does not add up")
    found.check(told == history[::-1], f"`account` tells of {told}, the table of {history[::-1]}")
    found.check(beside == book.kept - set(history), "`account` lists others elsewhere")
    found.check(not states & {"waiting", "unaccounted"}, f"`account` tells of {states}")


def check_history(site: Site, closed: Iterable[Record], found: Finding) -> None:
    """`history` tells what the ledger's file holds."""
    done = site.run("history", "--limit", "100000", "--json")
    told = {
        (one["delta"], one["state"], one["snapshot_from"], one["snapshot_to"], one["read"])
        for one in json.loads(done.stdout)
    }
    true = {
        (one["sequence"], one["state"], one["delta"]["start_id"], one["delta"]["end_id"],
         way(one["delta"]))
        for one in closed
    }  # fmt: skip
    found.check(told == true, f"`history` differs from the ledger: {told ^ true}")


def check_logs(site: Site, found: Finding) -> None:
    """Nothing happened that the program did not foresee."""
    for life in site.lives:
        for line in life.log.read_text(encoding="utf-8").splitlines():
            event = json.loads(line).get("event") if line[:1] == "{" else None
            found.check(event not in UNFORESEEN, f"{life.log.name}: {line[:800]}")


def reckon(site: Site, book: Book, prober: Prober, found: Finding) -> None:
    """Hold what was decided and answered against what was committed and asked."""
    rows = site.ask("SELECT record FROM deltas WHERE record IS NOT NULL ORDER BY sequence")
    closed, kept = [json.loads(row["record"]) for row in rows], runs(site)
    by_id = {run.id: run for run in kept}
    check_rows(Rows(book, found, site.world.rewrites, lambda id_: by_id[id_].proof()), closed)
    check_verdicts(closed, found)
    check_evidence(closed, kept, found)
    check_records(closed, kept, found)
    promoted = [record["model"] for record in closed if record["state"] == "promoted"]
    scores = {model["version"]: by_id[model["run_id"]].predictions() for model in promoted}
    check_answers(prober, scores, found)
    check_outages(prober, site.struck, found)
    check_serving(site, found)
    check_account(site, book, found)
    check_history(site, closed, found)
    check_logs(site, found)
