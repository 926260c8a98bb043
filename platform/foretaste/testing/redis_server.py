"""A real Redis for tests and benchmarks: on a free loopback port, with a folder of its own, stopped by its handle."""

from __future__ import annotations

import contextlib
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

READY_WITHIN_SECONDS = 20.0


@contextlib.contextmanager
def redis_server(*settings: str, folder: Path | None = None, port: int | None = None) -> Iterator[str]:
    """Run `redis-server` with `settings` (as on its command line) and give its URL; it ends with the block.

    By default every acknowledged write is in the append-only file before the answer. Raises FileNotFoundError where
    there is no redis-server, ConnectionError where it does not come up.
    """
    with contextlib.ExitStack() as stack:
        home = folder or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="redis-")))
        number = port or _free_port()
        listening = ["--port", str(number), "--bind", "127.0.0.1", "--save", "", "--dir", str(home)]
        durable = ["--appendonly", "yes", "--appendfsync", "always"]
        server = subprocess.Popen(
            ["redis-server", *listening, *durable, *settings], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        try:
            _wait(server, number)
            yield f"redis://127.0.0.1:{number}/0"
        finally:
            server.terminate()
            server.wait()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _wait(server: subprocess.Popen[bytes], port: int) -> None:
    deadline = time.monotonic() + READY_WITHIN_SECONDS
    while time.monotonic() < deadline:
        if server.poll() is not None:
            raise ConnectionError(f"redis-server ended with code {server.returncode}")
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1) as probe:
            probe.sendall(b"PING\r\n")
            if probe.recv(7) == b"+PONG\r\n":
                return
        time.sleep(0.02)
    raise ConnectionError(f"redis-server did not answer on port {port} within {READY_WITHIN_SECONDS:.0f} s")
