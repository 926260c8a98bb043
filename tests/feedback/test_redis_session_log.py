"""The session log in a real Redis keeps the contract of the one in SQLite, also as a cluster."""

from __future__ import annotations

import functools
import time
import uuid
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import redis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from foretaste.feedback.session_log import DAY_US, LogKind, open_session_log
from foretaste.feedback.sqlite_session_log import SqliteSessionLog
from foretaste.testing.contract_session_log import CLAUSES
from foretaste.testing.redis_server import RedisServer, free_port, open_redis_log, redis_server
from foretaste.testing.session_log_events import CONFIG, NOW, NOW_US, K, drain, event


def connect(url: str) -> Any:
    return redis.Redis.from_url(url, decode_responses=True)


@pytest.fixture
def prefix() -> str:
    return f"t-{uuid.uuid4().hex}"


@pytest.fixture(scope="module")
def cluster_url(redis_url: str) -> Iterator[str]:
    """A cluster of one node that holds every slot: it refuses what touches two slots at once."""
    with redis_server("--cluster-enabled", "yes", "--cluster-port", str(free_port())) as url:
        with closing(connect(url)) as client:
            client.execute_command("CLUSTER ADDSLOTSRANGE 0 16383")
            while client.execute_command("CLUSTER INFO")["cluster_state"] != "ok":
                pass
        yield url


@pytest.mark.parametrize("clause", CLAUSES)
def test_redis_keeps_the_contract(clause: str, redis_url: str, prefix: str) -> None:
    CLAUSES[clause](functools.partial(open_redis_log, redis_url, prefix, False))


@pytest.mark.parametrize("clause", CLAUSES)
def test_a_redis_cluster_keeps_the_contract(clause: str, cluster_url: str, prefix: str) -> None:
    CLAUSES[clause](functools.partial(open_redis_log, cluster_url, prefix, True))


events = st.lists(
    st.tuples(st.sampled_from(["a", "b", "é", "ｚ", "😀", "B"]), st.integers(0, 3)),
    max_size=10,
    unique_by=lambda pair: pair[0],
)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(events=events, cut=st.integers(0, 10), repeat=st.data())
def test_redis_and_sqlite_read_the_same_after_any_delivery(
    redis_url: str, tmp_path: Path, events: list[tuple[str, int]], cut: int, repeat: st.DataObject
) -> None:
    name = uuid.uuid4().hex
    sent = [event(event_id, at) for event_id, at in events]
    with (
        closing(SqliteSessionLog(tmp_path / f"{name}.db", CONFIG)) as one,
        closing(open_redis_log(redis_url, name, False, CONFIG)) as other,
    ):
        for log in (one, other):
            order = repeat.draw(st.permutations(sent + sent[:cut]))
            log.append(order[:cut], received_at=NOW)
            log.append(order[cut:], received_at=NOW)
        rows = [[row["event_id"] for row in log.read("m1", limit=K)[0]] for log in (one, other)]
        assert rows[0] == rows[1]
        shipped = [sorted(logged.event["event_id"] for logged in drain(log)) for log in (one, other)]
        assert shipped[0] == shipped[1]


def test_the_log_is_opened_by_its_kind(redis_url: str, prefix: str, tmp_path: Path) -> None:
    config = CONFIG.model_copy(update={"kind": LogKind.REDIS, "url": redis_url, "prefix": prefix})
    with closing(open_session_log(config, tmp_path)) as log:
        assert log.read("nobody", limit=1) == ([], 0)
    assert list(tmp_path.iterdir()) == []


