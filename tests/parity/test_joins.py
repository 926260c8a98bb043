"""Joins at past instants: Feast with DuckDB, plain polars, our join here and in Ray's tasks are one and the same."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow as pa
import pytest
from numpy.typing import NDArray

from foretaste.contracts.columns import MEMBER_SNAPSHOTS, TITLE_SNAPSHOTS
from foretaste.ops.files import read_json
from foretaste.signals.joins import JoinRule, join_rows
from foretaste.signals.snapshots import SnapshotConfig, build_snapshots
from foretaste.signals.store import MEMBERS, TITLES, FeatureStore
from foretaste.signals.store_feast import NOBODY, FeastProject
from foretaste.signals.views import versions, visible
from foretaste.testing.builders import START, prepared_folder, random_interactions, titles_table

REPO = Path(__file__).parents[2] / "features"
DAY_US = 86_400_000_000
START_US = round(START.timestamp()) * 1_000_000
DAYS = 60
TABLE = titles_table(20, seed=7)
KEYS = {MEMBERS: "member_id", TITLES: "title_id"}
SCHEMAS = {MEMBERS: MEMBER_SNAPSHOTS, TITLES: TITLE_SNAPSHOTS}


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[FeastProject, Path, int]]:
    folder = tmp_path_factory.mktemp("joins")
    rows = random_interactions(TABLE, actors=60, days=DAYS, per_actor=25, seed=7)
    prepared_folder(folder / "prepared", rows, TABLE, num_buckets=5)
    build_snapshots(folder / "prepared", folder / "features", SnapshotConfig())
    store = FeatureStore(REPO, folder / "features")
    store.apply()
    said = read_json(folder / "features" / "sources" / "manifest.json")
    yield store._source, folder / "features" / "sources", len(said["buckets"])
    store.close()


def rule_of(world: tuple[FeastProject, Path, int], view: str) -> JoinRule:
    return world[0].join_rule(view, world[2] if view == MEMBERS else 1)


def questions(sources: Path, view: str, size: int, seed: int) -> tuple[list[str], NDArray[np.int64]]:
    """Keys, unknown ones and none at all, at and beside versions, before all history and long after; slates of 40."""
    dice = np.random.default_rng(seed)
    rows = pl.read_parquet(sources / ("members" if view == MEMBERS else "titles") / "*.parquet")
    known = [*rows[KEYS[view]].unique().sort(), "nobody", NOBODY]
    ids = [known[number] for number in dice.integers(0, len(known), size)]
    at_B = START_US + dice.integers(-3, DAYS + 40, size) * DAY_US
    at_B += dice.choice([0, -1, 1, 1_000, -1_000, DAY_US // 3], size)
    slate = min(40, size)
    ids[:slate] = [known[number % len(known)] for number in range(slate)]
    at_B[:slate] = START_US + 20 * DAY_US + 7
    ids[slate : 2 * slate] = [known[0]] * slate  # and 40 times the same
    at_B[slate : 2 * slate] = START_US + 20 * DAY_US + 7
    return ids, at_B


def reference(sources: Path, view: str, ids: list[str], at_B: NDArray[np.int64]) -> pl.DataFrame:
    right = pl.read_parquet(sources / ("members" if view == MEMBERS else "titles") / "*.parquet").sort("at")
    left = pl.DataFrame({KEYS[view]: ids, "asked": at_B}).with_row_index("row")
    left = left.with_columns(asked=pl.col("asked").cast(pl.Datetime("us", "UTC"))).sort("asked")
    joined = left.join_asof(
        right, left_on="asked", right_on="at", by=KEYS[view], allow_exact_matches=False, check_sortedness=False
    )
    return joined.sort("row")


def must_equal(found: pa.Table, wanted: pl.DataFrame, view: str) -> None:
    """Every cell, and its type as far as Arrow's two sizes of text and lists go."""
    assert found.num_rows == wanted.height
    for field in SCHEMAS[view]:
        if field.name in (KEYS[view], "at"):
            continue
        column = pl.from_arrow(found[field.name])
        assert isinstance(column, pl.Series)
        assert column.dtype == wanted[field.name].dtype
        assert column.to_list() == wanted[field.name].to_list(), field.name


