"""Files become tables of their contract; a bad cell is marked where it stands, a bad file is refused by name."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from foretaste.contracts.columns import DECISIONS, EVENTS, TITLES
from foretaste.sessions.read import UnreadableFileError, columns_of, pieces, read
from foretaste.sessions.sources import files_under

AT = datetime(2026, 1, 31, 18, 0, tzinfo=UTC)
EVENT: dict[str, Any] = {"event_id": "e1", "member_id": "m", "at": AT, "action": "play", "title_id": "t"}


def _write(path: Path, rows: list[dict[str, Any]]) -> Path:
    if path.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(rows), path)
    elif path.suffix in (".csv", ".tsv"):
        by = "," if path.suffix == ".csv" else "\t"
        lines = [by.join("" if v is None else str(v) for v in row.values()) for row in rows]
        path.write_text("\n".join([by.join(rows[0]), *lines]) + "\n")
    else:
        path.write_text("".join(json.dumps(row, default=datetime.isoformat) + "\n" for row in rows))
    return path


@pytest.mark.parametrize("suffix", [".parquet", ".csv", ".tsv", ".jsonl", ".ndjson", ".json"])
def test_every_format_gives_the_same_table(tmp_path: Path, suffix: str) -> None:
    rows = [EVENT | {"position": 3, "played_fraction": 0.25}, EVENT | {"event_id": "e2", "member_id": None}]
    rows[1] |= {"position": None, "played_fraction": None}
    found = read(_write(tmp_path / f"log{suffix}", rows), EVENTS)
    assert found.table.schema.names == EVENTS.names
    assert found.table.schema.types == EVENTS.types
    assert [{k: v for k, v in row.items() if k in rows[0]} for row in found.table.to_pylist()] == rows
    assert not any(bad.any() for bad in found.bad_N.values())
    assert found.missing == ()


@pytest.mark.parametrize(
    ("cell", "want"),
    [
        ("2026-01-31T18:00:00Z", AT),
        ("2026-01-31t19:00:00+01:00", AT),
        ("2026-01-31 18:00:00.000000z", AT),
        ("2026-01-31T18:00:00.123456789Z", AT.replace(microsecond=123456)),
        (str(round(AT.timestamp() * 1000)), AT),
        (str(round(AT.timestamp())), None),  # seconds
        (f"{AT.timestamp() * 1000:.1f}", None),  # no whole number
        ("2026-01-31T18:00:00", None),  # no offset
        ("2026-02-30T18:00:00Z", None),
        ("2026-01-31", None),
        ("yesterday", None),
    ],
)
@pytest.mark.parametrize("suffix", [".csv", ".jsonl", ".parquet"])
def test_times_are_rfc_3339_or_epoch_milliseconds_and_nothing_else(
    tmp_path: Path, suffix: str, cell: str, want: datetime | None
) -> None:
    path = _write(tmp_path / f"log{suffix}", [EVENT | {"at": cell}])
    found = read(path, EVENTS)
    assert found.table["at"].to_pylist() == [want]
    assert found.bad_N["at"].tolist() == [want is None]
    assert found.found(0, "at") == cell


def test_whole_numbers_in_json_and_parquet_are_milliseconds_and_times_without_a_zone_are_refused(
    tmp_path: Path,
) -> None:
    ms = round(AT.timestamp() * 1000)
    for suffix in (".jsonl", ".parquet"):
        assert read(_write(tmp_path / f"log{suffix}", [EVENT | {"at": ms}]), EVENTS).table["at"].to_pylist() == [AT]
    naive = _write(tmp_path / "naive.parquet", [EVENT | {"at": AT.replace(tzinfo=None)}])
    assert read(naive, EVENTS).bad_N["at"].tolist() == [True]


def test_a_bad_cell_does_not_disturb_its_neighbours_and_is_found_as_written(tmp_path: Path) -> None:
    path = tmp_path / "log.csv"
    path.write_text(
        "event_id,member_id,at,action,position,dwell_seconds\n"
        f"a,m,{AT.isoformat()},play,1.5,12\n"
        f"b,m,{AT.isoformat()},play,7,a while\n"
        f"c,m,{AT.isoformat()},play,99999999999,1e3\n"
    )
    found = read(path, EVENTS)
    assert found.table["position"].to_pylist() == [None, 7, None]
    assert found.table["dwell_seconds"].to_pylist() == [12.0, None, 1000.0]
    assert [found.found(i, "position") for i in (0, 2)] == ["1.5", "99999999999"]
    assert found.found(1, "dwell_seconds") == "a while"


def test_json_values_keep_their_types_and_an_object_is_taken_as_properties(tmp_path: Path) -> None:
    rows = [
        {"member_id": 7, "played_fraction": "0.5", "properties": {"rating": 4}},
        {"member_id": "m", "played_fraction": True, "properties": '{"rating": 5}'},
        {"member_id": "m", "played_fraction": 1, "position": 2.5},
    ]
    found = read(_write(tmp_path / "log.jsonl", [EVENT | row for row in rows]), EVENTS)
    assert found.bad_N["member_id"].tolist() == [True, False, False]
    assert found.bad_N["played_fraction"].tolist() == [True, True, False]
    assert found.bad_N["position"].tolist() == [False, False, True]
    assert found.table["properties"].to_pylist() == ['{"rating": 4}', '{"rating": 5}', None]


def test_rows_and_lines_are_counted_past_quoted_line_breaks_blank_rows_and_rows_of_the_wrong_width(
    tmp_path: Path,
) -> None:
    path = tmp_path / "log.csv"
    at = AT.isoformat()
    path.write_text(
        f'event_id,at,action,query\na,{at},search,"two\nlines"\n\nb,{at}\nc,{at},search,x\n"d\ne",{at},search,y,z\n'
        f"f,{at},search,w\n"
    )
    found = read(path, EVENTS)
    assert found.line_N is not None
    assert list(zip(found.table["event_id"].to_pylist(), found.row_N.tolist(), found.line_N.tolist(), strict=True)) == [
        ("a", 0, 2),
        ("c", 3, 6),
        ("f", 5, 9),
    ]
    assert [(m.row, m.line, m.wanted) for m in found.malformed] == [
        (2, 5, "4 cells, found 2"),
        (4, 7, "4 cells, found 5"),
    ]


def test_a_line_that_is_no_object_is_a_malformed_row_and_blank_lines_are_passed_over(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    good = json.dumps(EVENT | {"at": AT.isoformat()})
    path.write_text(f"{good}\n\n[1]\n{{oops\n{good}\n")
    found = read(path, EVENTS)
    assert found.row_N.tolist() == [0, 4]
    assert [(m.line, m.text) for m in found.malformed] == [(3, "[1]"), (4, "{oops")]


def test_pieces_of_a_file_together_are_the_file(tmp_path: Path) -> None:
    rows = [EVENT | {"event_id": f"e{i}", "query": "a\nb" if i % 3 else "c"} for i in range(10)]
    for suffix in (".parquet", ".jsonl"):
        path = _write(tmp_path / f"log{suffix}", rows)
        parts = list(pieces(path, EVENTS, piece_rows=3))
        assert [len(part.row_N) for part in parts] == [3, 3, 3, 1]
        assert [r for part in parts for r in part.row_N.tolist()] == list(range(10))
        assert pa.concat_tables([part.table for part in parts]) == read(path, EVENTS).table


def test_row_groups_know_which_rows_of_the_file_they_are(tmp_path: Path) -> None:
    path = tmp_path / "log.parquet"
    pq.write_table(pa.Table.from_pylist([EVENT | {"event_id": f"e{i}"} for i in range(10)]), path, row_group_size=4)
    (part,) = pieces(path, EVENTS, row_groups=[1, 2])
    assert part.row_N.tolist() == [4, 5, 6, 7, 8, 9]
    assert part.table["event_id"].to_pylist()[0] == "e4"


def test_lists_are_divided_by_a_bar_in_csv_and_a_missing_list_is_an_empty_one(tmp_path: Path) -> None:
    path = tmp_path / "titles.csv"
    path.write_text('title_id,kind,genres\na,movie,drama|crime\nb,movie,\nc,movie,"[""war"", 3]"\n')
    found = read(path, TITLES)
    assert found.table["genres"].to_pylist() == [["drama", "crime"], [], []]
    assert found.bad_N["genres"].tolist() == [False, False, True]
    assert found.table["artworks"].to_pylist() == [[], [], []]


def test_nested_decisions_are_read_from_json_and_a_misshapen_one_is_marked(tmp_path: Path) -> None:
    item = {"title_id": "t", "score": 1.0, "position": 0, "propensity": 0.5, "source": "model", "explored": False}
    path = _write(tmp_path / "d.jsonl", [{"decision_id": "d", "items": [item]}, {"decision_id": "e", "items": "t"}])
    found = read(path, DECISIONS)
    assert found.table["items"].to_pylist()[0] == [item]
    assert found.bad_N["items"].tolist() == [False, True]


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("log.txt", b"a", "suffix '.txt' is not known"),
        ("absent.csv", None, "there is no such file"),
        ("log.parquet", b"", "empty \\(0 bytes\\)"),
        ("log.parquet", b"PAR1 and then nothing", "not Parquet, truncated or damaged"),
        ("log.csv", b"", "empty \\(0 bytes\\)"),
        ("log.csv", b"event_id,at\na,b\nc", "truncated: the last row has 1 cells"),
        ("log.csv", b'event_id,at\na,b\nc,"d\n', "truncated: the quote"),
        ("log.csv", b'event_id,at\na,b\nc,"d""', "truncated: the quote"),
        ("log.csv", b'event_id,at\na,b\n"c,d\n', "truncated: the last row"),
        ("log.csv", b"event_id,event_id\n1,2\n", "header"),
        ("log.csv", b"\xff\xfe\x00a", "not UTF-8"),
        ("log.jsonl", b'{"event_id": "a"}\n{"event_id": "b', "truncated: line 2 breaks off"),
        ("log.json", b'[{"event_id": "a"}]', "a JSON array"),
    ],
)
def test_a_file_that_cannot_be_read_is_named_with_what_was_wanted(
    tmp_path: Path, name: str, content: bytes | None, said: str
) -> None:
    path = tmp_path / name
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UnreadableFileError, match=f"{name}: .*{said}.*; wanted .+"):
        read(path, EVENTS)


def test_a_truncated_parquet_file_is_refused_wherever_it_was_cut(tmp_path: Path) -> None:
    whole = _write(tmp_path / "whole.parquet", [EVENT | {"event_id": f"e{i}"} for i in range(1000)]).read_bytes()
    path = tmp_path / "cut.parquet"
    for keep in (5, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:keep])
        with pytest.raises(UnreadableFileError, match=r"cut\.parquet"):
            read(path, EVENTS)


def test_a_damaged_page_is_refused_by_the_name_of_the_file(tmp_path: Path) -> None:
    path = tmp_path / "log.parquet"
    table = pa.Table.from_pylist([EVENT | {"event_id": f"e{i * 7919}"} for i in range(1000)])
    pq.write_table(table, path, compression="zstd", use_dictionary=False, write_page_checksum=True)
    body = bytearray(path.read_bytes())
    body[200:260] = b"\0" * 60
    path.write_bytes(body)
    with pytest.raises(UnreadableFileError, match=r"log\.parquet: damaged"):
        read(path, EVENTS)


def test_text_that_is_not_utf_8_spoils_only_its_own_cell(tmp_path: Path) -> None:
    path = tmp_path / "log.csv"
    at = AT.isoformat().encode()
    path.write_bytes(b"event_id,at,action,query\na," + at + b",search,\xe9t\xe9\nb," + at + b",search,fine\n")
    found = read(path, EVENTS)
    assert found.bad_N["query"].tolist() == [True, False]
    assert found.table["query"].to_pylist() == [None, "fine"]
    assert found.found(0, "query") == "�t�"


def test_a_header_without_rows_is_an_empty_table_and_columns_are_known(tmp_path: Path) -> None:
    path = tmp_path / "log.csv"
    path.write_text("event_id,at,action,extra\n")
    found = read(path, EVENTS)
    assert (found.num_rows, found.ignored) == (0, ("extra",))
    assert columns_of(path) == ["event_id", "at", "action", "extra"]


def test_a_byte_order_mark_is_no_part_of_the_first_name(tmp_path: Path) -> None:
    for name, text in (
        ("log.csv", f"event_id,at,action\na,{AT.isoformat()},play\n"),
        ("log.jsonl", '{"event_id": "a"}'),
    ):
        (tmp_path / name).write_text(text, encoding="utf-8-sig")
        assert read(tmp_path / name, EVENTS).table["event_id"].to_pylist() == ["a"]


def test_unfinished_and_foreign_files_of_a_folder_are_passed_over(tmp_path: Path) -> None:
    for name in ("b.csv", "a.parquet", ".partial-1-c.parquet", "notes.md"):
        (tmp_path / name).touch()
    assert [Path(file.name).name for file in files_under(tmp_path)] == ["a.parquet", "b.csv"]
