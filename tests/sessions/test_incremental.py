"""Runs one after another give what one run gives, whatever comes late, twice, or is deleted."""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from foretaste.contracts.columns import EVENTS, TITLES
from foretaste.contracts.sessions import SessionRule
from foretaste.ops.files import read_json, read_parquet, write_parquet
from foretaste.ops.tables import prepared_files, read_prepared
from foretaste.sessions import prepare as stage
from foretaste.sessions.prepare import PrepareConfig
from foretaste.sessions.spread import here
from foretaste.sessions.store import hashes
from foretaste.signals.interactions import runs

NOW = datetime(2026, 1, 31, tzinfo=UTC)
START = datetime(2026, 1, 1, tzinfo=UTC)
NEVER_COMPACT = 1e9
MEMORY = "/dev/shm" if Path("/dev/shm").is_dir() else None
"""Where many small runs need not wait for a disk."""
TABLES = ("interactions", "acts", "impressions")
Row = dict[str, Any]

SERIES = {"s-e1": "s", "s-e2": "s"}
_clock = itertools.count(1)


def _titles(folder: Path) -> Path:
    blank: Row = {"kind": "movie", "genres": [], "artworks": [], "series_id": None}
    titles = [blank | {"title_id": t} for t in ("s", "a", "b")]
    titles += [blank | {"title_id": t, "kind": "episode", "series_id": s} for t, s in SERIES.items()]
    write_parquet(pa.Table.from_pylist(titles, schema=TITLES), folder / "titles.parquet")
    return folder


def _add(raw: Path, name: str, rows: Sequence[Row]) -> None:
    write_parquet(pa.Table.from_pylist(list(rows), schema=EVENTS), raw / "events" / f"{name}.parquet")


def _prepare(raw: Path, out: Path, config: PrepareConfig, **more: Any) -> Row:
    return stage.prepare(raw, out, config, now=NOW, collapse=runs, spread=here, **more)


def _event(number: int, minute: float, **more: Any) -> Row:
    event = {"event_id": f"e{number:03d}", "member_id": "m", "at": START + timedelta(minutes=minute)}
    return event | {"action": "play", "title_id": "a"} | more


def _config(**more: Any) -> PrepareConfig:
    return PrepareConfig.model_validate({"num_buckets": 2, "compact_share": NEVER_COMPACT} | more)


def _same(one: Path, other: Path, *, splits: bool = False) -> None:
    for table in TABLES:
        rows, wanted = read_prepared(one, table), read_prepared(other, table)
        if table == "interactions" and not splits:
            rows, wanted = rows.drop_columns("split_time"), wanted.drop_columns("split_time")
        assert rows.equals(wanted), table


SAME = ("counts", "engagement_by_action", "split_last", "target_actions", "repeats", "bad_by_kind")

ROWS = st.lists(
    st.fixed_dictionaries(
        {
            "member_id": st.sampled_from(["m", "n", None]),
            "session_id": st.sampled_from([None, None, "x", "y"]),
            "minute": st.sampled_from([0, 1, 20, 21, 40, 41, 60, 100, 101]),
            "action": st.sampled_from(["play", "detail", "thumb_up", "impression", "impression", "search", "browse"]),
            "query": st.sampled_from([None, "q"]),
            "title_id": st.sampled_from(["a", "b", "s-e1", "s-e2"]),
            "played_fraction": st.sampled_from([None, 0.5]),
            "run": st.integers(0, 3),
            "again": st.sampled_from([None, None, None, 0, 1, 2, 3]),
            "earlier": st.sampled_from([0, 0, 0, 5]),
        }
    ).filter(lambda row: row["member_id"] or row["session_id"]),
    min_size=1,
    max_size=30,
)


