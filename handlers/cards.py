"""The card transactions of the demo: batches that read like a bank's, and a rule worth learning.

The columns are those of the public Cloudera AI hands-on lab, banking variant, with an id and a time
in front of them. That lab draws its label at random, so no model can learn it and retraining is
theatre. Here one transaction in ten is a fraud because of what its row says, and what gives a fraud
away changes now and then, as it does when thieves change their habits: suddenly, after some batches
and not after others. A daemon that retrains has something to gain on the former only.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt
import pyarrow as pa

Floats: TypeAlias = npt.NDArray[np.float64]

SCHEMA = pa.schema(
    [
        ("transaction_id", pa.string()),
        ("event_time", pa.timestamp("us", tz="UTC")),
        ("age", pa.int32()),
        ("credit_card_balance", pa.float64()),
        ("bank_account_balance", pa.float64()),
        ("mortgage_balance", pa.float64()),
        ("sec_bank_account_balance", pa.float64()),
        ("savings_account_balance", pa.float64()),
        ("sec_savings_account_balance", pa.float64()),
        ("total_est_nworth", pa.float64()),
        ("primary_loan_balance", pa.float64()),
        ("secondary_loan_balance", pa.float64()),
        ("uni_loan_balance", pa.float64()),
        ("longitude", pa.float64()),
        ("latitude", pa.float64()),
        ("transaction_amount", pa.float64()),
        ("fraud_trx", pa.int32()),
    ]
)


@dataclass(frozen=True, slots=True)
class Recipe:
    """All that decides a batch: the same recipe gives the same rows, on any machine."""

    rows: int
    """How many transactions."""
    seed: int = 0
    """Which world: its own rows and its own rule."""
    batch: int = 0
    """Ordinal of the batch, from 0; each has a day of its own."""
    drift: float = 1.0
    """How far the rule moves from one regime to the next; at 0 it never does."""
    signal: bool = True
    """False draws the label at random, at the same rate, as the public lab does."""

    def __post_init__(self) -> None:
        """Refuse what has no rows or no day, or would share its randomness with another recipe.

        Raises:
            ValueError: with what is wrong and what to give instead.
        """
        if self.rows < 1:
            raise ValueError(f"rows is {self.rows}; a batch has at least one row.")
        if self.batch < 0:
            raise ValueError(f"batch is {self.batch}; batches are counted from 0.")
        # numpy would fold a larger seed into two words, and the second would pass for a batch.
        if not 0 <= self.seed < 2**32:
            raise ValueError(f"seed is {self.seed}; give a number from 0 to {2**32 - 1}.")


class Money(NamedTuple):
    """How an amount is spread over the rows: lognormal, for those who have any."""

    median: float
    spread: float
    held: float = 1.0
    """Share of the customers who have such an account; the others show 0."""
    unknown: float = 0.0
    """Share of the rows whose balance the bank could not obtain."""


MONEY = {
    "credit_card_balance": Money(900, 0.9),
    "bank_account_balance": Money(3_200, 1.0),
    "mortgage_balance": Money(145_000, 0.5, held=0.35),
    "sec_bank_account_balance": Money(1_100, 1.1, held=0.4, unknown=0.02),
    "savings_account_balance": Money(9_500, 1.2, held=0.8),
    "sec_savings_account_balance": Money(4_000, 1.2, held=0.25, unknown=0.02),
    "primary_loan_balance": Money(11_000, 0.7, held=0.45),
    "secondary_loan_balance": Money(5_000, 0.7, held=0.15, unknown=0.03),
    "uni_loan_balance": Money(17_000, 0.6, held=0.2),
    "transaction_amount": Money(48, 1.1),
}
OWNED = ("bank_account", "sec_bank_account", "savings_account", "sec_savings_account")
# The mortgage is not among them: the house that it bought outweighs it.
OWED = ("credit_card", "primary_loan", "secondary_loan", "uni_loan")

FIRST_DAY = np.datetime64("2026-01-01", "us")
MICROSECONDS_A_DAY = 86_400_000_000
MIDDLE_AGE, AGE_SPREAD = 44.0, 14.0
LONGITUDE, LATITUDE = (2.45, 2.6), (46.6, 1.6)

FRAUD_RATE = 0.1
SHARPNESS = 8.0
"""How sharply the clues decide; with this and the noise, 3,000 rows teach an AUC of 0.88."""
NOISE = 0.2
"""Share of the rows whose label has nothing to do with them: no model explains every fraud."""
TURN = 1.0
"""Radians between two regimes at drift 1; no multiple is a full turn, so no rule comes back."""


def regime(batch: int) -> int:
    """Ordinal of the rule that a batch obeys: two batches under the first, then three each."""
    return (batch + 1) // 3


def drifted(batch: int) -> bool:
    """Whether the rule moved just before this batch (unless the drift is 0)."""
    return batch > 0 and regime(batch) != regime(batch - 1)


def cards(recipe: Recipe) -> pa.Table:
    """Bake the batch of a recipe, in the order of its events."""
    rng = np.random.Generator(np.random.PCG64(np.random.SeedSequence([recipe.seed, recipe.batch])))
    numbers = _customers(rng, recipe.rows)
    columns = {
        "transaction_id": _ids(recipe),
        "event_time": _times(rng, recipe),
        **numbers,
        "fraud_trx": _frauds(rng, recipe, numbers),
    }
    return pa.table(
        # A balance that is not known is NaN until here, and null from here on.
        [pa.array(columns[field.name], field.type, from_pandas=True) for field in SCHEMA],
        schema=SCHEMA,
    )


def _ids(recipe: Recipe) -> list[str]:
    prefix = f"{recipe.seed:04x}-{recipe.batch:05d}"
    return [f"{prefix}-{row:07d}" for row in range(recipe.rows)]


def _times(rng: np.random.Generator, recipe: Recipe) -> npt.NDArray[np.datetime64]:
    # One event in each equal slice of the day: they increase without being sorted.
    slot = MICROSECONDS_A_DAY // recipe.rows
    within = np.arange(recipe.rows) * slot + rng.integers(0, slot, recipe.rows)
    return FIRST_DAY + (recipe.batch * MICROSECONDS_A_DAY + within).astype("timedelta64[us]")


def _customers(rng: np.random.Generator, rows: int) -> dict[str, Floats]:
    numbers = {name: _amounts(rng, rows, money) for name, money in MONEY.items()}
    owned = sum(np.nan_to_num(numbers[f"{name}_balance"]) for name in OWNED)
    owed = sum(np.nan_to_num(numbers[f"{name}_balance"]) for name in OWED)
    numbers["total_est_nworth"] = np.round(owned - owed, 2)
    numbers["age"] = np.clip(np.rint(rng.normal(MIDDLE_AGE, AGE_SPREAD, rows)), 18, 95)
    numbers["longitude"] = np.round(rng.normal(*LONGITUDE, rows), 5)
    numbers["latitude"] = np.round(rng.normal(*LATITUDE, rows), 5)
    return numbers


def _amounts(rng: np.random.Generator, rows: int, money: Money) -> Floats:
    # Rounding to cents is realistic, and hides the last bit, in which machines may differ.
    amounts = np.round(money.median * np.exp(money.spread * rng.standard_normal(rows)), 2)
    amounts[rng.random(rows) >= money.held] = 0.0
    amounts[rng.random(rows) < money.unknown] = np.nan
    return amounts


def _frauds(
    rng: np.random.Generator, recipe: Recipe, numbers: dict[str, Floats]
) -> npt.NDArray[np.int32]:
    clues = _clues(numbers)
    weights = _weights(recipe, len(clues))
    # Added up in a fixed order, where a matrix product would leave it to the machine.
    risk = sum(weight * clue for weight, clue in zip(weights, clues, strict=True))
    score: Floats = SHARPNESS * risk + rng.logistic(size=recipe.rows)
    # Rows that trade their scores keep the rate and lose all relation to the label.
    noisy = rng.random(recipe.rows) < (NOISE if recipe.signal else 1.0)
    score[noisy] = rng.permutation(score[noisy])
    # The riskiest tenth, and not those above a fixed line: the rate holds wherever the rule goes.
    return (score > np.quantile(score, 1 - FRAUD_RATE)).astype(np.int32)


def _clues(numbers: dict[str, Floats]) -> list[Floats]:
    """List what may give a fraud away: each 0 on average and 1 wide, none related to another."""
    east = (numbers["longitude"] - LONGITUDE[0]) / LONGITUDE[1]
    north = (numbers["latitude"] - LATITUDE[0]) / LATITUDE[1]
    return [
        _size(numbers, "transaction_amount"),
        _size(numbers, "bank_account_balance"),
        # The very young and the very old, against the middle-aged.
        (np.abs(numbers["age"] - MIDDLE_AGE) / AGE_SPREAD - 0.8) / 0.6,
        # The outskirts against the centre, on a scale that spreads the customers evenly.
        math.sqrt(12) * (0.5 - np.exp(-(east**2 + north**2) / 2)),
    ]


def _size(numbers: dict[str, Floats], name: str) -> Floats:
    money = MONEY[name]
    return np.asarray(np.log(np.maximum(numbers[name], 0.01) / money.median) / money.spread)


def _weights(recipe: Recipe, clues: int) -> Floats:
    """Turn the seed's rule by the angle of the regime.

    Clues are taken in pairs, and each pair turns in a plane of its own: at any angle the rule is as
    strong as at any other, and never hangs on a single clue.
    """
    rng = np.random.Generator(np.random.PCG64(np.random.SeedSequence(recipe.seed, spawn_key=(0,))))
    angles = rng.uniform(0, 2 * math.pi, clues // 2) + TURN * recipe.drift * regime(recipe.batch)
    return np.concatenate([np.cos(angles), np.sin(angles)])
