"""Prepared tables are what their manifest lists: nothing else in the folder is read."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pytest

from foretaste.contracts.columns import EVENTS, INTERACTIONS
from foretaste.ops.files import read_json, write_json, write_parquet
from foretaste.ops.tables import (
    MANIFEST,
    described,
    prepared_buckets,
    prepared_files,
    read_manifest,
    read_prepared,
    read_titles,
)
from foretaste.testing.builders import prepared_folder, random_interactions, titles_table

TITLES = titles_table(8)
TABLE = random_interactions(TITLES, actors=9, per_actor=6)


def test_every_bucket_and_all_together_give_every_row_of_every_column_asked_for(tmp_path: Path) -> None:
    prepared_folder(tmp_path, TABLE, TITLES, num_buckets=3)
    assert prepared_buckets(tmp_path) == [f"bucket={number:04d}" for number in range(3)]
    whole = read_prepared(tmp_path, "interactions")
    assert whole.schema == INTERACTIONS
    assert whole.num_rows == TABLE.num_rows
    parts = [read_prepared(tmp_path, "interactions", columns=["at"], bucket=b) for b in prepared_buckets(tmp_path)]
    assert pa.concat_tables(parts).equals(whole.select(["at"]))
    assert len(prepared_files(tmp_path, "interactions")) == 3
    assert read_prepared(tmp_path, "acts").schema == EVENTS
    assert read_titles(tmp_path).equals(TITLES)


def test_files_that_the_manifest_does_not_list_are_not_read(tmp_path: Path) -> None:
    prepared_folder(tmp_path, TABLE, TITLES, num_buckets=1)
    write_parquet(TABLE, tmp_path / "interactions" / "bucket=0000" / "000009.parquet")
    assert read_prepared(tmp_path, "interactions").num_rows == TABLE.num_rows


def test_splits_that_are_not_stored_follow_from_the_cuts_and_from_the_last_rows(tmp_path: Path) -> None:
    prepared_folder(tmp_path, TABLE, TITLES, num_buckets=1)
    stored = TABLE.drop_columns(["split_time", "split_last"])
    (path,) = prepared_files(tmp_path, "interactions")
    write_parquet(stored, path)
    with pytest.raises(ValueError, match="no cuts"):
        read_prepared(tmp_path, "interactions")
    at = sorted(TABLE["at"].to_pylist())
    cuts = {"validation_from": at[10].isoformat(), "test_from": at[30].isoformat()}
    write_json(read_manifest(tmp_path) | {"cuts": cuts}, tmp_path / MANIFEST)
    rows = read_prepared(tmp_path, "interactions").to_pylist()
    for row in rows:
        late = (row["at"] >= at[10]) + (row["at"] >= at[30])
        assert row["split_time"] == ("train", "validation", "test")[late]
        num = sum(other["actor_id"] == row["actor_id"] for other in rows)
        from_end = num - row["position"] if num >= 3 else 9
        assert row["split_last"] == {1: "test", 2: "validation"}.get(from_end, "train")
    only = read_prepared(tmp_path, "interactions", columns=["split_last"])
    assert only["split_last"].to_pylist() == [row["split_last"] for row in rows]


def test_a_later_run_adds_rows_and_takes_the_place_of_those_of_actors_it_made_again(tmp_path: Path) -> None:
    prepared_folder(tmp_path, TABLE, TITLES, num_buckets=1)
    actor = TABLE["actor_id"][0].as_py()
    again = TABLE.filter(pa.array([a == actor for a in TABLE["actor_id"].to_pylist()])).slice(0, 2)
    write_parquet(again, tmp_path / "interactions" / "two.parquet")
    write_parquet(pa.table({"actor_id": [actor]}), tmp_path / "superseded" / "two.parquet")
    manifest = read_json(tmp_path / MANIFEST)
    manifest["tables"]["interactions"]["bucket=0000"].append({"file": "interactions/two.parquet", "run": 2})
    manifest["tables"]["superseded"] = {"bucket=0000": [{"file": "superseded/two.parquet", "run": 2}]}
    write_json(manifest, tmp_path / MANIFEST)
    rows = read_prepared(tmp_path, "interactions").to_pylist()
    assert [row for row in rows if row["actor_id"] == actor] == again.to_pylist()
    others = [row for row in TABLE.to_pylist() if row["actor_id"] != actor]
    assert [row for row in rows if row["actor_id"] != actor] == others
    assert "tables" not in described(manifest)


def test_what_is_missing_or_of_another_version_is_said(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="run `foretaste prepare` first"):
        read_prepared(tmp_path, "interactions")
    prepared_folder(tmp_path, TABLE, TITLES)
    with pytest.raises(ValueError, match="no bucket 'bucket=0009'"):
        read_prepared(tmp_path, "interactions", bucket="bucket=0009")
    write_json({"target_actions": []}, tmp_path / MANIFEST)
    with pytest.raises(ValueError, match="prepared by an earlier version"):
        prepared_buckets(tmp_path)