@settings(max_examples=25, deadline=None)
@given(ROWS, st.booleans(), st.booleans(), st.integers(0, 99), st.sampled_from([NEVER_COMPACT, 0.5]))
def test_events_over_runs_in_any_order_give_what_one_run_gives(
    rows: list[Row], native: bool, in_time: bool, shift: int, compact: float
) -> None:
    if in_time:  # later runs then mostly go on after the last session
        rows.sort(key=lambda row: row["minute"])
        for i, row in enumerate(rows):
            row["run"] = i * 4 // len(rows)
    deliveries: list[list[Row]] = [[], [], [], []]
    for i, row in enumerate(rows):
        event = _event((i * 37 + shift) % 100, **{k: v for k, v in row.items() if k not in ("run", "again", "earlier")})
        deliveries[row["run"]].append(event)
        if row["again"] is not None:
            again = event | {"at": event["at"] - timedelta(minutes=row["earlier"])}
            deliveries[row["again"]].append(again)
    if not any(e["action"] in ("play", "detail", "thumb_up") for e in deliveries[0]):
        deliveries[0].append(_event(100, 50))
    rule = SessionRule(gap_minutes=20, native=native)
    config = _config(rule=rule, compact_share=compact)
    with tempfile.TemporaryDirectory(dir=MEMORY) as folder:
        raw, out, once = _titles(Path(folder) / "raw"), Path(folder) / "out", Path(folder) / "once"
        modes = set()
        for number, events in enumerate(deliveries):
            _add(raw, f"{number}", events)
            manifest = _prepare(raw, out, config)
            modes.add(manifest["run"]["mode"])
        whole = _prepare(raw, once, config)
        _same(out, once, splits=modes == {"full"})
        assert {name: manifest[name] for name in SAME} == {name: whole[name] for name in SAME}
        assert {"full"} <= modes <= {"full", "incremental", "compact", "nothing"}
        full = _prepare(raw, out, config, full=True)
        _same(out, once, splits=True)
        assert full["split_time"] == whole["split_time"]


def test_a_second_run_reads_only_what_is_new_and_says_so(tmp_path: Path) -> None:
    raw, out = _titles(tmp_path / "raw"), tmp_path / "out"
    _add(raw, "0", [_event(i, i * 60, member_id=f"m{i % 5}") for i in range(50)])
    first = _prepare(raw, out, _config())
    assert (first["run"]["mode"], first["run"]["why"]) == ("full", "there is no prepared table")
    _add(raw, "1", [_event(50, 9_000, member_id="m1"), _event(3, 180, member_id="m3")])
    done: list[float] = []
    second = _prepare(raw, out, _config(), advance=done.append)
    assert second["run"] == {"number": 2, "mode": "incremental", "why": "1 files are new", "files": 1, "events": 2}
    assert sum(done) == 2
    assert (second["counts"]["events"], second["counts"]["duplicates"]) == (52, 1)
    assert second["cuts"] == first["cuts"]
    before = {path: path.stat().st_mtime_ns for path in prepared_files(out, "acts")}
    third = _prepare(raw, out, _config())
    assert (third["run"]["mode"], third["run"]["number"]) == ("nothing", 2)
    assert {path: path.stat().st_mtime_ns for path in prepared_files(out, "acts")} == before


def test_events_after_the_last_session_touch_no_stored_row_of_their_actor(tmp_path: Path) -> None:
    raw, out = _titles(tmp_path / "raw"), tmp_path / "out"
    _add(raw, "0", [_event(0, 0), _event(1, 5)])
    _prepare(raw, out, _config())
    _add(raw, "1", [_event(2, 500), _event(3, 505, title_id="b")])
    assert "superseded" not in {name for name, parts in _prepare(raw, out, _config())["tables"].items() if parts}
    _add(raw, "2", [_event(4, 510)])
    found = _prepare(raw, out, _config())["tables"]["superseded"]
    assert [part["rows"] for parts in found.values() for part in parts] == [1]
    rows = read_prepared(out, "interactions").to_pylist()
    assert [(row["session_index"], row["position"], row["title_id"]) for row in rows] == [
        (0, 0, "a"), (1, 1, "a"), (1, 2, "b"), (1, 3, "a"),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ("config", "the configuration has changed"),
        ("titles", "the titles have changed"),
        ("touched", "0.parquet has changed"),
        ("gone", "1.parquet is gone"),
        ("full", "asked for"),
    ],
)
def test_what_makes_a_full_run_is_said(tmp_path: Path, change: str, why: str) -> None:
    raw, out, config = _titles(tmp_path / "raw"), tmp_path / "out", _config()
    _add(raw, "0", [_event(i, i * 60) for i in range(5)])
    _add(raw, "1", [_event(i, i * 60) for i in range(5, 9)])
    _prepare(raw, out, config)
    if change == "config":
        config = _config(rule={"gap_minutes": 90})
    elif change == "titles":
        titles = read_parquet(raw / "titles.parquet")
        write_parquet(titles.slice(0, 4), raw / "titles.parquet")
    elif change == "touched":
        os.utime(raw / "events" / "0.parquet", ns=(0, next(_clock)))
    elif change == "gone":
        (raw / "events" / "1.parquet").unlink()
    found = _prepare(raw, out, config, full=change == "full")["run"]
    assert found["mode"] == "full"
    assert found["why"].endswith(why)


