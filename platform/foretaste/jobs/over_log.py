"""The signals and histories that answers read, made again from the event log: of training rows, audits, new signals.

Shapes: B questions (an actor, an instant and the mark of their log), E events, W values of a signal.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from foretaste.contracts.catalogue import Catalogue
from foretaste.contracts.columns import AT
from foretaste.contracts.sessions import SessionRule
from foretaste.feedback.past import Past
from foretaste.feedback.session_log import SessionLogConfig
from foretaste.signals.acts import Acts, acts
from foretaste.signals.declared import SESSION_SIGNALS
from foretaste.signals.offline import columns_of
from foretaste.signals.signals import session_signals_batch

QUESTIONS = pa.schema([pa.field("actor_id", pa.string()), pa.field("asof", AT), pa.field("mark", pa.int64())])
"""What may be asked of an event log; further columns are kept."""
EVENTS_AT_ONCE = 250_000
ROWS_AT_ONCE = 4_096


@dataclass(frozen=True, slots=True)
class OverLog:
    """Answers questions about the actors of an event log; work for a task of Ray Data (`map_batches`), or here."""

    read: Callable[[Sequence[str]], pa.Table]  # LOGGED_EVENTS of some actors, distinct: `EventLog.read`
    log: SessionLogConfig  # how much of a past an answer read
    catalogue: Catalogue
    rule: SessionRule

    def __call__(self, questions: pa.Table) -> pa.Table:
        """Add a column a signal to QUESTIONS, in their order: a list of W values each."""
        past = Past(self.read(questions["actor_id"].unique().to_pylist()))
        parts: dict[str, list[NDArray[Any]]] = {one.name: [one.cold(0, self.catalogue)] for one in SESSION_SIGNALS}
        for known in self.acts(past, questions):
            for name, values_BW in session_signals_batch(known, self.catalogue, self.rule).items():
                parts[name].append(values_BW)
        for name, values in parts.items():
            questions = questions.append_column(name, _lists(np.concatenate(values)))
        return questions

    def acts(self, past: Past, questions: pa.Table) -> list[Acts]:
        """Visible events of the questions, in their order, in parts; their histories are `Acts.histories`."""
        asof_B = np.asarray(questions["asof"].cast(pa.int64()), dtype=np.int64)
        asked = zip(questions["actor_id"].to_pylist(), asof_B.tolist(), questions["mark"].to_pylist(), strict=True)
        limit, window = self.log.read_events, self.log.window_us
        seen = [
            past.visible(actor, limit=limit, mark=mark, before_us=asof, window_us=window(actor))
            for actor, asof, mark in asked
        ]
        columns, queries = columns_of(past.events, self.catalogue)
        return [
            acts(
                columns.rows(np.concatenate(seen[part])),
                np.cumsum([0, *map(len, seen[part])]).astype(np.int64),
                asof_B[part],
                queries,
                catalogue=self.catalogue,
                rule=self.rule,
            )
            for part in _parts([len(rows) for rows in seen])
        ]


def _parts(sizes: Sequence[int]) -> list[slice]:
    """Divide questions into stretches of bounded size."""
    parts, first, held = [], 0, 0
    for number, size in enumerate(sizes):
        if number > first and (held + size > EVENTS_AT_ONCE or number - first == ROWS_AT_ONCE):
            parts.append(slice(first, number))
            first, held = number, 0
        held += size
    return [*parts, slice(first, len(sizes))] if sizes else []


def _lists(values_BW: NDArray[Any]) -> pa.Array:
    """One list a row."""
    size, width = values_BW.shape
    offsets = pa.array(np.arange(size + 1, dtype=np.int32) * width)
    return pa.ListArray.from_arrays(offsets, pa.array(values_BW.ravel()))
