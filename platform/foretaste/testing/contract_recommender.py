"""What every recommender must do, asserted: hand `assert_recommender_contract` a way to make one.

Shapes: B histories, N titles, T interactions.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from foretaste.contracts.catalogue import Catalogue, catalogue
from foretaste.contracts.columns import TITLES, conform
from foretaste.contracts.events import ACTION_CODES, Action
from foretaste.contracts.histories import Histories, concatenate
from foretaste.models.contract import Recommender

MINUTE_US = 60_000_000
START_US = 1_700_000_000_000_000

Make = Callable[[Histories, Catalogue], Recommender]
"""Fits or builds a recommender on a small log; must not draw from an unseeded generator."""


def small_catalogue(num_titles: int = 12) -> Catalogue:
    """Build a catalogue of movies and shows with two genres."""
    rows = [
        {
            "title_id": f"t{n:02d}",
            "kind": "movie" if n % 3 else "show",
            "genres": ["comedy"] if n % 2 else ["comedy", "drama"],
            "artworks": [],
        }
        for n in range(num_titles)
    ]
    return catalogue(conform(pa.Table.from_pylist(rows, schema=_schema()), TITLES, what="titles"))


def one_history(titles: Sequence[int], *, start: int = START_US, per_session: int = 3) -> Histories:
    """Make one history of plays a minute apart; a session has `per_session` of them, sessions are a day apart."""
    place_T = np.arange(len(titles), dtype=np.int64)
    session_T = place_T // per_session
    return Histories(
        offsets_B1=np.array([0, len(titles)], dtype=np.int64),
        title_T=np.array(titles, dtype=np.int32),
        action_T=np.full(len(titles), ACTION_CODES[Action.PLAY], dtype=np.int32),
        at_T=start + place_T * MINUTE_US + session_T * 1440 * MINUTE_US,
        session_T=session_T.astype(np.int32),
        dwell_T=np.full(len(titles), 60.0, dtype=np.float32),
        fraction_T=np.full(len(titles), np.nan, dtype=np.float32),
    )


def small_log(num_titles: int = 12, num_actors: int = 30, seed: int = 7) -> Histories:
    """Draw histories of 4 to 9 plays, in which the next title tends to be the next code."""
    rng = np.random.default_rng(seed)
    parts = []
    for actor in range(num_actors):
        steps = rng.choice([1, 2, 5], size=rng.integers(4, 10), p=[0.6, 0.3, 0.1])
        titles = (rng.integers(num_titles) + np.cumsum(steps)) % num_titles + 1
        parts.append(one_history(titles.tolist(), start=START_US + actor * 60 * MINUTE_US))
    return concatenate(parts)


def assert_recommender_contract(make: Make, *, tolerance: float = 1e-4) -> None:
    """Assert shape, type, finiteness, row independence, empty and unknown histories, purity, determinism.

    `tolerance` is absolute and relative, between a row in a batch and the same row alone.
    Raises AssertionError naming the rule that is broken.
    """
    titles = small_catalogue()
    log = small_log(len(titles))
    model = make(log, titles)
    assert model.name, "a recommender needs a name"
    questions = concatenate(
        [
            one_history([]),
            one_history([1]),
            one_history([2, 3, 4, 5, 6, 7]),
            one_history([0, 0]),
            one_history([3, 0, 5, 0]),
            one_history([4, 4, 4, 9]),
            one_history([2, 3]),
        ]
    )
    asof_B = START_US + np.arange(len(questions), dtype=np.int64) * 300 * MINUTE_US + 4320 * MINUTE_US
    before = [array.copy() for array in _arrays(questions)]
    scores_BN = model.scores(questions, asof_B)

    assert scores_BN.shape == (len(questions), len(titles)), f"shape is {scores_BN.shape}"
    assert scores_BN.dtype == np.float32, f"type is {scores_BN.dtype}, wanted float32"
    assert np.isfinite(scores_BN).all(), "scores must be finite, also of empty histories and unknown titles"
    for array, old in zip(_arrays(questions), before, strict=True):
        np.testing.assert_array_equal(array, old, err_msg="scores() changed its input")

    again_BN = model.scores(questions, asof_B)
    np.testing.assert_array_equal(scores_BN, again_BN, err_msg="two calls differ")
    np.testing.assert_array_equal(scores_BN, make(log, titles).scores(questions, asof_B), err_msg="two makes differ")

    for b in range(len(questions)):
        alone_1N = model.scores(questions.rows(np.array([b])), asof_B[b : b + 1])
        _close(alone_1N[0], scores_BN[b], tolerance, f"history {b} alone differs from itself in a batch")
    backwards = np.arange(len(questions))[::-1].copy()
    turned_BN = model.scores(questions.rows(backwards), asof_B[backwards])
    _close(turned_BN, scores_BN[backwards], tolerance, "the order of a batch changes the scores")

    beyond = concatenate([one_history([2, 3]), one_history([9, 10, 11, 12])])
    prefix_BN = model.scores(beyond, asof_B[[-1, -1]])
    _close(prefix_BN[0], scores_BN[-1], tolerance, "what stands after a history is read")

    none = questions.rows(np.zeros(0, dtype=np.int64))
    assert model.scores(none, np.zeros(0, dtype=np.int64)).shape == (0, len(titles)), "no histories, no rows"


def _close(got: NDArray[np.float32], want: NDArray[np.float32], tolerance: float, rule: str) -> None:
    np.testing.assert_allclose(got, want, rtol=tolerance, atol=tolerance, err_msg=rule)


def _arrays(histories: Histories) -> list[NDArray[np.generic]]:
    h = histories
    return [h.offsets_B1, h.title_T, h.action_T, h.at_T, h.session_T, h.dwell_T, h.fraction_T]


def _schema() -> pa.Schema:
    return pa.schema([TITLES.field(name) for name in ("title_id", "kind", "genres", "artworks")])