def test_an_actor_that_nobody_can_see_any_more_leaves_by_itself(redis_url: str, prefix: str) -> None:
    config = CONFIG.model_copy(update={"window_days": 2.0, "guest_days": None})
    with (
        closing(open_redis_log(redis_url, prefix, False, config)) as log,
        closing(connect(redis_url)) as client,
    ):
        log.append([event("a", NOW_US - DAY_US), event("g", NOW_US, member_id=None)], received_at=NOW)
        times = {key.split(":")[2]: client.pttl(key) for key in client.scan_iter(f"{prefix}:*m1")}
        assert times.keys() == {"events", "bodies"}
        # two days of window and one of margin, of which one is over
        assert all(2 * DAY_US // 1000 - 600_000 < left <= 2 * DAY_US // 1000 for left in times.values()), times
        kept = [key for key in client.scan_iter(f"{prefix}:*") if not key.endswith(":m1")]
        assert {client.pttl(key) for key in kept} == {-1}


def test_without_a_server_it_says_so_and_keeps_the_password_to_itself(tmp_path: Path) -> None:
    with redis_server() as url:
        config = CONFIG.model_copy(update={"kind": LogKind.REDIS, "busy_seconds": 1.0})
        log = open_session_log(config.model_copy(update={"url": url}), tmp_path)
    with pytest.raises(ConnectionError, match=r"Redis at 127\.0\.0\.1:\d+ does not answer"):
        log.append([event("a", 1)], received_at=NOW)
    log.close()
    secret = "pa55word"
    address = url.removeprefix("redis://")
    assert secret not in repr(config.model_copy(update={"url": secret}))
    bad = [f"redis://u:{secret}@{address}", f"http://u:{secret}@{address}", f"redis://u:{secret}:x@h:port/0"]
    for cluster in (False, True):
        for one in bad:
            with pytest.raises((ConnectionError, ValueError)) as found:
                open_session_log(config.model_copy(update={"url": one, "cluster": cluster}), tmp_path)
            assert secret not in str(found.value)


def test_a_wrong_password_is_told_and_not_repeated(tmp_path: Path) -> None:
    config = CONFIG.model_copy(update={"kind": LogKind.REDIS})
    with redis_server("--requirepass", "right") as url:
        known = url.replace("redis://", "redis://:right@")
        with closing(open_session_log(config.model_copy(update={"url": known}), tmp_path)) as log:
            log.append([event("a", 1)], received_at=NOW)
        with pytest.raises(ConnectionError) as found:
            open_session_log(config.model_copy(update={"url": known.replace("right", "wr0ng")}), tmp_path)
        assert "wr0ng" not in str(found.value)


def test_replicas_that_do_not_confirm_are_an_error(redis_url: str, prefix: str) -> None:
    config = CONFIG.model_copy(update={"wait_replicas": 1, "busy_seconds": 0.4})
    with (
        closing(open_redis_log(redis_url, prefix, False, config)) as log,
        pytest.raises(ConnectionError, match="0 of 1 replicas"),
    ):
        log.append([event("a", 1)], received_at=NOW)


def test_a_server_that_is_killed_and_restarted_lost_nothing_that_was_acknowledged(tmp_path: Path) -> None:
    config = CONFIG.model_copy(update={"kind": LogKind.REDIS, "busy_seconds": 2.0})
    server = RedisServer(tmp_path)
    try:
        with closing(open_session_log(config.model_copy(update={"url": server.url}), tmp_path)) as log:
            acknowledged: list[str] = []
            for life in range(3):
                for number in range(40):
                    batch = [event(f"{life}-{number}-{part}", number, member_id=f"m{part}") for part in range(2)]
                    log.append(batch, received_at=NOW)
                    acknowledged += [one["event_id"] for one in batch]
                server.kill()
                with pytest.raises(ConnectionError):
                    log.append([event(f"{life}-lost", 1)], received_at=NOW)
                server.start()
            found = [row for part in range(2) for row in log.read(f"m{part}", limit=1_000)[0]]
            assert sorted(row["event_id"] for row in found) == sorted(acknowledged)
            sequences = [one.sequence for one in drain(log) if one.actor_id == "m0"]
            assert len(set(sequences)) == len(sequences) == 120
    finally:
        server.stop()


def test_a_replica_that_confirmed_takes_over_with_everything_acknowledged(tmp_path: Path) -> None:
    config = CONFIG.model_copy(update={"kind": LogKind.REDIS, "wait_replicas": 1})
    folders = [tmp_path / name for name in ("first", "second")]
    for folder in folders:
        folder.mkdir()
    first = RedisServer(folders[0])
    try:
        second = RedisServer(folders[1], "--replicaof", "127.0.0.1", first.url.split(":")[2].removesuffix("/0"))
        try:
            with closing(connect(second.url)) as replica:
                for _ in range(1_500):
                    if replica.info("replication")["master_link_status"] == "up":
                        break
                    time.sleep(0.02)
                with closing(open_session_log(config.model_copy(update={"url": first.url}), tmp_path)) as log:
                    results = log.append([event(f"e{n}", n, member_id=f"m{n % 2}") for n in range(30)], received_at=NOW)
                first.kill()
                replica.replicaof("NO", "ONE")
            alone = config.model_copy(update={"url": second.url, "wait_replicas": 0})
            with closing(open_session_log(alone, tmp_path)) as log:
                (more,) = log.append([event("new", 99)], received_at=NOW)
                assert more.sequence > max(result.sequence for result in results[1::2])
                assert len(drain(log)) == 31
                assert len(log.read("m0", limit=100)[0]) == 15
        finally:
            second.stop()
    finally:
        first.stop()
