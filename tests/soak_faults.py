"""What a soak does to the daemon: kills, hangs, losses, outages, and operators at work."""

from __future__ import annotations

import os
import sqlite3
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import closing
from pathlib import Path
from random import Random
from threading import Event

import psutil
from soak_commits import Writer
from soak_site import Site

LOCKED_FOR = 12.0, 18.0
"""Seconds; longer than a writer waits for its turn, so that it fails."""


class Faults:
    """Each method is one fault; it tells what it did, nothing where there was no occasion."""

    def __init__(self, site: Site, writer: Writer, over: Event) -> None:
        self.done: Counter[str] = Counter()
        """How often each fault really happened."""
        self._site = site
        self._writer = writer
        self._over = over

    def do(self, name: str, chance: Random) -> str:
        """Do a fault by its name."""
        told = FAULTS[name][1](self, chance)
        self.done[name] += bool(told)
        return told

    # -- kills and hangs ---------------------------------------------------------------------

    def kill(self, _: Random) -> str:
        """Kill the daemon and start it at once."""
        self._site.kill()
        self._site.start()
        return f"life {len(self._site.lives)} begins"

    def stop(self, _: Random) -> str:
        """Ask the daemon to stop, which it does in order once it is up, and start it at once."""
        up = self._site.life.started
        status = self._site.terminate()
        if up and status:
            self._site.broken.append(f"the daemon stopped with status {status}")
        self._site.start()
        return f"status {status}"

    def hang(self, chance: Random) -> str:
        """Stop the daemon's process for a while, as a machine that swaps or sleeps does."""
        return self._suspend(psutil.Process(self._site.life.process.pid), chance)

    def kill_driver(self, _: Random) -> str:
        """Kill the JVM of the daemon's Spark."""
        driver = self._site.driver
        if driver is None:
            return ""
        driver.kill()
        return f"process {driver.pid}"

    def kill_server(self, _: Random) -> str:
        """Kill the endpoint."""
        server = self._site.server
        if server is None:
            return ""
        self._site.strike()
        server.kill()
        return f"process {server.pid}"

    def hang_server(self, chance: Random) -> str:
        """Stop the endpoint's process for a while."""
        server = self._site.server
        if server is None:
            return ""
        self._site.strike()
        told = self._suspend(server, chance)
        self._site.strike()
        return told

    def _suspend(self, process: psutil.Process, chance: Random) -> str:
        seconds = chance.uniform(3, 20)
        process.suspend()
        try:
            self._over.wait(seconds)
        finally:
            process.resume()
        return f"process {process.pid} for {seconds:.0f} s"

    def intrude(self, _: Random) -> str:
        """Let a second daemon look at the same state; it must refuse."""
        if not self._site.life.started:
            return ""
        done = self._site.run("once")
        if done.returncode != 1 or "acts on this state" not in done.stderr:
            self._site.broken.append(f"a second daemon: {done.returncode} {done.stderr[-500:]}")
        return f"status {done.returncode}"

    # -- losses and outages ------------------------------------------------------------------

    def lose_ledger(self, _: Random) -> str:
        """Delete the ledger while the daemon is down."""
        self._site.kill()
        for path in self._site.state.glob("ledger.db*"):
            path.unlink()
        self._site.start()
        return f"life {len(self._site.lives)} begins"

    def lock_ledger(self, chance: Random) -> str:
        """Keep everybody from the ledger for a while, as a disk that hangs does."""
        return self._lock(self._site.ledger, chance)

    def lock_mlflow(self, chance: Random) -> str:
        """Keep everybody from MLflow's store for a while."""
        return self._lock(self._site.state / "mlflow.db", chance)

    def _lock(self, path: Path, chance: Random) -> str:
        if not path.exists():
            return ""
        seconds = chance.uniform(*LOCKED_FOR)
        with closing(sqlite3.connect(path, timeout=20, isolation_level=None)) as db:
            db.execute("BEGIN EXCLUSIVE")
            self._over.wait(seconds)
            db.execute("ROLLBACK")
        return f"{path.name} for {seconds:.0f} s"

    def hide_table(self, chance: Random) -> str:
        """Take the table's folder away for a while; nobody commits meanwhile."""
        home = self._site.table_home
        away = home.with_name("away")
        home.rename(away)
        try:
            self._over.wait(chance.uniform(3, 10))
        finally:
            away.rename(home)
        return str(home.name)

    def damage(self, chance: Random) -> str:
        """Append, damage or remove the file that came, and repair it later."""
        self._writer.append(chance)
        self._writer.chronicle.look()
        path = self._writer.newest_file()
        sound = path.read_bytes()
        gone = chance.random() < 0.5
        if gone:
            path.unlink()
        else:
            path.write_bytes(os.urandom(len(sound)))
        try:
            self._over.wait(chance.uniform(5, 20))
        finally:
            path.write_bytes(sound)
        self._site.run("retry")
        return f"{path.name} was {'gone' if gone else 'garbage'}"

    # -- operators ---------------------------------------------------------------------------

    def pause(self, _: Random) -> str:
        """Pause the pipeline."""
        return self._operate("pause", "--reason", "soak")

    def resume(self, _: Random) -> str:
        """Let the pipeline go on."""
        return self._operate("resume")

    def retry(self, _: Random) -> str:
        """Take up what is parked."""
        return self._operate("retry") if self._site.parked() else ""

    def release(self, chance: Random) -> str:
        """Train on a parked delta whatever the contract says."""
        return self._one("retry", chance, "--release")

    def drop(self, chance: Random) -> str:
        """Close a parked delta for good."""
        return self._one("drop", chance, "--reason", "soak")

    def crown(self, _: Random) -> str:
        """Make an earlier champion the champion."""
        return self._operate("rollback", "--reason", "soak")

    def _one(self, verb: str, chance: Random, *words: str) -> str:
        parked = self._site.parked()
        return self._operate(verb, "--delta", str(chance.choice(parked)), *words) if parked else ""

    def _operate(self, *words: str) -> str:
        done = self._site.run(*words)
        # A refusal says that there is nothing to do it to.
        return "" if done.returncode else done.stdout.strip()


Fault = Callable[[Faults, Random], str]
GENTLE: Mapping[str, tuple[int, Fault]] = {
    "operator: pause": (1, Faults.pause),
    "operator: retry": (2, Faults.retry),
    "operator: retry --release": (1, Faults.release),
    "operator: drop": (1, Faults.drop),
    "operator: rollback": (2, Faults.crown),
    "second daemon": (1, Faults.intrude),
    "MLflow locked": (1, Faults.lock_mlflow),
}
"""Faults that leave all processes alone, so that their memory can be measured."""
FAULTS: Mapping[str, tuple[int, Fault]] = {
    **GENTLE,
    "operator: resume": (0, Faults.resume),
    "daemon killed": (6, Faults.kill),
    "daemon stopped": (2, Faults.stop),
    "daemon hung": (2, Faults.hang),
    "JVM killed": (3, Faults.kill_driver),
    "endpoint killed": (2, Faults.kill_server),
    "endpoint hung": (1, Faults.hang_server),
    "ledger lost": (1, Faults.lose_ledger),
    "ledger locked": (1, Faults.lock_ledger),
    "table out of reach": (2, Faults.hide_table),
    "data file unreadable": (2, Faults.damage),
}
"""Every fault, and how often it comes in a deck; to be resumed follows a pause."""
