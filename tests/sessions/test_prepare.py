"""Preparation against a slow twin in plain Python, and what it does with bad, late, doubled and missing rows."""

from __future__ import annotations

import json
import tempfile
from collections import defaultdict
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from foretaste.contracts.columns import EVENTS, IMPRESSIONS, INTERACTIONS, TITLES
from foretaste.contracts.events import ACTION_CODES, ENGAGEMENT, GUEST, WAYS, actor_id
from foretaste.contracts.sessions import SessionRule
from foretaste.ops.files import read_json, read_parquet, write_parquet
from foretaste.ops.tables import read_prepared
from foretaste.sessions import prepare as stage
from foretaste.sessions.buckets import actor_ids, bucket_of
from foretaste.sessions.prepare import PrepareConfig
from foretaste.sessions.spread import here
from foretaste.signals.interactions import runs

NOW = datetime(2026, 1, 31, tzinfo=UTC)
START = datetime(2026, 1, 1, tzinfo=UTC)
SERIES = {"s-e1": "s", "s-e2": "s"}
Row = dict[str, Any]


def _raw(folder: Path, *files: list[Row]) -> Path:
    blank: Row = {"kind": "movie", "genres": [], "artworks": [], "series_id": None}
    titles = [blank | {"title_id": t} for t in ("s", "a", "b")]
    titles += [blank | {"title_id": t, "kind": "episode", "series_id": s} for t, s in SERIES.items()]
    write_parquet(pa.Table.from_pylist(titles, schema=TITLES), folder / "titles.parquet")
    for number, rows in enumerate(files):
        write_parquet(pa.Table.from_pylist(rows, schema=EVENTS), folder / "events" / f"{number}.parquet")
    return folder


def _prepare(raw: Path, out: Path, config: PrepareConfig | None = None) -> Row:
    return stage.prepare(raw, out, config or PrepareConfig(num_buckets=2), now=NOW, collapse=runs, spread=here)


def _event(number: int, minute: float, **more: Any) -> Row:
    event = {"event_id": f"e{number:03d}", "member_id": "m", "at": START + timedelta(minutes=minute)}
    return event | {"action": "play", "title_id": "a"} | more


def _shown(shown: Row, actor: str, events: list[Row], names: dict[str, str], rule: SessionRule) -> Row:
    """An impression is of its native session, the next act's or the one's before within the gap, or of none."""
    place = next(i for i, e in enumerate(events) if e is shown)
    after = [e for e in events[place:] if e["event_id"] in names][:1]
    before = [e for e in events[:place] if e["event_id"] in names][-1:]
    gap = timedelta(minutes=rule.gap_minutes)
    near = [names[e["event_id"]] for e in after + before if abs(e["at"] - shown["at"]) <= gap]
    alone = f"{actor}@{(shown['at'] - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)}"
    native = [shown["session_id"]] if rule.native and shown.get("session_id") else []
    title = SERIES.get(shown["title_id"], shown["title_id"])
    said = json.loads(shown.get("properties") or "{}").get("propensity")
    blank = {"surface": None, "position": None, "decision_id": None}
    blank |= {"propensity": said if said is not None and 0 < said <= 1 else None}
    return {"actor_id": actor, "session_id": [*native, *near, alone][0], "at": shown["at"], "title_id": title} | blank


