"""What the daemon does to the outside world, wrapped from outside: counted, and killed at.

The product knows nothing of this. Each outside effect has a name and, in the order of a run, a
number. A run that is given a `Point` is killed with SIGKILL at it: *before* the effect, *after* it,
or *during* it, once the first of several files was copied. A change that no wrapper covers is
noted by an audit hook, so that a new effect cannot be forgotten here.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import wraps
from inspect import getsource, isfunction
from pathlib import Path
from typing import Any, Literal

import mlflow

from daemon.ledger import Ledger
from daemon.store import Store
from handlers import endpoint
from handlers.table import Table

Moment = Literal["before", "during", "after"]

CLIENT = (
    "create_experiment", "create_model_version", "create_registered_model", "create_run",
    "delete_model_version", "delete_tag", "download_artifacts", "log_artifacts", "log_batch",
    "log_dict", "restore_experiment", "set_registered_model_alias", "set_tag",
    "set_terminated",
)  # fmt: skip
"""The calls of MLflow's client that write; a download writes on this machine."""
TOLD = {"delete_tag": 2, "set_registered_model_alias": 2, "set_tag": 2, "set_terminated": 2}
"""Where the argument is that tells two calls of the same name apart."""
DOORS: tuple[tuple[Any, str, str], ...] = (
    (endpoint.LocalEndpoint, "_take_in", "endpoint: take the model in"),
    (endpoint.LocalEndpoint, "_spawn", "endpoint: start the server"),
    (endpoint.LocalEndpoint, "_order", "endpoint: order the deployment"),
    (endpoint.LocalEndpoint, "predict", "endpoint: ask for the proof"),
    (endpoint, "end", "endpoint: end the server"),
    (Table, "pin", "table: set and release tags"),
)
FILES: tuple[tuple[Any, str, str], ...] = (
    (Path, "rename", "rename"), (Path, "replace", "replace"), (Path, "unlink", "remove"),
    (os, "link", "link"), (shutil, "rmtree", "remove"),
)  # fmt: skip
"""How the daemon itself changes files of its state, and what each is called here."""
NOT_KILLED_AT = {
    "ledger: halt": "the story halts nothing; it is one transaction, and nothing follows it",
    "ledger: beat": "it comes by the clock, from a thread of its own, and nothing follows it",
    "ledger: postpone": "as `halt`, of an outage",
    "ledger: pause": "of an operator, whose command is one transaction",
    "ledger: resume": "as `pause`",
    "ledger: retry": "as `pause`",
    "ledger: rollback": "as `pause`",
    "ledger: promote": "as `pause`",
}
"""Effects that no sweep meets, and why that is well."""

PATHS = {
    "os.link": slice(1, 2), "os.rename": slice(2), "os.symlink": slice(1, 2),
    "os.truncate": slice(1),
}  # fmt: skip
"""Which of an audit event's arguments are paths that it changes."""
REMOVALS = ("os.remove", "os.rmdir", "shutil.rmtree")
WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC


@dataclass(frozen=True, slots=True)
class Point:
    """An instant of a run: at the effect of this number, or at the first of this name."""

    effect: int | str
    moment: Moment


@dataclass(frozen=True, slots=True)
class Effect:
    """An effect that a run completed; `files` were copied meanwhile."""

    number: int
    name: str
    files: int = 0


def known() -> set[str]:
    """Give the effects that a sweep must meet, as their names begin."""
    transactions = {
        f"ledger: {name.strip('_')}"
        for owner in (Ledger, Store)
        for name, method in vars(owner).items()
        if isfunction(method) and "self.write(" in getsource(method)
    }
    calls, doors = {f"mlflow: {name}" for name in CLIENT}, {name for *_, name in DOORS}
    return (transactions | calls | doors) - set(NOT_KILLED_AT)


def read(journal: Path) -> list[Effect]:
    """Give the effects that the processes of a run completed, in order."""
    lines = journal.read_text(encoding="utf-8").splitlines() if journal.exists() else []
    return [Effect(**json.loads(line)) for line in lines]


