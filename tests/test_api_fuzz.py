"""The API against its own document, with requests that nobody thought of."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path
from typing import Any
from unittest import SkipTest

import pytest
import schemathesis
from builders import PIPELINE, ledger
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis.errors import Unsatisfiable
from past import fill
from schemathesis.core.result import Ok
from schemathesis.generation import GenerationMode
from schemathesis.specs.openapi.schemas import OpenApiSchema

from config.settings import Settings
from daemon import dashboard

TOKEN = "a-token-of-some-length"  # noqa: S105 (of the tests alone)
HEADERS = {"Authorization": f"Bearer {TOKEN}", "X-User": "ann"}
OFTEN = 20
"""Requests for each operation and kind of data."""


@pytest.fixture
def document(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OpenApiSchema]:
    """Load the document of an API whose ledger has a realistic history."""
    home: Path = tmp_path_factory.mktemp("fuzz")
    wanted = Settings.model_validate(
        {
            "state_dir": home, "http": {"token": TOKEN, "hosts": ["testserver"]},
            "pipelines": {PIPELINE: {"table": "lake.bank.cards", "label": "fraud"}},
        }
    )  # fmt: skip
    with closing(ledger(home / "ledger.db")) as book:
        fill(book)
        pages = dashboard.app(wanted, book, dict, list)
        pages.state.closing.set()  # a stream of events ends, instead of waiting for one
        yield schemathesis.openapi.from_asgi("/api/openapi.json", pages, headers=HEADERS)


@pytest.mark.parametrize("mode", list(GenerationMode), ids=str)
def test_every_answer_is_as_documented(document: OpenApiSchema, mode: GenerationMode) -> None:
    """No server error, no status and no shape that the document does not have, whatever is sent."""
    asked: Counter[int] = Counter()
    for found in document.get_all_operations():
        assert isinstance(found, Ok), found
        operation = found.ok()

        @settings(
            max_examples=OFTEN, derandomize=True, database=None, deadline=None,
            phases=[Phase.generate], suppress_health_check=list(HealthCheck),
        )  # fmt: skip
        @given(case=operation.as_strategy(generation_mode=mode))
        def ask(case: Any) -> None:
            known(case)
            answer = case.call_and_validate(headers=HEADERS)
            asked[answer.status_code] += 1

        with suppress(SkipTest, Unsatisfiable):  # nothing of it can be wrong
            ask()
    print(dict(asked))  # noqa: T201 (shown by -rP)
    assert asked.total() > OFTEN * 5


def known(case: Any) -> None:
    """Let most of the valid requests be for something that is there."""
    meta, parameters = case.meta, case.path_parameters
    if meta is None or meta.generation.mode is not GenerationMode.POSITIVE or not parameters:
        return
    if "pipeline" in parameters and len(parameters["pipeline"]) != 1:
        parameters["pipeline"] = PIPELINE
    if "delta" in parameters:
        parameters["delta"] = parameters["delta"] % 12 + 1
