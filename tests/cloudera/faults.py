"""What goes wrong, by order of the test: one kind of rule for the whole workbench."""

from __future__ import annotations

from dataclasses import dataclass, field
from threading import Lock
from typing import Any, Literal, get_args

Kind = Literal[
    "slow", "error", "deadline", "too many", "drop before", "drop after", "expired key",
    "hang", "fail", "other version", "garbage", "busy", "refused key",
]  # fmt: skip
"""Of a request:

* `slow`: it waits `seconds` first;
* `error`: 500 without effect; `too many`: 429;
* `deadline`: 500 "context deadline exceeded" after `seconds`, the work goes on all the same;
* `drop before`, `drop after`: the connection is lost before or after the effect;
* `expired key`: the key that was sent expires at that moment, for good.

Of what a request makes (a registered version, a build, a deployment, a job's run):

* `hang`: it stays for ever in the state `state` (its first one if that is empty);
* `fail`: it ends as a failure (as `state`, if that is not empty), with `message` where the
  platform has a place for it;
* `other version`, `garbage`: a deployment comes up, but answers as the version `version` (else the
  one before) or with `value`.

Of a call to a model (operation `modelservice`): `busy` is 429 `model.busy`, `refused key` what a
wrong access key gets; and all kinds of requests.
"""
MADE = ("hang", "fail", "other version", "garbage")


@dataclass(eq=False)
class Fault:
    """One rule; what was hit by it stays hit when it is lifted."""

    operation: str
    kind: Kind
    times: int | None = 1
    after: int = 0
    """Requests that pass before the first one is hit."""
    seconds: float = 0.0
    state: str = ""
    message: str = "the test says so"
    version: str | None = None
    value: Any = "garbage"
    hits: int = 0
    seen: int = 0
    lifted: bool = False

    def lift(self) -> None:
        """Hit nothing more."""
        self.lifted = True


@dataclass
class Faults:
    """The rules that are in force."""

    rules: list[Fault] = field(default_factory=list)
    _lock: Any = field(default_factory=Lock)

    def add(self, fault: Fault) -> Fault:
        """Put a rule in force."""
        if fault.kind not in get_args(Kind):
            raise ValueError(f"no such kind of fault: {fault.kind}")
        with self._lock:
            self.rules.append(fault)
        return fault

    def take(self, operation: str) -> list[Fault]:
        """Give the rules that hit this request, and count it."""
        with self._lock:
            return [rule for rule in self.rules if _hits(rule, operation)]

    def lift(self) -> None:
        """Lift them all."""
        for rule in self.rules:
            rule.lift()


def _hits(rule: Fault, operation: str) -> bool:
    if rule.lifted or rule.operation not in ("*", operation):
        return False
    rule.seen += 1
    if rule.seen <= rule.after or (rule.times is not None and rule.hits >= rule.times):
        return False
    rule.hits += 1
    return True
