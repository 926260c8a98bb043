"""Raw files in an object store: a real S3 endpoint, and what is said where there is none."""

from __future__ import annotations

import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pyarrow as pa
import pyarrow.fs as pafs
import pytest

from foretaste.contracts.columns import EVENTS, TITLES
from foretaste.ops import stores
from foretaste.ops.files import read_parquet, write_parquet
from foretaste.ops.tables import prepared_files, read_prepared
from foretaste.sessions.prepare import PrepareConfig, prepare
from foretaste.sessions.sources import File, files_under
from foretaste.sessions.spread import here
from foretaste.signals.interactions import runs

NOW = datetime(2026, 1, 31, tzinfo=UTC)
CONFIG = PrepareConfig(num_buckets=2, piece_rows=5, compact_share=1e9, max_bad_share=0.5)


@pytest.fixture(scope="module")
def endpoint() -> Iterator[str]:
    """A server of its own that speaks S3, on a free loopback port."""
    pytest.importorskip("moto")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    code = f"from moto.server import main; main(['-H', '127.0.0.1', '-p', '{port}'])"
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        until = time.monotonic() + 60
        while True:
            try:
                socket.create_connection(("127.0.0.1", port), timeout=1).close()
                break
            except OSError:
                if process.poll() is not None or time.monotonic() > until:
                    pytest.fail("the S3 server did not start")
                time.sleep(0.1)
        yield f"127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait()


@pytest.fixture
def bucket(endpoint: str, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> str:
    """A bucket of the test's own, and keys in the environment that the server takes."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "testing")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "testing")
    stores.filesystem_of.cache_clear()
    name = f"b{abs(hash(request.node.name)) % 10**9}"
    s3 = pafs.S3FileSystem(endpoint_override=endpoint, scheme="http", region="us-east-1", allow_bucket_creation=True)
    s3.create_dir(name)
    return name


def _query(endpoint: str) -> str:
    return f"endpoint_override={endpoint}&scheme=http&region=us-east-1"


def _event(number: int, **more: object) -> dict[str, object]:
    at = datetime(2026, 1, 1, tzinfo=UTC) + timedelta(minutes=40 * number)
    return {
        "event_id": f"e{number:03d}",
        "member_id": "m",
        "at": at,
        "action": "play",
        "title_id": "ab"[number % 2],
    } | more


def _raw(folder: Path) -> Path:
    """Events as Parquet, CSV and JSON lines, one of them bad."""
    titles = [{"title_id": t, "kind": "movie", "genres": [], "artworks": []} for t in "ab"]
    write_parquet(pa.Table.from_pylist(titles, schema=TITLES), folder / "titles.parquet")
    write_parquet(pa.Table.from_pylist([_event(i) for i in range(12)], schema=EVENTS), folder / "events" / "0.parquet")
    lines = ["event_id,member_id,at,action,title_id"]
    lines += [",".join(str(v) for v in _event(i).values()).replace(" ", "T") for i in range(12, 20)]
    (folder / "events" / "1.csv").write_text("\n".join([*lines, "e9,m,2026-01-01T00:00:00+00:00,watch,a"]) + "\n")
    text = [
        f'{{"event_id":"e0{i}","member_id":"m","at":"2026-01-09T00:{i}:00Z","action":"play","title_id":"a"}}'
        for i in (30, 31)
    ]
    (folder / "events" / "2.jsonl").write_text("\n".join(text) + "\n")
    return folder


def _upload(folder: Path, endpoint: str, target: str) -> None:
    s3 = pafs.S3FileSystem(endpoint_override=endpoint, scheme="http", region="us-east-1")
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            with s3.open_output_stream(f"{target}/{path.relative_to(folder)}") as stream:
                stream.write(path.read_bytes())


def test_what_lies_in_s3_is_prepared_like_local_files_and_the_next_run_reads_what_is_new(
    tmp_path: Path, endpoint: str, bucket: str
) -> None:
    raw = _raw(tmp_path / "raw")
    _upload(raw, endpoint, f"{bucket}/logs")
    uri = f"s3://{bucket}/logs?{_query(endpoint)}"
    far = prepare(uri, tmp_path / "far", CONFIG, now=NOW, collapse=runs, spread=here)
    prepare(raw, tmp_path / "near", CONFIG, now=NOW, collapse=runs, spread=here)
    assert read_prepared(tmp_path / "far", "interactions").equals(read_prepared(tmp_path / "near", "interactions"))
    assert far["counts"]["events"] == 23
    (aside,) = prepared_files(tmp_path / "far", "quarantine")
    (row,) = read_parquet(aside).to_pylist()
    assert (row["file"], row["reason"]) == (f"s3://{bucket}/logs/events/1.csv", "unknown_action")
    write_parquet(pa.Table.from_pylist([_event(50), _event(3)], schema=EVENTS), tmp_path / "more" / "x.parquet")
    _upload(tmp_path / "more", endpoint, f"{bucket}/more")
    more = (f"s3://{bucket}/more?{_query(endpoint)}",)
    again = prepare(uri, tmp_path / "far", CONFIG, now=NOW, collapse=runs, spread=here, more_events=more)
    assert (again["run"]["mode"], again["run"]["files"], again["counts"]["duplicates"]) == ("incremental", 1, 1)
    assert (
        prepare(uri, tmp_path / "far", CONFIG, now=NOW, collapse=runs, spread=here, more_events=more)["run"]["mode"]
        == "nothing"
    )


def test_endpoint_and_region_may_come_from_the_environment(
    tmp_path: Path, endpoint: str, bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    _upload(_raw(tmp_path / "raw"), endpoint, f"{bucket}/logs")
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://{endpoint}")
    monkeypatch.setenv("AWS_REGION", "us-east-1")
    names = [file.name for file in files_under(f"s3://{bucket}/logs")]
    assert names == [
        f"s3://{bucket}/logs/{name}"
        for name in ("events/0.parquet", "events/1.csv", "events/2.jsonl", "titles.parquet")
    ]
    assert all(file.size > 0 and file.mtime_ns > 0 for file in files_under(f"s3://{bucket}/logs"))


def test_a_folder_that_is_not_there_is_said(tmp_path: Path, endpoint: str, bucket: str) -> None:
    with pytest.raises(ValueError, match="wanted one titles file"):
        prepare(f"s3://{bucket}/none?{_query(endpoint)}", tmp_path, CONFIG, now=NOW, collapse=runs, spread=here)


def test_a_google_uri_is_of_google_and_without_a_network_it_is_said_what_cannot_be_listed() -> None:
    filesystem, path = stores.filesystem_of("gs://anonymous@bucket/logs", "retry_limit_seconds=1")
    assert isinstance(filesystem, pafs.GcsFileSystem)
    assert path == "bucket/logs"
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{closed.getsockname()[1]}"
    uri = f"gs://anonymous@bucket/logs?endpoint_override={address}&scheme=http&retry_limit_seconds=1"
    with pytest.raises(ValueError, match=r"gs://anonymous@bucket/logs: cannot be listed"):
        files_under(uri)


@pytest.mark.parametrize("uri", ["ftp://host/logs", "s3://bucket/logs?colour=blue"])
def test_a_uri_that_leads_nowhere_is_refused_by_name(uri: str) -> None:
    with pytest.raises(ValueError, match=uri.partition("?")[0]):
        files_under(uri)


def test_a_local_file_is_a_path() -> None:
    assert not File("events/0.parquet").remote
    assert File("s3://bucket/events/0.csv").suffix == ".csv"
