"""The service with switches for faults, for `bench serve` alone: nothing of it is in the service that is installed.

A fault is on while a file of its name is in `WORKSPACE/faults`. What fails is the outermost thing that the request path
asks: the models' and the stores' own methods, wrapped in a process that is started for a benchmark.
"""

from __future__ import annotations

import errno
import logging
import os
import time
from collections.abc import Callable
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import Any

from foretaste.serving.config import ServiceConfig

FAULTS, LOG = "faults", "errors.log"
SLOW_SECONDS = 1.0
MAIN = "import sys; from foretaste.jobs.faulty import main; main(sys.argv[1], int(sys.argv[2]))"
"""What a process of it runs, with a ServiceConfig as JSON and a port."""


class Fault(StrEnum):
    """What can be made to fail."""

    RANKER_SLOW = "ranker_slow"  # a second later
    RANKER_FAILS = "ranker_fails"
    INTENT_FAILS = "intent_fails"
    SESSION_LOG_HANGS = "session_log_hangs"  # reads, until the fault is over
    SESSION_LOG_FAILS = "session_log_fails"  # reads
    FEATURES_FAIL = "features_fail"
    DISK_FULL = "disk_full"  # of the decision log


class Faults:
    """The switches of a workspace."""

    def __init__(self, workspace: Path) -> None:
        self._folder = workspace / FAULTS

    def begin(self, fault: Fault) -> None:
        """Switch on."""
        self._folder.mkdir(exist_ok=True)
        (self._folder / fault.value).touch()

    def end(self, fault: Fault) -> None:
        """Switch off."""
        (self._folder / fault.value).unlink(missing_ok=True)

    def on(self, fault: Fault) -> bool:
        """Whether it is on."""
        return os.path.exists(self._folder / fault.value)

    def switch(self, fault: Fault) -> tuple[Callable[[], None], Callable[[], None]]:
        """What begins and what ends it."""
        return partial(self.begin, fault), partial(self.end, fault)

    def fail(self, fault: Fault) -> None:
        """Raise OSError while it is on."""
        if self.on(fault):
            raise OSError(errno.EIO, fault.value)

    def full(self) -> None:
        """Raise OSError as a disk without room does, while it is."""
        if self.on(Fault.DISK_FULL):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def slow(self) -> None:
        """Take longer while the ranker is slow."""
        if self.on(Fault.RANKER_SLOW):
            time.sleep(SLOW_SECONDS)

    def hang(self) -> None:
        """Return once the session log does not hang any more."""
        while self.on(Fault.SESSION_LOG_HANGS):
            time.sleep(0.02)


def install(workspace: Path) -> None:
    """Put the switches into this process: once, before the service is opened."""
    from foretaste.feedback.redis_session_log import RedisSessionLog
    from foretaste.feedback.sqlite_session_log import SqliteSessionLog
    from foretaste.feedback.write_ahead import WriteAhead
    from foretaste.models.intent import IntentRecommender
    from foretaste.models.ranker_scorer import RankerScorer
    from foretaste.signals.store import FeatureStore

    _keep_log(workspace / LOG)
    faults = Faults(workspace)
    _before(RankerScorer, "scores", faults.slow, lambda: faults.fail(Fault.RANKER_FAILS))
    _before(IntentRecommender, "predict", lambda: faults.fail(Fault.INTENT_FAILS))
    for log in (SqliteSessionLog, RedisSessionLog):
        _before(log, "read", faults.hang, lambda: faults.fail(Fault.SESSION_LOG_FAILS))
    _before(FeatureStore, "members", lambda: faults.fail(Fault.FEATURES_FAIL))
    _before(WriteAhead, "write", faults.full)


def _keep_log(path: Path) -> None:
    """What the service logs as an error is kept with its trace, for a replica's standard error goes with its Ray."""
    handler = logging.FileHandler(path)
    handler.setLevel(logging.ERROR)
    handler.setFormatter(logging.Formatter("%(asctime)s %(process)d %(name)s %(message)s"))
    logging.getLogger("foretaste").addHandler(handler)


def _before(kind: type, name: str, *acts: Callable[[], None]) -> None:
    method = getattr(kind, name)

    def act_first(self: Any, *args: Any, **kwargs: Any) -> Any:
        for act in acts:
            act()
        return method(self, *args, **kwargs)

    setattr(kind, name, act_first)


def faulty_replica() -> type:
    """The replica of `serving.graph` with the switches of its workspace; Ray is imported here."""
    from foretaste.serving.graph import Replica

    class FaultyReplica(Replica):
        def __serve_build_asgi_app__(self) -> Any:
            install(self._config.workspace)
            return super().__serve_build_asgi_app__()

    return FaultyReplica


def main(config: str, port: int) -> None:
    """Serve in this process."""
    from foretaste.jobs.processes import main as serve

    install(ServiceConfig.model_validate_json(config).workspace)
    serve(config, port)
