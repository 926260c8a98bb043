"""The list that is shown before a member has typed anything: its size, its pool and what may not be on it.

Shapes: N titles (column j is catalogue code j + 1), N1 = N + 1 rows by catalogue code, C candidates of the pool,
T interactions of one history.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from foretaste.contracts.catalogue import Catalogue
from foretaste.contracts.columns import TITLES, conform
from foretaste.contracts.events import ACTION_CODES, Action
from foretaste.contracts.histories import Histories
from foretaste.contracts.sessions import SessionRule
from foretaste.signals.session import current_session

ALWAYS = np.iinfo(np.int64)


@dataclass(frozen=True, slots=True)
class Surface:
    """What a product that decides is made of."""

    name: str
    k: int  # places, where a request does not say
    max_k: int  # most places that a request may ask for
    pool_size: int  # candidates that are ranked; at least max_k


PREQUERY = Surface(name="prequery", k=10, max_k=100, pool_size=100)


@dataclass(frozen=True, slots=True)
class Availability:
    """When each title may be shown, microseconds since 1970: from `from_N1`, inclusive, until `until_N1`, exclusive."""

    from_N1: NDArray[np.int64]
    until_N1: NDArray[np.int64]


def availability(titles: pa.Table, catalogue: Catalogue) -> Availability:
    """Read the windows of a TITLES table; a title that names no end of its window is always there."""
    titles = conform(titles, TITLES, what="titles").filter(pc.field("series_id").is_null())
    code_R = catalogue.codes(titles["title_id"])
    ends = []
    for name, missing in (("available_from", ALWAYS.min), ("available_until", ALWAYS.max)):
        end_N1 = np.full(len(catalogue) + 1, missing, dtype=np.int64)
        end_N1[code_R] = np.asarray(titles[name].cast(pa.int64()).fill_null(missing))
        end_N1[0] = missing
        ends.append(end_N1)
    return Availability(*ends)


def blocked(
    history: Histories,
    *,
    asof: int,
    catalogue: Catalogue,
    windows: Availability,
    exclude: Sequence[int],
    repeats: bool,
    rule: SessionRule,
) -> NDArray[np.bool_]:
    """Say of each title whether it may not be shown as of `asof` (microseconds); bool[N1], row 0 always blocked.

    Blocked are titles outside their window, those in `exclude` (catalogue codes) and those that were thumbed down.
    Where the data has no repeats, also every title of the history; where it has, those completed in the session that
    is still open (not a series, which goes on). `history` is one history.
    """
    blocked_N1 = (windows.from_N1 > asof) | (windows.until_N1 <= asof)
    blocked_N1[list(exclude)] = True
    if repeats:
        blocked_N1[history.title_T[history.action_T == ACTION_CODES[Action.THUMB_DOWN]]] = True
        done = _completed(history, asof=asof, rule=rule)
        blocked_N1[done[~catalogue.series_N1[done]]] = True
    else:
        blocked_N1[history.title_T] = True
    blocked_N1[0] = True
    return blocked_N1


def pool(
    scores_N: NDArray[np.floating[Any]],
    blocked_N1: NDArray[np.bool_],
    *,
    size: int,
    brought: NDArray[np.int32] | None = None,
) -> NDArray[np.int32]:
    """Give the catalogue codes of the `size` best titles that are not blocked, best first, equal ones by code; [C].

    Titles that were `brought` (codes, the first `size` that are not blocked) have their place in the pool whatever
    their scores are; the best of all others fill it.
    """
    held = np.zeros(len(blocked_N1), dtype=np.bool_)
    if brought is not None and len(brought):
        held[list(dict.fromkeys(brought[~blocked_N1[brought]].tolist()))[:size]] = True
        size -= int(held.sum())
    allowed = np.flatnonzero(~(blocked_N1 | held)[1:])
    scores = scores_N[allowed]
    if len(allowed) > size:
        least = np.partition(scores, len(scores) - size)[len(scores) - size] if size else np.inf
        allowed, scores = allowed[scores >= least], scores[scores >= least]
    best = allowed[np.argsort(-scores, kind="stable")][:size]
    if brought is None or not held.any():
        return (best + 1).astype(np.int32)
    both = np.sort(np.concatenate([best, np.flatnonzero(held[1:])]))
    return (both[np.argsort(-scores_N[both], kind="stable")] + 1).astype(np.int32)


def _completed(history: Histories, *, asof: int, rule: SessionRule) -> NDArray[np.int32]:
    """Titles completed in the session that is still open."""
    first = int(current_session(history, np.array([asof], dtype=np.int64), rule=rule)[0])
    whole_T = (history.action_T[first:] == ACTION_CODES[Action.COMPLETE]) | (history.fraction_T[first:] >= 1.0)
    done: NDArray[np.int32] = history.title_T[first:][whole_T]
    return done
