"""What decisions teach a posterior: features, offset and reward of every place whose reward is known, bucket by bucket.

Shapes: C candidates of a pool, D features, F columns of the ranker.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from foretaste.contracts.columns import AT, LOGGED_EVENTS
from foretaste.feedback.decision_log import plain_rows
from foretaste.feedback.past import Past
from foretaste.jobs.parity import first_of_each
from foretaste.jobs.policy_rounds import NO_OUTCOME, ROWS_AT_ONCE, number_of, replay_of
from foretaste.ops.files import write_parquet
from foretaste.policies.arrange import dealt
from foretaste.rewards.programs import State
from foretaste.serving.exploring import read_as
from foretaste.serving.logged import LeftOutError, Logged
from foretaste.serving.posteriors import Described
from foretaste.serving.recompute import Arranged
from foretaste.sessions.spread import Item
from foretaste.signals.candidates import CANDIDATE_COLUMNS

LESSONS = pa.schema(
    [
        pa.field("decision_id", pa.string(), nullable=False),
        pa.field("at", AT, nullable=False),
        pa.field("position", pa.int32(), nullable=False),
        pa.field("features", pa.list_(pa.float64()), nullable=False),
        pa.field("offset", pa.float64(), nullable=False),
        pa.field("reward", pa.float64(), nullable=False),
    ]
)
"""What a place teaches: the offset is what was known without the weights, in the unit that the policy reads."""
NOT_DESCRIBED = "the ranker did not answer, or is not the one that titles are described by"
NO_REWARD = "no reward of the list is known"


@dataclass(frozen=True)
class Teaching:
    """Writes LESSONS of a bucket; answers with counts."""

    folder: Path
    where: Mapping[str, str]
    policy: str
    kind: str
    described: Described
    counted: Path | None  # decisions that are known already, as numbers
    until_us: int

    def __call__(self, item: Item) -> Item:
        """Read one bucket."""
        left: Counter[str] = Counter()
        lessons = [row for found in self._lessons(item, left) for row in found]
        if lessons:
            table = pa.Table.from_pylist(lessons, schema=LESSONS)
            write_parquet(table, self.folder / f"bucket-{item['number']:05d}.parquet")
        return {"lessons": len(lessons), "left": dict(left)}

    def _lessons(self, item: Item, left: Counter[str]) -> Iterator[list[dict[str, Any]]]:
        rewards = _rewards(pq.read_table(item["rewards"])) if "rewards" in item else {}
        for one, pool in again(item, self.where, counted=self.counted, until_us=self.until_us, left=left):
            told = rewards.get(one.decision_id)
            if told is None:
                left[NO_OUTCOME] += 1
                continue
            features_CD = pool.features(self.described, one.models)
            if features_CD is None:
                left[NOT_DESCRIBED] += 1
                continue
            offset_C = read_as(self.policy, dealt(pool.scores_C), log=pool.log, kind=self.kind)
            at = {code: number for number, code in enumerate(pool.codes_C.tolist())}
            codes = one.models.catalogue.codes([entry["title_id"] for entry in one.row["items"]]).tolist()
            known = [(entry["position"], at[code]) for entry, code in zip(one.row["items"], codes, strict=True)]
            rows = [
                {
                    "decision_id": one.decision_id,
                    "at": one.asof_us,
                    "position": position,
                    "features": features_CD[number].tolist(),
                    "offset": float(offset_C[number]),
                    "reward": told[position],
                }
                for position, number in known
                if position in told
            ]
            if not rows:
                left[NO_REWARD] += 1
            yield rows


@dataclass(frozen=True)
class Measuring:
    """Sums what the ranker was told of candidates, so that columns can be brought to one size."""

    where: Mapping[str, str]
    columns: tuple[str, ...]
    until_us: int
    most: int  # decisions of a bucket that are looked at

    def __call__(self, item: Item) -> Item:
        """Sums of one bucket."""
        places = [CANDIDATE_COLUMNS.index(name) for name in self.columns]
        sums, squares, num, seen = np.zeros(len(places)), np.zeros(len(places)), 0, 0
        for _, pool in again(item, self.where, counted=None, until_us=self.until_us, left=Counter()):
            if pool.inputs is not None:
                told_CF = pool.inputs.features_BCF[0][:, places].astype(np.float64)
                told_CF = told_CF[np.isin(pool.inputs.code_BC[0], pool.codes_C)]
                sums, squares, num = sums + told_CF.sum(axis=0), squares + (told_CF**2).sum(axis=0), num + len(told_CF)
                seen += 1
            if seen >= self.most:
                break
        return {"sums": sums.tolist(), "squares": squares.tolist(), "num": num}


def again(
    item: Item, where: Mapping[str, str], *, counted: Path | None, until_us: int, left: Counter[str]
) -> Iterator[tuple[Logged, Arranged]]:
    """Decisions of a bucket from before `until_us`, but for those that are counted, made again up to the policy."""
    if "decisions" not in item:
        return
    past = Past(first_of_each(pq.read_table(item["events"]) if "events" in item else LOGGED_EVENTS.empty_table()))
    replay = replay_of(tuple(sorted(where.items())))
    seen = set() if counted is None else set(pq.read_table(counted)["decision"].to_pylist())
    for batch in pq.ParquetFile(item["decisions"]).iter_batches(ROWS_AT_ONCE):
        table = pa.Table.from_batches([batch])
        rows: list[dict[str, Any]] = []
        for row in plain_rows(table.filter(pc.less(table["at"].cast(pa.int64()), until_us))):
            if row["items"] and (number := number_of(row["decision_id"])) not in seen:
                seen.add(number)
                rows.append(row)
        yield from _made(replay.pools(rows, past), left)


def _made(
    found: Sequence[tuple[Logged, Arranged] | LeftOutError], left: Counter[str]
) -> Iterator[tuple[Logged, Arranged]]:
    for one in found:
        if isinstance(one, LeftOutError):
            left[str(one)[:200]] += 1
        else:
            yield one


def _rewards(table: pa.Table) -> dict[str, dict[int, float]]:
    """Rewards that are known for good, by decision and place."""
    found: dict[str, dict[int, float]] = {name: {} for name in table["decision_id"].unique().to_pylist()}
    final = table.filter(pc.equal(table["reward_state"], State.FINAL.value))
    for row in final.select(["decision_id", "position", "reward"]).to_pylist():
        if row["position"] is not None:
            found[row["decision_id"]].setdefault(row["position"], row["reward"])
    return found
