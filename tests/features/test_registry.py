"""Feast's registry in a SQL database: the same as in the workspace, whoever else writes to it, and not in the way."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from foretaste.signals.snapshots import SnapshotConfig, build_snapshots
from foretaste.signals.store import FeatureStore
from foretaste.signals.store_feast import database, registry_path
from foretaste.testing.builders import START, prepared_folder, random_interactions, titles_table
from foretaste.testing.postgres_server import PostgresServer, postgres_server, programs

REPO = Path(__file__).parents[2] / "features"
NOW = START + timedelta(days=10)
AT_US = round(NOW.timestamp() * 1e6)
WRITERS = 2


@pytest.fixture(scope="module")
def postgres() -> Iterator[PostgresServer]:
    pytest.importorskip("psycopg2")
    if programs() is None:
        pytest.skip("PostgreSQL is not installed; `make servers` installs Debian's")
    with postgres_server() as server:
        yield server


@pytest.fixture(params=["sqlite", "postgresql"])
def registry(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/elsewhere.db"
    return str(request.getfixturevalue("postgres").url)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("registry")
    titles = titles_table(12, seed=2)
    prepared_folder(folder / "prepared", random_interactions(titles, actors=8, days=10, seed=3), titles)
    build_snapshots(folder / "prepared", folder / "features", SnapshotConfig(step_days=1), now=NOW)
    return folder / "features"


WRITER = """
import json, sys
import feast.infra.registry.sql  # takes seconds, and would keep them apart
from pathlib import Path
from foretaste.signals.store import FeatureStore
repo, data, registry = sys.argv[1:]
print("ready", flush=True)
sys.stdin.readline()
store = FeatureStore(Path(repo), Path(data), None, registry)
store.apply()
print(json.dumps(store.contract("ranker")["views"]), flush=True)
store.close()
"""
"""Registers the definitions in a process of its own, once it is told to."""


@pytest.mark.slow
def test_two_that_begin_at_once_on_an_empty_database_register_the_same(data: Path, registry: str) -> None:
    command = [sys.executable, "-c", WRITER, str(REPO), str(data), registry]
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    writers = [subprocess.Popen(command, text=True, **pipes) for _ in range(WRITERS)]
    for one in writers:
        assert one.stdout is not None
        assert one.stdout.readline() == "ready\n", one.communicate()[1]
    for one in writers:
        assert one.stdin is not None
        one.stdin.write("\n")
        one.stdin.flush()
    said = [one.communicate(timeout=240) for one in writers]
    views = [json.loads(out) if out else error for out, error in said]
    alone = FeatureStore(REPO, data)
    alone.apply()
    assert views == [json.loads(json.dumps(alone.contract("ranker")["views"]))] * WRITERS
    alone.close()


@pytest.mark.slow
def test_what_was_read_once_is_answered_while_the_database_is_away(data: Path, postgres: PostgresServer) -> None:
    store = FeatureStore(REPO, data, None, postgres.url)
    store.apply()
    store.materialize(NOW)
    before = store.members(["m000"], AT_US)
    postgres.stop()
    try:
        again = store.members(["m000"], AT_US)
        assert again.asof_ms_B.tolist() == before.asof_ms_B.tolist()
        with pytest.raises(ConnectionError) as error:
            database(postgres.url)
        assert "s3cret" not in str(error.value)
    finally:
        postgres.start()
    store.apply()  # its old connection is dead, and is not asked
    assert database(postgres.url).startswith("postgresql 1")
    store.close()


def test_a_url_is_said_with_the_driver_that_is_there_and_another_kind_is_refused_without_showing_it() -> None:
    assert registry_path("postgresql://u:p@h:5432/d") == "postgresql+psycopg2://u:p@h:5432/d"
    assert registry_path("sqlite:////data/registry.db") == "sqlite:////data/registry.db"
    with pytest.raises(ValueError, match="scheme 'mysql'") as error:
        registry_path("mysql://u:secret@h/d")
    assert "secret" not in str(error.value)
