from __future__ import annotations

import json
import os
import subprocess
import sys
import tracemalloc
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from pydantic import ValidationError

from foretaste.contracts.columns import EVENTS, TITLES
from foretaste.contracts.truth import TRUTH_CHOICES, TRUTH_MEMBERS, TRUTH_SATISFACTION, TRUTH_SESSIONS, TRUTH_TITLES
from foretaste.ops.files import read_json, read_parquet
from foretaste.worlds.config import WorldConfig
from foretaste.worlds.generate import catalogue_of, finish, generate, partition, write_partition

SMALL = WorldConfig(num_members=90, num_movies=40, num_shows=20, days=14, members_per_partition=40)


def _bytes(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def _ignore(_: float) -> None:
    return None


@pytest.mark.parametrize("mechanism", ["weights", "aspects"])
def test_the_same_seed_gives_the_same_bytes_and_another_seed_other_events(mechanism: str, tmp_path: Path) -> None:
    config = SMALL.model_copy(update={"mechanism": mechanism})
    generate(config, tmp_path / "a", advance=_ignore)
    generate(config, tmp_path / "b", advance=_ignore)
    generate(config.model_copy(update={"seed": 8}), tmp_path / "c", advance=_ignore)
    first, again, other = (_bytes(tmp_path / name) for name in "abc")
    assert first == again
    assert other.keys() == first.keys()
    assert all(other[name] != first[name] for name in first)


def test_two_mechanisms_share_catalogue_and_members_and_nothing_that_is_done() -> None:
    one, other = (partition(SMALL.model_copy(update={"mechanism": name}), 0) for name in ("weights", "aspects"))
    assert catalogue_of(SMALL).ids == catalogue_of(SMALL.model_copy(update={"mechanism": "aspects"})).ids
    assert one["members"].equals(other["members"])
    assert not one["events"].equals(other["events"])
    assert one["sessions"]["aspects"].null_count == one["sessions"].num_rows
    assert other["sessions"]["aspects"].null_count == 0


def test_partitions_made_in_any_order_make_the_same_world(tmp_path: Path) -> None:
    generate(SMALL, tmp_path / "a", advance=_ignore)
    finish(SMALL, tmp_path / "b", [write_partition(SMALL, index, tmp_path / "b") for index in (2, 0, 1)])
    assert _bytes(tmp_path / "a") == _bytes(tmp_path / "b")


def test_another_process_with_other_hashes_and_threads_makes_the_same_world(tmp_path: Path) -> None:
    generate(SMALL, tmp_path / "a", advance=_ignore)
    program = (
        "import sys; from pathlib import Path; from foretaste.worlds.config import WorldConfig; "
        "from foretaste.worlds.generate import generate; "
        "generate(WorldConfig.model_validate_json(sys.argv[1]), Path(sys.argv[2]), advance=lambda amount: None)"
    )
    subprocess.run(
        [sys.executable, "-c", program, SMALL.model_dump_json(), str(tmp_path / "b")],
        env=os.environ | {"PYTHONHASHSEED": "4711", "OMP_NUM_THREADS": "2"},
        check=True,
    )
    assert _bytes(tmp_path / "a") == _bytes(tmp_path / "b")


def test_a_partition_is_pure() -> None:
    first = partition(SMALL, 1)
    partition(SMALL, 0)
    again = partition(SMALL, 1)
    assert all(first[name].equals(again[name]) for name in first)


@pytest.mark.parametrize("mechanism", ["weights", "aspects"])
def test_every_table_has_its_schema_and_the_manifest_counts_what_is_there(mechanism: str, tmp_path: Path) -> None:
    config = SMALL.model_copy(update={"mechanism": mechanism})
    told: list[float] = []
    counts = generate(config, tmp_path / "raw", advance=told.append)
    raw = tmp_path / "raw"
    manifest = read_json(raw / "manifest.json")
    schemas = {
        "events": EVENTS,
        "titles.parquet": TITLES,
        "truth/titles.parquet": TRUTH_TITLES,
        "truth/members": TRUTH_MEMBERS,
        "truth/sessions": TRUTH_SESSIONS,
        "truth/choices": TRUTH_CHOICES,
        "truth/satisfaction": TRUTH_SATISFACTION,
    }
    rows = {}
    for name, schema in schemas.items():
        table = read_parquet(raw / name)
        assert table.schema.equals(schema), name
        table.validate(full=True)
        for field in schema:
            assert field.nullable or table[field.name].null_count == 0, field.name
        rows[name] = table.num_rows
    assert manifest["counts"] == counts
    assert counts["events"] == rows["events"] == sum(told) == sum(manifest["actions"].values())
    assert (counts["members"], counts["sessions"]) == (90, rows["truth/sessions"])
    assert counts["choices"] == rows["truth/choices"]
    assert counts["titles"] == rows["truth/titles.parquet"]
    assert counts["titles"] + counts["episodes"] == rows["titles.parquet"]
    assert manifest["fingerprint"] == config.fingerprint()
    assert WorldConfig.model_validate(manifest["config"]) == config
    listed = {entry["path"]: entry["bytes"] for entry in manifest["files"]}
    assert listed == {str(path.relative_to(raw)): path.stat().st_size for path in raw.rglob("*.parquet")}


def test_memory_is_that_of_one_partition_however_many_there_are(tmp_path: Path) -> None:
    def peak(num_partitions: int) -> int:
        config = SMALL.model_copy(update={"num_members": 100 * num_partitions, "members_per_partition": 100})
        tracemalloc.start()
        generate(config, tmp_path / str(num_partitions), advance=_ignore)
        _, most = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        return most

    peak(1)
    assert peak(6) < 1.5 * peak(1)


def test_a_partition_in_which_nobody_comes_is_empty_but_whole() -> None:
    config = SMALL.model_copy(update={"num_members": 1, "sessions_per_week": 0.05, "joining_share": 0.0, "seed": 4})
    tables = partition(config, 0)
    assert tables["sessions"].num_rows == 0
    assert tables["events"].schema.equals(EVENTS)
    assert tables["members"].num_rows == 1


def test_the_default_world_is_of_the_size_of_a_demonstration(tmp_path: Path) -> None:
    counts = generate(WorldConfig(), tmp_path / "raw", advance=_ignore)
    assert 200_000 <= counts["events"] <= 350_000
    assert 380 <= counts["titles"] <= 420
    groups = pq.ParquetFile(tmp_path / "raw" / "events" / "part-00000.parquet").metadata
    assert groups.num_rows > 100_000
    assert json.loads((tmp_path / "raw" / "manifest.json").read_text())["source"] == "world"


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"days": 0}, "days"),
        ({"departure_share": 1.5}, "departure_share"),
        ({"memberz": 5}, "memberz"),
        ({"mechanism": "magic"}, "mechanism"),
        ({"num_movies": 20, "num_shows": 10, "impressions_per_session": 40}, "at least 92"),
    ],
)
def test_a_configuration_out_of_bounds_is_refused_by_name(change: dict[str, object], complaint: str) -> None:
    with pytest.raises(ValidationError, match=complaint):
        WorldConfig.model_validate(change)


def test_a_partition_that_does_not_exist_is_refused() -> None:
    with pytest.raises(IndexError, match="partition 3 of a world with 3"):
        partition(SMALL, 3)
