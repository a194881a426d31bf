"""The tags that keep a model's snapshots: enough to read its delta again, and nobody else's."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace

import pytest
from builders import EPOCH, PIPELINE, model
from drawing import BEFORE, delta, logs
from hypothesis import given, settings
from hypothesis import strategies as st

from config.settings import DeltaPolicy, Settings
from handlers.cut import Halt, plan
from handlers.facts import Cursor, Delta, Model, Record, Snapshot, State, Way
from handlers.lineage import complete
from handlers.pins import pattern, tags

EXAMPLES = settings(max_examples=150, deadline=None)
NAMES = st.from_regex(r"[a-z0-9][a-z0-9_-]{0,12}", fullmatch=True)
"""What the settings take as a pipeline's name; the first test holds this against them."""
VERSIONS = st.integers(1, 10**6).map(str)
WAYS: tuple[Way, ...] = ("appended", "changed", "apart", "whole")


def record(wanted: Delta, version: Model | None = None, pipeline: str = PIPELINE) -> Record:
    """Make the decision that made a model of this delta."""
    return Record(
        pipeline=pipeline, sequence=1, delta=wanted, state=State.PROMOTED, reason="because",
        opened_at=EPOCH, closed_at=EPOCH, snapshots=(), model=version,
    )  # fmt: skip


def line(count: int, start: int | None = BEFORE, way: Way = "appended") -> Delta:
    """Make a delta of so many appends."""
    numbers = range(BEFORE + 1, BEFORE + count + 1)
    made = (Snapshot(n, n - 1, EPOCH, "append", {"added-records": "5"}) for n in numbers)
    return replace(delta(*made, start=start), way=way)


@EXAMPLES
@given(NAMES | st.text(max_size=3))
def test_the_names_tried_here_are_those_that_the_settings_take(name: str) -> None:
    """No name that a pipeline may have is beyond these tests."""
    pipelines = {name: {"table": "a.b", "label": "y"}}
    try:
        Settings.model_validate({"pipelines": pipelines})
    except ValueError:
        taken = False
    else:
        taken = True
    assert taken == bool(re.fullmatch(r"[a-z0-9][a-z0-9_-]{0,62}", name))


@EXAMPLES
@given(st.lists(NAMES, min_size=2, max_size=2, unique=True), VERSIONS, st.integers(1, 4))
@pytest.mark.parametrize("suffix", ["", "-1", "-1-2", "_1", "-a", "-"])
def test_no_pipeline_knows_the_tags_of_another(
    suffix: str, names: list[str], version: str, count: int
) -> None:
    """Each pattern matches all tags of its own pipeline, and none of any other's."""
    mine, other = names[0], (names[0] + suffix if suffix else names[1])
    own = tags([record(line(count), Model(version, "run"), mine)])
    foreign = tags([record(line(count), Model(version, "run"), other)])
    assert own
    assert foreign
    assert all(re.fullmatch(pattern(mine), name) for name in own)
    assert not any(re.fullmatch(pattern(mine), name) for name in foreign)
    assert not any(re.fullmatch(pattern(other), name) for name in own)


@pytest.mark.parametrize("name", ["retraind", "retraind-cards", "retraind-cards-", "audit", "cards",
                                  "retraind-cards-3.", "retraind-cards-3.1.2", "x-retraind-cards-3",
                                  "retraind-cards-3-hold"])  # fmt: skip
def test_tags_of_people_are_left_alone(name: str) -> None:
    """Whatever else a tag is called, it is none of ours."""
    assert not re.fullmatch(pattern("cards"), name)


@pytest.mark.parametrize(
    ("wanted", "expected"),
    [
        (line(1), {"": 101, ".1": 100}),
        (line(3), {"": 103, ".1": 100, ".2": 101, ".3": 102}),
        (line(3, start=None), {"": 103}),
        (line(3, way="changed"), {"": 103, ".1": 100}),
        (line(3, way="apart"), {"": 103, ".1": 100}),
        (line(3, way="whole"), {"": 103}),
        (replace(line(0), end_id=BEFORE), {"": BEFORE}),
    ],
)
def test_what_is_tagged(wanted: Delta, expected: dict[str, int]) -> None:
    """The end always; its start for a comparison; every snapshot for an incremental read."""
    found = tags([record(wanted, model(7))])
    assert found == {f"retraind-cards-7{suffix}": at for suffix, at in expected.items()}


def test_each_model_has_tags_of_its_own() -> None:
    """Two models may need the same snapshot; a decision without a model needs none."""
    found = tags([record(line(1), model(7)), record(line(1), model(8)), record(line(5))])
    assert sorted(found) == [
        "retraind-cards-7", "retraind-cards-7.1", "retraind-cards-8", "retraind-cards-8.1",
    ]  # fmt: skip


@EXAMPLES
@given(
    log=logs(least=1),
    rewrites=st.sampled_from(["added", "full", "skip", "halt"]),
    first_look=st.booleans(),
)
def test_what_is_tagged_is_enough_to_read_the_delta_again(
    log: tuple[Snapshot, ...], rewrites: str, *, first_look: bool
) -> None:
    """With all other snapshots expired, a delta that any policy makes can still be read."""
    wanted = delta(*log, start=None if first_look else BEFORE)
    policy = DeltaPolicy.model_validate({"rewrites": rewrites})
    chosen = plan(wanted, Cursor("uuid", BEFORE), policy, passed=log[-1].id)
    assert not isinstance(chosen, Halt)
    start = Snapshot(BEFORE, BEFORE - 1, EPOCH, "append")
    tagged = set(tags([record(chosen, model(7))]).values())
    kept = {snapshot.id: snapshot for snapshot in (start, *log) if snapshot.id in tagged}

    def ancestors(snapshot_id: int) -> Iterator[Snapshot]:
        at: int | None = snapshot_id
        while at is not None and at in kept:
            yield kept[at]
            at = kept[at].parent_id

    assert complete(chosen, ancestors)
