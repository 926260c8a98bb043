"""The newest snapshot before any midnight is what a plain walk over the interactions before that midnight gives."""

from __future__ import annotations

import math
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from foretaste.contracts.catalogue import Catalogue, catalogue
from foretaste.contracts.columns import MEMBER_SNAPSHOTS, TITLE_SNAPSHOTS
from foretaste.ops.files import read_json, read_parquet
from foretaste.signals import member_snapshots
from foretaste.signals.decay import STEPS, powers
from foretaste.signals.midnights import DAY_US, Grid
from foretaste.signals.snapshot_twins import member_at, title_at
from foretaste.signals.snapshots import SnapshotConfig, build_snapshots
from foretaste.signals.title_snapshots import title_days, title_snapshots
from foretaste.testing.builders import START, interactions_table, prepared_folder, random_interactions, titles_table

CONFIG = SnapshotConfig()
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
Rows = list[dict[str, Any]]


def build(folder: Path, interactions: pa.Table, titles: pa.Table, config: SnapshotConfig = CONFIG) -> tuple[Rows, Rows]:
    prepared_folder(folder / "prepared", interactions, titles, num_buckets=3)
    build_snapshots(folder / "prepared", folder / "features", config)
    sources = folder / "features" / "sources"
    members, shots = read_parquet(sources / "members"), read_parquet(sources / "titles")
    assert members.schema == MEMBER_SNAPSHOTS
    assert shots.schema == TITLE_SNAPSHOTS
    return members.to_pylist(), shots.to_pylist()


def newest(rows: Rows, key: str, midnight: datetime) -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = {}
    for row in sorted(rows, key=lambda row: row["at"]):
        if row["at"] <= midnight:
            found[row[key]] = row
    return found


def in_microseconds(table: pa.Table) -> Any:
    at = table.column_names.index("at")
    return table.set_column(at, "at", table["at"].cast(pa.int64())).to_pylist()


