"""Intents of members as features for other models: what the intent model would have said of each at an instant.

A bucket of members is one task and one file. What is read is what a request at that instant would have read, from the
prepared events instead of the session log: late events are there from the instant at which they happened.

Shapes: B members, D width of the intent embedding, C classes of a head.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
from numpy.typing import NDArray

from foretaste.contracts.columns import EVENTS, conform, member_intents
from foretaste.models.intent import IntentPrediction
from foretaste.ops.files import write_parquet
from foretaste.ops.tables import read_prepared
from foretaste.serving.models import Models, models_of
from foretaste.sessions.spread import Item
from foretaste.signals.acts import Acts
from foretaste.signals.offline import acts_of_many
from foretaste.surfaces.page import continuing

SCORES_AT_ONCE = 8_000_000
"""Scores of titles that one call of the model may hold."""
MEMBERS_AT_ONCE = 2_048
READ = [name for name in EVENTS.names if name not in ("surface", "position", "decision_id", "properties", "country")]


@dataclass(frozen=True, slots=True)
class Past:
    """What was visible of B members before an instant."""

    member_ids: list[str]
    events: pa.Table  # of all of them, sorted by (member, at, event_id)
    offsets_B1: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.member_ids)

    def acts(self, first: int, last: int, *, asof_us: int, known: Models) -> Acts:
        """Read the events of members `first:last` as answers of these models at one instant do."""
        low, high = int(self.offsets_B1[first]), int(self.offsets_B1[last])
        offsets_B1 = self.offsets_B1[first : last + 1] - low
        asof_B = np.full(last - first, asof_us, dtype=np.int64)
        part = self.events.slice(low, high - low)
        return acts_of_many(part, offsets_B1, asof_B, catalogue=known.catalogue, rule=known.rule)


def past_of(
    prepared: Path,
    bucket: str,
    *,
    before_us: int,
    deleted: Mapping[str, int],
    newest: int | None = None,
    window_us: int | None = None,
) -> Past:
    """Events of a bucket's members before an instant: of each the `newest`, of those the ones inside the window.

    Guests are left out, as is what members did up to the time (microseconds) at which they were `deleted`.
    """
    events = pl.from_arrow(read_prepared(prepared, "acts", columns=READ, bucket=bucket))
    assert isinstance(events, pl.DataFrame)
    at = pl.col("at").to_physical()
    events = events.filter(pl.col("member_id").is_not_null() & (at < before_us))
    if deleted:
        until = pl.col("member_id").replace_strict(dict(deleted), default=-1, return_dtype=pl.Int64)
        events = events.filter(at > until)
    if newest is not None:
        events = events.group_by("member_id", maintain_order=True).tail(newest)
    if window_us is not None:
        events = events.filter(at >= before_us - window_us)
    runs = events["member_id"].rle().struct.unnest()
    offsets_B1 = np.append(0, np.cumsum(runs["len"].to_numpy(), dtype=np.int64)).astype(np.int64)
    return Past(runs["value"].to_list(), events.to_arrow(), offsets_B1)


@dataclass(frozen=True, slots=True)
class Predicting:
    """The work on one bucket: a file of `member_intents` rows without segments; answers with how many."""

    registry: Path
    prepared: Path
    model: str  # fingerprint
    asof_us: int
    newest: int  # events of a member that a request reads
    window_us: int | None
    deleted: Mapping[str, int]
    folder: Path

    def __call__(self, item: Item) -> Item:
        """Predict the members of a bucket, some at a time."""
        known = model_of(self.registry, self.prepared, self.model)
        past = past_of(
            self.prepared, item["bucket"], before_us=self.asof_us, deleted=self.deleted, newest=self.newest,
            window_us=self.window_us,
        )  # fmt: skip
        if not len(past):
            return {"bucket": item["bucket"], "members": 0}
        step = max(1, min(MEMBERS_AT_ONCE, SCORES_AT_ONCE // max(1, len(known.catalogue))))
        tables = [self._part(known, past, first, min(first + step, len(past))) for first in range(0, len(past), step)]
        write_parquet(pa.concat_tables(tables), part_file(self.folder, item["bucket"]))
        return {"bucket": item["bucket"], "members": len(past)}

    def _part(self, known: Models, past: Past, first: int, last: int) -> pa.Table:
        assert known.intent is not None
        acts = past.acts(first, last, asof_us=self.asof_us, known=known)
        said = known.intent.predict(acts.histories(), acts.asof_B)
        newest_B = past.events["at"].take(past.offsets_B1[first + 1 : last + 1] - 1)
        about = {
            "member_id": pa.array(past.member_ids[first:last]),
            "as_of": pa.array(acts.asof_B).cast(pa.timestamp("us", tz="UTC")),
            "model": pa.array([self.model] * (last - first)),
            "num_events": pa.array(np.diff(past.offsets_B1[first : last + 1]).astype(np.int32)),
            "newest_event_at": newest_B,
        }
        return rows_of(said, about)


def rows_of(said: IntentPrediction, about: Mapping[str, Any]) -> pa.Table:
    """Lay predictions out as `member_intents` rows, beside the columns given."""
    schema = member_intents(said.z_BD.shape[1], {head: said.classes[head] for head in said.heads})
    columns = dict(about) | {"z": _lists(said.z_BD)} | ({"attention": _lists(said.attention_BI)} if said.heads else {})
    for head in said.heads:
        best_B = said.intents[head].argmax(axis=1)
        columns[f"p_{head}"] = _lists(said.intents[head])
        columns[f"top_{head}"] = pa.array([said.classes[head][c] for c in best_B.tolist()])
    share_B = continuing(said.intents, said.classes)
    if share_B is not None:
        columns["layout"] = pa.array(np.where(share_B > 0.5, "continue", "discover").tolist())
        columns["layout_probability"] = pa.array(np.maximum(share_B, 1.0 - share_B))
    return conform(pa.table(columns), schema, what="intents of members")


def part_file(folder: Path, bucket: str) -> Path:
    """Where the rows of a bucket stand."""
    return folder / f"{bucket.replace('=', '-')}.parquet"


@lru_cache(1)
def model_of(registry: Path, prepared: Path, fingerprint: str) -> Models:
    """The intent model of a fingerprint with its catalogue, loaded once a process."""
    return models_of(registry, prepared, intent=fingerprint, ranker=None)


def _lists(value_BX: NDArray[np.float32]) -> pa.Array:
    flat = pa.array(np.ascontiguousarray(value_BX, dtype=np.float32).ravel())
    return pa.FixedSizeListArray.from_arrays(flat, value_BX.shape[1])
