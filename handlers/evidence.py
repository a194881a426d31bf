"""What a run says: signature, example, proof, and the decision in MLflow's words.

Pure: nothing here talks to MLflow, the registry does.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from mlflow.entities import Metric, Param, RunTag
from mlflow.models import ModelSignature
from mlflow.types import ColSpec, DataType, Schema, TensorSpec

from handlers import drift, pictures
from handlers.drift import Profile
from handlers.facts import Decision, Record
from handlers.scorer import Scorer

PROOF = "proof.parquet"
PROFILE = "profile.json"
EXPLANATION = "explanation.json"
PICTURES = "explanation"
"""The folder of the pictures."""
SCORE = "retraind_score_"


def signature(scorer: Scorer) -> ModelSignature:
    """Describe the model's output to MLflow, but not its input.

    MLflow casts what a client sends to the types of a signature before the model sees it: a missing
    truth value becomes false, and times must all be written alike. The scorer reads each cell as it
    was sent, so that what is served are the offline scores; the example shows the columns.
    """
    outputs: list[ColSpec | TensorSpec] = [ColSpec(DataType.float)]
    if scorer.task == "multiclass":
        outputs = [ColSpec(DataType.float, name) for name in scorer.classes]
    return ModelSignature(outputs=Schema(outputs))


def write_proof(scorer: Scorer, sample: pd.DataFrame, path: Path) -> None:
    """Write rows with their offline scores, one column per class or a single one."""
    scores = scorer.score(sample)
    scores = scores if scores.ndim > 1 else scores[:, np.newaxis]
    named = {f"{SCORE}{i}": scores[:, i] for i in range(scores.shape[1])}
    sample[scorer.columns].assign(**named).to_parquet(path, index=False)


def read_proof(path: Path) -> tuple[pd.DataFrame, np.ndarray[Any, Any]]:
    """Read what `write_proof` wrote: rows, and scores of shape (n,) or (n, k)."""
    table = pd.read_parquet(path)
    columns = [name for name in table.columns if name.startswith(SCORE)]
    scores = table[columns].to_numpy(np.float32)
    return table.drop(columns=columns), scores.squeeze(axis=1) if scores.shape[1] == 1 else scores


def keep(
    folder: Path, scorer: Scorer, sample: pd.DataFrame, explanation: Mapping[str, Any] | None,
    profile: Profile | None,
) -> None:  # fmt: skip
    """Write what is kept beside a model into a folder: its proof, and what tells of it."""
    folder.mkdir()
    write_proof(scorer, sample, folder / PROOF)
    if profile is not None:
        drift.write(profile, folder / PROFILE)
    if explanation is not None:
        text = json.dumps(explanation, indent=1, ensure_ascii=False)
        (folder / EXPLANATION).write_text(text, encoding="utf-8")
        (folder / PICTURES).mkdir()
        pictures.draw(explanation, folder / PICTURES)


def example(scorer: Scorer, sample: pd.DataFrame) -> pd.DataFrame | None:
    """Give up to three rows without gaps, typed as the signature says."""
    rows = sample[scorer.columns].dropna().head(3).reset_index(drop=True)
    for feature in scorer.features:
        if feature.kind == "number":
            rows[feature.name] = rows[feature.name].astype(np.float64)
        elif feature.kind == "time":
            rows[feature.name] = pd.to_datetime(rows[feature.name], utc=True).dt.tz_localize(None)
    return rows if len(rows) else None


def name(record: Record) -> str:
    """Name the run for people."""
    return f"{record.pipeline}-{record.sequence}"


def metrics(record: Record) -> list[Metric]:
    """Give the models' scores, the gain and its evidence, and how what served did before."""
    verdict, live = record.verdict, record.live
    if verdict is None:
        return []
    at = int(record.closed_at.timestamp() * 1000)
    sides = {
        "challenger": verdict.challenger, "champion": verdict.champion or {},
        "trivial": verdict.trivial,
    }  # fmt: skip
    named = {f"{side}_{name}": value for side, s in sides.items() for name, value in s.items()}
    low, high = verdict.interval or (None, None)
    told = {
        "gain": verdict.gain, "gain_low": low, "gain_high": high, "evidence": verdict.evidence,
        "evidence_rows": verdict.gathered or None, "detectable": verdict.detectable,
    }  # fmt: skip
    if live:
        named |= {f"live_{name}": value for name, value in live.scores.items()}
        told |= {"live_loss": live.loss.gain, "alarm": live.alarm}
    named |= {name: value for name, value in told.items() if value is not None}
    return [Metric(name, value, at, 0) for name, value in named.items()]


def params(record: Record) -> list[Param]:
    """Give what the challenger was trained with."""
    learnt = record.learnt
    if learnt is None:
        return []
    values = {**learnt.parameters, "strategy": learnt.strategy, "holdout": learnt.holdout}
    return [Param(name, str(value)) for name, value in values.items()]


def tags(record: Record) -> list[RunTag]:
    """Describe the run; the first four names are the public lab's, so its readers go on working."""
    delta = record.delta
    last = delta.snapshots[-1] if delta.snapshots else None
    tags: dict[str, object] = {
        "iceberg_snapshot_id": delta.end_id,
        "iceberg_snapshot_committed_at": last.committed_at.isoformat() if last else "",
        "iceberg_parent_id": delta.start_id or "",
        "row_count": delta.rows,
        "retraind.read": "whole" if delta.whole else delta.way,
        "retraind.rows_removed": delta.removed,
        "retraind.pipeline": record.pipeline,
        "retraind.sequence": record.sequence,
        "retraind.table": delta.table,
        "retraind.table_uuid": delta.table_uuid,
        "retraind.branch": delta.branch,
        "retraind.snapshots": len(delta.snapshots),
        "retraind.operations": ",".join(sorted({s.operation for s in delta.snapshots})),
        "retraind.verdict": record.state.value,
        "retraind.reason": record.reason[:4000],
    }
    if record.verdict:
        tags["retraind.against"] = record.verdict.against or "trivial"
        tags["retraind.beats"] = record.verdict.decision is Decision.PROMOTE
    if learnt := record.learnt:
        tags |= {
            "retraind.strategy": learnt.strategy,
            "retraind.rows_train": learnt.train_rows,
            "retraind.rows_held_out": learnt.held_out_rows,
            "retraind.rows_unlabelled": learnt.unlabelled_rows,
            "retraind.holdout_salt": learnt.salt,
            "retraind.holdout_buckets": f"0..{round(learnt.holdout * 10_000) - 1} of 10000",
            "retraind.features": json.dumps(learnt.features)[:4000],
        }
    return [RunTag(name, str(value)) for name, value in tags.items()]
