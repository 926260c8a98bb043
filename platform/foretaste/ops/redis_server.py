"""A real Redis for tests and benchmarks: on a free loopback port, with a folder of its own, stopped by its handle."""

from __future__ import annotations

import contextlib
import signal
import socket
import ssl
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

READY_WITHIN_SECONDS = 20.0
STOP_ATTEMPTS = 5
_FILES = {"cert": "tls.crt", "key": "tls.key", "ca-cert": "ca.crt"}


class RedisServer:
    """One `redis-server` on loopback; by default every write is in the append-only file before it is acknowledged."""

    def __init__(
        self,
        folder: Path,
        *settings: str,
        port: int | None = None,
        host: str = "127.0.0.1",
        tls: Path | None = None,
    ) -> None:
        """Start it with `settings` (as on its command line) and its data in `folder`.

        With `tls`, a folder of ca.crt, tls.crt and tls.key as a Secret has them, it speaks TLS alone. Raises
        FileNotFoundError where there is no redis-server, ConnectionError where it does not come up.
        """
        self._host, self._port = host, port or free_port(host)
        self._tls = tls
        listening = ["--port", str(self._port)] if tls is None else _encrypted(self._port, tls)
        listening += ["--bind", host, "--save", "", "--dir", str(folder)]
        self._command = ["redis-server", *listening, "--appendonly", "yes", "--appendfsync", "always", *settings]
        self.url = f"redis://{host}:{self._port}/0"
        if tls is not None:
            self.url = f"rediss://{host}:{self._port}/0?ssl_ca_certs={tls / 'ca.crt'}"
        self.start()

    def start(self) -> None:
        """Start it, also again after it ended, with what its folder has."""
        self._process = subprocess.Popen(self._command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            _wait(self._process, self._host, self._port, self._tls)
        except BaseException:
            self.stop()
            raise

    def pause(self) -> None:
        """Have it hang: what is sent waits, nothing is answered."""
        self._process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Let it go on where it was."""
        self._process.send_signal(signal.SIGCONT)

    def kill(self) -> None:
        """End it as `kill -9` does."""
        self._process.kill()
        self._process.wait()

    def stop(self) -> None:
        """End it in good order; by force where it does not, as a server that writes its first append-only file."""
        for _ in range(STOP_ATTEMPTS):
            self._process.terminate()  # it is refused at such a moment, and then forgotten
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(timeout=1.0)
                return
        self.kill()


@contextlib.contextmanager
def redis_server(*settings: str, tls: Path | None = None) -> Iterator[str]:
    """Run a `RedisServer` with a folder of its own and give its URL; it ends with the block."""
    with tempfile.TemporaryDirectory(prefix="redis-") as folder:
        server = RedisServer(Path(folder), *settings, tls=tls)
        try:
            yield server.url
        finally:
            server.stop()


def free_port(host: str = "127.0.0.1") -> int:
    """A port of an address of this machine, by default loopback, that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind((host, 0))
        return int(probe.getsockname()[1])


def _encrypted(port: int, tls: Path) -> list[str]:
    files = {f"--tls-{what}-file": str(tls / name) for what, name in _FILES.items()}
    said = ["--port", "0", "--tls-port", str(port), "--tls-auth-clients", "no"]
    return said + [word for pair in files.items() for word in pair]


def _connected(host: str, port: int, tls: Path | None) -> socket.socket:
    plain = socket.create_connection((host, port), timeout=1)
    if tls is None:
        return plain
    return ssl.create_default_context(cafile=str(tls / "ca.crt")).wrap_socket(plain, server_hostname=host)


def _wait(server: subprocess.Popen[bytes], host: str, port: int, tls: Path | None) -> None:
    deadline = time.monotonic() + READY_WITHIN_SECONDS
    while time.monotonic() < deadline:
        if server.poll() is not None:
            raise ConnectionError(f"redis-server ended with code {server.returncode}")
        with contextlib.suppress(OSError), _connected(host, port, tls) as probe:
            probe.sendall(b"PING\r\n")
            if probe.recv(7) in (b"+PONG\r\n", b"-NOAUTH"):
                return
        time.sleep(0.02)
    raise ConnectionError(f"redis-server did not answer on port {port} within {READY_WITHIN_SECONDS:.0f} s")
