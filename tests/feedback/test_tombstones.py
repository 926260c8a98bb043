"""A tombstone that was written is there, whatever became of the process that wrote the next one."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from foretaste.feedback.tombstones import Tombstones


def test_the_newest_tombstone_of_each_counts_also_for_another_process(tmp_path: Path) -> None:
    path = tmp_path / "serving" / "tombstones.jsonl"
    one, other = Tombstones(path), Tombstones(path)
    assert one.read() == {}
    one.add("m1", 5)
    one.add("mé\n2", 7)
    other.add("m1", 3)
    assert one.read() == other.read() == {"m1": 5, "mé\n2": 7}
    other.add("m1", 9)
    assert one.read()["m1"] == 9


def test_half_a_line_of_a_killed_process_is_passed_over(tmp_path: Path) -> None:
    path = tmp_path / "t.jsonl"
    tombstones = Tombstones(path)
    tombstones.add("m1", 5)
    with path.open("ab") as file:
        file.write(b'{"member_id": "m2", "a')
    assert tombstones.read() == {"m1": 5}
    tombstones.add("m3", 6)
    assert tombstones.read() == {"m1": 5, "m3": 6}


def test_a_damaged_line_is_named(tmp_path: Path) -> None:
    path = tmp_path / "t.jsonl"
    path.write_text('{"member_id": "m1", "at": 5}\n{"member": "m2"}\n')
    with pytest.raises(ValueError, match=r"t\.jsonl, line 2: wanted member_id and at"):
        Tombstones(path).read()


def test_many_threads_lose_none(tmp_path: Path) -> None:
    def add(thread: int) -> None:
        for number in range(10):
            Tombstones(tmp_path / "t.jsonl").add(f"m{thread}-{number}", number)

    threads = [threading.Thread(target=add, args=(thread,)) for thread in range(4)]
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    assert len(Tombstones(tmp_path / "t.jsonl").read()) == 40
