"""The order of equal times, drawn by a seed before anything else reads the log."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pytest

from foretaste.contracts.columns import EVENTS, conform
from foretaste.datasets import caution, shuffle_ties, ties_seed
from foretaste.jobs.prepare import prepare
from foretaste.jobs.settings import Settings
from foretaste.ops.files import write_json, write_parquet
from foretaste.ops.tables import read_prepared
from foretaste.testing.builders import moment, titles_table

FORMS = 40
"""Titles that a member rates at one instant."""


def raw_log(folder: Path) -> Path:
    """Three members that rate 40 titles at one instant, and one more a day later."""
    titles = titles_table(FORMS + 1)
    ids = titles["title_id"].to_pylist()
    rows = [
        {
            "event_id": f"e{member}{n:03d}", "member_id": f"m{member}", "title_id": title, "action": "rate",
            "at": moment(1.0 if n < FORMS else 2.0),
        }
        for member in range(3)
        for n, title in enumerate(ids)
    ]  # fmt: skip
    events = conform(pa.Table.from_pylist(rows), EVENTS, what="events")
    write_parquet(events, folder / "events" / "0000.parquet")
    write_parquet(titles, folder / "titles.parquet")
    write_json({"dataset": "forms", "caution": "forms"}, folder / "manifest.json")
    return folder


def order(raw: Path, workspace: Path) -> list[list[str]]:
    """Titles of each member in the prepared order."""
    prepare(Settings(workspace=workspace), source=raw)
    rows = read_prepared(workspace / "prepared", "interactions").to_pylist()
    return [
        [row["title_id"] for row in rows if row["actor_id"] == actor] for actor in sorted({r["actor_id"] for r in rows})
    ]


def test_shuffled_ties_change_the_order_within_an_instant_and_nothing_else(tmp_path: Path) -> None:
    raw = raw_log(tmp_path / "raw")
    assert ties_seed(raw) is None
    for seed in (1, 2):
        shuffle_ties(raw, tmp_path / f"raw-{seed}", seed=seed)
    shuffle_ties(raw, tmp_path / "raw-1-again", seed=1)
    assert ties_seed(tmp_path / "raw-1") == 1
    assert caution(tmp_path / "raw-1") == "forms"
    stable, one, two, again = (
        order(tmp_path / name, tmp_path / "work" / name) for name in ("raw", "raw-1", "raw-2", "raw-1-again")
    )
    assert stable[0] == stable[1], "the form is the same for all members"
    assert one == again
    assert one != two
    assert one[0] != one[1], "each member's ties are drawn on their own"
    for mine, drawn in zip(stable, one, strict=True):
        assert sorted(mine[:FORMS]) == sorted(drawn[:FORMS])
        assert mine[:FORMS] != drawn[:FORMS]
        assert mine[FORMS] == drawn[FORMS]


def test_a_folder_without_events_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="run `foretaste import` first"):
        shuffle_ties(tmp_path, tmp_path / "out", seed=0)
    assert caution(tmp_path) is None
