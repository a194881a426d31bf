"""The kill sweep in short, and what keeps the sweep itself honest."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
from mlflow import MlflowClient
from sweep import Crash, _differences, _doubled, sample, unmet
from sweep_effects import CLIENT, Effect, Moment, known
from sweep_story import STORY

ROOT = Path(__file__).resolve().parent.parent
READS = {
    "get_experiment_by_name", "get_model_version_by_alias", "get_run", "list_artifacts",
    "search_model_versions", "search_runs",
}  # fmt: skip
MOMENTS: tuple[Moment, ...] = ("before", "during", "after")


@pytest.mark.real
@pytest.mark.timeout(1200)
def test_killed_at_any_kind_of_effect_it_heals() -> None:
    """A SIGKILL at each kind of outside effect, and a restart: the state is as without the kill.

    It fails as well on an effect that the story never meets, and on one that has no name yet.
    """
    done = subprocess.run(
        [sys.executable, "tests/sweep.py", "--sample"],
        cwd=ROOT, capture_output=True, text=True, check=False, timeout=1190,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    first, *_, last = done.stdout.splitlines()
    all_points, tried = (
        re.match(r"(\d+) crash points at (\d+) kinds", line) for line in (first, last)
    )
    assert all_points
    assert tried
    assert all_points[2] == tried[2]
    assert f": {tried[1]} healed, 0 not;" in last
    assert int(tried[1]) >= int(tried[2]) >= len(known())
    print(done.stdout)  # noqa: T201 (shown by -rP)


def test_no_call_of_mlflow_goes_unswept() -> None:
    """Whatever the registry asks MLflow's client to do is known to read, or is killed at."""
    source = (ROOT / "handlers" / "registry.py").read_text(encoding="utf-8")
    calls = set(re.findall(r"\bclient\.(\w+)", source))
    assert calls == READS | set(CLIENT)
    assert all(hasattr(MlflowClient, name) for name in calls)


@pytest.mark.parametrize("seed", range(5))
def test_a_sample_meets_every_kind_and_chapter(seed: int) -> None:
    """A kind of effect is tried once, in the shortest chapter that has it; no chapter is missed.

    A settlement is killed right after it, where it promotes.
    """
    crashes = [
        Crash(chapter, Effect(number, f"effect {number % 5}", files=2), moment)
        for chapter, effects in zip(STORY, (5, 9, 8), strict=False)
        for number in range(1, effects + 1)
        for moment in MOMENTS
    ]
    chosen = sample(crashes, seed)
    kinds = [crash.kind for crash in chosen if crash.chapter is STORY[0]]
    assert sorted(kinds) == sorted({crash.kind for crash in crashes})
    assert [c.chapter for c in chosen] == [*[STORY[0]] * len(kinds), STORY[1], STORY[2]]
    settled = [
        Crash(chapter, Effect(1, "ledger: settle"), moment)
        for chapter in STORY[:3]
        for moment in MOMENTS
    ]
    assert Crash(STORY[1], Effect(1, "ledger: settle"), "after") in sample(settled, seed)


def test_what_did_not_heal_is_named() -> None:
    """Whatever differs in the end, and whatever was done twice, speaks against a crash point."""
    expected = {"serves": {"version": "v1", "servers": 1}, "litter": []}
    found = {"serves": {"version": "v1", "servers": 2}, "litter": ["x"], "runs": 1}
    assert list(_differences(expected, expected)) == []
    assert sorted(_differences(expected, found)) == [
        "/litter has 1 items instead of 0, lacks [], has ['x'] beside",
        "/runs is 1 instead of None",
        "/serves/servers is 2 instead of 1",
    ]
    once, again = Effect(1, "ledger: settle"), Effect(9, "ledger: settle")
    assert list(_doubled([once], [again])) == []
    assert list(_doubled([once], [once, again])) == ["ledger: settle: done 2 times instead of 1"]


def test_an_effect_that_the_story_does_not_meet_is_named() -> None:
    """Each transaction of the ledger, each writing call and each door must be met."""
    met = [Crash(STORY[0], Effect(1, f"{name} of a tag"), "after") for name in known()]
    assert unmet(met) == set()
    settles = [crash for crash in met if crash.effect.name.startswith("ledger: settle")]
    assert unmet(c for c in met if c not in settles) == {"ledger: settle"}