class Effects:
    """Wraps every outside effect in this process; those inside of another count as part of it."""

    def __init__(self, state: Path, journal: Path, stray: Path, kill_at: Point | None) -> None:
        self._state = state
        self._journal = journal
        self._stray = stray
        self._kill_at = kill_at
        self._count = len(read(journal))
        self._name: str | None = None
        self._files = 0

    def wrap(self) -> None:
        """Wrap them; there is no way back, so this is for a process of its own."""
        for name in CLIENT:
            self._wrap(mlflow.MlflowClient, name, _client_call(name))
        for owner, attribute, name in DOORS:
            self._wrap(owner, attribute, lambda *_, name=name: name)
        for owner, attribute, verb in FILES:
            self._wrap(owner, attribute, lambda path, *_, verb=verb: self._of_file(verb, path))
        self._wrap_copies()
        self._wrap_transactions()
        sys.addaudithook(self._watch)

    def _wrap(self, owner: Any, attribute: str, named: Callable[..., str | None]) -> None:
        original = getattr(owner, attribute)

        @wraps(original)
        def wrapped(*args: Any, **options: Any) -> Any:
            name = None if self._name else named(*args)
            if name is None:
                return original(*args, **options)
            with self._effect(name):
                return original(*args, **options)

        setattr(owner, attribute, wrapped)

    def _wrap_transactions(self) -> None:
        """Wrap the commit alone: before it, the transaction stands open with all its changes."""
        original = Store.write

        @contextmanager
        def write(store: Store, *, owned: bool = True) -> Iterator[Any]:
            method = sys._getframe(2).f_code.co_name  # behind contextlib's
            if method == "beat":  # it would shift the numbers of the others, or end their time
                with original(store, owned=owned) as db:
                    yield db
                return
            began = False
            try:
                with original(store, owned=owned) as db:
                    yield db
                    self._begin(f"ledger: {method.strip('_')}")
                    began = True
            finally:
                if began:
                    self._end()

        Store.write = write  # type: ignore[method-assign, assignment]

    def _wrap_copies(self) -> None:
        original = shutil.copyfile

        @wraps(original)
        def copyfile(*args: Any, **options: Any) -> Any:
            done = original(*args, **options)
            self._files += 1
            if self._name and self._files == 1:
                self._strike("during")
            return done

        shutil.copyfile = copyfile

    def _of_file(self, verb: str, path: Any) -> str | None:
        """Name a change to what is there in the state's folders; None for all others."""
        inside = self._inside(path)
        if inside is None or not Path(path).exists():
            return None
        folder = inside.parts[0]
        return f"file: {verb} in {'state' if folder.startswith('.') else folder}"

    def _inside(self, path: Any) -> Path | None:
        """Give the path below the state's folder, None for one elsewhere."""
        if not isinstance(path, str | Path) or not Path(path).is_relative_to(self._state):
            return None
        return Path(path).relative_to(self._state)

    def _watch(self, event: str, about: tuple[Any, ...]) -> None:
        """Note a change to the state's files, or to another process, that is part of no effect.

        A file whose name begins with a dot does not count until it is renamed or linked.
        """
        if self._name:
            return
        paths = about[PATHS.get(event, slice(0))]
        if event in REMOVALS and Path(about[0]).exists():
            paths = about[:1]
        if event == "open" and about[2] and about[2] & WRITES:
            paths = about[:1]
        found = [inside for path in paths if (inside := self._inside(path))]
        stray = [str(path) for path in found if not any(part[0] == "." for part in path.parts)]
        if event == "subprocess.Popen" or (event == "os.kill" and about[1]):
            stray.append(str(about[1]))
        if stray:
            with self._stray.open("a", encoding="utf-8") as file:
                print(event, *stray, file=file)

    @contextmanager
    def _effect(self, name: str) -> Iterator[None]:
        self._begin(name)
        try:
            yield
        finally:
            self._end()

    def _begin(self, name: str) -> None:
        self._name, self._files = name, 0
        self._count += 1
        self._strike("before")

    def _end(self) -> None:
        effect = Effect(self._count, self._name or "", self._files)
        with self._journal.open("a", encoding="utf-8") as file:
            print(json.dumps(asdict(effect)), file=file)
        self._strike("after")
        self._name = None

    def _strike(self, moment: Moment) -> None:
        here = Point(self._count, moment), Point(self._name or "", moment)
        if self._kill_at in here:
            os.kill(os.getpid(), signal.SIGKILL)


def _client_call(name: str) -> Callable[..., str]:
    """Name a call, with the tag, the status or the alias that it sets."""
    told = TOLD.get(name)
    return lambda *args: f"mlflow: {name} {args[told]}" if told else f"mlflow: {name}"
