"""The session log of many machines: Redis, where one script stores the events of an actor at one instant.

An actor's events are a sorted set of ids by time (ties by the bytes of the id) and a hash of their bodies. Actors lie
in buckets; a bucket has one counter and one stream of what waits to be shipped. All keys of a bucket share a hash tag
and so a slot of Redis Cluster. What survives which failure is the server's setting: `appendonly yes` with
`appendfsync always` keeps every acknowledged event, `wait_replicas` also through the loss of a machine.
"""

from __future__ import annotations

import zlib
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from typing import Any

import orjson
import redis
from redis.backoff import NoBackoff
from redis.exceptions import ClusterDownError, NoScriptError, RedisClusterException
from redis.retry import Retry

from foretaste.contracts.events import GUEST
from foretaste.feedback.redis_scripts import APPEND, DELETE, DELETE_UNTIL, READ
from foretaste.feedback.session_log import (
    MARGIN_US,
    Appended,
    Event,
    LoggedEvent,
    SessionLogConfig,
    microseconds,
)
from foretaste.feedback.stored_row import LAST_US, StoredRow, stored_row

BUCKETS = 64
"""Part of the layout: with another number actors would be looked for in the wrong place."""
_DIGITS = 16
_SILENCE = (redis.ConnectionError, redis.TimeoutError, RedisClusterException, ClusterDownError)


