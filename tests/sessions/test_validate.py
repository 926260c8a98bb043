"""Every kind of finding is found where it stands, and nothing else is."""

from __future__ import annotations

import csv
import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from rich.console import Console

from foretaste.contracts.columns import DECISIONS, EVENTS, FEEDBACK, TITLES
from foretaste.ops.files import read_parquet, write_parquet
from foretaste.sessions.findings import Kind
from foretaste.sessions.validate import Report, validate_events, validate_files, validate_titles

NOW = datetime(2026, 1, 31, 18, 0, tzinfo=UTC)
GOOD: dict[str, Any] = {"event_id": "e", "member_id": "m", "at": NOW, "action": "play", "title_id": "t"}


def _events(*rows: dict[str, Any]) -> pa.Table:
    return pa.Table.from_pylist([GOOD | {"event_id": f"e{i}"} | row for i, row in enumerate(rows)], schema=EVENTS)


def _titles(*rows: dict[str, Any]) -> pa.Table:
    blank = {"kind": "movie", "genres": [], "artworks": []}
    return pa.Table.from_pylist([blank | row for row in rows], schema=TITLES)


TITLE_TABLE = _titles({"title_id": "t", "released_at": datetime(2026, 1, 1, tzinfo=UTC)}, {"title_id": "ageless"})


@pytest.mark.parametrize(
    ("row", "kind", "column"),
    [
        ({"at": NOW + timedelta(minutes=5, microseconds=1)}, "future_time", "at"),
        ({"at": datetime(2025, 12, 31, 23, 59, 59, tzinfo=UTC)}, "before_release", "at"),
        ({"action": "watch"}, "unknown_action", "action"),
        ({"event_id": ""}, "null_id", "event_id"),
        ({"event_id": None}, "null_id", "event_id"),
        ({"member_id": None}, "null_id", "member_id"),
        ({"member_id": ""}, "null_id", "member_id"),
        ({"session_id": ""}, "null_id", "session_id"),
        ({"title_id": None}, "null_id", "title_id"),
        ({"title_id": ""}, "null_id", "title_id"),
        ({"title_id": None, "action": "impression"}, "null_id", "title_id"),
        ({"title_id": "u"}, "unknown_title", "title_id"),
        ({"title_id": "u", "action": "search"}, "unknown_title", "title_id"),
        ({"event_id": "e0"}, "duplicate_event_id", "event_id"),
        ({"played_fraction": 1.0000001}, "bad_value", "played_fraction"),
        ({"played_fraction": -0.1}, "bad_value", "played_fraction"),
        ({"played_fraction": float("nan")}, "bad_value", "played_fraction"),
        ({"dwell_seconds": -1.0}, "bad_value", "dwell_seconds"),
        ({"dwell_seconds": float("inf")}, "bad_value", "dwell_seconds"),
        ({"position": -1}, "bad_value", "position"),
        ({"properties": "[4]"}, "bad_value", "properties"),
        ({"properties": "{"}, "bad_value", "properties"),
        ({"at": None}, "wrong_type", "at"),
        ({"action": None}, "wrong_type", "action"),
    ],
)
def test_each_kind_is_found_in_its_row_and_column_alone(row: dict[str, Any], kind: str, column: str) -> None:
    table = pa.concat_tables([_events({}, {}), _events({"event_id": "e9"} | row)])
    found = validate_events(table, now=NOW, titles=TITLE_TABLE)
    assert found.counts == {kind: 1}
    (example,) = next(iter(found.examples.values()))
    assert (example.row, example.column) == (2, column)
    assert example.value == ("null" if row[column] is None else str(row[column]))
    assert found.bad_N.tolist() == [False, False, True]
    assert not found.ok


@pytest.mark.parametrize(
    "row",
    [
        {"at": NOW + timedelta(minutes=5)},
        {"at": datetime(2026, 1, 1, tzinfo=UTC)},
        {"at": datetime(1980, 1, 1, tzinfo=UTC), "title_id": "ageless"},
        {"member_id": None, "session_id": "s"},
        {"title_id": None, "action": "search"},
        {"title_id": None, "action": "message_open"},
        {"played_fraction": 0.0, "dwell_seconds": 0.0, "position": 0, "properties": "{}"},
        {"played_fraction": 1.0, "properties": '{"rating": 4.0}'},
    ],
)
def test_what_lies_on_the_good_side_of_a_rule_is_no_finding(row: dict[str, Any]) -> None:
    assert validate_events(_events({}, row), now=NOW, titles=TITLE_TABLE).counts == {}


def test_without_titles_any_title_is_known_and_none_has_a_release() -> None:
    assert validate_events(_events({"title_id": "u"}), now=NOW).ok


