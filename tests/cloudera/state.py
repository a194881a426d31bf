"""The workbench's things and their histories, and what all its parts share."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from threading import RLock
from time import time
from typing import Any, TypeVar

from cloudera.clock import Clock
from cloudera.contract import Contract, contract
from cloudera.errors import missing
from cloudera.faults import MADE, Fault, Faults
from cloudera.habits import Habits, Pace
from cloudera.keys import Key, Keys

USER = "analyst"


def new_id() -> str:
    """Make an identifier of the platform's form."""
    text = secrets.token_hex(8)
    return "-".join(text[n : n + 4] for n in range(0, 16, 4))


def now_text() -> str:
    """Write the time as answers do."""
    return datetime.now(timezone.utc).isoformat(timespec="microseconds").replace("+00:00", "Z")


def user(name: str = USER) -> dict[str, str]:
    """Give somebody in short."""
    return {"username": name, "name": name.title(), "email": f"{name}@example.com"}


@dataclass(frozen=True)
class Step:
    """A state and when it was entered."""

    status: str
    at: float


@dataclass(eq=False)
class Thing:
    """Something that the API shows; `body` is how."""

    body: dict[str, Any]
    history: list[Step] = field(default_factory=list)
    faults: list[Fault] = field(default_factory=list)
    """What was ordered to go wrong with it."""
    deleted: bool = False

    @property
    def id(self) -> str:
        """Give the identifier."""
        return str(self.body["id"])

    @property
    def status(self) -> str:
        """Give the present state."""
        return str(self.body.get("status", ""))

    @property
    def statuses(self) -> list[str]:
        """Give the states in the order in which they were entered."""
        return [step.status for step in self.history]

    def enter(self, status: str, at: float | None = None, **more: Any) -> None:
        """Pass into a state."""
        self.body |= {"status": status, "updated_at": now_text(), **more}
        if "updated_at" not in self.fields():
            del self.body["updated_at"]
        self.history.append(Step(status, at or time()))

    def fields(self) -> Mapping[str, Any]:
        """Give the fields of its schema."""
        fields: Mapping[str, Any] = contract().schemas[type(self).__name__]["properties"]
        return fields

    def fault(self, *kinds: str) -> Fault | None:
        """Give what was ordered to go wrong with it, if it is of these kinds."""
        return next((fault for fault in self.faults if fault.kind in kinds), None)

    def hangs(self, state: str) -> bool:
        """Whether it stays in this state for ever."""
        fault = self.fault("hang")
        return fault is not None and fault.state in ("", state)


@dataclass
class Call:
    """A request that was let in."""

    ids: dict[str, str]
    query: dict[str, str]
    body: dict[str, Any]
    user: str
    faults: list[Fault] = field(default_factory=list)
    key: Key | None = None

    def ordered(self) -> list[Fault]:
        """Give the faults of what this request makes."""
        return [fault for fault in self.faults if fault.kind in MADE]

    def pick(self, *names: str) -> dict[str, Any]:
        """Give some fields of the body, those that are there."""
        return {name: self.body[name] for name in names if name in self.body}


T = TypeVar("T", bound=Thing)


def find(things: Iterable[T], what: str, identifier: str) -> T:
    """Give the thing with this identifier.

    Raises:
        Refused: there is none.
    """
    for thing in things:
        if thing.id == identifier and not thing.deleted:
            return thing
    raise missing(what, identifier)


def alive(things: Iterable[T], keep: Callable[[T], bool] = lambda _: True) -> list[dict[str, Any]]:
    """Give the bodies of the things that were not deleted."""
    return [dict(thing.body) for thing in things if not thing.deleted and keep(thing)]


@dataclass
class World:
    """What the parts of the workbench share."""

    home: Path
    pace: Pace
    habits: Habits
    contract: Contract = field(default_factory=contract)
    lock: Any = field(default_factory=RLock)
    faults: Faults = field(default_factory=Faults)
    keys: Keys = field(default_factory=Keys)
    quota: float | None = None
    """Virtual cores that all workloads may hold together."""
    holders: list[Callable[[], float]] = field(default_factory=list)
    """What each part holds of them."""
    clock: Clock = field(init=False)

    def __post_init__(self) -> None:
        """Start the clock."""
        self.clock = Clock(self.lock)

    def fits(self, cores: float) -> bool:
        """Whether there is room for one more workload."""
        return self.quota is None or sum(held() for held in self.holders) + cores <= self.quota

    def pass_through(
        self, thing: Thing, states: list[tuple[str, float]], then: Callable[[], None]
    ) -> None:
        """Let a thing pass through states, each with its seconds, unless it hangs in one."""
        (state, seconds), *rest = states
        thing.enter(state)
        if thing.hangs(state):
            return
        here = len(thing.history)

        def go_on() -> None:
            # Somebody may have stopped it in the meantime.
            if len(thing.history) == here:
                self.pass_through(thing, rest, then) if rest else then()

        self.clock.after(seconds, go_on)
