"""A real PostgreSQL for tests: on a free loopback port, with a folder of its own, stopped by its handle."""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from foretaste.ops.redis_server import free_port

READY_WITHIN_SECONDS = 60.0
USER, PASSWORD, DATABASE = "features", "s3cret", "postgres"


def programs() -> Path | None:
    """The folder of PostgreSQL's programs, or None where it is not installed; Debian's is not on the path."""
    known = shutil.which("initdb")
    there = [Path(known).resolve().parent] if known else sorted(Path("/usr/lib/postgresql").glob("*/bin"))
    return there[-1] if there and (there[-1] / "postgres").exists() else None


class PostgresServer:
    """One server on loopback that wants a password."""

    def __init__(self, folder: Path) -> None:
        """Make its data in `folder`, which has to be empty, and start it.

        Raises FileNotFoundError where it is not installed, ConnectionError where it does not come up.
        """
        found = programs()
        if found is None:
            raise FileNotFoundError("PostgreSQL is not installed")
        self._programs, self._folder, self._port = found, folder, free_port()
        self._as: dict[str, Any] = {}
        if os.geteuid() == 0:  # it refuses to run as root
            owner = _somebody()
            self._as = {"user": owner.pw_uid, "group": owner.pw_gid, "extra_groups": []}
            os.chown(folder, owner.pw_uid, owner.pw_gid)
        password = folder / "password"
        password.write_text(PASSWORD)
        password.chmod(0o644)
        made = ["-D", str(folder / "data"), "-U", USER, "-A", "scram-sha-256", "--pwfile", str(password), "--no-sync"]
        self._run("initdb", *made, "--locale=C", "-E", "UTF8").check_returncode()
        self.url = f"postgresql://{USER}:{PASSWORD}@127.0.0.1:{self._port}/{DATABASE}"
        self.start()

    def start(self) -> None:
        """Start it, also again after it ended, with what its folder has."""
        command = [str(self._programs / "postgres"), "-D", str(self._folder / "data"), "-p", str(self._port), "-F"]
        self._process = subprocess.Popen(
            [*command, "-h", "127.0.0.1", "-k", str(self._folder)],
            cwd=self._folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, **self._as,
        )  # fmt: skip
        end = time.monotonic() + READY_WITHIN_SECONDS
        while self._run("pg_isready", "-h", "127.0.0.1", "-p", str(self._port)).returncode != 0:
            if self._process.poll() is not None or time.monotonic() > end:
                self.stop()
                raise ConnectionError(f"PostgreSQL did not answer on port {self._port}")
            time.sleep(0.05)

    def stop(self) -> None:
        """End it in good order, whoever is connected."""
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGINT)
            self._process.wait(timeout=30)

    def _run(self, program: str, *arguments: str) -> subprocess.CompletedProcess[bytes]:
        return subprocess.run(
            [str(self._programs / program), *arguments], cwd=self._folder, capture_output=True, check=False, **self._as
        )


@contextlib.contextmanager
def postgres_server() -> Iterator[PostgresServer]:
    """Run a `PostgresServer` with a folder of its own; it ends with the block."""
    with tempfile.TemporaryDirectory(prefix="postgres-") as folder:
        server = PostgresServer(Path(folder))
        try:
            yield server
        finally:
            server.stop()


def _somebody() -> pwd.struct_passwd:
    try:
        return pwd.getpwnam("postgres")
    except KeyError:
        return pwd.getpwnam("nobody")
