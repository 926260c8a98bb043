"""Segments of members by intent, of an export: centres, who belongs where, and what each segment does more than others.

Shapes: B members, D width of the intent embedding, K segments, T interactions.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from foretaste.contracts.columns import MEMBER_SEGMENTS
from foretaste.contracts.intents import LabelConfig, specifications
from foretaste.contracts.segments import Segments, nearest
from foretaste.evaluation.behaviours import Finding, Moments, Names, behaviours, lifts, moments, over_represented
from foretaste.evaluation.segment_config import SegmentConfig
from foretaste.evaluation.segments import agreement
from foretaste.jobs.export import Past, model_of, part_file, past_of
from foretaste.ops.files import parquet_files, whole_file, write_parquet
from foretaste.serving.models import Models
from foretaste.sessions.label import intent_labels
from foretaste.sessions.spread import Item
from foretaste.signals.acts import Acts
from foretaste.signals.offline import columns_of
from foretaste.signals.served import sampled

DAY_US = 86_400_000_000
BEFORE, AFTER = "before", "after"
NUM_LABELS = 3
LIKE_ALL = "like all members"


def drawn(parts: Iterable[Path], *, total: int, most: int) -> NDArray[np.float32]:
    """Intent embeddings of at most about `most` of `total` members, drawn by their ids; float32[B, D]."""
    share = min(1.0, most / max(total, 1))
    found = []
    for part in parts:
        table = pq.read_table(part, columns=["member_id", "z"], partitioning=None)
        kept = [sampled(member_id, share) for member_id in table["member_id"].to_pylist()]
        found.append(matrix(table.filter(pa.array(kept, pa.bool_()))["z"]))
    return np.concatenate(found)


def matrix(column: pa.ChunkedArray) -> NDArray[np.float32]:
    """A column of lists of one length as one array."""
    lists = column.combine_chunks()
    width = lists.type.list_size
    return np.asarray(lists.flatten(), dtype=np.float32).reshape(-1, width)


@dataclass(frozen=True, slots=True)
class Profiling:
    """The work on one bucket: its rows again with their segments; answers with sums of what the segments do."""

    registry: Path
    prepared: Path
    segments: Segments
    labels: LabelConfig
    devices: tuple[str, ...]
    asof_us: int
    config: SegmentConfig
    deleted: Mapping[str, int]
    rows: Path  # folder of the rows without segments
    folder: Path

    def __call__(self, item: Item) -> Item:
        """Assign a bucket's members and count what they did before and after the instant."""
        source = part_file(self.rows, item["bucket"])
        if not source.is_file():
            return {}
        table = pq.read_table(source, partitioning=None)
        number_B, distance_B = nearest(matrix(table["z"]), self.segments.centre_KD)
        for name, values in (("segment", number_B), ("segment_distance", distance_B)):
            place = table.schema.get_field_index(name)
            table = table.set_column(place, table.schema.field(name), pa.array(values))
        write_parquet(table, part_file(self.folder, item["bucket"]))
        known = model_of(self.registry, self.prepared, self.segments.model)
        until = self.asof_us + round(self.config.next_days * DAY_US)
        past = past_of(self.prepared, item["bucket"], before_us=until, deleted=self.deleted)
        segment_of = dict(zip(table["member_id"].to_pylist(), number_B.tolist(), strict=True))
        return {
            "means": _means(table, number_B, len(self.segments.centres)),
            "sums": self._sums(past, known, segment_of, until),
        }

    def _sums(self, past: Past, known: Models, segment_of: Mapping[str, int], until: int) -> dict[str, Any]:
        acts = past.acts(0, len(past), asof_us=until, known=known)
        histories = acts.histories()
        specs = specifications(self.labels, known.catalogue)
        labels = intent_labels(histories, known.catalogue, self.labels)
        device_T = _devices(past, acts, known, self.devices)
        after_T = histories.at_T >= self.asof_us
        before_T = ~after_T & (histories.at_T >= self.asof_us - round(self.config.profile_days * DAY_US))
        found: dict[str, Any] = {}
        for when, within_T in ((BEFORE, before_T), (AFTER, after_T)):
            classes = {spec.name.value: spec.classes for spec in specs}
            counted = behaviours(histories, labels, classes, within_T, device_T, self.devices)
            own_M = np.array([segment_of.get(member_id, -1) for member_id in past.member_ids], dtype=np.int32)
            counted, own_M = counted.members(own_M >= 0), own_M[own_M >= 0]
            found[when] = moments(counted, own_M, len(self.segments.centres)).plain()
            found["names"] = [list(name) for name in counted.names]
        return found


def _devices(past: Past, acts: Acts, known: Models, devices: Sequence[str]) -> NDArray[np.int32]:
    """Code of the device of the first event of each interaction, -1 where it is not known; int32[T]."""
    kept_E = columns_of(past.events, known.catalogue)[0].kept(known.catalogue)
    code_E = pc.index_in(past.events["device"], value_set=pa.array(devices, pa.string())).fill_null(-1)
    code_T: NDArray[np.int32] = np.asarray(code_E, dtype=np.int32)[kept_E][acts.event_R]
    return code_T