def _twin(events: list[Row], rule: SessionRule, validation: float, test: float) -> tuple[list[Row], list[Row]]:
    """What preparation means, a row at a time."""
    by_actor: dict[str, dict[str, Row]] = defaultdict(dict)
    for e in sorted(events, key=lambda e: (e["at"], e["event_id"])):
        by_actor[actor_id(e.get("member_id"), e.get("session_id"))].setdefault(e["event_id"], e)
    interactions: list[Row] = []
    impressions: list[Row] = []
    for actor, kept in sorted(by_actor.items()):
        sessions: list[list[Row]] = []
        for e in (e for e in kept.values() if e["action"] != "impression"):
            before = sessions[-1][-1] if sessions else None
            native = before and rule.native and e.get("session_id") and before.get("session_id")
            if before is None:
                opens = True
            elif native:
                opens = e["session_id"] != before["session_id"]
            else:
                opens = e["at"] - before["at"] > timedelta(minutes=rule.gap_minutes)
            sessions.append([e]) if opens else sessions[-1].append(e)
        own: list[Row] = []
        names: dict[str, str] = {}
        for index, session in enumerate(sessions):
            natives = [e["session_id"] for e in session if e.get("session_id")] if rule.native else []
            session_id = natives[0] if natives else f"{actor}#{index}"
            names |= {e["event_id"]: session_id for e in session}
            in_session: list[Row] = []
            way: Row = {"entry": "browse", "query": None}
            for e in session:
                if e["action"] in WAYS:
                    entry = WAYS[e["action"]]
                    way = {"entry": entry, "query": e.get("query") if entry == "search" else None}
                title = SERIES.get(e.get("title_id") or "", e.get("title_id"))
                same = {"actor_id": actor, "session_id": session_id, "at": e["at"], "title_id": title}
                if e["action"] not in ENGAGEMENT:
                    continue
                if not in_session or in_session[-1]["title_id"] != title:
                    blank = {"dwell_seconds": 0.0, "played_fraction": None, "num_events": 0}
                    in_session.append(same | blank | way | {"session_index": index, "action": e["action"]})
                run = in_session[-1]
                run["action"] = max(run["action"], e["action"], key=ACTION_CODES.__getitem__)
                run["dwell_seconds"] += e.get("dwell_seconds") or 0.0
                fractions = [f for f in (run["played_fraction"], e.get("played_fraction")) if f is not None]
                run["played_fraction"] = max(fractions, default=None)
                run["num_events"] += 1
            own += in_session
        passive = [e for e in kept.values() if e["action"] == "impression"]
        impressions += [_shown(e, actor, list(kept.values()), names, rule) for e in passive]
        for position, run in enumerate(own):
            from_end = len(own) - position if len(own) >= 3 else 9
            run |= {"position": position, "split_last": {1: "test", 2: "validation"}.get(from_end, "train")}
        interactions += own
    times = sorted(run["at"] for run in interactions)
    if times:
        last = [times[max(int(len(times) * share + 1e-9) - 1, 0)] for share in (1 - validation - test, 1 - test)]
        for run in interactions:
            run["split_time"] = ("train", "validation", "test")[sum(run["at"] > cut for cut in last)]
    return interactions, impressions


ROWS = st.lists(
    st.fixed_dictionaries(
        {
            "member_id": st.sampled_from(["m", "n", None]),
            "session_id": st.sampled_from([None, "x", "y"]),
            "minute": st.sampled_from([0, 1, 20, 21, 40, 41, 100]),
            "action": st.sampled_from(
                ["play", "detail", "stop", "thumb_up", "impression", "search", "hover", "browse"]
            ),
            "query": st.sampled_from([None, "q", "r"]),
            "title_id": st.sampled_from(["a", "b", "s", "s-e1", "s-e2"]),
            "dwell_seconds": st.sampled_from([None, 0.0, 2.5, 60.0]),
            "played_fraction": st.sampled_from([None, 0.0, 0.5, 1.0]),
            "properties": st.sampled_from([None, "{}", '{"propensity": 0.25, "x": 1}', '{"propensity": 3.5}']),
            "again": st.booleans(),
        }
    ).filter(lambda row: row["member_id"] or row["session_id"]),
    min_size=1,
    max_size=40,
)


def _by_time(shown: Row) -> tuple[Any, ...]:
    return shown["actor_id"], shown["at"], shown["title_id"], shown["session_id"], shown["propensity"] or 0.0


@settings(max_examples=40, deadline=None)
@given(ROWS, st.integers(1, 3), st.integers(1, 3), st.booleans(), st.integers(0, 99))
def test_sessions_interactions_and_splits_equal_those_of_the_readable_twin(
    rows: list[Row], num_files: int, num_buckets: int, native: bool, shift: int
) -> None:
    events = [_event((i * 37 + shift) % 100, row.pop("minute"), **row) for i, row in enumerate(rows)]
    events += [event for event in events if event["again"]]
    rule = SessionRule(gap_minutes=20, native=native)
    config = PrepareConfig(rule=rule, num_buckets=num_buckets, validation_share=0.2, test_share=0.3)
    want, shown = _twin(events, rule, 0.2, 0.3)
    with tempfile.TemporaryDirectory() as folder:
        raw = _raw(Path(folder) / "raw", *(events[f::num_files] for f in range(num_files)))
        if not want:
            with pytest.raises(ValueError, match="none is an interaction"):
                _prepare(raw, Path(folder) / "out", config)
            return
        manifest = _prepare(raw, Path(folder) / "out", config)
        interactions = read_prepared(Path(folder) / "out", "interactions")
        impressions = read_prepared(Path(folder) / "out", "impressions")
        acts = read_prepared(Path(folder) / "out", "acts")
    assert interactions.schema == INTERACTIONS
    assert impressions.schema == IMPRESSIONS
    assert interactions.sort_by([("actor_id", "ascending"), ("position", "ascending")]).to_pylist() == [
        {name: run[name] for name in INTERACTIONS.names} for run in want
    ]
    assert sorted(impressions.to_pylist(), key=_by_time) == sorted(shown, key=_by_time)
    assert acts.schema == EVENTS
    done = {e["event_id"] for e in events if e["action"] != "impression"}
    assert sorted(acts["event_id"].to_pylist()) == sorted(done)
    assert manifest["counts"]["duplicates"] == len(events) - len(rows)
    assert manifest["counts"]["interactions"] == len(want)


