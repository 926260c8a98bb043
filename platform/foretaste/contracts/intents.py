"""What a member may have come for: the intents that are predicted, spelled once.

An intent is a property of what the member chooses next. Each is one head of the model; a head whose classes
a data set does not have (no episodes, no release dates) is off there.
"""

from __future__ import annotations

from enum import StrEnum


class Intent(StrEnum):
    """Names of the heads."""

    ACTION = "action"  # how the next choice relates to the past: see ACTION_CLASSES
    GENRE = "genre"  # multi-label; classes are the catalogue's genres
    KIND = "kind"  # classes are the catalogue's kinds
    RECENCY = "recency"  # time since release: see RECENCY_CLASSES


ACTION_CLASSES: tuple[str, ...] = ("discover", "continue", "return")
"""discover: never chosen before; continue: chosen within the last seven days; return: longer ago."""

CONTINUE_WITHIN_DAYS = 7

RECENCY_CLASSES: tuple[str, ...] = ("week", "month", "year", "older")
RECENCY_DAYS: tuple[int, ...] = (7, 30, 365)
"""Upper bounds, inclusive, of the first three recency classes."""
