"""Models are filed whole, found by name, and refused when their files are not those that were filed."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from foretaste.ops.bundles import fetch_bundle, file_bundle, find_bundle, promote, versions

AT = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


def _file(registry: Path, body: str, *, at: datetime = AT) -> str:
    with file_bundle(registry, "intent", at=at, about={"note": body}) as folder:
        (folder / "weights").write_text(body)
    return fetch_bundle(registry, "intent").version


def test_the_newest_filed_bundle_is_the_current_one(tmp_path: Path) -> None:
    first = _file(tmp_path, "one")
    second = _file(tmp_path, "two", at=AT + timedelta(days=1))
    assert versions(tmp_path, "intent") == [first, second]
    bundle = fetch_bundle(tmp_path, "intent")
    assert bundle.version == second
    assert (bundle.path / "weights").read_text() == "two"
    assert bundle.manifest["about"] == {"note": "two"}


def test_an_older_version_can_be_promoted_and_fetched_by_name(tmp_path: Path) -> None:
    first = _file(tmp_path, "one")
    second = _file(tmp_path, "two", at=AT + timedelta(days=1))
    promote(tmp_path, "intent", first)
    assert fetch_bundle(tmp_path, "intent").version == first
    assert fetch_bundle(tmp_path, "intent", second).version == second


def test_equal_files_have_one_fingerprint_whenever_they_are_filed(tmp_path: Path) -> None:
    _file(tmp_path / "a", "same")
    _file(tmp_path / "b", "same", at=AT + timedelta(days=3))
    prints = {fetch_bundle(tmp_path / x, "intent").fingerprint for x in "ab"}
    assert len(prints) == 1


def test_a_failed_filing_leaves_the_last_good_bundle(tmp_path: Path) -> None:
    first = _file(tmp_path, "one")
    with (
        pytest.raises(RuntimeError, match="disk"),
        file_bundle(tmp_path, "intent", at=AT + timedelta(days=1), about={}) as folder,
    ):
        (folder / "weights").write_text("half")
        raise RuntimeError("disk full")
    assert versions(tmp_path, "intent") == [first]
    assert fetch_bundle(tmp_path, "intent").version == first


def test_a_bundle_whose_files_changed_is_refused(tmp_path: Path) -> None:
    _file(tmp_path, "one")
    (fetch_bundle(tmp_path, "intent").path / "weights").write_text("other")
    with pytest.raises(ValueError, match="fingerprint"):
        fetch_bundle(tmp_path, "intent")


def test_an_unknown_version_and_an_untrained_model_say_so(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="train one first"):
        fetch_bundle(tmp_path, "intent")
    _file(tmp_path, "one")
    with pytest.raises(FileNotFoundError, match="no bundle intent nope"):
        fetch_bundle(tmp_path, "intent", "nope")
    with pytest.raises(FileNotFoundError, match="no bundle intent nope"):
        promote(tmp_path, "intent", "nope")


def test_a_bundle_is_found_by_its_fingerprint_also_when_it_is_no_longer_current(tmp_path: Path) -> None:
    first = _file(tmp_path, "one")
    _file(tmp_path, "two", at=AT + timedelta(days=1))
    old = fetch_bundle(tmp_path, "intent", first)
    assert find_bundle(tmp_path, "intent", old.fingerprint) == old
    with pytest.raises(FileNotFoundError, match="fingerprint 0123"):
        find_bundle(tmp_path, "intent", "0123")
