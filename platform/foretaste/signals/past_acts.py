"""Signals of requests of the past, from prepared acts: what an answer would have computed at that instant.

Shapes: B requests (an actor and an instant each), E acts, W values of a signal.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from foretaste.contracts.catalogue import Catalogue
from foretaste.contracts.events import GUEST
from foretaste.contracts.sessions import SessionRule
from foretaste.signals.acts import Acts, acts
from foretaste.signals.column_groups import Signals
from foretaste.signals.offline import columns_of
from foretaste.signals.scene import Scene
from foretaste.signals.signals import session_signals_batch

REQUESTS_AT_ONCE = 512


class PastActs:
    """The prepared acts of all actors; of an actor the newest `limit` before an instant are read, as requests do."""

    def __init__(self, table: pa.Table, catalogue: Catalogue, rule: SessionRule, *, limit: int) -> None:
        """`table` are prepared acts: the rows of an actor together, in order of (at, event_id)."""
        self._catalogue, self._rule, self._limit = catalogue, rule, limit
        self._columns, self._queries = columns_of(table, catalogue)
        guests = pc.binary_join_element_wise(GUEST, table["session_id"], "")
        actors = pc.coalesce(table["member_id"], guests).combine_chunks().dictionary_encode()
        edges = np.flatnonzero(np.diff(np.asarray(actors.indices), prepend=-1, append=-1)).tolist()
        names = actors.dictionary.take(actors.indices.take(pa.array(edges[:-1], pa.int64()))).to_pylist()
        self._spans = dict(zip(names, itertools.pairwise(edges), strict=True))

    def signals(self, actors: Sequence[str], asof_B: NDArray[np.int64], *, cut: bool = False) -> Signals:
        """Every signal of B requests, [B, W]; with `cut` as if the session that is going on had not begun."""
        parts: list[dict[str, NDArray[Any]]] = []
        for first in range(0, len(actors), REQUESTS_AT_ONCE):
            some = slice(first, first + REQUESTS_AT_ONCE)
            known = self._before(actors[some], asof_B[some], asof_B[some])
            if cut and len(known.columns.at_E):
                known = self._before(actors[some], self._begun(known), asof_B[some])
            parts.append(session_signals_batch(known, self._catalogue, self._rule))
        return {name: np.concatenate([part[name] for part in parts]) for name in (parts[0] if parts else ())}

    def since(self, actors: Sequence[str], asof_B: NDArray[np.int64]) -> NDArray[np.int64]:
        """Time of the oldest act that a request reads, the least there is where all are read: int64[B]."""
        since_B = np.full(len(actors), np.iinfo(np.int64).min)
        for b, (actor, until) in enumerate(zip(actors, asof_B.tolist(), strict=True)):
            start, end = self._spans.get(actor, (0, 0))
            oldest = start + int(np.searchsorted(self._columns.at_E[start:end], until)) - self._limit
            if oldest > start:
                since_B[b] = self._columns.at_E[oldest]
        return since_B

    def _before(self, actors: Sequence[str], until_B: NDArray[np.int64], asof_B: NDArray[np.int64]) -> Acts:
        rows = []
        for actor, until in zip(actors, until_B.tolist(), strict=True):
            start, end = self._spans.get(actor, (0, 0))
            stop = start + int(np.searchsorted(self._columns.at_E[start:end], until))
            rows.append(np.arange(max(start, stop - self._limit), stop))
        offsets_B1 = np.concatenate([[0], np.cumsum([len(each) for each in rows])]).astype(np.int64)
        columns = self._columns.rows(np.concatenate([np.zeros(0, dtype=np.int64), *rows]))
        return acts(columns, offsets_B1, asof_B, self._queries, catalogue=self._catalogue, rule=self._rule)

    def _begun(self, known: Acts) -> NDArray[np.int64]:
        """When the session that is going on began; the instant itself where none is."""
        scene = Scene(known, self._catalogue, self._rule)
        place_B = np.minimum(scene.now_E.first_B, len(known.columns.at_E) - 1)
        return np.where(scene.open_B, known.columns.at_E[place_B], known.asof_B)
