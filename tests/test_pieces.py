"""A delta that is taken in pieces comes to its end, with every door in memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from builders import TABLE
from lake import Row
from world import NAME, Daemon, World

from config.settings import Pipeline

Start = Callable[..., Daemon]


@pytest.fixture
def world(tmp_path: Path) -> World:
    """Give a table, a registry and an endpoint in memory."""
    return World(tmp_path)


@pytest.fixture
def start(world: World) -> Iterator[Start]:
    """Start daemons on them, with any policy."""
    started: list[Daemon] = []

    def start(**policy: Any) -> Daemon:
        pipeline = {
            "table": TABLE, "label": "label", "features": ["x"], "row_key": ["key"],
            "delta": policy, "train": {"rounds": 1, "strategy": "fresh"},
            "promote": {"min_held_out": 1, "confidence": 0},
        }  # fmt: skip
        started.append(Daemon(world, Pipeline.model_validate(pipeline)))
        return started[-1]

    yield start
    for daemon in started:
        daemon.close()


def rows(first: int, last: int, x: float = 0.0, label: float | None = None) -> list[Row]:
    """Make rows with these keys, of both classes unless a label is given."""
    return [
        Row(key, key % 7 + x, key % 2 if label is None else label, 0.0, 0)
        for key in range(first, last)
    ]


def told(daemon: Daemon) -> list[tuple[str, int]]:
    """Give state and rows of every decision but the first, oldest first."""
    decided = [(r.state.value, r.delta.rows) for r in reversed(daemon.book.history(NAME, 99))]
    return decided[1:]


def settle(daemon: Daemon) -> None:
    """Tick until nothing is left to do."""
    while daemon.reconciler.tick():
        pass


def test_an_append_behind_a_delete_is_taken_with_it(world: World, start: Start) -> None:
    """Taken snapshot by snapshot, rows that were deleted and written again are not new."""
    daemon = start(coalesce="each", min_rows=50)
    world.lake.append(rows(0, 200))
    settle(daemon)
    world.lake.rewrite(rows(0, 10), [], in_place=False)
    world.lake.append([*rows(0, 10), *rows(1000, 1100)])
    settle(daemon)
    assert [count for _, count in told(daemon)] == [100]


def test_what_passed_a_halt_passes_in_pieces(world: World, start: Start) -> None:
    """A person who let three snapshots pass is not asked again for each when one of them is bad."""
    daemon = start(rewrites="halt", min_rows=1)
    world.lake.append(rows(0, 200))
    settle(daemon)
    world.lake.rewrite(rows(0, 50), rows(0, 50, x=0.5), in_place=False)
    world.lake.append(rows(300, 340, label=9.0))
    world.lake.rewrite(rows(100, 150), rows(100, 150, x=0.5), in_place=False)
    settle(daemon)
    assert (told(daemon), daemon.book.standing(NAME).halted_id) == ([], world.lake.head)
    daemon.book.resume(NAME, "ann")
    settle(daemon)
    assert [count for _, count in told(daemon)] == [140, 50, 40, 50]
    assert [state for state, _ in told(daemon)][::2] == ["split", "parked"]
    standing = daemon.book.standing(NAME)
    assert (standing.paused, standing.passed_id) == (None, None)
    world.lake.rewrite(rows(50, 60), [], in_place=False)
    settle(daemon)
    assert daemon.book.standing(NAME).halted_id == world.lake.head


def test_rows_that_are_picked_twice_are_trained_on_once(world: World, start: Start) -> None:
    """A staged append is published, rolled back, and published again behind new rows."""
    daemon = start()
    before = world.lake.append(rows(0, 200))
    staged = world.lake.append(rows(300, 340), staged=True)
    world.lake.append(rows(400, 440))
    world.lake.pick(staged)
    settle(daemon)
    world.lake.set_head(before)
    world.lake.append(rows(500, 540))
    world.lake.pick(staged)
    settle(daemon)
    assert told(daemon) == [("skipped", 0), ("kept", 40), ("skipped", 40)]
    assert daemon.book.history(NAME, 1)[0].reason == "skipped: its snapshots were dealt with before"
