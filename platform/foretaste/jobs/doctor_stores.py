"""What the doctor looks at of stores: session log, online features, decision log, object store."""

from __future__ import annotations

import sqlite3
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import closing
from typing import Any

import redis

from foretaste.feedback.redis_session_log import redis_client
from foretaste.feedback.session_log import SESSIONS_FILE, LogKind, SessionLogConfig
from foretaste.feedback.write_ahead import LINES, WriteAhead
from foretaste.jobs.doctor_findings import Finding, bad, good, skipped, warning
from foretaste.jobs.settings import Settings
from foretaste.ops.stores import filesystem_of

PINGS = 20
SLOW_MS = 5.0
OLDEST = (6, 2)
_SILENT = "start it, mend address, password or network policy"


def session_log(settings: Settings) -> Iterator[Finding]:
    """Whether the session log can be read and will keep what it acknowledged."""
    config = settings.serving.session_log
    if config.kind is LogKind.REDIS:
        yield from redis_server("session log", config, keeps=True)
        if config.cluster or config.wait_replicas:
            yield skipped("session log", "replicas of a Redis Cluster: ask CLUSTER INFO of each node")
        return
    file = settings.tables.serving / SESSIONS_FILE
    if not file.is_file():
        yield good("session log", f"{file} is made by the first event")
        return
    begun = time.perf_counter()
    with closing(sqlite3.connect(f"file:{file}?mode=ro", uri=True, timeout=5.0)) as known:
        found = [row[0] for row in known.execute("PRAGMA quick_check(3)")]
        journal = known.execute("PRAGMA journal_mode").fetchone()[0]
    ms = (time.perf_counter() - begun) * 1e3
    if found != ["ok"]:
        yield bad("session log", f"{file}: {'; '.join(found)}", "end the service, keep a copy, `sqlite3 FILE .recover`")
    elif journal != "wal":
        yield warning(
            "session log", f"{file} has journal mode {journal}", "open it with foretaste: readers wait otherwise"
        )
    else:
        yield good("session log", f"SQLite, whole, looked through in {ms:.0f} ms")
    if not config.durable:
        yield warning(
            "session log", "not every batch is on the disk before it is acknowledged", "session_log.durable=true"
        )


def online_features(settings: Settings) -> Iterator[Finding]:
    """The same of the online features; they can be made again."""
    if settings.features_url is None:
        yield good("online features", "SQLite in the workspace")
        return
    config = SessionLogConfig(kind=LogKind.REDIS, url=settings.features_url)
    yield from redis_server("online features", config, keeps=False)


