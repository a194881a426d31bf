"""Pictures of an explanation are drawn, small, the same every time, and never in the way."""

from __future__ import annotations

import builtins
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs
from test_explain import explained, fit, part

from handlers import evidence, pictures
from handlers.explain import Explanation
from handlers.pictures import PICTURES, draw
from handlers.scorer import Task

PNG = b"\x89PNG\r\n"
LARGEST = 60_000


def view(task: Task = "binary", *, against: bool = True) -> Explanation:
    """Explain a model beside a champion, or alone."""
    held_out = part(4, turned=True, task=task)
    rival = fit(part(1, task=task), task) if against else None
    return explained(fit(part(3, turned=True, task=task), task), held_out, rival)


@pytest.fixture(scope="module")
def found() -> Explanation:
    """Give an explanation that has everything."""
    return view()


@pytest.mark.parametrize(
    ("task", "against", "lacks"),
    [
        ("binary", True, set()),
        ("binary", False, {"slices"}),
        ("multiclass", True, {"calibration"}),
        ("regression", True, {"calibration", "confusion"}),
    ],
)
def test_each_explanation_has_its_pictures(
    task: Task, lacks: set[str], tmp_path: Path, *, against: bool
) -> None:
    """What an explanation lacks is not drawn; the files are small PNGs."""
    drawn = draw(view(task, against=against), tmp_path)
    assert set(drawn) == set(PICTURES) - lacks
    assert sorted(f"{name}.png" for name in drawn) == sorted(p.name for p in tmp_path.iterdir())
    for path in tmp_path.iterdir():
        content = path.read_bytes()
        assert content.startswith(PNG)
        assert len(content) < LARGEST


def test_the_same_explanation_gives_the_same_bytes(found: Explanation, tmp_path: Path) -> None:
    """No time, no version and no chance is in a picture."""
    for folder in ("one", "two"):
        (tmp_path / folder).mkdir()
        draw(found, tmp_path / folder)
    for path in (tmp_path / "one").iterdir():
        assert path.read_bytes() == (tmp_path / "two" / path.name).read_bytes()


def test_strange_names_and_many_columns_and_classes_are_drawn(
    found: Explanation, tmp_path: Path
) -> None:
    """Dollar signs are no formulas, long names are cut, and what is too much is left out."""
    names = ["$a$ \\frac{", "x" * 300, "<b>&", *(f"column {i}" for i in range(2000))]
    features = [{"name": n, "share": 0.1, "gain": 0.1, "champion": 0.2} for n in names]
    classes = [f"$class {i}$" for i in range(80)]
    confusion = {"classes": classes, "counts": [[1] * 80] * 80}
    slices = [{**item, "slice": f"${'y' * 400}$"} for item in found["slices"]]
    strange = {**found, "features": features, "confusion": confusion, "slices": slices}
    with capture_logs() as logs:
        assert set(draw(strange, tmp_path)) == set(PICTURES)
    assert logs == []
    assert max(path.stat().st_size for path in tmp_path.iterdir()) < 2 * LARGEST


def test_a_picture_that_fails_is_told_and_left_out(
    found: Explanation, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The others and the evidence are kept all the same."""

    def fails(_: Mapping[str, Any]) -> Any:
        raise RuntimeError("no ink")

    monkeypatch.setattr(pictures, "PICTURES", {**PICTURES, "slices": (bool, fails)})
    scorer, rows = fit(part(1)), part(2, 20).rows
    with capture_logs() as logs:
        evidence.keep(tmp_path / "kept", scorer, rows, found, None)
    assert [(line["event"], line["picture"]) for line in logs] == [("picture_failed", "slices")]
    kept = {str(path.relative_to(tmp_path / "kept")) for path in tmp_path.rglob("*.*")}
    assert kept == {"proof.parquet", "explanation.json"} | {
        f"explanation/{name}.png" for name in PICTURES if name != "slices"
    }


def test_without_matplotlib_there_are_no_pictures(
    found: Explanation, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As beside a platform's slim MLflow: it is told, and nothing fails."""
    real = builtins.__import__

    def lacking(name: str, *rest: Any, **options: Any) -> Any:
        if name.startswith("matplotlib"):
            raise ImportError(name)
        return real(name, *rest, **options)

    monkeypatch.setattr(builtins, "__import__", lacking)
    with capture_logs() as logs:
        assert draw(found, tmp_path) == []
    assert [line["event"] for line in logs] == ["pictures_left_out"]
