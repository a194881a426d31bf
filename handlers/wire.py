"""MLflow's scoring protocol: rows as a client writes them, and as the server reads them."""

from __future__ import annotations

import io
import json
import math
from collections import Counter
from collections.abc import Callable
from datetime import date, datetime
from decimal import Decimal
from http import HTTPStatus
from itertools import repeat
from typing import Any

import numpy as np
import pandas as pd

from handlers.facts import GiveUp
from handlers.scorer import Scorer

VERSION_HEADER = "X-Model-Version"
MISSING = ["", "NA", "N/A", "NaN", "nan", "None", "NULL", "null"]


class Refusal(Exception):
    """A request that is answered with a status and a sentence instead of predictions."""

    def __init__(self, status: HTTPStatus, message: str) -> None:
        """Take the status and the sentence."""
        super().__init__(message)
        self.status = status


def split(rows: pd.DataFrame) -> dict[str, Any]:
    """Give rows as MLflow's `dataframe_split`, in values that JSON carries exactly.

    Raises:
        GiveUp: a cell of a type that JSON has no form for.
    """
    columns = [[_cell(v, name) for v in values.tolist()] for name, values in rows.items()]
    data = [list(row) for row in zip(*columns, strict=True)]
    return {"columns": [str(name) for name in rows.columns], "data": data}


def _cell(value: object, column: object) -> str | float | bool | None:
    """Give one value for JSON: missing and infinite are null, times are ISO 8601."""
    if isinstance(value, np.datetime64):
        value = pd.Timestamp(value)
    elif isinstance(value, np.generic):
        value = value.item()
    if value is None or value is pd.NA or value is pd.NaT or isinstance(value, str | int):
        return value if isinstance(value, str | int) else None
    if isinstance(value, float | Decimal):
        number = float(value)
        return number if math.isfinite(number) else None
    if isinstance(value, datetime | date):
        return value.isoformat()
    raise GiveUp(
        f"Column {column!r} holds a {type(value).__name__}, which JSON has no form for.",
        "Leave the column out of the features.",
    )


def read(content_type: str, body: bytes, scorer: Scorer) -> pd.DataFrame | dict[str, Any]:
    """Read the model's columns from a body in any of the protocol's forms.

    The cells stay as the client gave them: only the scorer knows what they mean.
    """
    media = content_type.partition(";")[0].strip().lower()
    if media == "text/csv":
        return _csv(body, scorer)
    if media != "application/json":
        raise Refusal(
            HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
            f"Content-Type must be application/json or text/csv, not {media!r}",
        )
    try:
        document = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise Refusal(HTTPStatus.BAD_REQUEST, f"the body is not valid JSON: {error}") from error
    forms = [name for name in FORMS if isinstance(document, dict) and name in document]
    if len(forms) != 1:
        known = ", ".join(FORMS)
        raise Refusal(HTTPStatus.BAD_REQUEST, f"the body must be an object with one of: {known}")
    columns = FORMS[forms[0]](document[forms[0]], scorer.columns)
    for name, cells in columns.items():
        if {list, dict}.intersection(map(type, cells)):
            raise Refusal(HTTPStatus.BAD_REQUEST, f"column {name!r} must hold single values")
    return columns


def _csv(body: bytes, scorer: Scorer) -> pd.DataFrame:
    """Read CSV without guessing at text: `007` and `NA` are categories like any other."""
    texts = {f.name for f in scorer.features if f.kind in ("category", "time")}
    missing = {name: [""] if name in texts else MISSING for name in scorer.columns}
    try:
        frame: pd.DataFrame = pd.read_csv(
            io.BytesIO(body), dtype=dict.fromkeys(texts, "object"), na_values=missing,
            keep_default_na=False, low_memory=False, float_precision="round_trip",
        )  # fmt: skip
    except ValueError as error:
        raise Refusal(HTTPStatus.BAD_REQUEST, f"the body is not valid CSV: {error}") from error
    if not isinstance(frame.index, pd.RangeIndex):
        # pandas takes the cells that no column is named for as an index.
        raise Refusal(HTTPStatus.BAD_REQUEST, "the CSV has more cells in a row than columns")
    return frame


def _split(value: object, names: list[str]) -> dict[str, Any]:
    """Read `{"columns": [...], "data": [[...], ...]}`."""
    if not isinstance(value, dict) or not {"columns", "data"} <= value.keys():
        raise Refusal(HTTPStatus.BAD_REQUEST, "dataframe_split must have `columns` and `data`")
    columns, data = value["columns"], value["data"]
    if not isinstance(columns, list) or not all(isinstance(name, str) for name in columns):
        raise Refusal(HTTPStatus.BAD_REQUEST, "`columns` must be a list of names")
    if len(set(columns)) < len(columns):
        twice = [name for name, count in Counter(columns).items() if count > 1]
        raise Refusal(HTTPStatus.BAD_REQUEST, f"column(s) given twice: {twice}")
    return _table(columns, data, names)


def _table(columns: list[str], data: object, names: list[str]) -> dict[str, Any]:
    """Turn rows into the model's columns."""
    if not isinstance(data, list):
        raise Refusal(HTTPStatus.BAD_REQUEST, "the rows must be a list")
    for position, row in enumerate(data):
        if not isinstance(row, list) or len(row) != len(columns):
            message = f"row {position} must be a list of {len(columns)} values, one per column"
            raise Refusal(HTTPStatus.BAD_REQUEST, message)
    cells = zip(*data, strict=True) if data else repeat((), len(columns))
    found = dict(zip(columns, cells, strict=True))
    return {name: found[name] for name in names if name in found}


def _records(value: object, names: list[str]) -> dict[str, Any]:
    """Read `[{column: value, ...}, ...]`; a key that some rows lack is missing there."""
    if not isinstance(value, list) or not all(isinstance(row, dict) for row in value):
        raise Refusal(HTTPStatus.BAD_REQUEST, "the records must be a list of objects")
    present = [name for name in names if not value or any(name in row for row in value)]
    return {name: [row.get(name) for row in value] for name in present}


def _inputs(value: object, names: list[str]) -> dict[str, Any]:
    """Read columns, records, or rows in the model's order of features."""
    if isinstance(value, list):
        records = bool(value) and isinstance(value[0], dict)
        return _records(value, names) if records else _table(names, value, names)
    if not isinstance(value, dict) or not all(isinstance(cells, list) for cells in value.values()):
        raise Refusal(HTTPStatus.BAD_REQUEST, "the inputs must be rows, or a list per column")
    if len({len(cells) for cells in value.values()}) > 1:
        raise Refusal(HTTPStatus.BAD_REQUEST, "the columns must all have the same length")
    return {name: value[name] for name in names if name in value}


FORMS: dict[str, Callable[[object, list[str]], dict[str, Any]]] = {
    "dataframe_split": _split,
    "dataframe_records": _records,
    "inputs": _inputs,
    "instances": _inputs,
}
