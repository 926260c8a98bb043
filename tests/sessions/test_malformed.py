"""Ten thousand malformed rows and hundreds of damaged files: refused by name or read as they are, never changed."""

from __future__ import annotations

import csv
import json
import math
import random
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from foretaste.contracts.columns import EVENTS, TITLES
from foretaste.contracts.events import ACTIONS, NEEDS_TITLE
from foretaste.ops.files import read_parquet, write_parquet
from foretaste.ops.tables import prepared_files, read_prepared
from foretaste.sessions.findings import Findings
from foretaste.sessions.prepare import PrepareConfig, prepare
from foretaste.sessions.quarantine import quarantined
from foretaste.sessions.read import Read, UnreadableFileError, pieces
from foretaste.sessions.rules import Titles
from foretaste.sessions.spread import here
from foretaste.sessions.validate import check_events
from foretaste.signals.interactions import runs

NOW = datetime(2026, 1, 31, tzinfo=UTC)
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
Row = dict[str, Any]
TITLES_TABLE = pa.Table.from_pylist(
    [
        {"title_id": "a", "kind": "movie", "genres": [], "artworks": []},
        {
            "title_id": "b",
            "kind": "movie",
            "genres": [],
            "artworks": [],
            "released_at": datetime(2026, 1, 10, tzinfo=UTC),
        },
    ],
    schema=TITLES,
)
KNOWN = Titles(TITLES_TABLE)
STRINGS = ("event_id", "member_id", "session_id", "title_id", "surface", "query", "device", "country", "decision_id")
ODD: tuple[Any, ...] = (
    *(None, "", " ", "x", "a", "null", "NaN", "1e999", "{", "{}", "[1]", "\u0000", "\ud7ff", "é" * 200),
    *("2026-01-05T00:00:00Z", "2026-02-30T00:00:00Z", "2026-01-05", "1970-01-01T00:00:00Z", "9999-12-31T23:59:59Z"),
    *(0, 1, -1, 2**31, 2**63 - 1, -(2**63), 10**17, 1767571200, 1767571200000, 1e308, -0.0, 0.5, 1.5, True, False),
    *([], [1], {}, {"a": {"b": [None]}}),
)


def _good(number: int) -> Row:
    at = datetime(2026, 1, 12, tzinfo=UTC) + timedelta(minutes=number % 9000)
    return {
        "event_id": f"e{number:06d}",
        "member_id": f"m{number % 7}",
        "session_id": "s",
        "at": at.isoformat(),
        "action": ("play", "detail", "impression", "search")[number % 4],
        "title_id": "ab"[number % 2],
        "position": number % 20,
        "dwell_seconds": 1.5,
        "played_fraction": 0.5,
        "properties": '{"rating": 4}',
    }


def _rows(num: int, seed: int) -> list[Row]:
    """Good rows of which one to three cells were replaced by something odd, taken away, or put beside others."""
    dice = random.Random(seed)
    rows = []
    for number in range(num):
        row = _good(number)
        for _ in range(dice.randint(1, 3)):
            row[dice.choice(EVENTS.names)] = dice.choice(ODD)
        if dice.random() < 0.1:
            row.pop(dice.choice(EVENTS.names), None)
        if dice.random() < 0.1:
            row["unknown"] = dice.choice(ODD)
        rows.append(row)
    return rows