def test_a_missing_column_and_a_wrong_type_are_of_the_whole_column() -> None:
    table = _events({}, {}).drop_columns("action")
    table = table.set_column(table.column_names.index("position"), "position", pa.array(["1", None]))
    found = validate_events(table, now=NOW)
    assert found.counts == {"missing_column": 1, "wrong_type": 1}
    assert found.bad_N.all()
    assert "columns ['event_id'" in next(iter(found.examples.values()))[0].value


def test_a_row_with_several_findings_is_one_bad_row_with_all_its_reasons() -> None:
    found = validate_events(_events({"member_id": None, "action": "watch", "dwell_seconds": -1.0}), now=NOW)
    assert found.counts == {"null_id": 1, "unknown_action": 1, "bad_value": 1}
    assert (found.num_bad, found.rows_by_reason()) == (1, {"null_id": 1})
    assert found.reasons(np.array([0])) == ["null_id,unknown_action,bad_value"]


def test_only_the_first_examples_are_kept_while_all_are_counted() -> None:
    found = validate_events(_events(*[{"position": -i} for i in range(1, 101)]), now=NOW)
    (examples,) = found.examples.values()
    assert found.counts == {"bad_value": 100}
    assert [example.value for example in examples] == ["-1", "-2", "-3", "-4", "-5"]


def test_titles_that_stand_twice_or_miss_their_series_are_found() -> None:
    episode = {"title_id": "e", "kind": "episode", "series_id": "gone"}
    found = validate_titles(_titles({"title_id": "t"}, {"title_id": "t"}, {"title_id": ""}, episode))
    assert found.counts == {"null_id": 1, "unknown_title": 1, "duplicate_title_id": 1}


