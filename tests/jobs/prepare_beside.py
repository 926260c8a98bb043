"""Prepares a workspace on a Ray that is there already, all of it in Ray's tasks; see test_shared_cluster."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from unittest.mock import patch

from foretaste.jobs import prepare
from foretaste.jobs.cluster import ClusterConfig
from foretaste.jobs.settings import Settings
from foretaste.sessions.prepare import PrepareConfig


def main(workspace: str, address: str, cpus: str) -> None:
    """Prepare as `foretaste prepare` does, as if the log were large."""
    settings = Settings(
        workspace=Path(workspace),
        cluster=ClusterConfig(address=address, data_cpus=float(cpus)),
        prepare=PrepareConfig(num_buckets=8, piece_rows=2_000),
    )
    with patch.object(prepare, "by_size", lambda large: large):
        print(json.dumps(prepare.prepare(settings)["counts"]), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
