"""Intents of all members as of an instant: equal to what the service says then, whole, and of nobody who is deleted."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from foretaste.contracts.catalogue import catalogue
from foretaste.contracts.columns import MEMBER_SEGMENTS, member_intents
from foretaste.contracts.segments import PUBLISHED, Segments, nearest
from foretaste.contracts.sessions import SessionRule
from foretaste.contracts.wire import IntentRequest
from foretaste.feedback.session_log import SessionLogConfig, microseconds
from foretaste.feedback.sqlite_session_log import SqliteSessionLog
from foretaste.feedback.tombstones import TOMBSTONES_FILE, Tombstones
from foretaste.jobs import segments
from foretaste.jobs.backfill import backfill
from foretaste.jobs.export import model_of, rows_of
from foretaste.jobs.intents import intents
from foretaste.jobs.segments import matrix, with_truth
from foretaste.jobs.settings import Settings, load
from foretaste.models.intent import IntentPrediction
from foretaste.ops.bundles import Bundle, fetch_bundle
from foretaste.ops.files import read_json, read_parquet, write_parquet
from foretaste.serving.config import ServiceConfig
from foretaste.serving.service import open_service
from foretaste.sessions.spread import Item, Spread, Work, here, on_ray
from foretaste.signals.acts import acts_of_one
from foretaste.testing.builders import START, interactions_table, prepared_folder, random_events, titles_table
from foretaste.testing.bundles import file_intent

TITLES = titles_table(30)
MEMBERS = 24
AS_OF = START + timedelta(days=4)


def acts(days: float = 7.0) -> pa.Table:
    made = random_events(TITLES, members=MEMBERS, days=days, per_member=40)
    made = made.filter(pc.not_equal(made["action"], "impression"))
    return made.sort_by([("member_id", "ascending"), ("session_id", "ascending"), ("at", "ascending")])


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Acts of a week and an untrained model; tests read it and write elsewhere."""
    root = tmp_path_factory.mktemp("intents")
    prepared_folder(root / "prepared", interactions_table([("m000", 0.5, "t0001")]), TITLES, acts=acts(), num_buckets=3)
    file_intent(root / "registry", TITLES, at=datetime(2026, 1, 9, tzinfo=UTC), seed=3)
    return root


def settings(workspace: Path, *more: str) -> Settings:
    return load(None, [f"workspace={workspace}", "segments.num=3", "segments.least_members=2", *more])


def run(workspace: Path, out: Path, *, segments: int | None = None, as_of: datetime | None = AS_OF) -> dict[str, Any]:
    stamp = None if as_of is None else as_of.isoformat()
    return intents(settings(workspace), as_of=stamp, out=out, segments=segments, spread=here)


def test_a_row_is_what_the_model_says_of_what_the_member_had_done_before(workspace: Path, tmp_path: Path) -> None:
    done = run(workspace, tmp_path / "out")
    found = read_parquet(tmp_path / "out" / "members")
    known = model_of(workspace / "registry", workspace / "prepared", done["model"])
    assert known.intent is not None
    asof = microseconds(AS_OF)
    rows = pa.table(acts().columns, names=acts().column_names).to_pylist()
    titles = catalogue(TITLES)
    for row in found.to_pylist():
        own = [one | {"at": microseconds(one["at"])} for one in rows if one["member_id"] == row["member_id"]]
        seen = acts_of_one(own, asof=asof, catalogue=titles, rule=SessionRule())
        said = known.intent.predict(seen.histories(), np.array([asof]))
        assert row["z"] == pytest.approx(said.z_BD[0].tolist(), abs=1e-5)
        assert row["attention"] == pytest.approx(said.attention_BI[0].tolist(), abs=1e-5)
        assert sum(row["attention"]) == pytest.approx(1, abs=1e-5)
        for head in said.heads:
            assert row[f"p_{head}"] == pytest.approx(said.intents[head][0].tolist(), abs=1e-5)
            assert row[f"top_{head}"] == said.classes[head][int(np.argmax(row[f"p_{head}"]))]
        assert row["num_events"] == len([one for one in own if one["at"] < asof])
        assert microseconds(row["newest_event_at"]) == max(one["at"] for one in own if one["at"] < asof)
        assert row["layout"] in {"discover", "continue"}
    expected = {one["member_id"] for one in rows if one["member_id"] and one["at"] < AS_OF}
    assert set(found["member_id"].to_pylist()) == expected
    heads = {head: tuple(of) for head, of in done["heads"].items()}
    assert found.schema.equals(member_intents(done["width"], heads))
    assert done["members"] == found.num_rows == sum(part["rows"] for part in done["parts"])
    assert all((tmp_path / "out" / part["file"]).is_file() for part in done["parts"])


