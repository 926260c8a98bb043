"""How a page should be laid out: for a member who goes on with something, or for one who looks for something new.

Shapes: B members, C classes of the action head.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from foretaste.contracts.intents import CONTINUING, DISCOVERING, Intent

Hint = Literal["discover", "continue"]
Classes = Mapping[str, tuple[str, ...]]
HINTS: tuple[Hint, Hint] = ("discover", "continue")


@dataclass(frozen=True, slots=True)
class Layout:
    """The likelier of the two, and how likely it is."""

    hint: Hint
    probability: float  # 0.5 to 1


@lru_cache
def sides(classes: tuple[str, ...]) -> tuple[NDArray[np.bool_], NDArray[np.bool_]] | None:
    """Say of each class of the action head whether it discovers, and whether it continues; bool[C] each.

    None where either side has no class: then there is nothing to decide. Classes of neither side choose nothing. Made
    once: not to be written to.
    """
    discovers_C, continues_C = (np.array([one in side for one in classes]) for side in (DISCOVERING, CONTINUING))
    return (discovers_C, continues_C) if discovers_C.any() and continues_C.any() else None


def continuing(intents: Mapping[str, NDArray[Any]], classes: Classes) -> NDArray[np.float64] | None:
    """Probability that a member who chooses a title goes on with one that they know; float64[B].

    `intents` and `classes` are those of a prediction. None where the action head is off, or knows one side only.
    """
    head = Intent.ACTION.value
    found = sides(classes[head]) if head in intents else None
    if found is None:
        return None
    share_BC = np.asarray(intents[head], dtype=np.float64)
    discovers_B, continues_B = (share_BC[:, side_C].sum(axis=1) for side_C in found)
    both_B = discovers_B + continues_B
    share_B = np.full(len(both_B), 0.5)
    np.divide(continues_B, both_B, out=share_B, where=both_B > 0)
    return share_B


def layout(intents: Mapping[str, NDArray[Any]], classes: Classes) -> Layout | None:
    """The hint for the first member of a prediction; None where `continuing` is."""
    found_B = continuing(intents, classes)
    if found_B is None:
        return None
    share = float(found_B[0])
    return Layout("continue", share) if share > 0.5 else Layout("discover", 1.0 - share)
