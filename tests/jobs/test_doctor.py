"""The doctor finds what is wrong with a deployment, says what to mend, and looks at the rest all the same."""

from __future__ import annotations

import json
import re
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import redis
import uvicorn

from foretaste.cli import main
from foretaste.contracts.tenants import DEFAULT
from foretaste.feedback.decision_log import DecisionLog
from foretaste.feedback.sqlite_session_log import SqliteSessionLog
from foretaste.jobs.doctor import doctor
from foretaste.jobs.doctor_local import cluster, packages
from foretaste.jobs.settings import Settings, load
from foretaste.ops.bundles import fetch_bundle
from foretaste.ops.redis_server import free_port, redis_server
from foretaste.ops.releases import file_release, promote_release
from foretaste.serving.app import open_app
from foretaste.serving.config import ServiceConfig
from foretaste.serving.keys import KEYS_FILE, LOCAL_KEY_FILE, Role, create_key, local_key
from foretaste.testing.bundles import file_intent, file_ranker
from foretaste.testing.fakes import two_genre_titles

NOW = datetime(2026, 1, 2, tzinfo=UTC)


def now() -> datetime:
    return datetime.now(UTC)


@pytest.fixture
def shop(tmp_path: Path) -> Path:
    """A workspace with a release, a key and logs, and nothing in the feature store."""
    registry = tmp_path / "registry"
    intent = file_intent(registry, two_genre_titles(), at=NOW)
    file_ranker(registry, intent=intent.fingerprint, at=NOW)
    models = {name: fetch_bundle(registry, name).version for name in ("intent", "ranker")}
    promote_release(registry, file_release(registry, models, at=NOW, about={}).name, at=NOW)
    SqliteSessionLog(tmp_path / "serving" / "sessions.db").close()
    DecisionLog(tmp_path / "serving" / "decisions", clock=now).close()
    local_key(tmp_path / "serving", clock=now)
    return tmp_path


def settings(shop: Path, **serving: Any) -> Settings:
    return load(
        None, [f"workspace={shop}", *(f"serving.{name}={json.dumps(value)}" for name, value in serving.items())]
    )


def found(shop: Path, *, url: str | None = None, skew: timedelta = timedelta(), **serving: Any) -> dict[str, list[str]]:
    """State and words of what was found, by check."""
    serving = {"port": free_port()} | serving
    result = doctor(settings(shop, **serving), url=url, clock=lambda: now() + skew)
    told: dict[str, list[str]] = {}
    for one in result["findings"]:
        assert one["mend"] or one["state"] in ("good", "not looked at"), one
        told.setdefault(one["check"], []).append(f"{one['state']}: {one['found']} | {one['mend']}")
    assert result["ok"] is not any(line.startswith("bad") for lines in told.values() for line in lines)
    return told


def bad(told: dict[str, list[str]]) -> set[str]:
    return {check for check, lines in told.items() if any(line.startswith("bad") for line in lines)}


def test_a_sound_workspace_without_a_service_has_nothing_bad_but_the_views_that_are_missing(shop: Path) -> None:
    told = found(shop)
    assert bad(told) == {"views"}
    assert "foretaste features" in told["views"][0]
    assert told["service"][0].startswith("not looked at: nothing answers")
    assert "intent and ranker load" in told["models"][0]
    assert "mode 600" in " ".join(told["permissions"])


def test_a_workspace_that_is_not_there_is_said_to_be_and_nothing_is_made(tmp_path: Path) -> None:
    nowhere = tmp_path / "nowhere"
    assert {"workspace", "registry", "keys"} <= bad(found(nowhere))
    assert not nowhere.exists()


def test_spoilt_models_open_keys_a_busy_port_a_broken_log_and_a_store_that_takes_nothing_are_found(shop: Path) -> None:
    (weights,) = (shop / "registry" / "intent").glob("*/weights.safetensors")
    weights.write_bytes(weights.read_bytes()[:-1] + b"?")
    (shop / "serving" / LOCAL_KEY_FILE).chmod(0o644)
    (shop / "serving" / "sessions.db").write_bytes(b"SQLite format 3\0" + b"nonsense" * 1000)
    (shop / "file").write_text("in the way")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        target = (shop / "file" / "target").as_uri()
        told = found(shop, port=taken.getsockname()[1], decision_log={"target": target})
    assert bad(told) == {"models", "permissions", "port", "session log", "object store"}
    assert "foretaste rollback" in told["models"][0]
    assert f"chmod 600 {shop / 'serving' / LOCAL_KEY_FILE}" in " ".join(told["permissions"])


def test_an_object_store_that_takes_files_keeps_none_of_the_doctors(shop: Path) -> None:
    told = found(shop, decision_log={"target": (shop / "target").as_uri()})
    assert told["object store"][0].startswith("good")
    assert list((shop / "target").iterdir()) == []