@pytest.mark.parametrize("view", [MEMBERS, TITLES])
def test_duckdb_polars_and_our_join_agree_on_a_thousand_questions(
    world: tuple[FeastProject, Path, int], view: str
) -> None:
    project, sources, _ = world
    ids, at_B = questions(sources, view, 1_000, seed=1)
    wanted = reference(sources, view, ids, at_B)
    assert 0.05 < wanted[SCHEMAS[view].names[2]].null_count() / 1_000 < 0.6
    must_equal(project.join(view, list(ids), at_B), wanted, view)
    must_equal(join_rows(rule_of(world, view), ids, at_B), wanted, view)


@pytest.mark.cluster
@pytest.mark.parametrize("view", [MEMBERS, TITLES])
def test_the_join_in_ray_tasks_agrees(world: tuple[FeastProject, Path, int], view: str, local_ray: None) -> None:
    _, sources, _ = world
    ids, at_B = questions(sources, view, 1_000, seed=2)
    must_equal(join_rows(rule_of(world, view), ids, at_B, ray=True), reference(sources, view, ids, at_B), view)


def test_a_hundred_thousand_questions_equal_an_independent_join_in_every_cell(
    world: tuple[FeastProject, Path, int],
) -> None:
    _, sources, _ = world
    ids, at_B = questions(sources, MEMBERS, 100_000, seed=3)
    must_equal(join_rows(rule_of(world, MEMBERS), ids, at_B), reference(sources, MEMBERS, ids, at_B), MEMBERS)


def test_the_ttl_of_the_registry_is_that_of_duckdb(world: tuple[FeastProject, Path, int]) -> None:
    """What Feast leaves out for its age is what `visible` leaves out of our join."""
    project, sources, _ = world
    view, ttl_us = project.views[MEMBERS], 20 * DAY_US
    before = view.ttl
    ids, at_B = questions(sources, MEMBERS, 600, seed=4)
    oldest = pl.read_parquet(sources / "members" / "*.parquet").sort("at")["member_asof_ms"][0] * 1000
    at_B[-6:] = oldest + ttl_us + np.array([-1_000, 0, 1, 1_000, -1, 999])
    joined = join_rows(rule_of(world, MEMBERS), ids, at_B)
    version_B = versions(joined["member_asof_ms"])
    try:
        view.ttl = timedelta(days=20)
        project.feast.apply([view])
        oracle = versions(project.join(MEMBERS, list(ids), at_B)["member_asof_ms"])
    finally:
        view.ttl = before
        project.feast.apply([view])
    seen_B = visible(version_B, at_B, ttl_us=ttl_us)
    beside_B = at_B - 1 - version_B * 1000 == ttl_us  # Feast is asked a microsecond earlier: it sees one more
    np.testing.assert_array_equal(np.where(seen_B, version_B, -1)[~beside_B], oracle[~beside_B])
    assert 0 < seen_B.sum() < (version_B >= 0).sum()


def test_a_lost_answer_is_noticed(world: tuple[FeastProject, Path, int], monkeypatch: pytest.MonkeyPatch) -> None:
    from foretaste.signals import joins

    monkeypatch.setattr(joins, "_joined", lambda task: task.questions.select(["row"]).slice(1))
    with pytest.raises(RuntimeError, match="10 questions, 9 answers"):
        join_rows(rule_of(world, TITLES), ["t0001"] * 10, np.full(10, START_US + 9 * DAY_US))


def test_no_questions_have_no_answers(world: tuple[FeastProject, Path, int]) -> None:
    assert join_rows(rule_of(world, MEMBERS), [], np.zeros(0, dtype=np.int64)).num_rows == 0
