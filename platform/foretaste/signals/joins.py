"""Rows of a slow view as they stood at instants of the past, at scale: bucket by bucket, here or in Ray's tasks.

Keys, columns and TTL are those of Feast's registry (store_feast.FeastProject.join_rule), and Feast with DuckDB stays
what this is tested against. A question is never dropped or doubled: that is checked, and the order is restored.

Shapes: B questions, Q questions of one bucket.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow as pa
from numpy.typing import NDArray

from foretaste.contracts.columns import AT
from foretaste.ops.files import read_parquet
from foretaste.signals.published import Parts

ON_RAY_FROM = 200_000
"""Questions from which a join is worth handing over to Ray, where one is running."""


@dataclass(frozen=True, slots=True)
class JoinRule:
    """How a view is joined, as the registry says it."""

    view: str
    key: str
    columns: tuple[str, ...]
    ttl_us: int  # 0 for none
    folder: Path  # of the published parts
    num_buckets: int  # of the members' hash; 1 where rows are not divided


@dataclass(frozen=True, slots=True)
class _Task:
    rule: JoinRule
    bucket: int
    questions: pa.Table  # key, asked (exclusive), row


def bucket_of(key: str, num_buckets: int) -> int:
    """The bucket in which preparation put an actor."""
    return zlib.crc32(key.encode()) % num_buckets


def join_rows(rule: JoinRule, ids: Sequence[str], at_B: NDArray[np.int64], *, ray: bool = False) -> pa.Table:
    """The newest row of each key strictly before each instant (microseconds), in order; null where there is none.

    A TTL is left to `views.visible`. With `ray` a bucket is a task of the Ray that runs. Raises RuntimeError where
    the answers are not one a question.
    """
    tasks = list(_tasks(rule, ids, at_B))
    parts = _on_ray(tasks) if ray else map(_joined, tasks)
    schema = pa.schema([("row", pa.int64())])
    found = pa.concat_tables([schema.empty_table(), *parts], promote_options="default").sort_by("row")
    if not np.array_equal(np.asarray(found["row"]), np.arange(len(ids))):
        raise RuntimeError(f"join of {rule.view}: {len(ids)} questions, {found.num_rows} answers")
    return found


def _tasks(rule: JoinRule, ids: Sequence[str], at_B: NDArray[np.int64]) -> Iterator[_Task]:
    asked = pa.table(
        {rule.key: pa.array(ids, pa.string()), "asked": pa.array(at_B).cast(AT), "row": np.arange(len(ids))}
    )
    if rule.num_buckets == 1:
        yield _Task(rule, 0, asked)
        return
    coded = asked[rule.key].combine_chunks().dictionary_encode()
    bucket_K = np.array([bucket_of(one, rule.num_buckets) for one in coded.dictionary.to_pylist()], dtype=np.int64)
    bucket_B = bucket_K[np.asarray(coded.indices)]
    order_B = np.argsort(bucket_B, kind="stable")
    edges = np.searchsorted(bucket_B[order_B], np.arange(rule.num_buckets + 1))
    for bucket in range(rule.num_buckets):
        rows_Q = order_B[edges[bucket] : edges[bucket + 1]]
        if len(rows_Q):
            yield _Task(rule, bucket, asked.take(pa.array(rows_Q)))


def _joined(task: _Task) -> pa.Table:
    """Join one bucket: as many rows as questions."""
    rule = task.rule
    files = Parts(rule.folder, f"{task.bucket:05d}").files()
    names = [rule.key, "at", *rule.columns]
    right = pl.concat([_frame(read_parquet(file, columns=names)) for file in files]).sort("at")
    left = _frame(task.questions).sort("asked")
    found = left.join_asof(
        right, left_on="asked", right_on="at", by=rule.key, allow_exact_matches=False, check_sortedness=False
    )
    if found.height != left.height:
        raise RuntimeError(
            f"join of {rule.view}, bucket {task.bucket}: {left.height} questions, {found.height} answers"
        )
    return found.select("row", *rule.columns).to_arrow()


def _on_ray(tasks: Iterable[_Task]) -> Iterator[pa.Table]:
    import ray

    join = ray.remote(num_cpus=1)(_joined)
    waiting = [join.remote(task) for task in tasks]
    while waiting:
        done, waiting = ray.wait(waiting)
        yield ray.get(done[0])


def _frame(table: pa.Table) -> pl.DataFrame:
    frame = pl.from_arrow(table)
    assert isinstance(frame, pl.DataFrame)
    return frame