class RedisSessionLog:
    """See `session_log.SessionLog`; threads and forked processes may share one."""

    def __init__(self, config: SessionLogConfig) -> None:
        """Connect to `config.url`.

        Raises ValueError where less is stored than read or the URL is none, ConnectionError where nothing answers.
        """
        self.config = config.checked()
        if config.cluster and config.wait_replicas:
            raise ValueError("session log: wait_replicas cannot be had with cluster; use min-replicas-to-write there")
        self._client: Any = redis_client(config, seconds=config.busy_seconds)
        self._reader: Any = redis_client(config, seconds=config.read_seconds)
        self._place = _place(self._client, self.config)
        self._closed = False
        self._scripts: dict[str, str] = {}
        with self._answering():
            for script in (APPEND, READ, DELETE, DELETE_UNTIL):
                self._scripts[script] = self._client.script_load(script)

    def append(self, events: Sequence[Event], *, received_at: datetime) -> list[Appended]:
        """See `SessionLog.append`; the events of one actor are stored at one instant. Raises ConnectionError."""
        return self._append([stored_row(event) for event in events], microseconds(received_at))

    def read(
        self, actor_id: str, *, limit: int, before_us: int | None = None, mark: int | None = None
    ) -> tuple[list[dict[str, Any]], int]:
        """See `SessionLog.read`; one round trip. Raises ConnectionError."""
        base = _base(self.config.prefix, _bucket(actor_id))
        keys = [f"{base}:events:{actor_id}", f"{base}:bodies:{actor_id}", f"{base}:last"]
        until = "" if mark is None else f"{min(max(mark, 0), LAST_US - 1):0{_DIGITS}d}"
        with self._answering():
            seen, found = self._run(self._reader, READ, keys, [min(limit, self.config.stored_events), until])
        rows = [orjson.loads(held[_DIGITS:]) | {"sequence": int(held[:_DIGITS])} for held in reversed(found)]
        if before_us is not None:
            window = self.config.window_us(actor_id)
            since = 0 if window is None else before_us - window
            rows = [row for row in rows if since <= row["at"] < before_us]
        return rows, int(seen)

    def delete(self, actor_id: str, *, until_us: int, merged: Sequence[str] = ()) -> int:
        """See `SessionLog.delete`. Raises ConnectionError."""
        base = _base(self.config.prefix, _bucket(actor_id))
        keys = [f"{base}:{kind}:{actor_id}" for kind in ("events", "bodies", "shown", "merges")]
        with self._answering():
            return int(self._run(self._client, DELETE, [*keys, f"{base}:out"], [actor_id, until_us, *merged]))

    def delete_until(self, actor_id: str, until_us: int) -> int:
        """See `SessionLog.delete_until`. Raises ConnectionError."""
        base = _base(self.config.prefix, _bucket(actor_id))
        keys = [f"{base}:{kind}:{actor_id}" for kind in ("events", "bodies")]
        with self._answering():
            return int(self._run(self._client, DELETE_UNTIL, keys, [until_us]))

    def merge(self, session_id: str, member_id: str, *, received_at: datetime, after_us: int = -1) -> int:
        """See `SessionLog.merge`; the link comes first, so that deletion finds the guest. Raises ConnectionError."""
        found, _ = self.read(GUEST + session_id, limit=self.config.stored_events)
        ordered = sorted((row for row in found if row["at"] > after_us), key=lambda row: row["sequence"])
        if not ordered:
            return 0
        rows = [stored_row(row | {"member_id": member_id}) for row in ordered]
        kept = self._kept_ms(GUEST + session_id)
        with self._answering():
            self._client.sadd(self._merges(member_id), session_id)
            if kept is not None:
                self._client.pexpire(self._merges(member_id), kept)
        return sum(not result.duplicate for result in self._append(rows, microseconds(received_at)))

    def merged(self, member_id: str) -> list[str]:
        """See `SessionLog.merged`. Raises ConnectionError."""
        with self._answering():
            return sorted(session.decode() for session in self._client.smembers(self._merges(member_id)))

    def expire(self, *, now: datetime) -> int:
        """See `SessionLog.expire`: nothing to do, since keys have a time to live and appends remove what is old."""
        with self._answering():
            return 0

    def pending(self, limit: int) -> list[LoggedEvent]:
        """See `SessionLog.pending`; the fullest buckets come first. Raises ConnectionError."""
        with self._answering():
            lengths = self._together([("XLEN", self._out(bucket)) for bucket in range(BUCKETS)])
            asked, left = [], limit
            for length, bucket in sorted((-length, bucket) for bucket, length in enumerate(lengths) if length):
                asked.append((self._out(bucket), min(left, -length)))
                left += length
                if left <= 0:
                    break
            found = self._together([("XRANGE", key, "-", "+", "COUNT", count) for key, count in asked])
        return [_logged(entry) for entries in found for entry in entries]

    def shipped(self, events: Sequence[LoggedEvent]) -> None:
        """See `SessionLog.shipped`. Raises ConnectionError."""
        through: dict[int, int] = defaultdict(int)
        for event in events:
            bucket = _bucket(event.actor_id)
            through[bucket] = max(through[bucket], event.sequence)
        with self._answering():
            self._together([("XTRIM", self._out(bucket), "MINID", f"{last + 1}-0") for bucket, last in through.items()])

    def close(self) -> None:
        """See `SessionLog.close`."""
        self._closed = True
        self._client.close()
        self._reader.close()

    def _append(self, rows: list[StoredRow], arrived: int) -> list[Appended]:
        places: dict[str, list[int]] = defaultdict(list)
        for place, row in enumerate(rows):
            places[row.actor].append(place)
        calls = [self._call(actor, [rows[n] for n in numbers], arrived) for actor, numbers in places.items()]
        with self._answering():
            found = self._stored(calls)
        results: dict[int, Appended] = {}
        for numbers, sequences in zip(places.values(), found, strict=True):
            results |= {n: Appended(abs(one), one < 0) for n, one in zip(numbers, sequences, strict=True)}
        return [results[place] for place in range(len(rows))]

    def _call(self, actor: str, rows: list[StoredRow], arrived: int) -> tuple[list[str], list[Any]]:
        base, window = _base(self.config.prefix, _bucket(actor)), self.config.window_us(actor)
        keys = [f"{base}:{kind}:{actor}" for kind in ("events", "bodies", "shown")]
        kept = self._kept_ms(actor)
        cut = 0 if window is None else max(0, arrived - window - MARGIN_US)
        values: list[Any] = [arrived, cut, self.config.stored_events, self.config.stored_impressions, kept or "", actor]
        for row in rows:
            values += [row.event_id, row.at, int(row.passive), row.body]
        return [*keys, f"{base}:last", f"{base}:out"], values

    def _stored(self, calls: list[tuple[list[str], list[Any]]]) -> list[list[int]]:
        """Run the appends, each actor's for itself, and have replicas confirm where that is wanted."""
        if not calls:
            return []
        if len(calls) == 1 and not self.config.wait_replicas:
            return [self._run(self._client, APPEND, *calls[0])]
        commands: list[tuple[Any, ...]] = [
            ("EVALSHA", self._scripts[APPEND], len(keys), *keys, *values) for keys, values in calls
        ]
        if self.config.wait_replicas:
            # half of the time that the socket waits, so that the server's own answer comes first
            commands.append(("WAIT", self.config.wait_replicas, round(self.config.busy_seconds * 500)))
        try:
            found = self._together(commands)
        except NoScriptError:  # of a server that was restarted; what was stored already comes back as a duplicate
            self._client.script_load(APPEND)
            found = self._together(commands)
        if self.config.wait_replicas:
            *found, confirmed = found
            if confirmed < self.config.wait_replicas:
                raise ConnectionError(
                    f"session log: {confirmed} of {self.config.wait_replicas} replicas of {self._place} confirmed"
                )
        return found

    def _run(self, client: Any, script: str, keys: list[str], values: list[Any]) -> Any:
        try:
            return client.evalsha(self._scripts[script], len(keys), *keys, *values)
        except NoScriptError:  # of a server that was restarted
            return client.eval(script, len(keys), *keys, *values)

    def _together(self, commands: Sequence[tuple[Any, ...]]) -> list[Any]:
        if not commands:
            return []
        with self._client.pipeline(transaction=False) as pipeline:
            for command in commands:
                pipeline.execute_command(*command)
            found: list[Any] = pipeline.execute()
        return found

    def _kept_ms(self, actor: str) -> int | None:
        window = self.config.window_us(actor)
        return None if window is None else (window + MARGIN_US) // 1000

    def _out(self, bucket: int) -> str:
        return f"{_base(self.config.prefix, bucket)}:out"

    def _merges(self, member_id: str) -> str:
        return f"{_base(self.config.prefix, _bucket(member_id))}:merges:{member_id}"

    @contextmanager
    def _answering(self) -> Iterator[None]:
        """Say where nothing answers, without the URL, which may hold a password."""
        if self._closed:
            raise ValueError(f"session log at {self._place}: is closed")
        try:
            yield
        except _SILENCE as error:
            raise ConnectionError(f"session log: Redis at {self._place} does not answer: {error}") from error