def test_what_comes_after_the_instant_changes_no_row(workspace: Path, tmp_path: Path) -> None:
    run(workspace, tmp_path / "all", segments=0)
    earlier = acts().filter(pc.less(acts()["at"], pa.scalar(AS_OF)))
    interactions = interactions_table([("m000", 0.5, "t0001")])
    prepared_folder(tmp_path / "ws" / "prepared", interactions, TITLES, acts=earlier, num_buckets=3)
    (tmp_path / "ws" / "registry").symlink_to(workspace / "registry")
    run(tmp_path / "ws", tmp_path / "some", segments=0)
    assert read_parquet(tmp_path / "all" / "members").equals(read_parquet(tmp_path / "some" / "members"))
    assert read_parquet(tmp_path / "all" / "members")["segment"].null_count == read_parquet(tmp_path / "all").num_rows
    assert not (tmp_path / "all" / "segments.json").exists()


def test_the_service_says_the_same_at_that_instant_and_names_the_published_segment(
    workspace: Path, tmp_path: Path
) -> None:
    root = tmp_path / "ws"
    root.mkdir()
    for name in ("prepared", "registry"):
        (root / name).symlink_to(workspace / name)
    run(root, root / "intents", as_of=None)
    asof = max(acts()["at"].to_pylist()) + timedelta(microseconds=1)
    log = SqliteSessionLog(root / "serving" / "sessions.db", SessionLogConfig(durable=False))
    backfill(root / "prepared", log, newest=200, received_at=asof, advance=lambda _: None)
    log.close()
    service = open_service(ServiceConfig(workspace=root, features_repo=tmp_path), clock=lambda: asof)
    try:
        for row in read_parquet(root / "intents" / "members").to_pylist()[:8]:
            said = service.intents(IntentRequest(member_id=row["member_id"], session_id="s"))
            assert said.intents is not None
            assert said.attention is not None
            assert list(said.attention.values()) == pytest.approx(row["attention"], abs=1e-5)
            for head, shares in said.intents.items():
                assert list(shares.values()) == pytest.approx(row[f"p_{head}"], abs=1e-5)
            assert said.layout is not None
            assert said.layout.hint == row["layout"]
            assert said.layout.probability == pytest.approx(row["layout_probability"], abs=1e-5)
            assert said.segment is not None
            assert said.segment.number == row["segment"]
            assert said.segment.distance == pytest.approx(row["segment_distance"], abs=1e-4)
            assert said.segment.as_of == asof
    finally:
        service.close()


