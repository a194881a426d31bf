"""How long pages take on a long history, beside the health check that reads nothing.

    python tests/bench/pages.py

Once with 50 pipelines of 200 deltas each, once with one of 10,000.
"""

from __future__ import annotations

import statistics
import sys
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import httpx
import long_history
from browser import serving

TIMES = 20


def main() -> None:
    """Measure both ledgers."""
    shop = long_history.names(1)[0]
    print(f"{'page':44} {'first':>9} {'median':>9} {'times the health check':>24}")  # noqa: T201
    for pipelines, deltas in ((50, 200), (1, 10_000)):
        near, old = deltas - 5, 3
        paths = {
            "/": "overview" if pipelines > 1 else "pipeline (the only one)",
            f"/pipelines/{shop}": "pipeline", f"/pipelines/{shop}?before={old + 20}": "its past",
            f"/pipelines/{shop}/deltas/{near}": "delta",
            f"/pipelines/{shop}/deltas/{old}": "old delta",
            f"/pipelines/{shop}/models/{near}": "model", "/audit": "audit",
        }  # fmt: skip
        measure(f"{pipelines} x {deltas:,}", pipelines, deltas, paths)


def measure(name: str, pipelines: int, deltas: int, paths: Mapping[str, str]) -> None:
    """Ask for each page again and again."""
    with TemporaryDirectory() as home:
        settings = long_history.settings(Path(home), pipelines)
        with (
            closing(long_history.write(Path(home) / "ledger.db", pipelines, deltas)) as book,
            serving(settings, book) as url,
            httpx.Client(trust_env=False, timeout=60) as client,
        ):
            base = statistics.median(seconds(client, f"{url}/healthz"))
            for path, told in paths.items():
                took = seconds(client, url + path)
                median = statistics.median(took[1:])
                line = f"{name}: {told}"
                times = f"{median / base:.1f}"
                print(f"{line:44} {took[0] * 1e3:6.1f} ms {median * 1e3:6.1f} ms {times:>24}")  # noqa: T201


def seconds(client: httpx.Client, url: str) -> list[float]:
    """Give how long each answer took."""
    found = []
    for _ in range(TIMES):
        began = perf_counter()
        client.get(url).raise_for_status()
        found.append(perf_counter() - began)
    return found


if __name__ == "__main__":
    main()
