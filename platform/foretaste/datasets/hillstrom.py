"""Hillstrom's e-mail test: 64,000 customers, by dice a third each to an e-mail of men's goods, of women's, or none.

Published as the MineThatData E-Mail Analytics challenge, 2008. A row is a customer; 6,562 rows equal others, since few
columns tell customers apart, and they are kept.

Shapes: N rows, D columns known before the dice.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray

from foretaste.datasets.sources import find, number

FILE = "hillstrom.csv"
ARMS = ("No E-Mail", "Mens E-Mail", "Womens E-Mail")
OUTCOMES = ("visit", "conversion", "spend")
_NUMBERS = ("recency", "history", "mens", "womens", "newbie")
_WORDS = ("zip_code", "channel")


@dataclass(frozen=True, slots=True)
class EmailTest:
    """N customers."""

    column_ND: NDArray[np.float64]
    names: tuple[str, ...]  # of the D columns
    arm_N: NDArray[np.int64]  # place in ARMS
    outcomes: dict[str, NDArray[np.float64]]  # OUTCOMES over the two weeks after: 0/1, 0/1, dollars

    def __len__(self) -> int:
        return len(self.arm_N)


def load(source: Path) -> EmailTest:
    """Read hillstrom.csv, from a folder, a zip or itself. Raises ValueError for a source that is not this test."""
    columns = [*_NUMBERS, *_WORDS, "segment", *OUTCOMES]
    rows = find(source, (FILE,)).headed(FILE, columns, separator=",", quoted=True)
    for column in (*_NUMBERS, *OUTCOMES):
        rows = number(rows, column, pl.Float64, what=f"{source}: {FILE}")
    if unknown := sorted(set(rows["segment"].unique().to_list()) - set(ARMS)):
        raise ValueError(f"{source}: {FILE} has segments {unknown}; wanted {list(ARMS)}")
    told = {name: rows[name].to_numpy() for name in _NUMBERS}
    told["history"] = np.log1p(told["history"])
    for name in _WORDS:
        for word in sorted(rows[name].unique().to_list()):
            told[f"{name}={word}"] = (rows[name] == word).to_numpy().astype(np.float64)
    return EmailTest(
        column_ND=np.column_stack(list(told.values())),
        names=tuple(told),
        arm_N=rows["segment"]
        .replace_strict({arm: place for place, arm in enumerate(ARMS)})
        .to_numpy()
        .astype(np.int64),
        outcomes={name: rows[name].to_numpy() for name in OUTCOMES},
    )
