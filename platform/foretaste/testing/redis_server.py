"""A session log in a real Redis, for tests."""

from __future__ import annotations

from foretaste.feedback.redis_session_log import RedisSessionLog
from foretaste.feedback.session_log import LogKind, SessionLog, SessionLogConfig
from foretaste.ops.redis_server import RedisServer, free_port, redis_server

__all__ = ["RedisServer", "free_port", "open_redis_log", "redis_server"]


def open_redis_log(url: str, prefix: str, cluster: bool, config: SessionLogConfig) -> SessionLog:
    """Open a log at `url` whose keys begin with `prefix`; with functools.partial an opener that can be pickled."""
    more = {"kind": LogKind.REDIS, "url": url, "prefix": prefix, "cluster": cluster}
    return RedisSessionLog(config.model_copy(update=more))
