"""Preparation spread over processes: the same tables as in one, and clear errors."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from foretaste.contracts.columns import EVENTS, TITLES
from foretaste.ops.files import write_parquet
from foretaste.sessions.prepare import PrepareConfig, prepare
from foretaste.sessions.spread import Item, here, on_ray
from foretaste.signals.interactions import runs

pytestmark = pytest.mark.filterwarnings(
    "ignore::DeprecationWarning:ray.data.context",  # Ray warns of its own defaults
)

NOW = datetime(2026, 1, 31, tzinfo=UTC)


def _raw(folder: Path, *, num_files: int = 3) -> Path:
    start = datetime(2026, 1, 1, tzinfo=UTC)
    events = [
        {
            "event_id": f"e{i:06d}",
            "member_id": f"m{i % 50}",
            "at": start + timedelta(minutes=i * 7919 % 20_000),
            "action": ("play", "detail", "impression")[i % 3],
            "title_id": f"t{i * i % 11}",
        }
        for i in range(3000)
    ]
    titles = [{"title_id": f"t{i}", "kind": "movie", "genres": [], "artworks": []} for i in range(11)]
    write_parquet(pa.Table.from_pylist(titles, schema=TITLES), folder / "titles.parquet")
    for f in range(num_files):
        write_parquet(pa.Table.from_pylist(events[f::num_files], schema=EVENTS), folder / f"events/{f}.parquet")
    return folder


def _files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*.parquet")}


@pytest.mark.cluster
def test_ray_writes_byte_for_byte_what_one_process_writes(tmp_path: Path, local_ray: None) -> None:
    raw = _raw(tmp_path / "raw")
    config = PrepareConfig(num_buckets=4)
    one = prepare(raw, tmp_path / "one", config, now=NOW, collapse=runs, spread=here)
    spread = prepare(raw, tmp_path / "spread", config, now=NOW, collapse=runs)
    assert one == spread
    assert _files(tmp_path / "one") == _files(tmp_path / "spread")


@pytest.mark.cluster
def test_a_file_that_a_task_cannot_read_is_named_without_a_traceback_of_ray(tmp_path: Path, local_ray: None) -> None:
    raw = _raw(tmp_path / "raw")
    (raw / "events" / "9.parquet").write_bytes(b"PAR1")
    with pytest.raises(ValueError, match=r"9\.parquet: not Parquet, truncated or damaged") as caught:
        prepare(raw, tmp_path / "out", PrepareConfig(num_buckets=2), now=NOW, collapse=runs)
    assert "ray::" not in str(caught.value)
    assert not (tmp_path / "out" / "manifest.json").exists()


@pytest.mark.cluster
def test_ray_data_says_nothing_of_its_own(tmp_path: Path, local_ray: None, capfd: pytest.CaptureFixture[str]) -> None:
    prepare(_raw(tmp_path / "raw"), tmp_path / "out", PrepareConfig(num_buckets=2), now=NOW, collapse=runs)
    said = capfd.readouterr()
    assert (said.out, said.err) == ("", "")


@pytest.mark.cluster
def test_every_item_is_done_once_and_an_error_of_the_work_is_raised(local_ray: None) -> None:
    items: list[Item] = [{"n": n} for n in range(7)]
    assert sorted(done["n"] for done in on_ray(items, lambda item: {"n": item["n"] * 2})) == [0, 2, 4, 6, 8, 10, 12]
    assert list(on_ray([], lambda item: item)) == []

    def refuses(item: Item) -> Item:
        if item["n"] == 5:
            raise ValueError("five is refused")
        return item

    for spread in (here, on_ray):
        with pytest.raises(ValueError, match=r"^five is refused$"):
            list(_all(spread, items, refuses))


def _all(spread: Callable[..., Iterator[Item]], items: list[Item], work: Any) -> Iterator[Item]:
    return spread(items, work)
