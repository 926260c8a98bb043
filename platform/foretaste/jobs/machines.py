"""Machines of their own on one, by what the kernel makes containers of: each has its processes, network and memory.

What runs there takes the ports and the paths of production, is reached at an address of its own, and dies whole. Linux,
and leave to make namespaces (root).
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import psutil

TOOLS = ("ip", "unshare", "mount")
SHM = "256m"
ENDS_WITHIN_SECONDS = 20.0
FIRST = 10
"""Number of the first machine of a network; the host is 1."""
INSIDE = """
mkdir -p /tmp/ray /tmp/haproxy-serve
mount --bind "$1/ray" /tmp/ray
mount --bind "$1/haproxy" /tmp/haproxy-serve
mount -t tmpfs -o size={shm} tmpfs /dev/shm
shift
exec "$@"
"""
"""What a machine does first: the folders that Ray and its proxy take for theirs are its own."""


def impossible() -> str | None:
    """Why there can be no machines here; None where there can."""
    lacking = [tool for tool in TOOLS if shutil.which(tool) is None]
    if lacking:
        return f"{', '.join(lacking)} not installed (iproute2, util-linux)"
    tried = subprocess.run(["unshare", "--net", "--pid", "--mount", "--fork", "true"], capture_output=True, text=True)
    return None if tried.returncode == 0 else f"no leave to make namespaces: {tried.stderr.strip()}"


@dataclass(slots=True)
class Machine:
    """One machine: its address, and what runs on it."""

    name: str
    address: str
    wire: str  # its end on this machine
    folder: Path
    shm: str = SHM
    _process: subprocess.Popen[bytes] | None = field(default=None, init=False)

    @property
    def log(self) -> Path:
        """What its program says."""
        return self.folder / "said.log"

    def start(self, command: Sequence[str], environment: Mapping[str, str] = os.environ) -> None:
        """Run a program as its first process; what the machine keeps in /tmp/ray is gone when it starts again."""
        for name in ("ray", "haproxy"):
            shutil.rmtree(self.folder / name, ignore_errors=True)
            (self.folder / name).mkdir(parents=True)
        own = ["unshare", "--pid", "--mount", "--ipc", "--fork", "--kill-child", "--mount-proc"]
        inside = ["sh", "-ec", INSIDE.format(shm=self.shm), "sh", str(self.folder), *command]
        with self.log.open("ab") as out:
            self._process = subprocess.Popen(
                ["ip", "netns", "exec", self.name, *own, *inside], stdout=out, stderr=out, env=dict(environment)
            )

    @property
    def runs(self) -> bool:
        """Whether its first process is there."""
        return self._process is not None and self._process.poll() is None

    @property
    def ended(self) -> bool:
        """Whether its first process ended by itself."""
        return self._process is not None and not self.runs

    def processes(self) -> list[psutil.Process]:
        """What runs there."""
        if self._process is None or not self.runs:
            return []
        with contextlib.suppress(psutil.NoSuchProcess):
            return psutil.Process(self._process.pid).children(recursive=True)
        return []

    def kill(self) -> None:
        """End all that runs there at one instant, as where the power fails: SIGKILL."""
        if self._process is not None:
            processes = self.processes()
            self._process.kill()
            self._process.wait()
            psutil.wait_procs(processes, timeout=ENDS_WITHIN_SECONDS)
            self._process = None

    def unplug(self) -> None:
        """Cut it off: what is sent to it is lost, and nobody is told."""
        _ip("link", "set", self.wire, "down")

    def plug(self) -> None:
        """Put it on the network again."""
        _ip("link", "set", self.wire, "up")

    def stop(self, *, seconds: float) -> None:
        """Ask its first process to end (SIGTERM), as a pod is; what is left after so many seconds is killed."""
        if self._process is None:
            return
        with contextlib.suppress(psutil.NoSuchProcess):
            for first in psutil.Process(self._process.pid).children():
                first.send_signal(signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(timeout=seconds)
        self.kill()


class Network:
    """A network of this machine alone, which machines are put on."""

    def __init__(self, folder: Path) -> None:
        """Make it; `folder` holds what the machines keep. Raises OSError where that is not allowed."""
        self._folder = folder
        self._name = f"ft{os.getpid()}"
        self._prefix = f"10.{200 + os.getpid() % 50}.{os.getpid() // 50 % 250}"
        self._machines: list[Machine] = []
        self.host = f"{self._prefix}.1"
        _ip("link", "add", self._name, "type", "bridge")
        _ip("addr", "add", f"{self.host}/24", "dev", self._name)
        _ip("link", "set", self._name, "up")

    def machine(self, role: str) -> Machine:
        """One more; its name says what it is for."""
        number = len(self._machines) + FIRST
        name, wire = f"{self._name}-{role}", f"{self._name}-{number}"
        made = Machine(name, f"{self._prefix}.{number}", wire, self._folder / role)
        made.folder.mkdir(parents=True, exist_ok=True)
        self._machines.append(made)
        _ip("netns", "add", name)
        _ip("link", "add", wire, "type", "veth", "peer", "name", "eth0", "netns", name)
        _ip("link", "set", wire, "master", self._name, "up")
        _ip("-n", name, "addr", "add", f"{made.address}/24", "dev", "eth0")
        for link in ("eth0", "lo"):
            _ip("-n", name, "link", "set", link, "up")
        return made

    def close(self) -> None:
        """End all machines, and the network."""
        for machine in self._machines:
            machine.kill()
        for machine in self._machines:
            subprocess.run(["ip", "link", "delete", machine.wire], capture_output=True)
            subprocess.run(["ip", "netns", "delete", machine.name], capture_output=True)
        subprocess.run(["ip", "link", "delete", self._name], capture_output=True)


@contextlib.contextmanager
def network(folder: Path) -> Iterator[Network]:
    """A `Network` that ends with the block."""
    made = Network(folder)
    try:
        yield made
    finally:
        made.close()


def _ip(*words: str) -> None:
    done = subprocess.run(["ip", *words], capture_output=True, text=True)
    if done.returncode != 0:
        raise OSError(f"ip {' '.join(words)}: {done.stderr.strip()}")
