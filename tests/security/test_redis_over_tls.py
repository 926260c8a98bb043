"""Every client of Redis speaks TLS to a real server, holds it to who signed it, and shows its password to nobody."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import timedelta
from pathlib import Path

import pytest

from foretaste.contracts.catalogue import catalogue
from foretaste.feedback.session_log import LogKind, SessionLogConfig, open_session_log
from foretaste.jobs.doctor_stores import redis_server as looked_at
from foretaste.ops.redis_server import redis_server
from foretaste.signals.snapshots import SnapshotConfig, build_snapshots
from foretaste.signals.store import FeatureStore
from foretaste.testing.builders import START, prepared_folder, random_interactions, titles_table
from foretaste.testing.certificates import certificate
from foretaste.testing.session_log_events import CONFIG, NOW, drain, event

PLATFORM = Path(__file__).parents[2] / "platform"
REPO = Path(__file__).parents[2] / "features"
PASSWORD = "s3cret"

pytestmark = pytest.mark.skipif(
    shutil.which("redis-server") is None, reason="redis-server is not installed; `make servers` installs Debian's"
)


@pytest.fixture(scope="module")
def signed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return certificate(tmp_path_factory.mktemp("signed"), "localhost", addresses=("127.0.0.1",))


@pytest.fixture(scope="module")
def url(signed: Path) -> Iterator[str]:
    """A Redis as the component redis-tls has it: no port in the clear, a password."""
    with redis_server("--requirepass", PASSWORD, "--bind", "127.0.0.1", "127.0.0.2", tls=signed) as found:
        yield found.replace("rediss://", f"rediss://:{PASSWORD}@")


def config(url: str) -> SessionLogConfig:
    return CONFIG.model_copy(update={"kind": LogKind.REDIS, "url": url, "busy_seconds": 5.0, "read_seconds": 5.0})


def test_the_session_log_appends_reads_ships_and_forgets_over_tls(url: str, tmp_path: Path) -> None:
    with closing(open_session_log(config(url), tmp_path)) as log:
        log.append([event("a", 1), event("b", 2)], received_at=NOW)
        rows, mark = log.read("m1", limit=10)
        assert [row["event_id"] for row in rows] == ["a", "b"]
        assert mark > 0
        assert [one.event["event_id"] for one in drain(log)] == ["a", "b"]
        log.delete("m1", until_us=1 << 62)
        assert log.read("m1", limit=10)[0] == []


def test_the_online_features_are_loaded_and_read_over_tls(url: str, tmp_path: Path) -> None:
    titles = titles_table(12, seed=2)
    prepared_folder(tmp_path / "prepared", random_interactions(titles, actors=4, days=20, seed=3), titles)
    now = START + timedelta(days=21)
    build_snapshots(tmp_path / "prepared", tmp_path / "features", SnapshotConfig(step_days=1), now=now)
    store = FeatureStore(REPO, tmp_path / "features", url.replace("/0?", "/1?"))
    try:
        store.apply()
        store.materialize(now)
        at = round(now.timestamp() * 1e6)
        assert (store.members(["m000", "m001"], at).asof_ms_B > 0).all()
        assert store.titles(catalogue(titles), at).plays_all.any()
    finally:
        store.close()


def test_the_doctor_looks_at_it_over_tls(url: str) -> None:
    states = [one.state.value for one in looked_at("session log", config(url), keeps=True)]
    assert states[0] in ("good", "warning")
    assert "bad" not in states


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda url, other: url.replace("rediss://", "redis://").partition("?")[0], "in the clear"),
        (lambda url, other: url.partition("?")[0], "by the signers that the machine trusts"),
        (lambda url, other: re.sub("ssl_ca_certs=.*", f"ssl_ca_certs={other / 'ca.crt'}", url), "by another signer"),
        (lambda url, other: url.replace("127.0.0.1", "127.0.0.2"), "at an address that is not in it"),
    ],
    ids=lambda one: one if isinstance(one, str) else "",
)
def test_who_does_not_hold_the_server_to_its_certificate_is_refused_and_shows_no_password(
    change: Callable[[str, Path], str], why: str, url: str, tmp_path: Path
) -> None:
    wrong = change(url, certificate(tmp_path / "other", "localhost", addresses=("127.0.0.1",)))
    with pytest.raises(ConnectionError) as error:
        open_session_log(config(wrong), tmp_path)
    assert PASSWORD not in str(error.value), why
    (found,) = looked_at("session log", config(wrong), keeps=True)
    assert found.state.value == "bad"
    assert PASSWORD not in found.found + found.mend


def test_clients_of_redis_are_made_in_one_place_and_by_feast() -> None:
    """So what is shown above holds for every one of them; servers of tests and benchmarks aside."""
    made = re.compile(r"redis\.(Redis|RedisCluster|StrictRedis|asyncio|from_url)\b|RedisOnlineStore")
    found = {path.name for path in (PLATFORM / "foretaste").rglob("*.py") if made.search(path.read_text())}
    assert found - {"bench_session_log.py", "bench_serve_made.py", "bench_parity.py"} == {"redis_session_log.py"}


RAY = """
import ray
ray.init(num_cpus=1, include_dashboard=False, _redis_password={password!r}, _temp_dir={folder!r},
         log_to_driver=False, logging_level="ERROR", object_store_memory=100 * 1024**2)
print("answered", ray.get(ray.remote(lambda: 41).remote()) + 1)
ray.shutdown()
"""


@pytest.mark.long
@pytest.mark.cluster
def test_the_head_keeps_its_state_in_a_redis_over_tls_and_does_not_start_on_one_of_another_signer(
    url: str, signed: Path, tmp_path: Path
) -> None:
    """As the component gcs-redis-tls has it: rediss and RAY_REDIS_CA_CERT."""
    other = certificate(tmp_path / "other", "localhost", addresses=("127.0.0.1",))
    address = re.sub(r"rediss://.*@", "rediss://", url).partition("/0")[0]
    told = {}
    for name, known in (("signed", signed), ("other", other)):
        folder = Path("/tmp") / f"ft-tls-{os.getpid()}-{name}"
        environment = os.environ | {"RAY_REDIS_ADDRESS": address, "RAY_REDIS_CA_CERT": str(known / "ca.crt")}
        environment["RAY_raylet_start_wait_time_s"] = "120"
        program = RAY.format(password=PASSWORD, folder=str(folder))
        try:
            done = subprocess.run(
                [sys.executable, "-W", "ignore", "-c", program],
                env=environment,
                capture_output=True,
                text=True,
                timeout=120,
                start_new_session=True,
                check=False,
            )
            told[name] = done.stdout or done.stderr[-2_000:]
        finally:
            shutil.rmtree(folder, ignore_errors=True)
        if name == "signed":
            import redis

            with closing(redis.Redis.from_url(url)) as client:
                assert list(client.scan_iter("RAY*")), "Ray wrote nothing there"
                client.flushall()
    assert told["signed"] == "answered 42\n"
    assert "answered" not in told["other"]