def test_a_deleted_member_is_in_no_table_and_in_no_file(tmp_path: Path) -> None:
    raw, out, once = _titles(tmp_path / "raw"), tmp_path / "out", tmp_path / "once"
    config = _config(max_bad_share=0.5)
    bad = _event(90, 0, member_id="forgotten", action="watch")
    acts = [("play", "impression")[i // 2 % 2] for i in range(20)]
    old = [_event(i, i * 60, member_id=("m", "forgotten")[i % 2], action=acts[i]) for i in range(20)]
    _add(raw, "0", [*old, bad])
    _prepare(raw, out, config)
    later = _event(40, 5_000, member_id="forgotten")
    _add(raw, "1", [later, _event(41, 100, member_id="forgotten"), _event(42, 5_000)])
    deleted = {"forgotten": int((START + timedelta(minutes=4_000)).timestamp()) * 1_000_000}
    manifest = _prepare(raw, out, config, deleted=deleted)
    assert manifest["run"]["mode"] == "incremental"
    assert manifest["counts"]["deleted"] == 11
    left = read_prepared(out, "acts").to_pylist()
    assert [row["event_id"] for row in left if row["member_id"] == "forgotten"] == ["e040"]
    whole = _prepare(raw, once, config, deleted=deleted)
    _same(out, once)
    assert whole["counts"]["deleted"] == 12  # a full run drops the bad row before it looks at it
    gone = _prepare(raw, out, config, deleted={"forgotten": 2**60})
    assert gone["run"]["mode"] == "incremental"
    _prepare(raw, out, config, deleted={"forgotten": 2**60})  # sweeps what the last run left
    assert not [p for p in out.rglob("*") if p.is_file() and b"forgotten" in p.read_bytes() and p.suffix != ".json"]
    assert read_json(out / "manifest.json")["counts"]["actors"] == 1


def test_bad_rows_of_every_run_are_set_aside(tmp_path: Path) -> None:
    raw, out, config = _titles(tmp_path / "raw"), tmp_path / "out", _config(max_bad_share=0.5)
    for number in range(3):
        good = [_event(10 * number + i, 100 * number + i) for i in range(4)]
        _add(raw, f"{number}", [*good, _event(10 * number + 9, 0, action="watch")])
        manifest = _prepare(raw, out, config)
    assert manifest["bad_by_kind"] == {"unknown_action": 3}
    aside = [row for path in prepared_files(out, "quarantine") for row in read_parquet(path).to_pylist()]
    assert [(row["reason"], row["event_id"]) for row in aside] == [
        ("unknown_action", "e009"), ("unknown_action", "e019"), ("unknown_action", "e029"),
    ]  # fmt: skip


def test_what_was_added_is_made_one_again_when_it_has_grown(tmp_path: Path) -> None:
    raw, out, config = _titles(tmp_path / "raw"), tmp_path / "out", _config(compact_share=0.25)
    _add(raw, "0", [_event(i, i * 60) for i in range(40)])
    _prepare(raw, out, config)
    _add(raw, "1", [_event(i, i * 60) for i in range(40, 46)])
    assert _prepare(raw, out, config)["run"]["mode"] == "incremental"
    _add(raw, "2", [_event(i, i * 60) for i in range(46, 52)])
    manifest = _prepare(raw, out, config)
    assert manifest["run"]["mode"] == "compact"
    assert {len(parts) for parts in manifest["tables"]["acts"].values()} == {1}
    _prepare(raw, tmp_path / "once", config)
    _same(out, tmp_path / "once", splits=True)


def test_more_folders_of_events_are_read_and_adding_one_is_no_full_run(tmp_path: Path) -> None:
    raw, out = _titles(tmp_path / "raw"), tmp_path / "out"
    _add(raw, "0", [_event(i, i * 60) for i in range(5)])
    _prepare(raw, out, _config())
    _add(tmp_path / "more", "x", [_event(7, 900)])
    manifest = _prepare(raw, out, _config(more_events=[str(tmp_path / "more" / "events")]))
    assert (manifest["run"]["mode"], manifest["counts"]["events"]) == ("incremental", 6)


def test_an_event_log_may_join_its_parts_without_a_full_run(tmp_path: Path) -> None:
    raw, out, log = _titles(tmp_path / "raw"), tmp_path / "out", tmp_path / "log" / "events"
    _add(raw, "0", [_event(i, i * 60) for i in range(5)])
    _add(log.parent, "x", [_event(7, 900)])
    _add(log.parent, "y", [_event(8, 901)])
    _prepare(raw, out, _config(), joined_events=(str(log),))
    (log / "x.parquet").unlink()
    (log / "y.parquet").unlink()
    _add(log.parent, "xy", [_event(7, 900), _event(8, 901)])
    _add(log.parent, "z", [_event(9, 902)])
    manifest = _prepare(raw, out, _config(), joined_events=(str(log),))
    assert manifest["run"]["mode"] == "incremental"
    once = _prepare(raw, tmp_path / "once", _config(), joined_events=(str(log),))
    assert once["counts"]["interactions"] == manifest["counts"]["interactions"]
    _same(out, tmp_path / "once", splits=False)
    (raw / "events" / "0.parquet").unlink()
    assert _prepare(raw, out, _config(), joined_events=(str(log),))["run"]["why"].endswith("0.parquet is gone")


def test_two_runs_at_once_are_refused(tmp_path: Path) -> None:
    raw, out = _titles(tmp_path / "raw"), tmp_path / "out"
    _add(raw, "0", [_event(0, 0)])

    def nested(*arrays: Any) -> Any:
        _prepare(raw, out, _config())

    with pytest.raises(RuntimeError, match="another preparation is writing here"):
        stage.prepare(raw, out, _config(), now=NOW, collapse=nested, spread=here)


def test_ids_have_the_same_hash_in_every_process() -> None:
    texts = ["a", "event-17", "ä", ""]
    code = f"import polars, foretaste.sessions.store as s; print(s.hashes(polars.Series({texts!r})).tolist())"
    other = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout
    assert json.loads(other) == hashes(pl.Series(texts)).tolist()


def test_the_propensity_of_an_impression_is_kept_also_where_it_is_prepared_again(tmp_path: Path) -> None:
    raw, said = tmp_path / "raw", ['{"propensity": 0.0125}', '{"x": 1, "propensity":1e-05}', '{"propensity": 7}', None]
    _titles(raw)
    shown = [_event(n, 10.0 * n, action="impression", title_id="a", properties=text) for n, text in enumerate(said)]
    _add(raw, "one", [*shown, _event(9, 1.0, action="play", title_id="b")])
    config = PrepareConfig(num_buckets=1)
    wanted = [0.0125, 1e-05, None, None]
    _prepare(raw, tmp_path / "out", config)
    assert read_prepared(tmp_path / "out", "impressions")["propensity"].to_pylist() == wanted
    _add(raw, "two", [_event(20, 5.0, action="play", title_id="a")])  # before the last: the actor is made again
    _prepare(raw, tmp_path / "out", config)
    assert read_prepared(tmp_path / "out", "impressions")["propensity"].to_pylist() == wanted
