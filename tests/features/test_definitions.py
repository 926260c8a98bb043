"""The Feast definitions say what the tables hold, and applying them is harmless."""

from __future__ import annotations

import ast
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from foretaste.contracts.columns import MEMBER_SNAPSHOTS, TITLE_SNAPSHOTS
from foretaste.signals.snapshots import SnapshotConfig, build_snapshots
from foretaste.signals.store import MEMBERS, TITLES, FeatureStore
from foretaste.signals.store_feast import _definitions
from foretaste.testing.builders import START, prepared_folder, random_interactions, titles_table

ROOT = Path(__file__).parents[2]
REPO = ROOT / "features"


@pytest.fixture
def data(tmp_path: Path) -> Path:
    titles = titles_table(8)
    prepared_folder(tmp_path / "prepared", random_interactions(titles, actors=6), titles)
    build_snapshots(tmp_path / "prepared", tmp_path / "features", SnapshotConfig())
    return tmp_path / "features"


@pytest.fixture
def store(data: Path) -> Iterator[FeatureStore]:
    made = FeatureStore(REPO, data)
    yield made
    made.close()


def defined(data: Path) -> dict[str, Any]:
    return {value.name: value for value in _definitions(REPO, data)}


def test_the_views_have_the_columns_of_their_tables(data: Path) -> None:
    found = defined(data)
    from feast.types import Array, Float32, Int64, String

    types = {Int64: pa.int64(), Float32: pa.float32(), String: pa.string(), Array(Float32): pa.list_(pa.float32())}
    for name, key, schema in ((MEMBERS, "member_id", MEMBER_SNAPSHOTS), (TITLES, "title_id", TITLE_SNAPSHOTS)):
        fields = {field.name: types[field.dtype] for field in found[name].schema}
        assert fields == {field.name: field.type for field in schema if field.name != "at"}
        assert found[name].join_keys == [key]
        assert found[name].batch_source.timestamp_field == "at"
        assert found[name].ttl % timedelta(days=1) == timedelta()


def test_the_names_of_a_service_are_unique_across_its_views(data: Path) -> None:
    for name, count in (("ranker", 15), ("intent", 7)):
        service = defined(data)[name]
        names = [feature.name for view in service.feature_view_projections for feature in view.features]
        assert len(names) == len(set(names)) == count


def test_applying_again_changes_nothing(store: FeatureStore, data: Path) -> None:
    store.apply()
    before = registered(data)
    assert {"member_taste", "title_popularity"} <= before.keys()
    store.apply()
    FeatureStore(REPO, data).apply()
    assert registered(data) == before


def registered(data: Path) -> dict[str, tuple[Any, ...]]:
    """Views in the registry with their versions and definitions, without the times of registration."""
    from feast.protos.feast.core.FeatureView_pb2 import FeatureView

    with sqlite3.connect(data / "registry.db") as connection:
        rows = connection.execute("SELECT feature_view_name, feature_view_proto FROM feature_views").fetchall()
        versions = connection.execute("SELECT count(*) FROM feature_view_version_history").fetchone()
    connection.close()
    return {name: (FeatureView.FromString(proto).spec.SerializeToString(), versions) for name, proto in rows}


def test_two_workspaces_do_not_share_a_path(data: Path, tmp_path: Path) -> None:
    here, there = defined(data)[MEMBERS], defined(tmp_path / "other")[MEMBERS]
    assert here.batch_source.path == f"{data}/sources/members/*.parquet"
    assert there.batch_source.path == f"{tmp_path}/other/sources/members/*.parquet"


def test_without_snapshots_there_is_a_word_on_what_to_do(tmp_path: Path) -> None:
    store = FeatureStore(REPO, tmp_path)
    with pytest.raises(FileNotFoundError, match="build the snapshots"):
        store.apply()
    with pytest.raises(FileNotFoundError, match="load the online store"):
        store.members(["m"], 0)


def test_an_online_store_that_cannot_be_written_stops_loading(store: FeatureStore, data: Path) -> None:
    store.apply()
    store.close()
    for file in data.glob("online.db*"):
        file.unlink()
    (data / "online.db").mkdir()
    with pytest.raises(sqlite3.OperationalError):
        store.materialize(START + timedelta(days=40))
    assert not (data / "online.json").exists()


def test_loading_says_nothing_and_leaves_the_environment_alone(data: Path) -> None:
    program = (
        "import os, sys; from pathlib import Path; from datetime import datetime, UTC\n"
        "from foretaste.signals.store import FeatureStore\n"
        "before = dict(os.environ)\n"
        "store = FeatureStore(Path(sys.argv[1]), Path(sys.argv[2]))\n"
        "store.apply(); store.materialize(datetime(2026, 3, 1, tzinfo=UTC)); store.close()\n"
        "assert dict(os.environ) == before\n"
    )
    done = subprocess.run([sys.executable, "-c", program, str(REPO), str(data)], capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_a_time_without_a_zone_is_refused(store: FeatureStore) -> None:
    with pytest.raises(ValueError, match="time zone"):
        store.materialize(START.replace(tzinfo=None))


def test_only_the_store_imports_feast() -> None:
    found = []
    for path in (ROOT / "platform").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            found += [path.relative_to(ROOT).as_posix() for name in names if name.split(".")[0] == "feast"]
    assert set(found) == {f"platform/foretaste/signals/store_{name}.py" for name in ("feast", "online")}
