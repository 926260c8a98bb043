"""A server that speaks S3 on a loopback port, for tests."""

from __future__ import annotations

import contextlib
import socket
import subprocess
import sys
import time
from collections.abc import Iterator

import pyarrow.fs as pafs

from foretaste.ops.redis_server import free_port

READY_WITHIN_SECONDS = 60.0
REGION = "us-east-1"


@contextlib.contextmanager
def s3_server(port: int | None = None) -> Iterator[str]:
    """Run moto's server, which forgets everything when it ends, with one bucket; gives what a URI's query has to say.

    A URI is `s3://testing:testing@bucket/PREFIX?` with that query. Raises ConnectionError where it does not come up.
    """
    port = port or free_port()
    code = f"from moto.server import main; main(['-H', '127.0.0.1', '-p', '{port}'])"
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        end = time.monotonic() + READY_WITHIN_SECONDS
        while True:
            with contextlib.suppress(OSError):
                socket.create_connection(("127.0.0.1", port), timeout=1).close()
                break
            if process.poll() is not None or time.monotonic() > end:
                raise ConnectionError("the S3 server did not start")
            time.sleep(0.1)
        store = pafs.S3FileSystem(
            endpoint_override=f"127.0.0.1:{port}", scheme="http", region=REGION, allow_bucket_creation=True,
            access_key="testing", secret_key="testing",
        )  # fmt: skip
        store.create_dir("bucket")
        yield f"endpoint_override=127.0.0.1:{port}&scheme=http&region={REGION}"
    finally:
        process.terminate()
        process.wait()
