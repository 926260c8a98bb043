"""`foretaste parity` as one calls it: what it compares, what it counts, and how it ends."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pytest
import torch

from foretaste.cli import main
from foretaste.contracts.wire import EventsRequest, RecommendRequest
from foretaste.feedback.decision_log import DecisionLog, DecisionLogConfig
from foretaste.feedback.decision_target import SHIPPED
from foretaste.feedback.event_log import EVENTS_FOLDER, EventLog
from foretaste.feedback.session_log import open_session_log
from foretaste.feedback.tombstones import TOMBSTONES_FILE, Tombstones
from foretaste.jobs.parity import DELETED, NOT_ASKED, NOT_SERVED, first_of_each, parity, parts
from foretaste.jobs.parity_buckets import Buckets
from foretaste.jobs.settings import Settings
from foretaste.ops.files import parquet_files, read_parquet, write_parquet
from foretaste.serving.app import view_source
from foretaste.serving.service import open_service
from foretaste.sessions.spread import here

N = 40


@pytest.fixture(scope="module")
def served(make: Callable[..., Any], tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Some answers of members and guests with slow views, half of them with the values that were served."""
    made = make(tmp_path_factory.mktemp("verb"), session_log={"durable": False})
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    now = datetime.now(UTC)
    for share in (1.0, 0.0):
        serving = made.settings.serving.model_copy(update={"audit_share": share})
        config = made.service.model_copy(update={"serving": serving})
        with closing(open_service(config, source=view_source(config))) as service:
            for number in range(N):
                who: dict[str, Any] = {"member_id": made.world.members[number % 5], "session_id": "s"}
                who = who if number % 4 else {"session_id": f"g{number % 8}"}
                event = who | {"event_id": f"{share}-{number}", "action": "play", "title_id": made.world.titles[number]}
                event["at"] = (now - timedelta(minutes=number)).isoformat()
                service.accept(EventsRequest.model_validate({"events": [event]}))
                service.recommend(RecommendRequest.model_validate(who | {"k": 3}))
    torch.set_num_threads(threads)
    return made


def options(made: Any, *more: str) -> list[str]:
    settings = made.settings
    where = ["--workspace", str(settings.tables.root), "--set", f"features_repo={settings.features_repo}"]
    return ["parity", "--json", *where, *more]


def lose_events(made: Any) -> None:
    for part in parquet_files(made.settings.tables.serving / EVENTS_FOLDER):
        rows = read_parquet(part)
        write_parquet(rows.filter(pc.not_equal(rows["event_id"], "1.0-5")), part)


def test_all_that_was_served_is_compared_and_the_rest_is_counted(served: Any) -> None:
    found = parity(served.settings, spread=here)
    assert (found["ok"], found["decisions"], found["mismatches"], found["left_out"]) == (True, N, {}, {})
    assert found["set_aside"] == {NOT_SERVED: N}
    assert found["compared"]["values"] == sum(found["compared"]["groups"].values())
    assert found["failed_inputs"] == found["fallbacks"] == {}
    few = parity(served.settings, sample=0.5, spread=here)
    assert 5 < few["decisions"] < N - 5
    assert few["decisions"] + few["set_aside"][NOT_SERVED] + few["set_aside"][NOT_ASKED] == 2 * N
    assert parity(served.settings, limit=7, spread=here)["decisions"] == 7
    later = (datetime.now(UTC) + timedelta(hours=1)).isoformat()
    none = parity(served.settings, since=later, spread=here)
    assert (none["ok"], none["decisions"], none["set_aside"]) == (False, 0, {NOT_ASKED: 2 * N}), "no proof of nothing"


def test_decisions_that_are_only_at_their_target_are_compared_too(served: Any, tmp_path: Path) -> None:
    folder = served.settings.tables.serving / "decisions"
    shutil.copytree(folder, tmp_path / "before")
    config = DecisionLogConfig(target=(tmp_path / "target").as_uri(), keep_days=0)
    serving = served.settings.serving.model_copy(update={"decision_log": config})
    with closing(DecisionLog(folder, config, clock=lambda: datetime.now(UTC))) as log:
        assert log.shipper is not None
        assert log.shipper.ship({}) > 0
        assert not list(folder.glob("*.parquet"))
    found = parity(served.settings.model_copy(update={"serving": serving}), spread=here)
    shutil.copytree(tmp_path / "before", folder, dirs_exist_ok=True)
    (folder / SHIPPED).unlink()
    assert (found["ok"], found["decisions"], found["set_aside"]) == (True, N, {NOT_SERVED: N})


