"""What a request reads of the slow views is what a join at that instant gives, and both are what the rows say."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from numpy.typing import NDArray

from foretaste.contracts.catalogue import Catalogue, catalogue
from foretaste.signals.snapshots import SnapshotConfig, build_snapshots
from foretaste.signals.store import FeatureStore
from foretaste.signals.views import ABSENT, MemberView, TitleView
from foretaste.testing.builders import (
    START,
    interactions_table,
    prepared_folder,
    random_interactions,
    titles_table,
)

REPO = Path(__file__).parents[2] / "features"
DAY_US = 86_400_000_000
TABLE = titles_table(30, seed=5)
KNOWN = catalogue(TABLE)
DAYS = 60


def us(at: datetime) -> int:
    return round(at.timestamp()) * 1_000_000


def made(
    folder: Path, interactions: Any, repo: Path = REPO, titles: Any = TABLE, step: int | None = None
) -> FeatureStore:
    shutil.rmtree(folder / "prepared", ignore_errors=True)
    prepared_folder(folder / "prepared", interactions, titles)
    build_snapshots(folder / "prepared", folder / "features", SnapshotConfig(step_days=step))
    store = FeatureStore(repo, folder / "features")
    store.apply()
    return store


@pytest.fixture(scope="module")
def past(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[FeatureStore, Path, list[str]]]:
    """A workspace of which nothing was ever loaded: joins see every row from its version on."""
    yield from opened(tmp_path_factory.mktemp("past"))


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[FeatureStore, Path, list[str]]]:
    yield from opened(tmp_path_factory.mktemp("features"))


def opened(folder: Path) -> Iterator[tuple[FeatureStore, Path, list[str]]]:
    interactions = random_interactions(TABLE, actors=50, days=DAYS, per_actor=25, seed=5)
    store = made(folder, interactions)
    yield store, folder / "features", sorted(set(interactions["actor_id"].to_pylist()))
    store.close()


def same(one: MemberView | TitleView, other: MemberView | TitleView) -> None:
    for name in type(one).__slots__:
        mine, theirs = getattr(one, name), getattr(other, name)
        assert mine.dtype == theirs.dtype, name
        assert mine.shape == theirs.shape, name
        assert mine.tobytes() == theirs.tobytes(), name


@pytest.mark.parametrize("hours", [-24.0, 0.0, 12.0, 24.0, 24 * 31.5, 24.0 * 35, 24.0 * (DAYS + 3)])
def test_online_after_loading_is_offline_at_that_instant(
    world: tuple[FeatureStore, Path, list[str]], hours: float
) -> None:
    store, _, ids = world
    until = START + timedelta(hours=hours)
    asked = [*ids, "nobody", None, ids[0]]
    store.materialize(until)
    online = store.members(asked, us(until))
    same(online, store.historical_members(asked, np.full(len(asked), us(until))))
    same(store.titles(KNOWN, us(until)), store.historical_titles(KNOWN, us(until)))
    assert online.asof_ms_B[len(ids)] == online.asof_ms_B[len(ids) + 1] == ABSENT
    if hours > 24 * 40:
        assert (online.asof_ms_B[: len(ids)] != ABSENT).all()


def test_joins_equal_an_independent_join_in_every_cell(past: tuple[FeatureStore, Path, list[str]]) -> None:
    store, data, ids = past
    dice = np.random.default_rng(0)
    size = 4000
    asked = [ids[n] if n < len(ids) else "nobody" for n in dice.integers(0, len(ids) + 3, size)]
    at_B = us(START) + dice.integers(-2, DAYS + 5, size) * DAY_US
    at_B += dice.choice([0, -1, 1, 1000, -1000, DAY_US // 3], size)  # many at a midnight, or a microsecond beside it
    view = store.historical_members(asked, at_B)
    rows = joined(data / "sources" / "members", "member_id", asked, at_B)
    assert rows.height == size
    assert view.asof_ms_B.tolist() == rows["member_asof_ms"].fill_null(ABSENT).to_list()
    assert view.count_7d_B.tolist() == rows["member_plays_7d"].fill_null(0).to_list()
    assert view.count_30d_B.tolist() == rows["member_plays_30d"].fill_null(0).to_list()
    assert view.tenure_days_B.tobytes() == rows["member_tenure_days"].fill_null(0.0).to_numpy().tobytes()
    for name, found in (("genre", view.genre_affinity_BG), ("kind", view.kind_affinity_BK)):
        lists = rows[f"member_{name}_affinity"].to_list()
        wanted = np.array([one or [0.0] * found.shape[1] for one in lists], dtype=np.float32)
        assert found.tobytes() == wanted.tobytes()
    assert 0.1 < np.mean(view.asof_ms_B == ABSENT) < 0.9


def test_titles_of_many_instants_equal_an_independent_join(past: tuple[FeatureStore, Path, list[str]]) -> None:
    store, data, _ = past
    dice = np.random.default_rng(1)
    at_B = us(START) + dice.integers(0, DAYS, 40) * DAY_US + dice.choice([0, -1, 1, DAY_US // 2], 40)
    views, view_B = store.historical_titles_of(KNOWN, at_B)
    assert len(views) < len(at_B) == len(view_B)
    for at, number in zip(at_B, view_B, strict=True):
        rows = joined(data / "sources" / "titles", "title_id", list(KNOWN.ids), np.full(len(KNOWN), at))
        view = views[number]
        assert view.plays_7d[0] == view.plays_all[0] == 0
        assert view.asof_ms[0] == ABSENT
        assert view.asof_ms[1:].tolist() == rows["title_asof_ms"].fill_null(ABSENT).to_list()
        for name in ("plays_7d", "plays_30d", "plays_all", "completion_rate"):
            assert getattr(view, name)[1:].tolist() == rows[f"title_{name}"].fill_null(0).to_list()
    same(views[view_B[0]], store.historical_titles(KNOWN, int(at_B[0])))


def joined(folder: Path, key: str, ids: list[str], at_B: NDArray[np.int64]) -> pl.DataFrame:
    """The newest row strictly before each instant, by polars, in the order of the question."""
    right = pl.read_parquet(folder / "*.parquet").sort("at")
    left = pl.DataFrame({key: ids, "asked": at_B}).with_row_index("row")
    left = left.with_columns(asked=pl.col("asked").cast(pl.Datetime("us", "UTC"))).sort("asked")
    return left.join_asof(
        right, left_on="asked", right_on="at", by=key, allow_exact_matches=False, check_sortedness=False
    ).sort("row")


def test_a_row_is_not_seen_at_its_own_midnight(past: tuple[FeatureStore, Path, list[str]]) -> None:
    store, data, _ = past
    row = pl.read_parquet(data / "sources" / "members" / "*.parquet").sort("at").row(0, named=True)
    midnight = us(row["at"])
    view = store.historical_members([row["member_id"]] * 2, np.array([midnight, midnight + 1]))
    assert view.asof_ms_B.tolist() == [ABSENT, row["member_asof_ms"]]


def test_no_questions_give_no_rows(world: tuple[FeatureStore, Path, list[str]]) -> None:
    store, _, _ = world
    assert len(store.historical_members([], np.zeros(0, dtype=np.int64))) == 0
    assert store.historical_titles_of(KNOWN, np.zeros(0, dtype=np.int64))[0] == []
    assert len(store.members([], us(START))) == 0


def test_snapshots_by_week_are_seen_alike_too(tmp_path: Path) -> None:
    interactions = random_interactions(TABLE, actors=20, days=DAYS, seed=6)
    store = made(tmp_path, interactions, step=7)
    dice = np.random.default_rng(2)
    at_B = us(START) + dice.integers(0, DAYS, 60) * DAY_US + dice.choice([0, -1, 1, DAY_US // 2], 60)
    views, view_B = store.historical_titles_of(KNOWN, at_B)
    for at, number in zip(at_B, view_B, strict=True):
        rows = joined(tmp_path / "features/sources/titles", "title_id", list(KNOWN.ids), np.full(len(KNOWN), at))
        assert views[number].asof_ms[1:].tolist() == rows["title_asof_ms"].fill_null(ABSENT).to_list()
        assert views[number].plays_30d[1:].tolist() == rows["title_plays_30d"].fill_null(0).to_list()
    store.materialize(START + timedelta(days=40))
    at = us(START + timedelta(days=40))
    same(store.titles(KNOWN, at), store.historical_titles(KNOWN, at))
    store.close()


@pytest.mark.parametrize("days", [20, 45])
def test_a_view_expires_online_and_offline_at_the_same_microsecond(tmp_path: Path, days: int) -> None:
    shutil.copytree(REPO, tmp_path / "repo")
    text = (tmp_path / "repo" / "definitions.py").read_text()
    assert "timedelta(days=30 * 365)" in text
    (tmp_path / "repo" / "definitions.py").write_text(text.replace("30 * 365", str(days)))
    store = made(tmp_path, interactions_table([("m", 0.5, "t0001", "detail")]), tmp_path / "repo")
    store.materialize(START + timedelta(days=200))
    edge = us(START + timedelta(days=1 + days))
    for at in (edge - 1000, edge, edge + 1, edge + 1000):
        online, offline = store.members(["m"], at), store.historical_members(["m"], np.array([at]))
        same(online, offline)
        assert (online.asof_ms_B[0] == ABSENT) == (at > edge)
        assert (online.genre_affinity_BG.sum() == 0) == (at > edge)
        same(store.titles(KNOWN, at), store.historical_titles(KNOWN, at))
        assert (store.titles(KNOWN, at).newest_ms == ABSENT) == (at > edge)
    store.close()


def test_whoever_is_gone_from_the_log_is_gone_online(tmp_path: Path) -> None:
    both = interactions_table([("gone", 5.0, "t0001"), ("stays", 3.0, "t0002")])
    store = made(tmp_path, both)
    later = START + timedelta(days=30)
    store.materialize(later)
    assert (store.members(["gone", "stays"], us(later)).asof_ms_B != ABSENT).all()
    rebuilt = made(tmp_path, interactions_table([("stays", 1.0, "t0002")]))
    rebuilt.materialize(later)
    for reader in (store, rebuilt):  # also one that was open all the time
        view = reader.members(["gone", "stays"], us(later))
        assert view.asof_ms_B[0] == ABSENT
        same(view, rebuilt.historical_members(["gone", "stays"], np.full(2, us(later))))
        same(reader.titles(KNOWN, us(later)), rebuilt.historical_titles(KNOWN, us(later)))
        reader.close()


def test_another_order_of_genres_is_noticed(tmp_path: Path) -> None:
    store = made(tmp_path, interactions_table([("m", 1.0, "t0001")]))
    store.materialize(START + timedelta(days=30))
    store.check(KNOWN)
    other: Catalogue = catalogue(titles_table([{"title_id": "t0001", "genres": ["western"]}]))
    with pytest.raises(ValueError, match="western"):
        store.check(other)
    store.close()


def test_a_log_of_guests_without_genres_has_titles_and_no_members(tmp_path: Path) -> None:
    bare = titles_table([{"title_id": "p1", "kind": "product"}, {"title_id": "p2", "kind": "product"}])
    store = made(tmp_path, interactions_table([("guest:s1", 0.5, "p1"), ("guest:s2", 0.6, "p1")]), titles=bare)
    later = us(START + timedelta(days=3))
    store.materialize(START + timedelta(days=3))
    view = store.members(["m", None], later)
    assert (view.genre_affinity_BG.shape, view.asof_ms_B.tolist()) == ((2, 0), [ABSENT, ABSENT])
    same(view, store.historical_members(["m", None], np.array([later, later])))
    assert store.titles(catalogue(bare), later).plays_all.tolist() == [0, 2, 0]
    store.close()


def test_a_ttl_of_part_of_a_day_is_refused(tmp_path: Path) -> None:
    shutil.copytree(REPO, tmp_path / "repo")
    text = (tmp_path / "repo" / "definitions.py").read_text()
    (tmp_path / "repo" / "definitions.py").write_text(text.replace("days=30 * 365", "hours=30"))
    store = made(tmp_path, interactions_table([("m", 0.5, "t0001")]), tmp_path / "repo")
    store.materialize(START + timedelta(days=2))
    with pytest.raises(ValueError, match="whole days"):
        store.members(["m"], us(START + timedelta(days=2)))
    store.close()


def test_rows_are_found_again_by_their_exact_version(world: tuple[FeatureStore, Path, list[str]]) -> None:
    store, _, ids = world
    until = START + timedelta(days=DAYS + 3)
    store.materialize(until)
    asked = [*ids, None, "nobody"]
    online = store.members(asked, us(until))
    same(store.members_at(asked, online.asof_ms_B, store.generation), online)
    titles = store.titles(KNOWN, us(until))
    codes_N = np.arange(len(KNOWN) + 1)
    same(store.titles_at(KNOWN, codes_N, titles.asof_ms, store.generation), titles)
    with pytest.raises(ValueError, match="member 'm000' was never published with version 7"):
        store.members_at(["m000"], np.array([7]))
    with pytest.raises(ValueError, match=r"title 't000\d' was never published with version 7"):
        store.titles_at(KNOWN, codes_N[1:], 7)
    with pytest.raises(ValueError, match="no generation 'other'"):
        store.members_at(["m000"], online.asof_ms_B[:1], "other")