def _wanted(row: Row) -> Row | None:
    """A JSON row as its contract has it, or nothing where a rule is broken: the rules in plain Python."""
    value: Row = {name: row.get(name) for name in EVENTS.names}
    if any(value[n] is not None and type(value[n]) is not str for n in (*STRINGS, "action")):
        return None
    ids = ("event_id", "member_id", "session_id", "title_id", "decision_id")
    if any(value[n] == "" for n in ids) or value["event_id"] is None:
        return None
    if value["member_id"] is None and value["session_id"] is None:
        return None
    if value["action"] not in ACTIONS or (value["action"] in NEEDS_TITLE and value["title_id"] is None):
        return None
    if type(value["position"]) not in (int, type(None)) or not 0 <= (value["position"] or 0) < 2**31:
        return None
    for name, most in (("dwell_seconds", math.inf), ("played_fraction", 1.0)):
        number = value[name]
        if type(number) not in (int, float, type(None)) or not 0 <= (number or 0) <= most:
            return None
        if type(number) is int and abs(number) > 2**53:
            return None
        value[name] = None if number is None else float(number)
    value["at"] = _time(value["at"])
    if value["at"] is None or value["at"] > NOW + timedelta(minutes=5):
        return None
    if value["title_id"] not in (None, "a", "b") or (
        value["title_id"] == "b" and value["at"] < datetime(2026, 1, 10, tzinfo=UTC)
    ):
        return None
    properties = value["properties"]
    if type(properties) is dict:
        value["properties"] = json.dumps(properties)
    elif properties is not None and not _is_object(properties):
        return None
    return value


def _is_object(text: Any) -> bool:
    try:
        return type(text) is str and type(json.loads(text, parse_constant=lambda _: 1 / 0)) is dict
    except (ValueError, ZeroDivisionError):
        return False


def _time(at: Any) -> datetime | None:
    if type(at) is int:
        return EPOCH + timedelta(milliseconds=at) if 10**11 <= abs(at) <= 253_402_300_799_999 else None
    if type(at) is not str or "T" not in at:
        return None
    try:
        return datetime.fromisoformat(at)
    except ValueError:
        return None


def _checked(path: Path) -> Iterator[tuple[Read, Findings]]:
    for piece in pieces(path, EVENTS, piece_rows=333):
        yield piece, check_events(piece, now=NOW, titles=KNOWN)


def test_of_ten_thousand_malformed_rows_each_is_refused_by_field_or_accepted_as_it_is(tmp_path: Path) -> None:
    refused = accepted = 0
    for number in range(20):
        rows = _rows(500, seed=number)
        path = tmp_path / f"{number}.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        for piece, findings in _checked(path):
            assert piece.missing == ()
            assert len(piece.malformed) + len(piece.row_N) == piece.num_rows
            bad = findings.bad_N
            values = piece.table.to_pylist()
            named = {(e.row, e.column) for examples in findings.examples.values() for e in examples}
            assert all(column in EVENTS.names for _, column in named)
            for row, is_bad, value in zip(piece.row_N.tolist(), bad.tolist(), values, strict=True):
                want = _wanted(rows[row])
                assert is_bad == (want is None), rows[row]
                if want is not None:
                    assert value == want
            reasons = findings.reasons(bad.nonzero()[0])
            assert all(reasons)
            assert quarantined(piece, findings).num_rows == findings.num_bad
            refused, accepted = refused + int(bad.sum()), accepted + int((~bad).sum())
    assert refused + accepted == 10_000
    assert refused > 5_000
    assert accepted > 500


def test_cells_of_csv_are_refused_or_read_as_they_stand(tmp_path: Path) -> None:
    for number in range(4):
        rows = _rows(500, seed=100 + number)
        path = tmp_path / f"{number}.csv"
        with path.open("w", newline="") as stream:
            writer = csv.DictWriter(stream, EVENTS.names, extrasaction="ignore")
            writer.writeheader()
            writer.writerows(
                [{k: json.dumps(v) if isinstance(v, dict | list) else v for k, v in r.items()} for r in rows]
            )
        with path.open(newline="") as stream:
            cells = list(csv.DictReader(stream))
        total = 0
        for piece, findings in _checked(path):
            total += piece.num_rows
            for row, is_bad, value in zip(
                piece.row_N.tolist(), findings.bad_N.tolist(), piece.table.to_pylist(), strict=True
            ):
                if is_bad:
                    continue
                for name in (*STRINGS, "action", "properties"):
                    assert (value[name] or "") == cells[row][name]
                for name in ("position", "dwell_seconds", "played_fraction"):
                    assert (value[name] is None) == (cells[row][name] == "")
                    assert value[name] is None or float(cells[row][name]) == value[name]
                assert value["at"] == _time(int(t) if (t := cells[row]["at"]).isdigit() else t.replace(" ", "T"))
        assert total == 500