def test_decisions_of_deleted_members_are_set_aside(served: Any) -> None:
    path = served.settings.tables.serving / TOMBSTONES_FILE
    Tombstones(path).add(served.world.members[1], round(datetime.now(UTC).timestamp() * 1e6))
    found = parity(served.settings, spread=here)
    path.unlink()
    assert found["ok"]
    assert found["decisions"] == N - found["set_aside"][DELETED] // 2
    assert found["set_aside"][DELETED] > 4


def test_events_that_nobody_ships_are_waited_for_and_not_taken_for_lost(
    served: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("foretaste.jobs.parity.SHIPPED_WITHIN_SECONDS", 0.3)
    serving = served.settings.tables.serving
    with closing(open_session_log(served.settings.serving.session_log, serving)) as log:
        event = {"event_id": "waits", "member_id": "m", "at": 1, "action": "browse"}
        log.append([event], received_at=datetime.now(UTC))
    with (
        EventLog(serving / EVENTS_FOLDER)._alone() as held,
        pytest.raises(ConnectionError, match="wait to be shipped"),
    ):
        assert held
        parity(served.settings, spread=here)
    assert parity(served.settings, spread=here)["ok"]


def test_nothing_is_left_behind_but_the_answer(served: Any) -> None:
    root = served.settings.tables.root
    before = sorted(path.name for path in root.iterdir())
    parity(served.settings, spread=here)
    assert sorted(path.name for path in root.iterdir()) == before


@pytest.mark.parametrize(
    ("asked", "message"),
    [({"sample": 0.0}, "--sample 0.0"), ({"sample": 1.5}, "--sample 1.5"), ({"since": "2026-01-01"}, "offset")],
)
def test_a_share_or_a_time_that_is_none_is_refused(served: Any, asked: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        parity(served.settings, spread=here, **asked)


def test_without_decisions_it_says_what_makes_them(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="foretaste serve"):
        parity(Settings(workspace=tmp_path), spread=here)


def test_buckets_hold_every_row_once_and_an_actor_in_one(tmp_path: Path) -> None:
    from foretaste.contracts.columns import LOGGED_EVENTS

    at = datetime(2026, 1, 1, tzinfo=UTC)
    row: dict[str, Any] = dict.fromkeys(LOGGED_EVENTS.names) | {"received_at": at, "at": at, "action": "play"}
    rows = [row | {"actor_id": f"m{n % 17}", "event_id": f"e{n}", "sequence": n} for n in range(200)]
    tables = [pa.Table.from_pylist(rows[first : first + 50], schema=LOGGED_EVENTS) for first in range(0, 200, 50)]
    assert Buckets(tmp_path, 5).write("events", tables, actor=lambda table: table["actor_id"]) == 200
    found = [set(read_parquet(path)["actor_id"].to_pylist()) for path in parquet_files(tmp_path)]
    assert len(found) > 1
    assert sum(len(actors) for actors in found) == 17
    assert sum(read_parquet(path).num_rows for path in parquet_files(tmp_path)) == 200


def test_of_an_event_that_was_shipped_twice_the_smallest_sequence_counts(tmp_path: Path) -> None:
    from foretaste.contracts.columns import LOGGED_EVENTS

    at = datetime(2026, 1, 1, tzinfo=UTC)
    row: dict[str, Any] = dict.fromkeys(LOGGED_EVENTS.names) | {"received_at": at, "at": at, "action": "play"}
    rows = [row | {"actor_id": "m", "event_id": f"e{n % 2}", "sequence": 9 - n} for n in range(4)]
    for number, one in enumerate(rows):
        write_parquet(pa.Table.from_pylist([one], schema=LOGGED_EVENTS), tmp_path / f"{number}.parquet")
    whole = pa.concat_tables(parts(tmp_path))
    assert whole.num_rows == 4
    assert sorted(first_of_each(whole)["sequence"].to_pylist()) == [6, 7]
    assert list(parts(tmp_path / "none")) == []


@pytest.mark.slow
@pytest.mark.cluster
@pytest.mark.filterwarnings("default")
def test_the_command_ends_with_1_where_anything_differs(
    served: Any, local_ray: None, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(options(served)) == 0
    good = json.loads(capsys.readouterr().out)
    assert (good["decisions"], good["ok"]) == (N, True)
    lose_events(served)
    assert main(options(served)) == 1
    streams = capsys.readouterr()
    bad = json.loads(streams.out)
    assert not bad["ok"]
    assert bad["mismatches"]["decision.num_events_visible"]["example"]["decision_id"] in streams.err
    assert bad["decisions"] == N
