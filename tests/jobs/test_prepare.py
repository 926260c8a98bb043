"""The verb: small runs need no Ray, what the service was sent is prepared too, and who was deleted stays deleted."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from foretaste.contracts.columns import LOGGED_EVENTS, conform
from foretaste.feedback.tombstones import TOMBSTONES_FILE, Tombstones
from foretaste.jobs.prepare import prepare
from foretaste.jobs.settings import Settings
from foretaste.ops.files import write_parquet
from foretaste.ops.tables import read_prepared
from foretaste.testing.builders import events_table, random_events, titles_table

TITLES = titles_table(10)
EVENTS = random_events(TITLES, members=8, guests=1, per_member=20)


def workspace(root: Path, **more: object) -> Settings:
    settings = Settings.model_validate({"workspace": root, "prepare": {"num_buckets": 2, "max_bad_share": 1, **more}})
    write_parquet(TITLES, settings.tables.raw / "titles.parquet")
    write_parquet(EVENTS, settings.tables.raw / "events" / "0.parquet")
    return settings


def test_a_small_run_is_done_without_ray(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("foretaste.jobs.prepare.cluster", lambda _: pytest.fail("Ray was started"))
    settings = workspace(tmp_path)
    first = prepare(settings)
    assert first["counts"]["events"] == EVENTS.num_rows
    assert "tables" not in first
    assert prepare(settings)["run"]["mode"] == "nothing"
    assert prepare(settings, full=True)["run"]["mode"] == "full"


@pytest.mark.parametrize("served", [True, False])
def test_what_the_service_was_sent_is_prepared_too(tmp_path: Path, served: bool) -> None:
    settings = workspace(tmp_path, served=served)
    prepare(settings)
    at = datetime(2026, 1, 20, tzinfo=UTC)
    sent = events_table([{"event_id": "sent", "member_id": "new", "at": at, "action": "play", "title_id": "t0001"}])
    logged = sent.append_column("actor_id", sent["member_id"]).append_column("received_at", sent["at"])
    logged = logged.append_column("sequence", [[1]])
    write_parquet(conform(logged, LOGGED_EVENTS, what="log"), settings.tables.serving / "events" / "000001.parquet")
    found = prepare(settings)
    assert found["run"]["mode"] == ("incremental" if served else "nothing")
    assert ("new" in read_prepared(settings.tables.prepared, "acts")["member_id"].to_pylist()) == served


def test_nothing_is_left_of_a_member_that_asked_to_be_deleted(tmp_path: Path) -> None:
    settings = workspace(tmp_path)
    prepare(settings)
    late = int((datetime(2026, 1, 1, tzinfo=UTC) + timedelta(days=90)).timestamp()) * 1_000_000
    Tombstones(settings.tables.serving / TOMBSTONES_FILE).add("m003", late)
    found = prepare(settings)
    theirs = EVENTS["member_id"].to_pylist().count("m003")
    assert 0 < found["counts"]["deleted"] <= theirs
    for table in ("acts", "interactions", "impressions"):
        column = "member_id" if table == "acts" else "actor_id"
        assert "m003" not in read_prepared(settings.tables.prepared, table)[column].to_pylist()
    assert prepare(settings, full=True)["counts"]["deleted"] == theirs
