"""The newest snapshot before any midnight is what a plain walk over the interactions before that midnight gives."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from foretaste.contracts.catalogue import Catalogue, catalogue
from foretaste.contracts.columns import MEMBER_SNAPSHOTS, TITLE_SNAPSHOTS
from foretaste.ops.files import read_json, read_parquet
from foretaste.signals import snapshots
from foretaste.signals.snapshots import SnapshotConfig, build_snapshots
from foretaste.testing.builders import START, interactions_table, prepared_folder, random_interactions, titles_table

CONFIG = SnapshotConfig()
HALF = timedelta(days=CONFIG.half_life_days)
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


def twin_member(rows: Rows, midnight: datetime, titles: Catalogue, targets: list[str]) -> dict[str, Any]:
    """What is known of one member, walking over their interactions before a midnight."""
    before = [row for row in rows if row["at"] < midnight]
    genres, kinds = np.zeros(len(titles.genres)), np.zeros(len(titles.kinds))
    for row in before:
        code = titles.code_of.get(row["title_id"], 0)
        weight = 1.0 if row["action"] in targets else CONFIG.browse_weight
        weight *= 0.0 if row["action"] == "thumb_down" else 2 ** (-((midnight - row["at"]) / HALF))
        own = titles.genres_N1G[code]
        if code:
            kinds[titles.kind_N1[code]] += weight
            genres += weight * own / max(own.sum(), 1)
    plays = [row["at"] for row in before if row["action"] in targets]
    return {
        "member_genre_affinity": genres / (genres.sum() or 1),
        "member_kind_affinity": kinds / (kinds.sum() or 1),
        "member_plays_7d": sum(at >= midnight - timedelta(days=7) for at in plays),
        "member_plays_30d": sum(at >= midnight - timedelta(days=30) for at in plays),
        "member_tenure_days": (before[-1]["at"] - before[0]["at"]) / timedelta(days=1),
    }


def twin_title(rows: Rows, midnight: datetime, targets: list[str]) -> dict[str, Any]:
    plays = [row for row in rows if row["at"] < midnight and row["action"] in targets]
    done = [r for r in plays if r["action"] == "complete" or (r["played_fraction"] or 0) >= CONFIG.complete_from]
    return {
        "title_plays_7d": sum(row["at"] >= midnight - timedelta(days=7) for row in plays),
        "title_plays_30d": sum(row["at"] >= midnight - timedelta(days=30) for row in plays),
        "title_plays_all": len(plays),
        "title_completion_rate": len(done) / (len(plays) + CONFIG.prior_plays),
    }


def by(rows: Rows, key: str, midnight: datetime) -> dict[str, Rows]:
    groups: dict[str, Rows] = {}
    for row in rows:
        if row["at"] < midnight:
            groups.setdefault(row[key], []).append(row)
    return groups


def same(found: dict[str, Any], wanted: dict[str, Any]) -> None:
    for name, value in wanted.items():
        if name.endswith(("7d", "30d", "all")):
            assert found[name] == value, name
        else:
            np.testing.assert_allclose(found[name], value, rtol=1e-5, atol=1e-6, err_msg=name)


@pytest.mark.parametrize(("seed", "step"), [(0, 1), (1, 1), (2, 3), (3, 7)])
def test_snapshots_equal_the_walk_over_what_was_before(tmp_path: Path, seed: int, step: int) -> None:
    titles = titles_table(25, seed=seed)
    table = random_interactions(titles, actors=25, days=70, per_actor=25, seed=seed)
    members, shots = build(tmp_path, table, titles, SnapshotConfig(step_days=step))
    targets = read_json(tmp_path / "prepared" / "manifest.json")["target_actions"]
    rows, known = table.to_pylist(), catalogue(titles)
    for day in range(-1, 85, step):
        midnight = START + timedelta(days=day)
        if ((midnight - datetime(1970, 1, 1, tzinfo=UTC)).days) % step:
            midnight += timedelta(days=step - (midnight - datetime(1970, 1, 1, tzinfo=UTC)).days % step)
        if midnight.timestamp() * 1000 > read_json(tmp_path / "features/sources/manifest.json")["until_ms"]:
            break
        found = newest(members, "member_id", midnight)
        wanted = by(rows, "actor_id", midnight)
        assert found.keys() == wanted.keys()
        for member_id, own in wanted.items():
            same(found[member_id], twin_member(own, midnight, known, targets))
        found = newest(shots, "title_id", midnight)
        wanted = by([row for row in rows if row["action"] in targets], "title_id", midnight)
        assert found.keys() == wanted.keys()
        for title_id, own in wanted.items():
            same(found[title_id], twin_title(own, midnight, targets))


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
    monkeypatch.setattr(snapshots, "_ROWS_AT_ONCE", 10)
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
