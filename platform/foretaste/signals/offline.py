"""From stored events to what answers read of them, many answers at once: the batch form of `acts.acts_of_one`.

Shapes: B answers, E events of all of them, sorted by (answer, at, event_id).
"""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from foretaste.contracts.catalogue import NOWHERE, Catalogue
from foretaste.contracts.events import ACTIONS
from foretaste.contracts.sessions import SessionRule
from foretaste.signals.acts import UNKNOWN, Acts, Columns, acts


def acts_of_many(
    events: pa.Table,
    offsets_B1: NDArray[np.int64],
    asof_B: NDArray[np.int64],
    *,
    catalogue: Catalogue,
    rule: SessionRule,
) -> Acts:
    """Take the events visible to B answers: rows of EVENTS, those of answer b are offsets_B1[b]:offsets_B1[b + 1].

    The rows of an answer are in order of (at, bytes of event_id), each event once, before its instant (microseconds).
    """
    columns, queries = columns_of(events, catalogue)
    return acts(columns, offsets_B1, asof_B, queries, catalogue=catalogue, rule=rule)


def columns_of(events: pa.Table, catalogue: Catalogue) -> tuple[Columns, list[str]]:
    """Read what counts of EVENTS rows, once for however many answers, and the distinct queries among them."""
    places, place_E = _named(events["title_id"])
    queries, query_E = _named(events["query"])
    _, native_E = _named(events["session_id"])
    known = np.array([catalogue.place_of.get(name, NOWHERE) for name in (*places, None)], dtype=np.int32)
    action_E = pc.index_in(events["action"], value_set=pa.array(ACTIONS)).fill_null(UNKNOWN)
    columns = Columns(
        at_E=np.asarray(events["at"].cast(pa.int64()), dtype=np.int64),
        action_E=np.asarray(action_E, dtype=np.int32),
        place_E=known[place_E],
        native_E=native_E.astype(np.int64),
        dwell_E=np.asarray(events["dwell_seconds"].cast(pa.float64()).fill_null(np.nan), dtype=np.float64),
        fraction_E=np.asarray(events["played_fraction"].cast(pa.float64()).fill_null(np.nan), dtype=np.float64),
        query_E=query_E,
    )
    return columns, queries


def _named(column: pa.ChunkedArray) -> tuple[list[str], NDArray[np.int32]]:
    """Names of a column and the number of each row's, UNKNOWN for null."""
    coded = column.combine_chunks().dictionary_encode()
    return coded.dictionary.to_pylist(), np.asarray(coded.indices.fill_null(UNKNOWN), dtype=np.int32)