def _csv(path: Path, rows: list[dict[str, Any]]) -> Path:
    with path.open("w", newline="") as stream:
        writer = csv.DictWriter(stream, rows[0], lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    return path


TEXT = {"event_id": "e", "member_id": "m", "at": NOW.isoformat(), "action": "play", "title_id": "t"}


def test_a_file_of_text_says_line_column_what_was_there_and_what_was_wanted(tmp_path: Path) -> None:
    rows = [TEXT | {"event_id": f"e{i}"} | row for i, row in enumerate([{}, {"at": "soon"}, {"action": "watch"}])]
    report = validate_files([_csv(tmp_path / "log.csv", rows)], now=NOW)
    at, action = (finding["examples"][0] for finding in report.to_json()["files"][0]["findings"])
    assert (at["row"], at["line"], at["column"], at["value"]) == (1, 3, "at", "soon")
    assert at["wanted"].startswith("RFC 3339")
    assert (action["line"], action["value"]) == (4, "watch")
    json.dumps(report.to_json())


def test_an_event_id_may_not_come_back_in_another_file(tmp_path: Path) -> None:
    one = _csv(tmp_path / "one.csv", [TEXT | {"event_id": "a"}, TEXT | {"event_id": "b"}])
    other = tmp_path / "other.parquet"
    write_parquet(_events({"event_id": "c"}, {"event_id": "a"}), other)
    report = validate_files([one, other], now=NOW)
    assert [file.findings.counts for file in report.files] == [{}, {"duplicate_event_id": 1}]
    assert report.files[1].findings.bad_N.tolist() == [False, True]


def test_bad_rows_go_to_quarantine_as_they_were_found(tmp_path: Path) -> None:
    rows = [TEXT | {"event_id": f"e{i}", "mood": "fine"} for i in range(3)]
    rows[1] |= {"at": "soon", "action": "watch"}
    path = _csv(tmp_path / "log.csv", rows)
    path.write_text(path.read_text() + "too,short\n")
    report = validate_files([path], now=NOW, quarantine=tmp_path / "aside")
    (aside,) = read_parquet(tmp_path / "aside").to_pylist()[:1]
    assert aside == {"reason": "wrong_type,unknown_action", "file": str(path), "row": 1, **rows[1], "raw": None}
    malformed = read_parquet(tmp_path / "aside").to_pylist()[1]
    assert (malformed["reason"], malformed["row"], malformed["raw"]) == ("wrong_type", 3, "too,short")
    assert report.to_json()["files"][0]["quarantine"] == str(report.files[0].quarantined)
    assert report.to_json()["files"][0]["columns_ignored"] == ["mood"]


def test_bad_rows_of_json_lines_and_parquet_keep_their_own_columns(tmp_path: Path) -> None:
    lines = tmp_path / "log.jsonl"
    lines.write_text(json.dumps(TEXT | {"member_id": 7}) + "\n" + json.dumps(TEXT | {"event_id": "f"}) + "\n")
    stored = tmp_path / "log.parquet"
    write_parquet(_events({"event_id": "g", "position": -1}).append_column("row", pa.array([9])), stored)
    validate_files([lines, stored], now=NOW, quarantine=tmp_path / "aside")
    first, second = (read_parquet(p).to_pylist() for p in sorted((tmp_path / "aside").iterdir()))
    assert [(row["member_id"], row["reason"]) for row in first] == [("7", "wrong_type")]
    assert [(row["position"], row["row"], row["original_row"]) for row in second] == [(-1, 0, 9)]


def test_events_are_held_against_titles_given_beside_them_or_apart(tmp_path: Path) -> None:
    write_parquet(TITLE_TABLE, tmp_path / "titles.parquet")
    log = _csv(tmp_path / "log.csv", [TEXT | {"title_id": "u"}])
    for report in (
        validate_files([log, tmp_path / "titles.parquet"], now=NOW),
        validate_files([log], now=NOW, titles_path=tmp_path / "titles.parquet"),
    ):
        assert report.to_json()["counts"] == {"unknown_title": 1}
    assert validate_files([log], now=NOW).ok


def test_the_table_that_a_file_holds_is_told_by_its_columns(tmp_path: Path) -> None:
    contracts = {"events": EVENTS, "titles": TITLES, "decisions": DECISIONS, "feedback": FEEDBACK}
    for name, schema in contracts.items():
        write_parquet(schema.empty_table(), tmp_path / f"{name}.parquet")
    report = validate_files([tmp_path / f"{name}.parquet" for name in contracts], now=NOW)
    for file in report.files:
        (example,) = file.findings.examples[Kind.UNREADABLE_FILE]
        assert example.wanted == f"{file.path.stem}, one a row"
        assert "no rows" in example.value


def test_decisions_and_feedback_have_rules_of_their_own(tmp_path: Path) -> None:
    item = {"title_id": "t", "score": 1.0, "position": 0, "propensity": 0.0, "source": "model", "explored": False}
    decision = {
        "decision_id": "d", "session_id": "s", "surface": "home", "at": NOW, "request": "{}", "candidates": ["t"],
        "candidate_scores": [1.0], "items": [item], "slate_propensity": 1.0, "policy": "greedy",
        "policy_version": "1", "policy_params": "{}", "explored": False, "seed": 1, "features": [],
        "served": None, "sequence_mark": 0, "num_events_visible": 0, "timings": [],
    }  # fmt: skip
    fine = decision | {"decision_id": "e", "items": [item | {"propensity": 1.0}]}
    write_parquet(pa.Table.from_pylist([decision, fine], schema=DECISIONS), tmp_path / "decisions.parquet")
    outcome = {"decision_id": "d", "feedback": "play", "value": float("nan"), "at": NOW, "predicted": False}
    write_parquet(pa.Table.from_pylist([outcome], schema=FEEDBACK), tmp_path / "feedback.parquet")
    report = validate_files(sorted(tmp_path.iterdir()), now=NOW)
    assert [file.contract for file in report.files] == ["decisions", "feedback"]
    assert [file.findings.counts for file in report.files] == [{"bad_value": 1}, {"bad_value": 1}]
    assert report.files[0].findings.bad_N.tolist() == [True, False]


def _shown(report: Report) -> str:
    console = Console(width=300)
    with console.capture() as capture:
        console.print(report.table())
    return capture.get()


def test_a_file_that_cannot_be_read_is_a_finding_and_the_others_are_still_checked(tmp_path: Path) -> None:
    (tmp_path / "cut.parquet").write_bytes(b"PAR1")
    (tmp_path / "alien.csv").write_text("colour,shape\nred,round\n")
    report = validate_files(
        [tmp_path / "cut.parquet", tmp_path / "alien.csv", _csv(tmp_path / "log.csv", [TEXT])], now=NOW
    )
    assert [file.findings.counts for file in report.files] == [{"unreadable_file": 1}, {"unreadable_file": 1}, {}]
    assert not report.ok
    assert "['colour', 'shape'] are of no table" in _shown(report)


def test_the_terminal_table_shows_kind_place_and_value(tmp_path: Path) -> None:
    report = validate_files([_csv(tmp_path / "log.csv", [TEXT | {"action": "[bold]watch"}])], now=NOW)
    line = next(line for line in _shown(report).splitlines() if "unknown_action" in line)
    assert "log.csv line 2" in line
    assert "[bold]watch" in line
    assert "Findings" not in _shown(validate_files([_csv(tmp_path / "good.csv", [TEXT])], now=NOW))


def test_a_million_rows_are_checked_in_seconds() -> None:
    num = 1_000_000
    table = _events({"played_fraction": 0.5, "properties": "{}"}).take(pa.array(np.zeros(num, dtype=np.int64)))
    table = table.set_column(0, EVENTS.field("event_id"), pa.array(np.char.mod("e%d", np.arange(num))))
    started = datetime.now(UTC)
    assert validate_events(table, now=NOW, titles=TITLE_TABLE).ok
    assert datetime.now(UTC) - started < timedelta(seconds=10)
