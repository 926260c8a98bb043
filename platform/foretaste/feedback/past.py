"""What was visible to answers, from the event log alone: the vectorised twin of `session_log.visible`.

Shapes: E events of one actor, in order of (at, bytes of event_id).
"""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from foretaste.contracts.events import PASSIVE


class Past:
    """The events of some actors, each once."""

    def __init__(self, events: pa.Table) -> None:
        """`events` are LOGGED_EVENTS, one row an (actor_id, event_id), in any order."""
        active = events.filter(pc.invert(pc.is_in(events["action"], value_set=pa.array(sorted(PASSIVE)))))
        order = [(name, "ascending") for name in ("actor_id", "at", "event_id")]  # Arrow compares text by its bytes
        self.events = active.sort_by(order).combine_chunks()
        self._at = np.asarray(self.events["at"].cast(pa.int64()), dtype=np.int64)
        self._sequence = np.asarray(self.events["sequence"], dtype=np.int64)
        actors = self.events["actor_id"].combine_chunks().dictionary_encode()
        edges = np.flatnonzero(np.diff(np.asarray(actors.indices), prepend=-1, append=-1)).tolist()
        starts, ends = edges[:-1], edges[1:]
        self._spans = dict(zip(actors.dictionary.to_pylist(), zip(starts, ends, strict=True), strict=True))

    def visible(
        self, actor_id: str, *, limit: int, mark: int, before_us: int, window_us: int | None
    ) -> NDArray[np.int64]:
        """Number in `events` of each row that a read of the session log gave, oldest first."""
        start, end = self._spans.get(actor_id, (0, 0))
        sequence_E, at_E = self._sequence[start:end], self._at[start:end]
        newest = np.flatnonzero(sequence_E <= mark)[-limit:]
        at = at_E[newest]
        since = 0 if window_us is None else before_us - window_us
        seen: NDArray[np.int64] = start + newest[(at < before_us) & (at >= since)]
        return seen
