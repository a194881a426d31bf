"""Starts a workbench to look at by hand: `python -m tests.cloudera [--port N] [--home FOLDER]`."""

from __future__ import annotations

import argparse
import signal
import sys
import tempfile
from pathlib import Path
from threading import Event

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from cloudera.serving import SITE
from cloudera.workbench import Workbench


def main() -> None:
    """Serve until stopped."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--home", type=Path, help="a folder that is kept")
    parser.add_argument("--project", type=Path, help="the folder that workloads run in")
    parser.add_argument("--tracking-uri", help="where the runs are that models come from")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="workbench-") as scratch:
        home = given.home or Path(scratch)
        with Workbench(
            home, project=given.project, tracking_uri=given.tracking_uri, port=given.port
        ) as bench:
            for name, value in {
                "PYTHONPATH": SITE, "CDSW_API_URL": f"{bench.url}/api/v1",
                "CDSW_APIV2_KEY": bench.key.text, "CDSW_PROJECT_ID": bench.project_id,
            }.items():  # fmt: skip
                print(f"export {name}={value}", flush=True)  # noqa: T201 (a command's output)
            print(f"# models answer at {bench.model_url}", flush=True)  # noqa: T201
            _until_stopped()


def _until_stopped() -> None:
    """Wait for SIGTERM, or for Ctrl-C, which is switched off in the background of a shell."""
    stopped = Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stopped.set())
    # A wait for ever can miss a signal that the kernel gives to another thread.
    while not stopped.wait(0.2):
        pass


if __name__ == "__main__":
    main()