def test_a_cluster_that_is_named_has_to_take_connections(shop: Path) -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        for address in (f"127.0.0.1:{listener.getsockname()[1]}", f"ray://127.0.0.1:{listener.getsockname()[1]}"):
            (one,) = cluster(load(None, [f"workspace={shop}", f"cluster.address={address}"]))
            assert one.state.value == "good"
    (one,) = cluster(load(None, [f"workspace={shop}", f"cluster.address=127.0.0.1:{free_port()}"]))
    assert (one.state.value, bool(one.mend)) == ("bad", True)
    (one,) = cluster(load(None, [f"workspace={shop}", "cluster.address=auto"]))
    assert one.state.value == "not looked at"


def test_packages_are_held_against_ranges_and_pins(tmp_path: Path) -> None:
    pins = tmp_path / "constraints.txt"
    pins.write_text("numpy==0.0.1\nno-such-package==1\n")
    states = {one.check: one for one in packages(pins)}
    assert states["packages"].state.value == "good"
    assert states["pins"].state.value == "warning"
    assert "numpy" in states["pins"].found
    assert "no-such-package" not in states["pins"].found


def test_redis_is_looked_at_for_speed_eviction_and_what_survives(shop: Path) -> None:
    with redis_server("--requirepass", "s3cret") as url:
        with_password = url.replace("redis://", "redis://:s3cret@")
        on = {"kind": "redis", "url": with_password}
        told = found(shop, session_log=on)
        assert bad(told) == {"views"}
        assert any("ping" in line for line in told["session log"])
        with redis.Redis.from_url(with_password) as client:
            client.config_set("maxmemory-policy", "allkeys-lru")
            client.config_set("appendfsync", "everysec")
        told = found(shop, session_log=on)
        assert "noeviction" in " ".join(told["session log"])
        assert any(line.startswith("warning: appendfsync everysec") for line in told["session log"])
        with redis.Redis.from_url(with_password) as client:
            client.config_set("appendonly", "no")
        told = found(shop, session_log=on | {"wait_replicas": 1})
        assert any("loses acknowledged events" in line for line in told["session log"])
        assert any("0 replicas are connected" in line for line in told["session log"])
        assert "s3cret" not in str(told)
        told = found(shop, session_log={"kind": "redis", "url": url.replace("redis://", "redis://:wrong@")})
        assert "refuses the password" in told["session log"][0]
    told = found(shop, session_log=on)
    assert "does not answer" in told["session log"][0]
    assert "s3cret" not in str(told)


@contextmanager
def serving(shop: Path) -> Iterator[str]:
    """The app of a workspace under uvicorn."""
    config = ServiceConfig.model_validate(
        {"workspace": shop, "features_repo": "features", "serving": {"log_format": "none"}}
    )
    port = free_port()
    told = uvicorn.Config(open_app(config), host="127.0.0.1", port=port, log_level="error", access_log=False, ws="none")
    server = uvicorn.Server(told)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.05)
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        server.should_exit = True
        thread.join(30)


def test_a_running_service_is_asked_for_readiness_clock_interface_keys_and_a_list(shop: Path) -> None:
    with serving(shop) as url:
        told = found(shop, url=url)
        assert bad(told) == {"views"}
        assert told["interface"][0].startswith("good")
        assert told["clock"][0].startswith("good")
        assert told["answers"][0].startswith("warning: a list does without a stage: features_failed")
        assert told["metrics"][0].startswith("good")
        told = found(shop, url=url, skew=timedelta(minutes=3))
        apart = re.search(r"(\d+) s or more", told["clock"][0])
        assert apart is not None
        assert 150 <= int(apart[1]) <= 210  # asking takes a while, on a busy machine seconds
        assert "clock" in bad(told)
        (shop / "serving" / LOCAL_KEY_FILE).write_text("ft_00000000_" + "0" * 64)
        assert "answers" in bad(found(shop, url=url))


def test_the_exit_status_says_whether_something_is_bad_and_an_address_that_was_given_has_to_answer(
    shop: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    create_key(shop / "serving" / KEYS_FILE, DEFAULT, Role.CLIENT, clock=now)
    url = f"http://127.0.0.1:{free_port()}"
    assert main(["doctor", "--workspace", str(shop), "--url", url, "--json"]) == 1
    result = json.loads(capsys.readouterr().out.splitlines()[-1])
    states = {one["check"]: one["state"] for one in result["findings"]}
    assert (result["ok"], states["service"]) == (False, "bad")


def test_where_checkpoints_go_and_what_holds_the_definitions_of_features_is_asked(shop: Path) -> None:
    pytest.importorskip("psycopg2")
    nowhere = "postgresql://features:s3cret@127.0.0.1:1/features"
    places = {"runs_url": (shop / "runs").as_uri(), "features_registry_url": nowhere}
    told = doctor(settings(shop, port=free_port()).model_copy(update=places), url=None, clock=now)["findings"]
    states = {one["check"]: one["state"] for one in told}
    assert (states["checkpoints"], states["feature registry"]) == ("good", "bad")
    assert list((shop / "runs").iterdir()) == []
    assert "s3cret" not in json.dumps(told)
