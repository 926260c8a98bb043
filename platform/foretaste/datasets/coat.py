"""Coat: ratings of coats that people chose to rate, and of coats drawn for them evenly, with learned propensities.

Schnabel, Swaminathan, Singh, Chandak and Joachims, ICML 2016.

Shapes: U people, I coats, F features.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

Table = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Coat:
    """Ratings of 1 to 5; 0 where there is none."""

    chosen_UI: Table  # by the people themselves
    drawn_UI: Table  # evenly at random
    propensity_UI: Table  # of a rating among the chosen
    person_UF: Table
    coat_IF: Table


def coat(source: Path) -> Coat:
    """Read the folder. Raises FileNotFoundError for a file that is missing, ValueError where sizes do not fit."""
    features = source / "user_item_features"
    found = Coat(
        chosen_UI=np.loadtxt(source / "train.ascii"),
        drawn_UI=np.loadtxt(source / "test.ascii"),
        propensity_UI=np.loadtxt(source / "propensities.ascii"),
        person_UF=np.loadtxt(features / "user_features.ascii"),
        coat_IF=np.loadtxt(features / "item_features.ascii"),
    )
    people, coats = found.chosen_UI.shape
    if found.drawn_UI.shape != (people, coats) or found.propensity_UI.shape != (people, coats):
        raise ValueError(f"{source}: train has {people} x {coats} ratings, test or propensities have others")
    if len(found.person_UF) != people or len(found.coat_IF) != coats:
        raise ValueError(f"{source}: wanted features of {people} people and {coats} coats")
    return found
