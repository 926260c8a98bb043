"""The signals of requests: of one for an answer, of many for whoever makes answers again.

Shapes: B answers (each of one actor as of one instant), W values of a signal.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from foretaste.contracts.catalogue import Catalogue
from foretaste.contracts.sessions import SessionRule
from foretaste.signals import cross_session, in_session
from foretaste.signals.acts import Acts, acts_of_one
from foretaste.signals.declared import SESSION_SIGNALS
from foretaste.signals.scene import Scene

FUNCTIONS: dict[str, Callable[[Scene], NDArray[Any]]] = {
    "session_depth": in_session.depth,
    "session_age": in_session.age,
    "idle": in_session.idle,
    "session_actions": in_session.actions,
    "session_interactions": in_session.interactions,
    "session_titles": in_session.titles,
    "session_last_titles": in_session.last_titles,
    "session_genres": in_session.genres,
    "session_kinds": in_session.kinds,
    "session_genres_lately": in_session.genres_lately,
    "session_kinds_lately": in_session.kinds_lately,
    "session_dwell": in_session.dwell,
    "session_fraction_mean": in_session.fraction_mean,
    "session_fraction_max": in_session.fraction_max,
    "session_completed": in_session.completed,
    "session_searches": in_session.searches,
    "since_search": in_session.since_search,
    "query_tokens": in_session.query_tokens,
    "session_thumbs_down": in_session.thumbs_down,
    "session_removes": in_session.removes,
    "session_abandons": in_session.abandons,
    "session_genres_refused": in_session.genres_refused,
    "num_sessions": cross_session.num_sessions,
    "past_sessions": cross_session.past_sessions,
    "past_genres": cross_session.past_genres,
    "past_kinds": cross_session.past_kinds,
    "past_depth": cross_session.past_depth,
    "past_fraction_mean": cross_session.past_fraction_mean,
    "away": cross_session.away,
    "returned": cross_session.returned,
}
"""The function of each of SESSION_SIGNALS."""


def session_signals_batch(acts: Acts, catalogue: Catalogue, rule: SessionRule) -> dict[str, NDArray[Any]]:
    """Compute every signal of B answers: arrays [B, W] by name, in the order of SESSION_SIGNALS.

    A row depends on its own answer alone, to the bit.
    """
    if len(acts.columns.at_E) == 0:
        return {signal.name: signal.cold(len(acts.asof_B), catalogue) for signal in SESSION_SIGNALS}
    scene = Scene(acts, catalogue, rule)
    return {signal.name: FUNCTIONS[signal.name](scene) for signal in SESSION_SIGNALS}


def session_signals(
    events: Sequence[Mapping[str, Any]], *, asof: int, catalogue: Catalogue, rule: SessionRule
) -> dict[str, NDArray[Any]]:
    """Compute every signal of one answer: arrays [W] by name; `events` and `asof` as in `acts.acts_of_one`."""
    return signals_of_one(acts_of_one(events, asof=asof, catalogue=catalogue, rule=rule), catalogue, rule)


def signals_of_one(acts: Acts, catalogue: Catalogue, rule: SessionRule) -> dict[str, NDArray[np.generic]]:
    """Compute every signal of the only answer of `acts`: arrays [W] by name."""
    return {name: values_BW[0] for name, values_BW in session_signals_batch(acts, catalogue, rule).items()}
