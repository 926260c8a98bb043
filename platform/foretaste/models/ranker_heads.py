"""What the ranker predicts of a candidate, and how the predictions make one order.

`play`: it is chosen next. `fraction`: how much of it is played, and `thumb`: that it gets a thumb up, both once it is
chosen. `list`: it is put on the list in the rest of the session, chosen or not.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum

import torch
from torch import Tensor


class Head(StrEnum):
    """One prediction; the order is that of the network's outputs."""

    PLAY = "play"
    FRACTION = "fraction"
    THUMB = "thumb"
    LIST = "list"


GIVEN_PLAY = (Head.FRACTION, Head.THUMB)
"""Predictions that speak of a title once it is chosen."""


def combined(chances: Mapping[Head, Tensor], weights: Mapping[Head, float]) -> Tensor:
    """Expected value of each candidate: weighted chances, those given a play times the chance of it."""
    play = chances[Head.PLAY]
    total = torch.zeros_like(play)
    for head, weight in weights.items():
        if head in chances:
            total = total + weight * (chances[head] * play if head in GIVEN_PLAY else chances[head])
    return total
