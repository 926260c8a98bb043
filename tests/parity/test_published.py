"""Over nights with lag, late events, corrections and runs that fail: what was read is found again, and joined alike."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from foretaste.contracts.catalogue import catalogue
from foretaste.ops.files import write_json
from foretaste.signals import snapshots
from foretaste.signals.published import generation as published
from foretaste.signals.snapshots import SnapshotConfig, build_snapshots
from foretaste.signals.store import FeatureStore
from foretaste.signals.store_feast import FeastProject
from foretaste.signals.views import ABSENT, MemberView, TitleView
from foretaste.testing.builders import START, interactions_table, prepared_folder, random_interactions, titles_table

REPO = Path(__file__).parents[2] / "features"
TITLES = titles_table(6, seed=5)
KNOWN = catalogue(TITLES)
IDS = ["m0", "m1", "m2", "m3", None, "nobody"]
NIGHTS = 7
OK, BUILD_FAILS, COMMIT_FAILS, STORE_DOWN = range(4)
Row = tuple[str, datetime, str, str]


def us(at: datetime) -> int:
    return (at - datetime.fromisoformat("1970-01-01T00:00:00+00:00")) // timedelta(microseconds=1)


def same(one: MemberView | TitleView, other: MemberView | TitleView) -> None:
    for name in type(one).__slots__:
        assert getattr(one, name).tolist() == getattr(other, name).tolist(), name


class Workspace:
    """Events that arrive late, and runs over what has arrived."""

    def __init__(self, folder: Path, seed: int, url: str | None = None) -> None:
        self.folder, self.dice = folder, np.random.default_rng(seed)
        self.store = FeatureStore(REPO, folder / "features", url)
        self.arriving: list[tuple[datetime, Row]] = []
        for _ in range(70):
            at = START + timedelta(days=float(self.dice.uniform(0, NIGHTS)))
            late = (
                timedelta(days=float(self.dice.uniform(0.5, 4))) if self.dice.uniform() < 0.3 else timedelta(minutes=5)
            )
            action = str(self.dice.choice(["play", "complete", "detail", "thumb_down"]))
            row = (f"m{self.dice.integers(4)}", at, f"t000{self.dice.integers(6)}", action)
            self.arriving.append((at + late, row))

    def prepare(self, now: datetime) -> None:
        rows = [row for arrived, row in self.arriving if arrived <= now]
        prepared_folder(self.folder / "prepared", interactions_table(rows), TITLES)

    def publish(self, now: datetime, **settings: Any) -> dict[str, Any]:
        return build_snapshots(
            self.folder / "prepared", self.folder / "features", SnapshotConfig(step_days=1), now=now, **settings
        )

    def run(self, now: datetime, how: int, patch: pytest.MonkeyPatch) -> None:
        self.prepare(now)
        with patch.context() as here:
            if how == BUILD_FAILS:
                here.setattr(snapshots, "title_snapshots", broken)
            if how == COMMIT_FAILS:
                here.setattr(snapshots, "_commit", half_committed)
            if how in (BUILD_FAILS, COMMIT_FAILS):
                with pytest.raises(OSError, match="broken"):
                    self.publish(now)
                return
            self.publish(now)
            self.store.apply()
            if how == STORE_DOWN:
                here.setattr(FeastProject, "load", broken)
                before = self.state()
                with pytest.raises(OSError, match="broken"):
                    self.store.materialize(now)
                assert self.state() == before
                return
            self.store.materialize(now)

    def state(self) -> str | None:
        file = self.folder / "features" / "online.json"
        return file.read_text() if file.is_file() else None


def broken(*_: Any, **__: Any) -> Any:
    raise OSError("broken")


def half_committed(run: Any, out: Path, stage: Path) -> None:
    """Die after the first part: a file of an uncommitted publication stays behind."""
    if run.before is not None:
        for file in sorted((stage / "members").glob("*.parquet"))[:1]:
            file.replace(out / "sources" / "members" / file.name)
    raise OSError("broken")


def nights(seed: int) -> Iterator[tuple[datetime, int]]:
    dice = np.random.default_rng([seed, 1])
    failures = dict(zip(dice.permutation(NIGHTS - 2)[:3] + 1, (BUILD_FAILS, COMMIT_FAILS, STORE_DOWN), strict=True))
    for night in range(NIGHTS):
        yield START + timedelta(days=night + 1, hours=float(dice.uniform(0.5, 20))), failures.get(night, OK)


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1])
def test_what_a_request_read_is_what_its_version_and_a_join_at_its_instant_give(
    tmp_path: Path, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = Workspace(tmp_path, seed)
    reads: list[tuple[int, MemberView, TitleView]] = []
    published_rows: dict[Path, bytes] = {}
    corrections = 0
    for now, how in nights(seed):
        world.run(now, how, monkeypatch)
        for file, content in published_rows.items():
            assert file.read_bytes() == content, "a published part was written again"
        files = (tmp_path / "features" / "sources").rglob("*.parquet")
        published_rows = {file: file.read_bytes() for file in files}
        world.store.check(KNOWN)
        for hours in world.dice.uniform(0, 4, 4):  # before the next run
            at = us(now) + 1 + int(hours * 3.6e9)
            reads.append((at, world.store.members(IDS, at), world.store.titles(KNOWN, at)))
    codes_N = np.arange(len(KNOWN) + 1)
    name = world.store.generation
    for _, members, titles in reads:
        same(world.store.members_at(IDS, members.asof_ms_B, name), members)
        same(world.store.titles_at(KNOWN, codes_N, titles.asof_ms, name), titles)
    every = np.repeat([at for at, _, _ in reads], len(IDS))
    joined = world.store.historical_members(IDS * len(reads), every)
    views, view_B = world.store.historical_titles_of(KNOWN, np.array([at for at, _, _ in reads]))
    for number, (_, members, titles) in enumerate(reads):
        same(joined.rows(np.arange(number * len(IDS), (number + 1) * len(IDS))), members)
        same(views[view_B[number]], titles)
        corrections += int((members.asof_ms_B % 86_400_000 > 0).sum())
    assert corrections, "no late event was corrected: the test proves nothing"
    must_be_the_whole_truth(world, tmp_path)
    world.store.close()


def must_be_the_whole_truth(world: Workspace, folder: Path) -> None:
    """After all has arrived, what is online says of everybody what a first run over everything says."""
    now = START + timedelta(days=NIGHTS + 6)
    world.prepare(now)
    world.publish(now)
    world.store.materialize(now)
    world.store.check(KNOWN)
    build_snapshots(folder / "prepared", folder / "fresh", SnapshotConfig(step_days=1), now=now)
    fresh = FeatureStore(REPO, folder / "fresh")
    fresh.apply()
    fresh.materialize(now)
    for found, wanted in (
        (world.store.members(IDS, us(now)), fresh.members(IDS, us(now))),
        (world.store.titles(KNOWN, us(now)), fresh.titles(KNOWN, us(now))),
    ):
        for name in type(found).__slots__:
            if not name.startswith("asof"):
                assert getattr(found, name).tolist() == getattr(wanted, name).tolist(), name
    fresh.close()


def test_a_late_row_reaches_the_online_store_under_a_version_of_its_own(tmp_path: Path) -> None:
    world = Workspace(tmp_path, 0)
    first, second = START + timedelta(days=3, hours=2), START + timedelta(days=4, hours=2)
    row: Row = ("m0", START + timedelta(days=1.5), "t0001", "play")
    late: Row = ("m0", START + timedelta(days=0.5), "t0002", "play")
    world.arriving = [(START + timedelta(days=2), row), (START + timedelta(days=3.5), late)]
    world.prepare(first)
    world.publish(first)
    world.store.apply()
    world.store.materialize(first)
    before = world.store.members(["m0"], us(first))
    assert before.count_7d_B.tolist() == [1]
    world.prepare(second)
    counts = world.publish(second)
    assert (counts["member_rows"], counts["corrections"]) == (1, 2)
    world.store.materialize(second)
    after = world.store.members(["m0"], us(second))
    assert after.count_7d_B.tolist() == [2]
    assert us(first) <= int(after.asof_ms_B[0]) * 1000 < us(second)
    same(world.store.members_at(["m0"], before.asof_ms_B), before)
    same(world.store.historical_members(["m0"], np.array([us(second) - 10_000_000])), before)
    world.store.close()


def test_a_run_over_unchanged_tables_reads_and_publishes_nothing(tmp_path: Path) -> None:
    world = Workspace(tmp_path, 1)
    now = START + timedelta(days=20)
    world.prepare(now)
    assert world.publish(now)["interactions"] == 70
    again = world.publish(now + timedelta(hours=30))
    assert {name: again[name] for name in ("interactions", "buckets", "member_rows", "title_rows", "corrections")} == {
        "interactions": 0, "buckets": 0, "member_rows": 0, "title_rows": 0, "corrections": 0
    }  # fmt: skip


def test_another_configuration_retires_the_generation_and_its_rows_stay_readable(tmp_path: Path) -> None:
    world = Workspace(tmp_path, 2)
    now = START + timedelta(days=20)
    world.prepare(now)
    world.publish(now)
    world.store.apply()
    world.store.materialize(now)
    old, name = world.store.members(IDS, us(now)), world.store.generation
    later = now + timedelta(days=1)
    build_snapshots(
        tmp_path / "prepared", tmp_path / "features", SnapshotConfig(step_days=1, browse_weight=0.5), now=later
    )
    same(world.store.members(IDS, us(later)), old)  # until the new rows are loaded
    world.store.apply()
    world.store.materialize(later)
    world.store.check(KNOWN)
    new = world.store.members(IDS, us(later))
    assert world.store.generation != name
    assert new.genre_affinity_BG.tolist() != old.genre_affinity_BG.tolist()
    same(world.store.members_at(IDS, old.asof_ms_B, name), old)
    assert (tmp_path / "features" / "retired" / name).is_dir()
    world.publish(later + timedelta(days=1))  # back to the first configuration: another generation all the same
    assert published(tmp_path / "features").name not in (name, world.store.generation)
    world.store.close()


def test_time_does_not_go_backwards(tmp_path: Path) -> None:
    world = Workspace(tmp_path, 3)
    now = START + timedelta(days=20)
    world.prepare(now)
    world.publish(now)
    with pytest.raises(ValueError, match="not after the last publication"):
        world.publish(now - timedelta(days=1))
    world.store.apply()
    world.store.materialize(now)
    with pytest.raises(ValueError, match="before the last load; an older row would win"):
        world.store.materialize(now - timedelta(days=1))
    world.store.close()


def test_members_who_were_deleted_are_in_no_row_of_any_generation_and_not_online(tmp_path: Path) -> None:
    world = Workspace(tmp_path, 4)
    now = START + timedelta(days=20)
    world.prepare(now)
    world.publish(now)
    world.publish(now + timedelta(hours=1), full=True)  # the first is retired
    world.store.apply()
    world.store.materialize(now + timedelta(hours=2))
    at = us(now + timedelta(hours=3))
    assert (world.store.members(["m0", "m1"], at).asof_ms_B != ABSENT).all()
    assert world.store.forget("m0") > 0
    assert (world.store.members(["m0", "m1"], at).asof_ms_B == ABSENT).tolist() == [True, False]
    assert world.store.forget("m0") == 0
    world.publish(now + timedelta(days=1), deleted={"m0": at, "m1": at})  # the tables still have them
    world.store.materialize(now + timedelta(days=1))
    assert (world.store.members(["m0", "m1", "m2"], us(now) + 2 * 86_400_000_000).asof_ms_B == ABSENT).tolist() == [
        True, True, False
    ]  # fmt: skip
    for file in (tmp_path / "features").rglob("*.parquet"):
        assert not {"m0", "m1"} & text_of(file)
    world.store.close()


def text_of(file: Path) -> set[Any]:
    import pyarrow.parquet as pq

    table = pq.read_table(file)
    return {value for name in table.column_names if name.endswith("_id") for value in table[name].to_pylist()}


def test_a_member_who_returns_after_being_deleted_is_known_from_then_on(tmp_path: Path) -> None:
    world = Workspace(tmp_path, 5)
    deleted_at = START + timedelta(days=2)
    rows: list[Row] = [("m0", START + timedelta(days=day), "t0001", "play") for day in (0.5, 1.5, 3.5)]
    world.arriving = [(row[1], row) for row in rows]
    now = START + timedelta(days=5)
    world.prepare(now)
    world.publish(now, deleted={"m0": us(deleted_at)})
    world.store.apply()
    world.store.materialize(now)
    view = world.store.members(["m0"], us(now))
    assert (view.count_7d_B.tolist(), view.tenure_days_B.tolist()) == ([1], [0.0])
    world.store.close()


def test_loads_by_two_processes_take_turns(tmp_path: Path) -> None:
    from foretaste.signals.published import writing

    with writing(tmp_path) as alone, writing(tmp_path, wait=False) as second:
        assert (alone, second) == (True, False)
    with writing(tmp_path, wait=False) as alone:
        assert alone


def test_sources_of_an_earlier_version_are_published_anew(tmp_path: Path) -> None:
    world = Workspace(tmp_path, 7)
    world.prepare(START + timedelta(days=20))
    write_json({"genres": [], "kinds": [], "until_ms": 0}, tmp_path / "features" / "sources" / "manifest.json")
    (tmp_path / "features" / "sources" / "members").mkdir()
    assert world.publish(START + timedelta(days=20))["member_rows"] > 0
    assert not list((tmp_path / "features").glob("retired/*"))


@pytest.mark.parametrize("step", [1, 7])
def test_midnights_published_one_run_after_another_are_those_of_one_run(tmp_path: Path, step: int) -> None:
    """The tables stand still; members of whom nothing moves are not even computed."""
    rows = random_interactions(TITLES, actors=25, days=215, per_actor=8, seed=4)
    prepared_folder(tmp_path / "prepared", rows, TITLES, num_buckets=3)
    config, last = SnapshotConfig(step_days=step), START + timedelta(days=230)
    read = []
    for day in (2, 3, 9.5, 40, 41, 190, 191.2, 230):
        now = START + timedelta(days=day)
        done = build_snapshots(tmp_path / "prepared", tmp_path / "nightly", config, now=now)
        read.append(done["interactions"])
        assert done["corrections"] == done["removed"] == 0
    build_snapshots(tmp_path / "prepared", tmp_path / "once", config, now=last)
    for view in ("members", "titles"):
        nightly, once = (
            pl.read_parquet(tmp_path / name / "sources" / view / "*.parquet").sort(pl.nth(0), "at")
            for name in ("nightly", "once")
        )
        assert nightly.to_dicts() == once.to_dicts()
    assert read[0] == rows.num_rows > max(read[1:3])