def _damaged(dice: random.Random, body: bytes) -> bytes:
    how, place = dice.randrange(5), dice.randrange(1, len(body))
    if how == 0:
        return body[:place]
    if how == 1:
        return body[:place] + bytes([dice.randrange(256)]) + body[place + 1 :]
    if how == 2:
        return body[:place] + dice.randbytes(dice.randint(1, 40)) + body[place:]
    if how == 3:
        return body[place:]
    return (
        body.decode("latin-1").encode("utf-16")
        if dice.random() < 0.3
        else body[:place] + b"\xff\xfe\x00" + body[place:]
    )


@pytest.mark.parametrize("suffix", [".parquet", ".csv", ".jsonl"])
def test_a_damaged_file_is_refused_by_name_or_its_rows_reconcile(tmp_path: Path, suffix: str) -> None:
    dice = random.Random(suffix)
    whole = tmp_path / f"whole{suffix}"
    rows = [_good(number) for number in range(40)]
    if suffix == ".parquet":
        table = pa.Table.from_pylist([row | {"at": datetime.fromisoformat(row["at"])} for row in rows], schema=EVENTS)
        write_parquet(table, whole)
    elif suffix == ".csv":
        with whole.open("w", newline="") as stream:
            writer = csv.DictWriter(stream, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
    else:
        whole.write_text("".join(json.dumps(row) + "\n" for row in rows))
    body, refused, unnamed = whole.read_bytes(), 0, 0
    for number in range(300):
        path = tmp_path / f"{number}{suffix}"
        path.write_bytes(_damaged(dice, body))
        try:
            for piece, findings in _checked(path):
                if piece.missing:
                    assert findings.bad_N.all()
                    continue
                good = int((~findings.bad_N).sum())
                assert good + findings.num_bad == piece.num_rows
                assert quarantined(piece, findings).num_rows == findings.num_bad
        except UnreadableFileError as error:
            unnamed += str(path) not in str(error)
            refused += 1
    assert refused > 0
    assert unnamed == 0


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"at": pa.array([1.5] * 3)}, "wrong_type"),
        ({"position": pa.array(["1", "2", "x"])}, "wrong_type"),
        ({"event_id": pa.array([1, 2, 3])}, "wrong_type"),
        ({"dwell_seconds": pa.array([math.nan, math.inf, -1.0])}, "bad_value"),
        ({"properties": pa.array([[1], [2], [3]])}, "wrong_type"),
        ({"position": pa.array([2**40, -1, 2**31])}, "wrong_type"),
        ({"at": pa.array([datetime(2026, 1, 1)] * 3)}, "wrong_type"),
    ],
)
def test_columns_of_other_types_are_set_aside_by_prepare_with_their_reason(
    tmp_path: Path, change: dict[str, pa.Array], said: str
) -> None:
    raw, out = tmp_path / "raw", tmp_path / "out"
    write_parquet(TITLES_TABLE, raw / "titles.parquet")
    rows = [_good(number) | {"at": datetime.fromisoformat(_good(number)["at"])} for number in range(6)]
    write_parquet(pa.Table.from_pylist(rows[:3], schema=EVENTS), raw / "events" / "0.parquet")
    bad = pa.Table.from_pylist(rows[3:], schema=EVENTS)
    for name, values in change.items():
        bad = bad.set_column(bad.column_names.index(name), name, values)
    write_parquet(bad, raw / "events" / "1.parquet")
    config = PrepareConfig(num_buckets=1, max_bad_share=1.0)
    manifest = prepare(raw, out, config, now=NOW, collapse=runs, spread=here)
    counts = manifest["counts"]
    assert (counts["events"], counts["bad"]) == (6, 3)
    aside = [row for path in prepared_files(out, "quarantine") for row in read_parquet(path).to_pylist()]
    assert {reason for row in aside for reason in row["reason"].split(",")} >= {said}
    assert len(aside) == 3
    assert read_prepared(out, "acts").num_rows + read_prepared(out, "impressions").num_rows == 3
