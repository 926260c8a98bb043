"""Nothing half-written is ever read."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pytest

from foretaste.ops.files import (
    parquet_files,
    read_json,
    read_parquet,
    scratch_folder,
    whole_file,
    whole_folder,
    write_json,
    write_parquet,
)


def test_a_failed_write_leaves_the_old_file_and_no_trace(tmp_path: Path) -> None:
    target = tmp_path / "table.json"
    write_json({"version": 1}, target)
    with pytest.raises(RuntimeError, match="half"), whole_file(target) as partial:
        partial.write_text("{")
        raise RuntimeError("half")
    assert read_json(target) == {"version": 1}
    assert [p.name for p in tmp_path.iterdir()] == ["table.json"]


def test_a_failed_folder_leaves_the_old_folder_and_no_trace(tmp_path: Path) -> None:
    target = tmp_path / "tables"
    with whole_folder(target) as folder:
        write_json({"version": 1}, folder / "a.json")
    with pytest.raises(RuntimeError, match="half"), whole_folder(target) as folder:
        write_json({"version": 2}, folder / "a.json")
        raise RuntimeError("half")
    assert read_json(target / "a.json") == {"version": 1}
    assert [p.name for p in tmp_path.iterdir()] == ["tables"]


def test_a_finished_folder_replaces_the_old_one_whole(tmp_path: Path) -> None:
    target = tmp_path / "tables"
    for name in ("old", "new"):
        with whole_folder(target) as folder:
            write_json({}, folder / f"{name}.json")
    assert [p.name for p in target.iterdir()] == ["new.json"]


def test_readers_skip_unfinished_parquet_files(tmp_path: Path) -> None:
    table = pa.table({"a": [1, 2]})
    write_parquet(table, tmp_path / "part.parquet")
    (tmp_path / ".partial-x-part.parquet").write_bytes(b"PAR1 torn")
    assert parquet_files(tmp_path) == [tmp_path / "part.parquet"]
    assert read_parquet(tmp_path).equals(table)


def test_a_folder_without_parquet_files_is_named_in_the_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=str(tmp_path)):
        read_parquet(tmp_path)


def test_what_a_killed_process_left_in_scratch_goes_and_what_a_living_one_has_stays(
    tmp_path: Path,
) -> None:
    held = (
        "import sys, time; from pathlib import Path; from foretaste.ops.files import scratch_folder\n"
        "with scratch_folder(Path(sys.argv[1]), 'parts') as folder:\n"
        "    (folder / 'part').write_text('of somebody')\n"
        "    print(folder, flush=True)\n"
        "    time.sleep(600)\n"
    )
    command = [sys.executable, "-c", held, str(tmp_path)]
    lives, dies = (subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2))
    try:
        assert lives.stdout is not None
        assert dies.stdout is not None
        of_living, left = Path(lives.stdout.readline().strip()), Path(dies.stdout.readline().strip())
        dies.kill()
        dies.wait()
        assert (left / "part").is_file()
        with scratch_folder(tmp_path, "parts") as own:
            assert not left.exists()
            assert (of_living / "part").read_text() == "of somebody"
            with scratch_folder(tmp_path, "parts") as another:
                assert own.is_dir()
                assert another != own
        assert not own.exists()
    finally:
        for process in (lives, dies):
            process.kill()
            process.communicate()