def redis_client(config: SessionLogConfig, *, seconds: float) -> Any:
    """A client of `config.url`. Raises ValueError for what is no URL, ConnectionError where no cluster answers."""
    # a connection that went stale is made again once; to wait longer is for whoever asks to decide
    retry = Retry(NoBackoff(), 1)
    more = {"socket_timeout": seconds, "socket_connect_timeout": seconds, "retry": retry}
    try:
        if config.cluster:
            return redis.RedisCluster.from_url(config.url, **more)
        return redis.Redis.from_url(config.url, **more)
    except _SILENCE as error:
        raise ConnectionError(f"session log: no Redis Cluster answers: {error}") from None
    except (ValueError, TypeError):  # their messages quote the URL
        raise ValueError("session log: url is no URL of Redis, e.g. redis://user:password@host:6379/0") from None


def _place(client: Any, config: SessionLogConfig) -> str:
    if config.cluster:
        return ", ".join(sorted(str(node.name) for node in client.get_primaries()))
    known = client.connection_pool.connection_kwargs
    return str(known.get("path") or f"{known.get('host', 'localhost')}:{known.get('port', 6379)}")


def _bucket(actor: str) -> int:
    return zlib.crc32(actor.encode()) % BUCKETS


def _base(prefix: str, bucket: int) -> str:
    return f"{prefix}:{{b{bucket:02d}}}"


def _logged(entry: tuple[bytes, Any]) -> LoggedEvent:
    name, fields = entry
    if not isinstance(fields, dict):
        fields = dict(zip(fields[::2], fields[1::2], strict=True))
    actor, received_at, body = fields[b"a"].decode(), int(fields[b"r"]), orjson.loads(fields[b"b"])
    return LoggedEvent(actor, int(name.split(b"-")[0]), received_at, body)