def must_equal_the_twins(
    members: Rows,
    shots: Rows,
    table: pa.Table,
    known: Catalogue,
    targets: list[str],
    config: SnapshotConfig,
    grid: Grid,
) -> None:
    """At every midnight of the grid, of every member and title: the newest row is the twin's, to the last bit."""
    rows = in_microseconds(table)
    first = min((row["at"] for row in rows), default=0) // DAY_US
    of_member = [row for row in rows if not row["actor_id"].startswith("guest:")]
    for day in range(first // grid.step * grid.step, grid.last + 1, grid.step):
        for found_rows, key, actor, those in (
            (members, "member_id", "actor_id", of_member),
            (shots, "title_id", "title_id", rows),
        ):
            found = newest(found_rows, key, EPOCH + timedelta(days=day))
            groups: dict[str, Rows] = {}
            for row in those:
                groups.setdefault(row[actor], []).append(row)
            for one, own in groups.items():
                if key == "member_id":
                    wanted = member_at(own, day * DAY_US, known, targets, config)
                else:
                    wanted = title_at(own, day * DAY_US, targets, config)
                if wanted is None:
                    assert one not in found
                else:
                    assert {name: found[one][name] for name in wanted} == wanted
            assert found.keys() <= groups.keys()


@pytest.mark.parametrize(("seed", "step"), [(0, 1), (2, 3), (3, 7)])
def test_snapshots_equal_the_walk_over_what_was_before(tmp_path: Path, seed: int, step: int) -> None:
    titles = titles_table(25, seed=seed)
    table = random_interactions(titles, actors=12, days=70, per_actor=20, seed=seed)
    config = SnapshotConfig(step_days=step)
    members, shots = build(tmp_path, table, titles, config)
    targets = read_json(tmp_path / "prepared" / "manifest.json")["target_actions"]
    last = read_json(tmp_path / "features/sources/manifest.json")["published_ms"] * 1000 // DAY_US
    must_equal_the_twins(members, shots, table, catalogue(titles), targets, config, Grid(step, last))


TITLES = titles_table(6, seed=3)
KNOWN = catalogue(TITLES)
moments = st.one_of(
    st.integers(0, 230).map(lambda day: (day, 0)),  # midnights
    st.tuples(st.integers(0, 230), st.sampled_from([-1, 1, 1_000, DAY_US // 2, DAY_US - 1])),
)
touches = st.lists(
    st.tuples(
        st.sampled_from(["m1", "m2", "guest:s"]),
        moments,
        st.sampled_from(["t0000", "t0001", "t0002", "t0005", "?"]),
        st.sampled_from(["play", "complete", "detail", "thumb_down"]),
    ),
    min_size=1,
    max_size=14,
)


@settings(max_examples=60, deadline=None)
@given(rows=touches, step=st.sampled_from([1, 7]), weight=st.sampled_from([0.0, 0.25, 0.3]), cut=st.integers(0, 14))
def test_fast_and_slow_snapshots_are_equal_to_the_last_bit(rows: list[Any], step: int, weight: float, cut: int) -> None:
    placed = [
        (actor, START + timedelta(days=day, microseconds=us), title, act) for actor, (day, us), title, act in rows
    ]
    table = interactions_table(placed)
    config, targets = SnapshotConfig(step_days=step, browse_weight=weight), ["complete", "play"]
    last = max(row["at"] for row in in_microseconds(table)) // DAY_US + 1
    grid = Grid(step, -(-last // step) * step)
    members = member_snapshots.member_snapshots(table, KNOWN, targets, grid, config).to_pylist()
    days = [title_days(part, targets, config) for part in (table.slice(0, cut), table.slice(cut))]
    shots = title_snapshots(days, grid, config).to_pylist()
    must_equal_the_twins(members, shots, table, KNOWN, targets, config, grid)


def test_an_affinity_is_halved_after_half_a_life(tmp_path: Path) -> None:
    titles = titles_table(
        [{"title_id": "a", "kind": "movie", "genres": ["x"]}, {"title_id": "b", "kind": "show", "genres": ["y"]}]
    )
    members, _ = build(tmp_path, interactions_table([("m", 0.0, "a"), ("m", 30.0, "b")]), titles)
    assert members[-1]["member_genre_affinity"] == pytest.approx([1 / 3, 2 / 3], rel=1e-3)
    assert members[-1]["member_kind_affinity"] == pytest.approx([1 / 3, 2 / 3], rel=1e-3)


def test_an_earlier_first_interaction_changes_no_bit_of_what_does_not_decay_with_it() -> None:
    late = interactions_table([("m", 40.3, "t0001"), ("m", 90.7, "t0002")])
    early = interactions_table([("m", 1.1, "t0001", "thumb_down"), ("m", 40.3, "t0001"), ("m", 90.7, "t0002")])
    grid = Grid(1, 30_000)
    one, other = (
        member_snapshots.member_snapshots(table, KNOWN, ["play"], grid, CONFIG).to_pylist()[-1]
        for table in (late, early)
    )
    assert one["member_genre_affinity"] == other["member_genre_affinity"]


def test_powers_are_the_nearest_doubles() -> None:
    assert powers()[0] == 1.0
    assert powers()[STEPS // 2] == math.sqrt(2.0)
    np.testing.assert_allclose(powers(), np.exp2(np.arange(STEPS) / STEPS), rtol=3e-16)


def test_an_interaction_enters_on_the_midnight_after_it_and_leaves_windows_when_they_end(tmp_path: Path) -> None:
    table = interactions_table([("m", 0.0, "t0000"), ("m", 59.5, "t0001")])
    members, _ = build(tmp_path, table, titles_table(2))
    days = [(row["at"] - START).days for row in members]
    assert days == [1, 8, 31, 60]
    assert [row["member_plays_7d"] for row in members] == [1, 0, 0, 1]
    assert [row["member_plays_30d"] for row in members] == [1, 1, 0, 1]
    assert [row["member_asof_ms"] for row in members] == [int(row["at"].timestamp() * 1000) for row in members]


def test_a_row_holds_nothing_from_its_midnight_on(tmp_path: Path) -> None:
    midnight = START + timedelta(days=1)
    late = midnight - timedelta(microseconds=1)
    table = interactions_table(
        [("m", late, "t0000"), ("m", midnight, "t0000"), ("m", START + timedelta(days=9), "t0001")]
    )
    members, shots = build(tmp_path, table, titles_table(2))
    assert (members[0]["at"], members[0]["member_plays_7d"]) == (midnight, 1)
    first = next(row for row in shots if row["title_id"] == "t0000")
    assert (first["at"], first["title_plays_all"]) == (midnight, 1)


def test_guests_are_no_members_but_their_plays_count_for_titles(tmp_path: Path) -> None:
    members, shots = build(tmp_path, interactions_table([("guest:s1", 0.5, "t0000")]), titles_table(2))
    assert members == []
    assert [row["title_plays_all"] for row in shots] == [1]


def test_a_catalogue_without_genres_gives_empty_lists(tmp_path: Path) -> None:
    titles = titles_table([{"title_id": "a", "kind": "product"}])
    members, _ = build(tmp_path, interactions_table([("m", 0.5, "a"), ("m", 0.6, "?")]), titles)
    assert members[0]["member_genre_affinity"] == []
    assert members[0]["member_kind_affinity"] == [1.0]


def test_a_log_of_years_is_snapshotted_by_week_unless_told_otherwise(tmp_path: Path) -> None:
    table = interactions_table([("m", float(day), "t0000") for day in range(0, 500, 5)])
    members, _ = build(tmp_path, table, titles_table(1))
    assert {row["member_asof_ms"] % (7 * 86_400_000) for row in members} == {0}
    daily, _ = build(tmp_path, table, titles_table(1), SnapshotConfig(step_days=1))
    assert {row["member_asof_ms"] % (7 * 86_400_000) for row in daily} != {0}


def test_members_divided_into_parts_are_snapshotted_alike(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    titles = titles_table(10)
    table = random_interactions(titles, actors=12, per_actor=9)
    whole, _ = build(tmp_path / "whole", table, titles)
    monkeypatch.setattr(member_snapshots, "_ROWS_AT_ONCE", 10)
    divided, _ = build(tmp_path / "divided", table, titles)
    assert divided == whole


def test_no_interactions_at_all_are_refused(tmp_path: Path) -> None:
    prepared_folder(tmp_path, interactions_table([]), titles_table(1))
    with pytest.raises(ValueError, match="no interactions"):
        build_snapshots(tmp_path, tmp_path / "features", CONFIG)


def test_progress_adds_up_to_the_interactions(tmp_path: Path) -> None:
    titles = titles_table(5)
    table = random_interactions(titles, actors=7)
    prepared_folder(tmp_path, table, titles)
    done: list[float] = []
    counts = build_snapshots(tmp_path, tmp_path / "features", CONFIG, advance=done.append)
    assert sum(done) == counts["interactions"] == table.num_rows
