"""A process that publishes and loads when told to, and kills the child that does it at a moment that it is told.

Not a test: `test_killed_runs` starts it. Everything is imported once and forked, since imports take seconds.
One line of JSON in, one out.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
import time
from datetime import datetime
from pathlib import Path

from foretaste.signals.snapshots import SnapshotConfig, build_snapshots
from foretaste.signals.store import FeatureStore
from foretaste.signals.store_feast import _feast_module


def publish_and_load(folder: Path, repo: Path, now: datetime, weight: float) -> None:
    config = SnapshotConfig(step_days=1, browse_weight=weight)
    build_snapshots(folder / "prepared", folder / "features", config, now=now)
    store = FeatureStore(repo, folder / "features")
    store.apply()
    store.materialize(now)


def main() -> None:
    _feast_module()
    from feast.infra.offline_stores import duckdb  # noqa: F401
    from feast.infra.online_stores import sqlite  # noqa: F401

    print(json.dumps("ready"), flush=True)
    for line in sys.stdin:
        said = json.loads(line)
        begun = time.monotonic()
        child = os.fork()
        if child == 0:
            publish_and_load(
                Path(said["folder"]), Path(said["repo"]), datetime.fromisoformat(said["now"]), said["weight"]
            )
            os._exit(0)
        if said["seconds"] is not None:
            time.sleep(said["seconds"])
            with contextlib.suppress(ProcessLookupError):
                os.kill(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
        print(json.dumps({"status": status, "seconds": time.monotonic() - begun}), flush=True)


if __name__ == "__main__":
    main()
