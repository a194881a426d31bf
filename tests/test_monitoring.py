"""The dashboard and the alert rules that come with the program: they ask for what there is."""

from __future__ import annotations

import json
import re
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from builders import PIPELINE, delta, ledger, lived, promote, record
from prometheus_client.parser import text_string_to_metric_families

from daemon.metrics import Meter
from handlers.facts import Drifted, State
from handlers.gauge import Gauge

ROOT = Path(__file__).resolve().parent.parent
MONITORING = ROOT / "config" / "monitoring"
NAMED = re.compile(r"\bretraind_[a-z_]+")
LABELS = re.compile(r"(?:by|on) \(([\w, ]+)\)|\{(\w+)(?:=|!)|\{\{\s*(?:\$labels\.)?(\w+)\s*\}\}")


@pytest.fixture(scope="module")
def everything(tmp_path_factory: pytest.TempPathFactory) -> dict[str, set[str]]:
    """Give all that the two processes export where there is something to tell, and its labels."""
    with closing(ledger(tmp_path_factory.mktemp("state") / "ledger.db")) as book:
        promote(book, 1)
        work = book.open(PIPELINE, delta(2))
        moved = Drifted("x", "feature", 0.1, "small", "")
        kept = replace(record(work, State.KEPT, 2, "1"), live=lived(1), drift=(moved,))
        book.settle(kept)
        meter = Meter([PIPELINE], book)
        tally = meter.tally(PIPELINE)
        tally.ticked("acted")
        tally.stepped("training", 1.0)
        tally.failed("table", "try_later")
        tally.looked()
        tally.lags(delta(3))
        gauge = Gauge()
        gauge.answered(200, 1, 0.001)
        gauge.loaded("1", "run")
        text = meter.exposition("")[0] + gauge.exposition("")[0]
    return {
        sample.name: set(sample.labels)
        for family in text_string_to_metric_families(text.decode())
        for sample in family.samples
        if not sample.name.endswith("_created")
    }


@pytest.mark.parametrize("name", ["alerts.yaml", "grafana.json"])
def test_what_is_asked_for_is_exported(name: str, everything: dict[str, set[str]]) -> None:
    """Every metric named in the dashboard and the rules is one that there is, and every label."""
    text = (MONITORING / name).read_text(encoding="utf-8")
    named = set(NAMED.findall(text))
    assert len(named) > 8
    assert named - set(everything) == set()
    labels = {label.strip() for found in LABELS.findall(text) for part in found
              for label in part.split(",") if label}  # fmt: skip
    known = set().union(*everything.values()) | {"instance"}
    assert {"pipeline", "le"} <= labels | {"pipeline"}
    assert labels - known == set()


def test_the_table_of_metrics_is_whole(everything: dict[str, set[str]]) -> None:
    """The README names every metric, and none that there is not."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    section = text.partition("## Watch it with Prometheus")[2].partition("\n## ")[0]
    told = {name.removesuffix("_sum") for name in everything
            if not name.endswith(("_bucket", "_seconds_count"))}  # fmt: skip
    assert set(NAMED.findall(section)) == told


def test_the_rules_and_the_dashboard_are_whole() -> None:
    """Each rule has an expression, a severity and a sentence; each panel asks something."""
    found = yaml.safe_load((MONITORING / "alerts.yaml").read_text(encoding="utf-8"))
    rules = [rule for group in found["groups"] for rule in group["rules"]]
    assert len({rule["alert"] for rule in rules}) == len(rules) > 8
    for rule in rules:
        assert rule["expr"].count("(") == rule["expr"].count(")")
        assert rule["labels"]["severity"] in {"critical", "warning", "info"}
        assert rule["annotations"]["summary"].endswith(".")
    board = json.loads((MONITORING / "grafana.json").read_text(encoding="utf-8"))
    assert len({panel["id"] for panel in board["panels"]}) == len(board["panels"])
    asked = [panel for panel in board["panels"] if panel["type"] != "row"]
    assert all(target["expr"] for panel in asked for target in panel["targets"])
    assert all(panel["targets"] for panel in asked)
