"""From prepared interactions to packed histories."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from foretaste.contracts.catalogue import Catalogue
from foretaste.contracts.events import ACTION_CODES, ENTRIES
from foretaste.contracts.histories import Histories


def pack(interactions: pa.Table, catalogue: Catalogue) -> tuple[Histories, list[str]]:
    """Pack an INTERACTIONS table, sorted by (actor_id, position), into one history an actor.

    Row t of the table is interaction t of the histories. Returns the histories and their actor ids.
    Raises ValueError where an actor's rows are not together.
    """
    actors = interactions["actor_id"].combine_chunks().dictionary_encode()
    code_T = np.asarray(actors.indices, dtype=np.int64)
    starts = np.flatnonzero(np.diff(code_T, prepend=-1))
    if len(starts) != len(actors.dictionary):
        raise ValueError("interactions: the rows of an actor do not stand together; sort by (actor_id, position)")
    titles = interactions["title_id"].combine_chunks().dictionary_encode()
    actions = interactions["action"].combine_chunks().dictionary_encode()
    action_codes = np.array([ACTION_CODES[a] for a in actions.dictionary.to_pylist()], dtype=np.int32)
    return (
        Histories(
            offsets_B1=np.append(starts, len(code_T)).astype(np.int64),
            title_T=catalogue.codes(titles.dictionary)[np.asarray(titles.indices)],
            action_T=action_codes[np.asarray(actions.indices)],
            at_T=np.asarray(interactions["at"].cast(pa.int64())),
            session_T=np.asarray(interactions["session_index"], dtype=np.int32),
            dwell_T=np.asarray(interactions["dwell_seconds"], dtype=np.float32),
            fraction_T=np.asarray(interactions["played_fraction"].cast(pa.float32()).fill_null(float("nan"))),
            entry_T=np.asarray(pc.index_in(interactions["entry"], value_set=pa.array(ENTRIES)), dtype=np.int32),
        ),
        actors.dictionary.to_pylist(),
    )