def redis_server(check: str, config: SessionLogConfig, *, keeps: bool) -> Iterator[Finding]:
    """Whether a Redis answers in time and is set as it has to be; one that `keeps` what cannot be made again."""
    try:
        with closing(redis_client(config, seconds=config.read_seconds)) as client:
            times = sorted(_ms(client.ping) for _ in range(PINGS))
            about = client.info()
    except redis.AuthenticationError:
        yield bad(check, "Redis refuses the password", "take it from the Secret that the server has")
        return
    except (redis.RedisError, OSError) as error:
        yield bad(check, f"Redis does not answer: {type(error).__name__}", _SILENT)
        return
    told = f"Redis {about['redis_version']}, ping {times[PINGS // 2]:.2f} ms, slowest {times[-1]:.2f} ms"
    if tuple(int(part) for part in about["redis_version"].split(".")[:2]) < OLDEST:
        yield bad(check, told, f"Redis {OLDEST[0]}.{OLDEST[1]} or newer")
    elif times[PINGS // 2] > SLOW_MS:
        yield warning(check, told, "nearer to the service; look at SLOWLOG and at the network")
    else:
        yield good(check, told)
    yield from _room(check, about)
    if keeps:
        yield from _kept(check, about, config)


def _room(check: str, about: dict[str, Any]) -> Iterator[Finding]:
    policy, most, used = about.get("maxmemory_policy", "unknown"), about.get("maxmemory", 0), about["used_memory"]
    if policy != "noeviction":
        yield bad(
            check,
            f"maxmemory-policy {policy}: it forgets events to make room",
            "CONFIG SET maxmemory-policy noeviction",
        )
    else:
        yield good(check, "evicts nothing")
    if about.get("evicted_keys", 0):
        yield warning(
            check, f"{about['evicted_keys']} keys were evicted since it started", "what they held is gone; see above"
        )
    if most and used > 0.8 * most:
        yield warning(check, f"{used / most:.0%} of maxmemory are used; full, it takes no events", "more memory")


def _kept(check: str, about: dict[str, Any], config: SessionLogConfig) -> Iterator[Finding]:
    if not about.get("aof_enabled"):
        yield bad(
            check, "no append-only file: a restart loses acknowledged events", "appendonly yes, appendfsync always"
        )
    elif about.get("aof_last_write_status") != "ok":
        yield bad(check, "the append-only file cannot be written", "room on its disk; then look at its log")
    else:
        yield from _synced(check, config)
    replicas = about.get("connected_slaves", 0)
    if config.wait_replicas > replicas:
        want = f"session_log.wait_replicas is {config.wait_replicas}"
        yield bad(check, f"{replicas} replicas are connected, {want}: every batch fails", "start replicas, or lower it")


def _synced(check: str, config: SessionLogConfig) -> Iterator[Finding]:
    try:
        with closing(redis_client(config, seconds=config.read_seconds)) as client:
            sync = client.config_get("appendfsync").get("appendfsync")
    except redis.RedisError:
        yield skipped(check, "appendfsync: this user may not read the configuration; it should be always")
        return
    if sync == "always":
        yield good(check, "every acknowledged event is on its disk")
    else:
        yield warning(
            check, f"appendfsync {sync}: a power failure loses about a second", "CONFIG SET appendfsync always"
        )


def _ms(call: Callable[[], object]) -> float:
    begun = time.perf_counter()
    call()
    return (time.perf_counter() - begun) * 1e3


def decision_log(settings: Settings) -> Iterator[Finding]:
    """Whether decisions of dead processes wait, and whether the object store takes files."""
    folder = settings.tables.serving / "decisions"
    taken = [WriteAhead.take(file) for file in sorted(folder.glob(f"*{LINES}"))]
    dead = [one for one in taken if one is not None]
    for one in dead:
        one.release()
    if dead:
        yield warning(
            "decision log", f"{len(dead)} files of dead processes are not rolled", "start a service: it rolls them"
        )
    else:
        yield good("decision log", f"{len(taken)} files are being written, none is left over")
    target = settings.serving.decision_log.target
    if target is None:
        yield skipped("object store", "serving.decision_log.target is not set: decisions stay on this machine")
        return
    yield from _takes("object store", target)


def checkpoints(settings: Settings) -> Iterator[Finding]:
    """Whether the object store of training takes files."""
    if settings.runs_url is None:
        yield good("checkpoints", "in the workspace")
        return
    yield from _takes("checkpoints", settings.runs_url)


def feature_registry(settings: Settings) -> Iterator[Finding]:
    """Whether the database of Feast's registry answers."""
    if settings.features_registry_url is None:
        yield good("feature registry", "SQLite in the workspace")
        return
    from foretaste.signals.store_feast import database

    try:
        begun = time.perf_counter()
        found = database(settings.features_registry_url)
    except ConnectionError as error:
        yield bad("feature registry", f"the database does not answer: {error}", _SILENT)
        return
    yield good("feature registry", f"{found}, answers in {(time.perf_counter() - begun) * 1e3:.0f} ms")


def _takes(check: str, uri: str) -> Iterator[Finding]:
    place, _, query = uri.partition("?")
    store, root = filesystem_of(place, query)
    path, body = f"{root}/.doctor-{uuid.uuid4().hex}", b"doctor"
    try:
        begun = time.perf_counter()
        if store.type_name == "local":
            store.create_dir(root, recursive=True)
        with store.open_output_stream(path) as out:
            out.write(body)
        with store.open_input_stream(path) as known:
            same = known.read() == body
        store.delete_file(path)
    except OSError as error:
        yield bad(check, f"{place}: {error}", "bucket, credentials, region, network policy")
        return
    if same:
        ms = (time.perf_counter() - begun) * 1e3
        yield good(check, f"{place}: written, read and removed in {ms:.0f} ms")
    else:
        yield bad(check, f"{place}: what was read is not what was written", "another store")