def test_tables_are_sorted_within_their_bucket_and_an_actor_is_in_one_bucket(tmp_path: Path) -> None:
    events = [
        _event(i, i * 7 % 50, member_id=f"m{i % 20}", action="impression" if i % 3 else "play") for i in range(99)
    ]
    _prepare(_raw(tmp_path / "raw", events), tmp_path / "out", PrepareConfig(num_buckets=4))
    for name, order in (("interactions", "position"), ("impressions", "at")):
        where: dict[str, str] = {}
        for path in sorted((tmp_path / "out" / name).glob("bucket=*/000001.parquet")):
            rows = read_parquet(path).to_pylist()
            keys = [(row["actor_id"], row[order]) for row in rows]
            assert keys == sorted(keys)
            for row in rows:
                assert where.setdefault(row["actor_id"], path.parent.name) == path.parent.name
                assert path.parent.name == f"bucket={bucket_of(row['actor_id'], 4):04d}"
        assert len(where) == 20


def test_the_bucket_of_an_actor_is_the_same_in_every_version() -> None:
    assert [bucket_of(actor, 1000) for actor in ("m", "guest:s", "ä")] == [192, 211, 35]


def test_actors_are_those_of_the_contract() -> None:
    rows = [{"member_id": "m", "session_id": "s"}, {"member_id": "m"}, {"session_id": "s"}]
    table = pa.Table.from_pylist([_event(0, 0) | {"member_id": None} | row for row in rows], schema=EVENTS)
    assert actor_ids(table).to_pylist() == ["m", "m", f"{GUEST}s"]
    assert actor_ids(table).to_pylist() == [actor_id(r["member_id"], r["session_id"]) for r in table.to_pylist()]


def test_of_deliveries_that_should_be_alike_and_are_not_the_earliest_is_kept(tmp_path: Path) -> None:
    one, other = _event(1, 9, title_id="a"), _event(1, 5, title_id="b")
    for name, files in (("forth", [[one], [other]]), ("back", [[other, one]])):
        _prepare(_raw(tmp_path / name, *files), tmp_path / "out")
        assert read_prepared(tmp_path / "out", "interactions")["title_id"].to_pylist() == ["b"]


def test_events_of_one_instant_are_in_the_order_of_their_ids(tmp_path: Path) -> None:
    events = [_event(number, 0, title_id=title) for number, title in ((2, "a"), (10, "b"), (1, "s"))]
    _prepare(_raw(tmp_path / "raw", events), tmp_path / "out")
    assert read_prepared(tmp_path / "out", "interactions")["title_id"].to_pylist() == ["s", "a", "b"]


def test_acts_are_all_that_was_done_once_and_as_it_came(tmp_path: Path) -> None:
    done = [_event(0, 5, title_id="s-e1"), _event(1, 9, action="search", title_id=None, query="war")]
    _prepare(_raw(tmp_path / "raw", [*done, done[0], _event(2, 7, action="impression")]), tmp_path / "out")
    acts = read_prepared(tmp_path / "out", "acts")
    assert acts.equals(pa.Table.from_pylist(done, schema=EVENTS))


def test_no_buckets_no_files_and_no_order_of_arrival_change_the_result(tmp_path: Path) -> None:
    events = [_event(i, i * 13 % 97, member_id=f"m{i % 7}", title_id="ab"[i * i % 2]) for i in range(60)]
    late = [events[:5] + events[3:8], events[40:], events[:45][::-1]]
    one = _prepare(_raw(tmp_path / "one", events), tmp_path / "a", PrepareConfig(num_buckets=1))
    other = _prepare(_raw(tmp_path / "other", *late), tmp_path / "b", PrepareConfig(num_buckets=5))
    order = [("actor_id", "ascending"), ("position", "ascending")]
    tables = [read_prepared(tmp_path / name, "interactions").sort_by(order) for name in "ab"]
    assert tables[0].equals(tables[1])
    assert one["cuts"] == other["cuts"]
    assert (one["counts"]["duplicates"], other["counts"]["duplicates"]) == (0, 15)


