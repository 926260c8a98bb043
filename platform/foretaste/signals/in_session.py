"""What the open session says, one function a signal; see `declared.SESSION_SIGNALS`.

Each gives [B, width] of its declared type.

Shapes: B answers, E events, R interactions, X of them in the open sessions, G genres, K kinds.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from foretaste.contracts.events import ACTION_CODES, Action
from foretaste.contracts.words import TOKEN_PLACES, hashed
from foretaste.signals.declared import COMPLETE_FROM, LAST_TITLES, MILLION, NEVER
from foretaste.signals.scene import Scene, Spans, Whole, mean, pick, shares, since

_SEARCH, _REMOVE, _COMPLETE, _DOWN = (
    ACTION_CODES[a] for a in (Action.SEARCH, Action.REMOVE, Action.COMPLETE, Action.THUMB_DOWN)
)
SECOND_US = 1_000_000


def depth(scene: Scene) -> Whole:
    """Count the events of the open session."""
    return scene.now_E.sizes_B[:, None]


def age(scene: Scene) -> NDArray[np.float32]:
    """Time since the first event of the open session."""
    first_B = pick(scene.at_E, scene.now_E.first_B, scene.open_B)
    return since(scene.asof_B, first_B, scene.open_B, unit_us=SECOND_US)


def idle(scene: Scene) -> NDArray[np.float32]:
    """Time since the newest event of all."""
    return since(scene.asof_B, scene.newest_B, scene.some_B, unit_us=SECOND_US)


def actions(scene: Scene) -> Whole:
    """Count the events of the open session by action."""
    return scene.actions_BA


def interactions(scene: Scene) -> Whole:
    """Count the interactions of the open session."""
    return scene.now_R.sizes_B[:, None]


def titles(scene: Scene) -> Whole:
    """Count the distinct titles that the open session says yes to."""
    row_X, _ = scene.titles_X
    return np.bincount(row_X, minlength=len(scene.asof_B)).astype(np.int64)[:, None]


def last_titles(scene: Scene) -> Whole:
    """Name the newest of those titles, the newest first; 0 where there are fewer."""
    row_X, index_X = scene.titles_X
    place_X = np.arange(len(row_X)) - np.searchsorted(row_X, row_X)
    latest_X = place_X < LAST_TITLES
    codes = np.zeros((len(scene.asof_B), LAST_TITLES), dtype=np.int64)
    codes[row_X[latest_X], place_X[latest_X]] = scene.title_R[index_X[latest_X]]
    return codes


def genres(scene: Scene) -> NDArray[np.float32]:
    """Share of each genre in the interactions that say yes."""
    return shares(scene.now_R.sums(scene.genres_RG * scene.yes_R[:, None]))


def kinds(scene: Scene) -> NDArray[np.float32]:
    """Share of each kind in the interactions that say yes."""
    return shares(scene.now_R.sums(scene.kinds_RK * scene.yes_R[:, None]))


def genres_lately(scene: Scene) -> NDArray[np.float32]:
    """Share of each genre where newer interactions count more."""
    return shares(scene.now_R.sums(scene.genres_RG * scene.lately_R1))


def kinds_lately(scene: Scene) -> NDArray[np.float32]:
    """Share of each kind where newer interactions count more."""
    return shares(scene.now_R.sums(scene.kinds_RK * scene.lately_R1))


def dwell(scene: Scene) -> NDArray[np.float32]:
    """Time spent with titles, the sum of milliseconds."""
    return (scene.now_R.sums(scene.dwell_R) / 1000).astype(np.float32)


def fraction_mean(scene: Scene) -> NDArray[np.float32]:
    """Mean played fraction of the open session's interactions."""
    return mean_fraction(scene, scene.now_R)


def fraction_max(scene: Scene) -> NDArray[np.float32]:
    """Largest played fraction of the open session."""
    most_B1 = scene.now_R.largest(scene.fraction_R)
    return np.where(most_B1 >= 0, most_B1 / MILLION, NEVER).astype(np.float32)


def completed(scene: Scene) -> Whole:
    """Count the interactions that completed a title."""
    return scene.now_R.sums((scene.action_R == _COMPLETE) | (scene.fraction_R >= COMPLETE_FROM))


def searches(scene: Scene) -> Whole:
    """Count the searches of the open session."""
    return scene.performed(Action.SEARCH)


def since_search(scene: Scene) -> NDArray[np.float32]:
    """Time since the newest search of the open session."""
    at_B, some_B = _newest(scene, np.flatnonzero(scene.action_E == _SEARCH), scene.at_E)
    return since(scene.asof_B, at_B, some_B, unit_us=SECOND_US)


def query_tokens(scene: Scene) -> Whole:
    """Count the words of the newest search that has a query; see `contracts.words.hashed`."""
    query_E = scene.acts.columns.query_E
    query_B, some_B = _newest(scene, np.flatnonzero((scene.action_E == _SEARCH) & (query_E >= 0)), query_E)
    counts = np.zeros((len(query_B), TOKEN_PLACES), dtype=np.int64)
    known: dict[int, list[int]] = {}
    for row, query in zip(np.flatnonzero(some_B).tolist(), query_B[some_B].tolist(), strict=True):
        if query not in known:
            known[query] = hashed(scene.acts.queries[query])
        counts[row] = known[query]
    return counts


def thumbs_down(scene: Scene) -> Whole:
    """Count the interactions with a thumb down."""
    return scene.now_R.sums(scene.action_R == _DOWN)


def removes(scene: Scene) -> Whole:
    """Count the removals from a list."""
    return scene.performed(Action.REMOVE)


def abandons(scene: Scene) -> Whole:
    """Count the interactions that were given up early."""
    return scene.now_R.sums(scene.abandoned_R)


def genres_refused(scene: Scene) -> NDArray[np.float32]:
    """Share of each genre in what was thumbed down, abandoned or removed."""
    no_R = (scene.action_R == _DOWN) | scene.abandoned_R
    parts_BG = scene.now_R.sums(scene.genres_RG * no_R[:, None])
    removed_X = np.flatnonzero(scene.action_E == _REMOVE)
    if len(removed_X):
        parts_XG = scene.catalogue.genre_parts_N1G[scene.acts.title_E[removed_X]]
        parts_BG = parts_BG + scene.now_E.of(removed_X).sums(parts_XG)
    return shares(parts_BG)


def mean_fraction(scene: Scene, spans: Spans) -> NDArray[np.float32]:
    """Mean played fraction of the interactions of which it is known."""
    known_R = scene.fraction_R >= 0
    total_B1, count_B1 = spans.sums(scene.fraction_R * known_R), spans.sums(known_R)
    return mean(total_B1, count_B1, unit=MILLION, otherwise=NEVER)


def _newest(scene: Scene, index_X: Whole, values_E: NDArray[np.integer]) -> tuple[Whole, NDArray[np.bool_]]:
    """Value of the newest of some events that is in the open session, and whether there is one."""
    among = scene.now_E.of(index_X)
    some_B = among.sizes_B > 0
    return pick(values_E[index_X].astype(np.int64), among.stop_B - 1, some_B), some_B