def _means(table: pa.Table, number_B: NDArray[np.int32], num: int) -> dict[str, Any]:
    """Sums by segment of what the model expects: members, probabilities and attention."""
    found: dict[str, Any] = {"members": np.bincount(number_B, minlength=num).tolist()}
    for name in [name for name in table.column_names if name.startswith("p_") or name == "attention"]:
        values_BC = matrix(table[name]).astype(np.float64)
        total_KC = np.zeros((num, values_BC.shape[1]))
        np.add.at(total_KC, number_B, values_BC)
        found[name] = total_KC.tolist()
    return found


@dataclass(frozen=True)
class Profiles:
    """What all members of the segments did and are expected to do, added up."""

    names: Names
    sums: Mapping[str, Moments]  # by BEFORE and AFTER
    means: Mapping[str, NDArray[np.float64]]  # members [K], attention [K, I], p_ of each head [K, C]


def added(answers: Iterable[Item]) -> Profiles:
    """Add up what the work on all buckets answered."""
    names: Names = ()
    sums: dict[str, Moments] = {}
    means: dict[str, NDArray[np.float64]] = {}
    for answer in (one for one in answers if one):
        names = tuple((what, name) for what, name in answer["sums"]["names"])
        for when in (BEFORE, AFTER):
            part = Moments.of_plain(answer["sums"][when])
            sums[when] = sums[when] + part if when in sums else part
        for name, value in answer["means"].items():
            means[name] = means.get(name, 0.0) + np.array(value, dtype=np.float64)
    return Profiles(names, sums, means)


def described(profiles: Profiles, heads: Mapping[str, Sequence[str]], config: SegmentConfig) -> list[dict[str, Any]]:
    """Describe each segment: size, what the model expects of it, and what its members do more than others.

    `before` is what the segments were made of, so that it describes them; `after`, of the same behaviour, is what no
    segment had seen.
    """
    size_K = profiles.means["members"]
    before = lifts(profiles.sums[BEFORE], profiles.names, least_members=config.least_members)
    after = lifts(profiles.sums[AFTER], profiles.names, least_members=config.least_members)
    found = []
    for number, kept in enumerate(over_represented(before, level=config.level)):
        later = {(one.what, one.name): one for one in after[number]}
        own = {head: _expected(profiles, head, of, number) for head, of in heads.items()}
        attention_I = profiles.means["attention"][number] / max(size_K[number], 1)
        found.append(
            {
                "number": number,
                "label": label(kept),
                "members": int(size_K[number]),
                "share": float(size_K[number] / size_K.sum()),
                "attention": dict(zip(heads, attention_I.tolist(), strict=True)),
                "expected": own,
                "over_represented": [
                    asdict(one) | {AFTER: None if (seen := later.get((one.what, one.name))) is None else asdict(seen)}
                    for one in kept
                ],
            }
        )
    return found


def label(kept: Sequence[Finding]) -> str:
    """Name a segment by what stands out most surely."""
    return ", ".join(one.name.replace("_", " ") for one in kept[:NUM_LABELS]) or LIKE_ALL


def write_member_segments(parts: Iterable[Path], file: Path) -> None:
    """Write who belongs to which segment as one Parquet file, a part at a time."""
    with whole_file(file) as partial, pq.ParquetWriter(partial, MEMBER_SEGMENTS, compression="zstd") as writer:
        for part in parts:
            table = pq.read_table(part, columns=["member_id", "segment", "segment_distance"], partitioning=None)
            writer.write_table(table.rename_columns(MEMBER_SEGMENTS.names).cast(MEMBER_SEGMENTS))


def with_truth(truth: Path, members: pa.Table, *, asof: datetime) -> dict[str, Any] | None:
    """How segments (MEMBER_SEGMENTS) agree with what a synthetic world planted; None where there is no truth.

    Of the newest session that each member opened before the instant: adjusted mutual information with its planted
    intent, and with the genre that the member likes most in the long run. A figure, nothing is chosen by it.
    """
    if not (truth / "sessions").is_dir():
        return None
    sessions = pl.scan_parquet(parquet_files(truth / "sessions")).filter(
        (pl.col("started_at") < asof) & ~pl.col("guest")
    )
    newest = sessions.sort("started_at").group_by("member_id").last().collect()
    taste = (
        pl.scan_parquet(parquet_files(truth / "members")).select("member_id", pl.col("taste").list.arg_max()).collect()
    )
    own = pl.from_arrow(members)
    assert isinstance(own, pl.DataFrame)
    joined = own.join(newest, on="member_id").join(taste, on="member_id")
    names = [
        name for name in ("primary_intent", "genre", "action", "kind", "recency", "taste") if name in joined.columns
    ]
    planted: dict[str, list[str]] = {name: joined[name].cast(pl.String).fill_null("any").to_list() for name in names}
    return {
        "members": len(joined),
        "of": "newest session before the instant; taste: favourite genre",
        "adjusted_mutual_information": agreement(joined["segment"].to_numpy(), planted),
    }


def _expected(profiles: Profiles, head: str, of: Sequence[str], number: int) -> list[dict[str, Any]]:
    """The likeliest classes of a head in a segment, beside all members."""
    total_KC, size_K = profiles.means[f"p_{head}"], profiles.means["members"]
    own_C, all_C = total_KC[number] / max(size_K[number], 1), total_KC.sum(axis=0) / size_K.sum()
    best = np.argsort(-own_C, kind="stable")[:3]
    return [{"name": of[c], "probability": float(own_C[c]), "all": float(all_C[c])} for c in best]
