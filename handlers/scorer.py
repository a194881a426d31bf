"""A trained model as it is stored and served: features, booster, predictions.

This one file is also shipped inside every MLflow model (as its `loader_module`), so what judges a
model offline is the very code that serves it. It may therefore import nothing but numpy, pandas
and xgboost.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
import xgboost as xgb

Task = Literal["binary", "multiclass", "regression"]
FeatureKind = Literal["number", "boolean", "category", "time"]

BOOSTER = "model.ubj"
ABOUT = "model.json"
FEW = 32
"""Rows up to which plain Python is faster than pandas, whose every call costs about 0.1 ms."""
Cells = Mapping[str, Sequence[Any]]
"""Rows as one sequence of raw cells per column, all of the same length."""
_MICROSECONDS_A_DAY = 86_400e6
_EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)
# What `datetime.fromisoformat` and pandas read alike in every version we run on.
_TIME = re.compile(
    r"\d{4}-\d\d-\d\d([T ]\d\d:\d\d:\d\d(\.\d{3}|\.\d{6})?(Z|[+-]\d\d:\d\d)?)?", re.ASCII
)
_ZONE = re.compile(r"(Z|[+-]\d\d(:?\d\d)?)$")
# The numbers 1 and 0 are the keys True and False as well.
_TRUTH = {True: 1.0, False: 0.0, "true": 1.0, "false": 0.0}


class BadInput(ValueError):
    """The rows to score do not fit the model; the text names the columns."""


@dataclass(frozen=True)
class Feature:
    """One input column: its kind, and for a category the values the model has seen."""

    name: str
    kind: FeatureKind
    categories: tuple[str, ...] = ()

    def encode(
        self, values: pd.Series[Any] | Sequence[Any]
    ) -> np.ndarray[Any, np.dtype[np.float32]]:
        """Give the column as float32, shape (n,); missing and unseen values become NaN."""
        if not isinstance(values, pd.Series):
            plain = [self._plain(v) for v in values] if len(values) <= FEW else [None]
            if None not in plain:
                with np.errstate(over="ignore"):
                    return np.array(plain, np.float64).astype(np.float32)
            return self.encode(pd.Series(list(values), dtype=object))
        try:
            with np.errstate(over="ignore"):  # too great for float32: infinite, and so missing
                return self._numbers(values).to_numpy(np.float32, na_value=np.nan)
        except (ValueError, TypeError, OverflowError) as error:
            msg = f"column {self.name!r} must hold a {self.kind}: {str(error).splitlines()[0]}"
            raise BadInput(msg) from error

    def _plain(self, value: object) -> float | None:
        """Give the number for a cell of the everyday types; None leaves the column to pandas."""
        if value is None:
            return np.nan
        if self.kind == "number" and (type(value) is float or type(value) is int):
            # Beyond 2**53 the way through float64 rounds twice.
            return float(value) if abs(value) < 2**53 else None
        if self.kind == "boolean" and type(value) is bool:
            return float(value)
        if self.kind == "category" and type(value) is str:
            return self._codes.get(value, np.nan)
        if self.kind == "time" and type(value) is str and _TIME.fullmatch(value):
            return _day(value)
        return None

    @cached_property
    def _codes(self) -> dict[str, float]:
        return {value: float(code) for code, value in enumerate(self.categories)}

    def _numbers(self, values: pd.Series[Any]) -> pd.Series[Any]:
        if self.kind == "category":
            codes = self._codes
            return pd.to_numeric(values.map(lambda v: codes.get(v, np.nan), na_action="ignore"))
        if self.kind == "boolean":
            lowered = values.map(lambda v: v.lower() if isinstance(v, str) else v)
            numbers = lowered.map(_TRUTH)
            if (strange := lowered[numbers.isna() & lowered.notna()]).size:
                msg = f"{strange.iloc[0]!r} is neither true nor false"
                raise ValueError(msg)
            return pd.to_numeric(numbers)
        if self.kind == "time":
            return _days(values)
        return pd.to_numeric(values)


def _day(value: str) -> float | None:
    """Read one time as `_days` does; None if it is none (30 February)."""
    try:
        moment = datetime.fromisoformat(value.replace("Z", "+00:00"))
    except ValueError:
        return None
    since = (moment if moment.tzinfo else moment.replace(tzinfo=timezone.utc)) - _EPOCH
    microseconds = (since.days * 86_400 + since.seconds) * 1_000_000 + since.microseconds
    return microseconds / _MICROSECONDS_A_DAY


def _days(values: pd.Series[Any]) -> pd.Series[Any]:
    """Read times as days since 1970; in whole microseconds, which reach from year 1 to 9999."""
    if not pd.api.types.is_datetime64_any_dtype(values):
        values = values.map(_zoned, na_action="ignore")
    try:
        times = pd.to_datetime(values, utc=True, format="ISO8601")
    except pd.errors.OutOfBoundsDatetime:  # pandas 2 reads text as nanoseconds, up to year 2262
        seconds = values.map(lambda v: pd.Timestamp(v).timestamp(), na_action="ignore")
        return pd.to_numeric(seconds) / 86_400
    moments = times.dt.tz_localize(None).to_numpy("datetime64[us]")
    days = moments.astype(np.int64) / _MICROSECONDS_A_DAY
    return pd.Series(np.where(np.isnat(moments), np.nan, days))


def _zoned(value: object) -> object:
    """Write UTC onto a time without a zone: pandas 2 gives it the zone of the row before it."""
    if isinstance(value, int | float):
        msg = "a number is no time; write it as in 2026-01-31T12:00:00Z"
        raise TypeError(msg)
    bare = isinstance(value, str) and ":" in value and not _ZONE.search(value)
    return f"{value}Z" if bare else value


@dataclass(frozen=True)
class Scorer:
    """A booster with all it needs to read raw rows and to name its classes."""

    task: Task
    features: tuple[Feature, ...]
    classes: tuple[str, ...]
    booster: xgb.Booster

    @property
    def columns(self) -> list[str]:
        """Name the input columns in the model's order."""
        return [feature.name for feature in self.features]

    def matrix(self, rows: pd.DataFrame | Cells) -> np.ndarray[Any, np.dtype[np.float32]]:
        """Encode raw rows, shape (n, features), float32 with NaN for missing.

        Raises:
            BadInput: a column is missing or holds values of another kind.
        """
        if missing := [name for name in self.columns if name not in rows]:
            msg = f"missing column(s) {', '.join(map(repr, missing))}; expected {self.columns}"
            raise BadInput(msg)
        out = np.empty((len(rows[self.features[0].name]), len(self.features)), dtype=np.float32)
        for position, feature in enumerate(self.features):
            out[:, position] = feature.encode(rows[feature.name])
        out[np.isinf(out)] = np.nan
        return out

    def score(self, rows: pd.DataFrame | Cells) -> np.ndarray[Any, np.dtype[np.float32]]:
        """Score raw rows: P(second class), shape (n,); P(class), shape (n, k); or the value."""
        return self.score_matrix(self.matrix(rows))

    def score_matrix(
        self, encoded: np.ndarray[Any, np.dtype[np.float32]]
    ) -> np.ndarray[Any, np.dtype[np.float32]]:
        """Score rows that `matrix` encoded."""
        matrix = xgb.DMatrix(
            encoded, feature_names=self.names, feature_types=self.feature_types,
            enable_categorical=True, nthread=1,
        )  # fmt: skip
        scores: np.ndarray[Any, np.dtype[np.float32]] = self.booster.predict(matrix)
        return scores

    def contributions(self, rows: pd.DataFrame | Cells) -> np.ndarray[Any, np.dtype[np.float32]]:
        """Give what each feature adds to the margin (SHAP values by TreeSHAP), exactly.

        Shape (n, features), or (n, k, features) for several classes; Lundberg et al. 2018,
        arXiv 1802.03888, as XGBoost implements it.
        """
        matrix = xgb.DMatrix(
            self.matrix(rows), feature_names=self.names, feature_types=self.feature_types,
            enable_categorical=True, nthread=1,
        )  # fmt: skip
        found: np.ndarray[Any, np.dtype[np.float32]] = self.booster.predict(
            matrix, pred_contribs=True
        )
        return found[..., :-1]  # the last one is the bias

    def gains(self) -> dict[str, float]:
        """Give the total gain of each feature's splits; 0 for one that no tree uses."""
        try:
            found = self.booster.get_score(importance_type="total_gain")
        except xgb.core.XGBoostError:  # a linear booster splits nothing
            found = {}
        given = {name: found.get(name, 0.0) for name in self.names}
        return {
            column: float(np.mean(given[name]))
            for column, name in zip(self.columns, self.names, strict=True)
        }

    @property
    def names(self) -> list[str]:
        """Name the columns for XGBoost, which refuses `[`, `]` and `<` in a name."""
        return [name.translate(str.maketrans("[]<", "()(")) for name in self.columns]

    @property
    def feature_types(self) -> list[str]:
        """Give XGBoost's type of each column: `c` for a category, else `q`."""
        return ["c" if feature.kind == "category" else "q" for feature in self.features]

    def predict(self, rows: pd.DataFrame, params: object = None) -> Any:  # noqa: ANN401, ARG002 (MLflow's pyfunc contract)
        """Score for MLflow: an array, or for several classes a frame with a column per class."""
        scores = self.score(rows)
        if self.task == "multiclass":  # XGBoost gives no rows in another shape
            return pd.DataFrame(scores.reshape(-1, len(self.classes)), columns=list(self.classes))
        return scores

    def save(self, folder: Path) -> None:
        """Write the model into a folder; the same model gives the same bytes."""
        folder.mkdir(parents=True, exist_ok=True)
        self.booster.save_model(folder / BOOSTER)
        about = {
            "task": self.task,
            "classes": self.classes,
            "features": [asdict(feature) for feature in self.features],
            "booster": _digest(folder),
        }
        (folder / ABOUT).write_text(json.dumps(about, indent=1, sort_keys=True), encoding="utf-8")

    @classmethod
    def load(cls, folder: Path) -> Scorer:
        """Read a model that `save` wrote, and nothing else.

        Raises:
            ValueError: the booster is not the one that was saved.
        """
        about = json.loads((folder / ABOUT).read_text(encoding="utf-8"))
        if _digest(folder) != about["booster"]:
            # XGBoost does not refuse every damaged file: one in ten kills the process (SIGSEGV).
            msg = f"{folder / BOOSTER} is damaged: it is not the booster that was saved"
            raise ValueError(msg)
        features = tuple(
            Feature(item["name"], item["kind"], tuple(item["categories"]))
            for item in about["features"]
        )
        booster = xgb.Booster({"nthread": 1}, model_file=folder / BOOSTER)
        return cls(about["task"], features, tuple(about["classes"]), booster)


def _digest(folder: Path) -> str:
    return hashlib.sha256((folder / BOOSTER).read_bytes()).hexdigest()


def _load_pyfunc(path: str) -> Scorer:
    """Load for MLflow: the name that its `loader_module` contract asks for."""
    return Scorer.load(Path(path))