def test_segments_are_those_of_the_centres_and_everything_is_written(workspace: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    run(workspace, out)
    members, said = read_parquet(out / "members"), read_json(out / "segments.json")
    published = Segments.model_validate(said[PUBLISHED])
    number_B, distance_B = nearest(matrix(members["z"]), published.centre_KD)
    assert members["segment"].to_pylist() == number_B.tolist()
    table = read_parquet(out / "segments.parquet")
    assert table.schema.equals(MEMBER_SEGMENTS)
    assert table["member_id"].to_pylist() == members["member_id"].to_pylist()
    assert table["distance"].to_pylist() == pytest.approx(distance_B.tolist())
    assert [one["members"] for one in said["segments"]] == np.bincount(number_B, minlength=3).tolist()
    assert [one["label"] for one in said["segments"]] == list(published.labels)
    assert set(said["stability"]) == {"seeds", "halves", "halves_shuffled"}
    assert said["truth"] is None
    html = (out / "segments.html").read_text()
    assert html.count("data:image/svg+xml") == 2
    assert "http" not in html.replace("http-equiv", "").split("</style>")[1].split("data:image")[0]
    assert {path.name for path in out.iterdir()} == {
        "manifest.json", "members", "segments.json", "segments.parquet", "segments.html",
    }  # fmt: skip
    again = tmp_path / "again"
    run(workspace, again)
    assert read_parquet(again / "segments.parquet").equals(table)


def test_deleted_members_and_guests_are_left_out(workspace: Path, tmp_path: Path) -> None:
    root = tmp_path / "ws"
    root.mkdir()
    for name in ("prepared", "registry"):
        (root / name).symlink_to(workspace / name)
    Tombstones(root / "serving" / TOMBSTONES_FILE).add("m003", microseconds(AS_OF))
    run(root, tmp_path / "out")
    found = read_parquet(tmp_path / "out" / "members")["member_id"].to_pylist()
    assert len(found) == MEMBERS - 1
    assert "m003" not in found
    assert not [name for name in found if name.startswith("guest:")]


def test_a_run_that_fails_leaves_the_earlier_folder_as_it_was(
    workspace: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    run(workspace, out)
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*")}

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(segments, "write_member_segments", full)
    with pytest.raises(OSError, match="No space"):
        run(workspace, out)
    assert {path: path.stat().st_mtime_ns for path in out.rglob("*")} == before
    assert list(tmp_path.iterdir()) == [out]


def test_bad_calls_say_what_is_wrong_and_touch_nothing(workspace: Path, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "letter.txt").write_text("dear")
    with pytest.raises(ValueError, match="did not write"):
        run(workspace, tmp_path / "mine")
    assert (tmp_path / "mine" / "letter.txt").read_text() == "dear"
    with pytest.raises(ValueError, match="no member did anything before 2025"):
        run(workspace, tmp_path / "out", as_of=START - timedelta(days=30))
    with pytest.raises(ValueError, match="--as-of 2026-01-05T00:00:00: wanted a time with its offset"):
        intents(settings(workspace), as_of="2026-01-05T00:00:00", out=tmp_path / "out")
    with pytest.raises(ValueError, match=r"segments\.num is 500, but only"):
        run(workspace, tmp_path / "out", segments=500)
    with pytest.raises(FileNotFoundError, match="foretaste prepare"):
        intents(settings(tmp_path / "nowhere"))
    assert {path.name for path in tmp_path.iterdir()} == {"mine"}


def test_a_model_that_tells_nobody_apart_gives_rows_without_segments(
    workspace: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(segments, "drawn", lambda *_, **__: np.zeros((5, 8), dtype=np.float32))
    done = run(workspace, tmp_path / "out")
    assert "no segments" in capsys.readouterr().err
    assert done["segments"] is None
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"manifest.json", "members"}
    assert read_parquet(tmp_path / "out" / "members")["segment"].null_count == done["members"]


def test_a_model_that_learned_from_later_choices_is_said_to(
    workspace: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    fetch = fetch_bundle
    for until in (AS_OF - timedelta(days=1), AS_OF + timedelta(days=1)):
        about = {"prepared": {"repeats": True}, "trained_until": until.isoformat()}

        def of_then(registry: Path, name: str, about: dict[str, Any] = about) -> Bundle:
            found = fetch(registry, name)
            return replace(found, manifest=found.manifest | {"about": about})

        monkeypatch.setattr("foretaste.jobs.intents.fetch_bundle", of_then)
        done = run(workspace, tmp_path / "out", segments=0)
        assert done["trained_until"] == until.isoformat()
        assert ("has learned from choices up to" in capsys.readouterr().err) == (until > AS_OF)


def test_rows_of_a_model_without_heads_can_be_read_again(tmp_path: Path) -> None:
    none_BX, z_BD = np.zeros((2, 0), dtype=np.float32), np.zeros((2, 4), dtype=np.float32)
    said = IntentPrediction(none_BX, {}, {}, none_BX, (), z_BD, z_BD)
    when = pa.array([AS_OF, AS_OF])
    about = {"member_id": ["a", "b"], "as_of": when, "model": ["m", "m"], "num_events": [1, 2], "newest_event_at": when}
    write_parquet(rows_of(said, about), tmp_path / "rows.parquet")
    found = read_parquet(tmp_path / "rows.parquet")
    assert found.schema.equals(member_intents(4, {}))
    assert found["layout"].null_count == 2


def test_truth_is_compared_with_the_newest_session_before_the_instant(tmp_path: Path) -> None:
    members = pa.table({"member_id": [f"m{n}" for n in range(40)], "segment": pa.array([n % 2 for n in range(40)])})
    sessions = [
        {"member_id": f"m{n}", "guest": False, "started_at": AS_OF + timedelta(days=day), "genre": genre, "kind": None}
        for n in range(40)
        for day, genre in ((-2, "x"), (-1, "ab"[n % 2]), (1, "y"))
    ]
    write_parquet(pa.Table.from_pylist(sessions), tmp_path / "sessions" / "part.parquet")
    taste = [{"member_id": f"m{n}", "taste": [0.1, 0.9]} for n in range(40)]
    write_parquet(pa.Table.from_pylist(taste), tmp_path / "members" / "part.parquet")
    found = with_truth(tmp_path, members, asof=AS_OF)
    assert found is not None
    assert found["members"] == 40
    assert found["adjusted_mutual_information"]["genre"] == pytest.approx(1.0)
    assert found["adjusted_mutual_information"]["taste"] == pytest.approx(0.0)
    assert with_truth(tmp_path / "none", members, asof=AS_OF) is None


@pytest.mark.cluster
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # Ray Data trips over its own on making a context
def test_tasks_of_ray_write_the_same_rows(workspace: Path, tmp_path: Path, local_ray: None) -> None:
    asked: list[Item] = []

    def spread(items: Any, work: Work) -> Any:
        asked.extend(items)
        yield from on_ray(items, work)

    run(workspace, tmp_path / "here")
    by_ray: Spread = spread
    intents(settings(workspace), as_of=AS_OF.isoformat(), out=tmp_path / "ray", spread=by_ray)
    assert len(asked) == 6  # three buckets, twice
    one, other = (read_parquet(tmp_path / name / "members") for name in ("here", "ray"))
    assert one["member_id"].equals(other["member_id"])
    assert matrix(one["z"]) == pytest.approx(matrix(other["z"]), abs=1e-6)
    assert one["segment"].equals(other["segment"])
