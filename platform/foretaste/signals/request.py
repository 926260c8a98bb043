"""What an actor's events say at the instant of a request: the history that preparation would make of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from foretaste.contracts.catalogue import Catalogue
from foretaste.contracts.histories import Histories
from foretaste.contracts.sessions import SessionRule
from foretaste.signals.acts import acts_of_one


def visible_history(
    events: Sequence[Mapping[str, Any]], *, asof: int, catalogue: Catalogue, rule: SessionRule
) -> Histories:
    """Make the history, B = 1, of one actor's events before `asof`; see `acts.acts_of_one`."""
    return acts_of_one(events, asof=asof, catalogue=catalogue, rule=rule).histories()