def test_no_row_of_train_is_as_late_as_one_of_validation_or_test(tmp_path: Path) -> None:
    events = [_event(i, i // 7, member_id=f"m{i % 9}", title_id="ab"[i % 2]) for i in range(300)]
    manifest = _prepare(_raw(tmp_path / "raw", events), tmp_path / "out")
    at = defaultdict(list)
    for row in read_prepared(tmp_path / "out", "interactions").to_pylist():
        at[row["split_time"]].append(row["at"])
    assert max(at["train"]) < min(at["validation"])
    assert max(at["validation"]) < min(at["test"])
    validation_from, test_from = (datetime.fromisoformat(manifest["cuts"][f"{p}_from"]) for p in ("validation", "test"))
    assert max(at["train"]) < validation_from <= min(at["validation"])
    assert max(at["validation"]) < test_from <= min(at["test"])
    assert {name: len(rows) for name, rows in at.items()} == manifest["split_time"]


def test_bad_rows_are_set_aside_with_their_reason_and_all_rows_are_accounted_for(tmp_path: Path) -> None:
    good = [_event(i, i) for i in range(40)]
    bad = [_event(90, 0, action="watch"), _event(91, 0, at=NOW + timedelta(hours=1)), _event(92, 0, title_id="u")]
    manifest = _prepare(
        _raw(tmp_path / "raw", good[:20] + bad, good[20:]), tmp_path / "out", PrepareConfig(max_bad_share=0.1)
    )
    aside = read_parquet(tmp_path / "out" / "quarantine").to_pylist()
    assert [(row["reason"], row["event_id"], row["row"]) for row in aside] == [
        ("unknown_action", "e090", 20),
        ("future_time", "e091", 21),
        ("unknown_title", "e092", 22),
    ]
    assert {row["file"] for row in aside} == {str(tmp_path / "raw" / "events" / "0.parquet")}
    counts = manifest["counts"]
    assert manifest["bad_by_kind"] == {"unknown_action": 1, "future_time": 1, "unknown_title": 1}
    assert (counts["events"], counts["bad"], counts["duplicates"], counts["engagement_events"]) == (43, 3, 0, 40)


def test_too_many_bad_rows_stop_everything_and_say_which(tmp_path: Path) -> None:
    events = [_event(i, i) for i in range(9)] + [_event(9, 9, action="watch")]
    with pytest.raises(ValueError, match=r"1 of 10 rows are bad \(10.0%, at most 5.0% .*'unknown_action': 1"):
        _prepare(_raw(tmp_path / "raw", events), tmp_path / "out")
    assert not (tmp_path / "out" / "manifest.json").exists()


def test_text_files_are_prepared_like_parquet(tmp_path: Path) -> None:
    events = [_event(i, i * 9, title_id="ab"[i % 2]) for i in range(30)]
    raw = _raw(tmp_path / "raw", events[:10])
    text = [event | {"at": event["at"].isoformat()} for event in events]
    (raw / "events" / "1.jsonl").write_text("".join(json.dumps(event) + "\n" for event in text[10:20]))
    lines = [",".join(event.values()) for event in text[20:]]
    (raw / "events" / "2.csv").write_text("\n".join([",".join(text[0]), *lines]) + "\n")
    _prepare(raw, tmp_path / "mixed")
    _prepare(_raw(tmp_path / "whole", events), tmp_path / "plain")
    assert read_prepared(tmp_path / "mixed", "interactions").equals(read_prepared(tmp_path / "plain", "interactions"))


def test_small_pieces_and_row_groups_give_what_one_piece_gives(tmp_path: Path) -> None:
    raw = _raw(tmp_path / "raw", [_event(i, i * 9 % 100, member_id=f"m{i % 5}") for i in range(100)])
    _prepare(raw, tmp_path / "one", PrepareConfig(num_buckets=2))
    _prepare(raw, tmp_path / "many", PrepareConfig(num_buckets=2, piece_rows=7))
    assert read_prepared(tmp_path / "one", "interactions").equals(read_prepared(tmp_path / "many", "interactions"))


@pytest.mark.parametrize(
    ("action", "targets"),
    [
        ("play", ["complete", "play", "rate", "stop", "thumb_up"]),
        ("detail", ["add_to_list", "comment", "complete", "detail", "follow", "play", "rate", "stop", "thumb_up"]),
    ],
)
def test_what_counts_as_a_choice_follows_from_the_log(tmp_path: Path, action: str, targets: list[str]) -> None:
    raw = _raw(tmp_path / "raw", [_event(i, i, action=action) for i in range(5)])
    assert _prepare(raw, tmp_path / "out")["target_actions"] == targets
    told = PrepareConfig.model_validate({"target_actions": ["detail"]})
    assert _prepare(raw, tmp_path / "out", told)["target_actions"] == ["detail"]


def test_a_log_has_repeats_where_members_come_back_to_a_title(tmp_path: Path) -> None:
    back = [_event(i, i * 60, title_id="ab"[i % 2]) for i in range(6)]
    once = [_event(i, i, title_id="ab"[i % 2], member_id=f"m{i // 2}") for i in range(6)]
    assert _prepare(_raw(tmp_path / "back", back), tmp_path / "out")["repeats"] is True
    assert _prepare(_raw(tmp_path / "once", once), tmp_path / "out")["repeats"] is False


def test_a_preparation_that_fails_leaves_the_old_tables_as_they_were(tmp_path: Path) -> None:
    raw = _raw(tmp_path / "raw", [_event(i, i * 40) for i in range(5)])
    _prepare(raw, tmp_path / "out")
    before = {path: path.read_bytes() for path in (tmp_path / "out").rglob("*") if path.is_file()}

    def dies(*arrays: Any) -> Any:
        raise MemoryError

    with pytest.raises(MemoryError):
        stage.prepare(raw, tmp_path / "out", PrepareConfig(), now=NOW, collapse=dies, spread=here)
    journal = tmp_path / "out" / ".journal"
    after = {path: path.read_bytes() for path in before}
    assert after == before
    left = [path for path in (tmp_path / "out").rglob("*") if path.is_file() and journal not in path.parents]
    assert sorted(left) == sorted(before)


def test_what_is_missing_is_said_by_name(tmp_path: Path) -> None:
    def refused(raw: Path, said: str) -> None:
        with pytest.raises(ValueError, match=said):
            _prepare(raw, tmp_path / "out")

    refused(_raw(tmp_path / "no-events"), "events: no event files there; wanted Parquet, CSV or JSON lines")
    write_parquet(EVENTS.empty_table(), tmp_path / "no-titles" / "events" / "0.parquet")
    refused(tmp_path / "no-titles", r"no-titles: wanted one titles file \(titles.parquet\), found \[\]")
    refused(_raw(tmp_path / "no-rows", []), "the files have no rows")
    refused(_raw(tmp_path / "only-searches", [_event(0, 0, action="search")]), "of 1 events none is an interaction")
    cut = _raw(tmp_path / "cut", [_event(0, 0)])
    (cut / "events" / "1.parquet").write_bytes(b"PAR1")
    refused(cut, "1.parquet: not Parquet, truncated or damaged")
    table = pa.Table.from_pylist([_event(0, 0)]).drop_columns("action")
    write_parquet(table, tmp_path / "no-action" / "events" / "0.parquet")
    _raw(tmp_path / "no-action")
    refused(tmp_path / "no-action", r"0.parquet: missing columns \['action'\]")
    twice = _raw(tmp_path / "twice", [_event(0, 0)])
    titles = read_parquet(twice / "titles.parquet")
    write_parquet(pa.concat_tables([titles, titles.slice(0, 1)]), twice / "titles.parquet")
    refused(twice, "titles.parquet: wanted titles without findings, found 1 duplicate_title_id")


def test_the_manifest_is_stored_beside_the_tables(tmp_path: Path) -> None:
    config = PrepareConfig(num_buckets=3)
    manifest = _prepare(_raw(tmp_path / "raw", [_event(0, 0), _event(1, 90)]), tmp_path / "out", config)
    assert read_json(tmp_path / "out" / "manifest.json") == manifest
    assert manifest["rule_fingerprint"] == config.rule.fingerprint()
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        ".lock", "acts", "ids", "impressions", "interactions", "manifest.json", "pairs", "tails", "titles",
    ]  # fmt: skip
    assert read_prepared(tmp_path / "out", "interactions").num_rows == 2


def test_progress_adds_up_to_the_events_read(tmp_path: Path) -> None:
    events = [_event(i, i) for i in range(30)] + [_event(30, 0, action="watch")] + [_event(3, 3)]
    done: list[float] = []
    raw = _raw(tmp_path / "raw", events)
    stage.prepare(raw, tmp_path / "out", PrepareConfig(), now=NOW, collapse=runs, spread=here, advance=done.append)
    assert sum(done) == 32


def test_shares_that_leave_nothing_for_training_are_refused() -> None:
    with pytest.raises(ValueError, match="nothing is left for training"):
        PrepareConfig(validation_share=0.5, test_share=0.5)
