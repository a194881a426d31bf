"""Carries out `reproduce`: makes a model on record once more, and holds it against the first."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np

from config import machine
from config.settings import Pipeline
from daemon.decide import Decider
from daemon.doors import Doors
from daemon.ledger import Ledger
from handlers import measures, rows
from handlers.facts import GiveUp, Learnt, Model, Record, Scores, Weighed
from handlers.registry import SCORER
from handlers.scorer import Scorer
from handlers.train import Material


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that was on record, and what it is this time; None if it is not on record."""

    what: str
    then: str | None
    now: str

    @property
    def same(self) -> bool:
        """Say whether nothing speaks against it."""
        return self.then in {None, self.now}


def reproduce(
    record: Record, pipeline: Pipeline, doors: Doors, ledger: Ledger, models: Path
) -> dict[str, Any]:
    """Read the same rows, train and score again as it was done then, and compare.

    Raises:
        GiveUp: the run has no model, or its snapshots were expired.
        TryLater: the table or MLflow does not answer.
    """
    learnt, model = record.learnt, record.model
    if learnt is None or model is None:
        raise GiveUp(f"Delta {record.sequence} of {record.pipeline} made no model.", "")
    then = _as_then(pipeline, learnt)
    clock = partial(datetime.now, timezone.utc)
    again = Decider(record.pipeline, then, doors, ledger, models, lambda *_: None, clock)
    fetch = partial(_fetch, doors, models)
    against = record.verdict.against if record.verdict else None
    rival = ledger.made(record.pipeline, against) if against else None
    champion = fetch(rival.model) if rival and rival.model else None
    columns = again.columns(record.delta, champion.columns if champion else ())
    made = again.challenge(record.delta, columns, record.sequence, then=learnt)
    material, challenger = made.material, made.scorer
    checks = [
        *_rows(learnt, material),
        *_model(fetch(model), challenger, material),
        *_members(learnt, made.members),
        *_scores(record, challenger, champion, material),
    ]
    return _view(record, learnt, checks)


def _as_then(pipeline: Pipeline, learnt: Learnt) -> Pipeline:
    """Give the settings that the model was made with; where it lies is today's business."""
    parameters = dict(learnt.parameters)
    train = {
        "strategy": learnt.strategy,
        "rounds": parameters.pop("rounds"),
        "seed": parameters["seed"],
        "threads": parameters["nthread"],
        "parameters": parameters,
        "holdout": learnt.holdout,
        "salt": learnt.salt,
        "balance": learnt.balance,
        "max_categories": learnt.max_categories,
        **learnt.knobs,
    }
    known = {
        "label": learnt.label,
        "task": learnt.task,
        "features": learnt.features,
        "row_key": learnt.split_by or learnt.row_key,
        "train": pipeline.train.model_copy(update=train),
    }
    return pipeline.model_copy(update=known)


def _fetch(doors: Doors, models: Path, model: Model) -> Scorer:
    return Scorer.load(doors.registry.fetch(model, models) / SCORER)


def _rows(learnt: Learnt, material: Material) -> Iterator[Check]:
    yield Check("training rows", str(learnt.train_rows), str(len(material.train.rows)))
    yield Check("held-out rows", str(learnt.held_out_rows), str(len(material.held_out.rows)))
    yield Check(
        "digest of the training rows",
        learnt.rows_digest or None,
        rows.digest(material.train, learnt.features),
    )


def _model(first: Scorer, again: Scorer, material: Material) -> Iterator[Check]:
    yield Check("digest of the model", _digest(first), _digest(again))
    sample = material.held_out.rows
    if len(sample):
        apart = float(np.abs(first.score(sample) - again.score(sample)).max())
        yield Check(f"greatest difference of {len(sample)} predictions", "0", f"{apart:g}")


def _members(learnt: Learnt, now: Sequence[Weighed]) -> Iterator[Check]:
    if learnt.members or now:
        yield Check("members and their weights", _weights(learnt.members), _weights(now))


def _weights(members: Sequence[Weighed]) -> str:
    """Tell kind, delta and weight of each model that went in; this delta's own is 0."""
    return ", ".join(f"{m.kind} {m.sequence}: {m.weight:.6g}" for m in members if m.weight)


def _digest(scorer: Scorer) -> str:
    """Name a model by the files that it is stored in."""
    with tempfile.TemporaryDirectory() as scratch:
        scorer.save(Path(scratch))
        files = sorted(Path(scratch).iterdir())
        return sha256(b"\0".join(file.read_bytes() for file in files)).hexdigest()[:16]


def _scores(
    record: Record, challenger: Scorer, champion: Scorer | None, material: Material
) -> Iterator[Check]:
    verdict = record.verdict
    if verdict is None:
        return
    sides: list[tuple[str, Scores | None, Scorer | None]] = [
        ("its", verdict.challenger, challenger),
        (f"champion {verdict.against}'s", verdict.champion, champion),
    ]
    for whose, then, scorer in sides:
        now = measures.measure(scorer, material.held_out) if then and scorer else {}
        for metric, value in now.items():
            known = then.get(metric) if then else None
            yield Check(f"{whose} {metric}", None if known is None else f"{known:.9g}",
                        f"{value:.9g}")  # fmt: skip


def _view(record: Record, learnt: Learnt, checks: list[Check]) -> dict[str, Any]:
    differing = [check for check in checks if not check.same]
    now = machine.environment()
    changed = [
        Check(name, then, now.get(name, "not installed"))
        for name, then in learnt.environment.items()
        if then != now.get(name)
    ]
    return {
        "pipeline": record.pipeline,
        "delta": record.sequence,
        "run_id": record.model.run_id if record.model else None,
        "version": record.model.version if record.model else None,
        "snapshots": [snapshot.id for snapshot in record.delta.snapshots],
        "reproduced": not differing,
        "told": _told(differing, changed, recorded=bool(learnt.environment)),
        "checks": [{**asdict(check), "same": check.same} for check in checks],
        "changed": [asdict(check) for check in changed],
    }


def _told(differing: list[Check], changed: list[Check], *, recorded: bool) -> str:
    if not differing:
        return "The same model came out."
    names = {check.what for check in differing}
    what = "; ".join(f"{c.what}: {c.then} then, {c.now} now" for c in differing[:4])
    moved = ", ".join(f"{c.what} {c.then} then, {c.now} now" for c in changed)
    if names & {"training rows", "held-out rows", "digest of the training rows"}:
        why = "The rows are not those of then"
    elif moved:
        why = f"The rows are the same, but not the software ({moved})"
    else:
        why = "Rows and software are the same" if recorded else "The software is not on record"
    return f"Another model came out. {why}. {what}."
