"""A small cluster of pods on this machine: each has its own network, mounts and processes, and all end with it.

Nothing is installed and nobody's address is taken: the machine is a user namespace with a bridge in it, a pod a
namespace on that bridge. Whatever happens to the caller, the kernel ends every process in there with the first.
"""

from __future__ import annotations

import contextlib
import os
import shlex
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

import psutil

NETWORK = "10.77.0"
"""First three numbers of all addresses; nobody outside sees them."""
NEEDED = ("ip", "nsenter", "pivot_root", "setpriv", "unshare")
STARTED_SECONDS = 20.0
_ENTER = ("--preserve-credentials", "-U", "-m", "-n", "-p")
_OUTSIDE = """
set -e
ip link set lo up
ip link add br0 type bridge
ip addr add {network}.1/16 dev br0
ip link set br0 up
mount -t tmpfs tmpfs /mnt
for one in /*; do
  if [ $one = /mnt ]; then mkdir /mnt/mnt
  elif [ -L $one ]; then cp -P $one /mnt/
  elif [ -d $one ]; then mkdir /mnt$one; mount --rbind $one /mnt$one
  fi
done
mkdir /mnt/.before
cd /mnt
pivot_root . .before
umount -l /.before
for folder in {covered}; do
  over={scratch}/over$folder
  mkdir -p $over/up $over/work
  mount -t overlay overlay -o lowerdir=$folder,upperdir=$over/up,workdir=$over/work $folder
done
mount -t tmpfs tmpfs /run
mkdir /run/netns
printf 'nameserver 127.0.0.1\\noptions timeout:1 attempts:1\\n' > /etc/resolv.none
touch {scratch}/up
exec sleep infinity
"""
_COVERED = ("/etc", "/opt", "/srv")
"""Folders of this machine that mounts of pods appear in: what is made there, or beside them, is seen by pods alone."""


@dataclass(frozen=True)
class PodSpec:
    """What is run where: plain values, whoever made them."""

    name: str
    command: Sequence[str]
    environment: Mapping[str, str]
    mounts: Sequence[tuple[str, Path]] = ()  # where in the pod, what of this machine
    memory_mounts: Sequence[tuple[str, int]] = ()  # where in the pod, size in bytes
    aliases: Sequence[str] = ()  # names that others reach it by
    folder: str = "/"


class Pod:
    """A pod that runs."""

    def __init__(self, spec: PodSpec, process: subprocess.Popen[bytes], address: str, log: Path) -> None:
        self.spec, self.address, self._process, self._log = spec, address, process, log

    @property
    def log(self) -> str:
        """What it said."""
        return self._log.read_text(errors="replace")

    @property
    def runs(self) -> bool:
        """Whether it has not ended."""
        return self._process.poll() is None

    def run(
        self, command: Sequence[str], *, environment: Mapping[str, str] | None = None, seconds: float = 120.0
    ) -> subprocess.CompletedProcess[str]:
        """Run a command in it, as `kubectl exec` does; `environment` is added to the pod's."""
        given = {**self.spec.environment, **(environment or {})}
        words = ["nsenter", "-t", str(self._first()), *_ENTER, *_within(self.spec.folder), *command]
        return subprocess.run(words, env=given, capture_output=True, text=True, timeout=seconds)

    def started(self, command: Sequence[str], *, environment: Mapping[str, str] | None = None) -> subprocess.Popen[str]:
        """The same without waiting for it."""
        given = {**self.spec.environment, **(environment or {})}
        words = ["nsenter", "-t", str(self._first()), *_ENTER, *_within(self.spec.folder), *command]
        return subprocess.Popen(words, env=given, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)

    def wait(self, seconds: float) -> int:
        """Wait until it has ended; returns its exit status. Raises TimeoutExpired."""
        return self._process.wait(timeout=seconds)

    def kill(self) -> None:
        """End it at once, as the death of its machine would."""
        if self.runs:
            with contextlib.suppress(psutil.NoSuchProcess, ProcessLookupError):
                os.kill(self._first(), signal.SIGKILL)
            self._process.wait()

    def _first(self) -> int:
        """The process that everything in the pod descends from, by the number that it has out here."""
        deadline = time.monotonic() + STARTED_SECONDS
        while time.monotonic() < deadline:
            outer = psutil.Process(self._process.pid).children()  # nsenter, unshare, the pod's first
            if outer and (inner := outer[0].children()):
                return int(inner[0].pid)
            time.sleep(0.02)
        raise ConnectionError(f"pod {self.spec.name} did not start: {self.log[-2000:]}")


class Machine:
    """Where pods run; use it as a context."""

    def __init__(self) -> None:
        """Raises FileNotFoundError naming what the machine lacks; PermissionError comes with `with`."""
        if missing := [name for name in NEEDED if shutil.which(name) is None]:
            raise FileNotFoundError(f"{', '.join(missing)}: util-linux and iproute2 have it")
        self._scratch = Path(tempfile.mkdtemp(prefix="pods-", dir="/tmp"))
        self._pods: dict[str, Pod] = {}
        self._addresses: dict[str, str] = {}
        self._hosts = self._scratch / "hosts"
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        script = _OUTSIDE.format(network=NETWORK, covered=" ".join(_COVERED), scratch=self._scratch)
        words = ["setpriv", "--pdeathsig", "KILL", "unshare", "--user", "--map-root-user", "--net", "--mount", "--pid"]
        words += ["--fork", "--kill-child", "--mount-proc", "sh", "-c", script]
        with (self._scratch / "outside.log").open("wb") as said:
            self._process = subprocess.Popen(words, stdout=said, stderr=said, start_new_session=True)
        deadline = time.monotonic() + STARTED_SECONDS
        while not (self._scratch / "up").exists():
            if self._process.poll() is not None or time.monotonic() > deadline:
                text = (self._scratch / "outside.log").read_text()
                self.__exit__(None, None, None)
                raise PermissionError(f"no namespaces for pods here: {text.strip()}")
            time.sleep(0.02)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            for pod in self._pods.values():
                pod._process.wait()
        shutil.rmtree(self._scratch, ignore_errors=True)

    def address(self, name: str, *aliases: str) -> str:
        """The address of a pod, now and whenever it is started again; others find it by name and aliases."""
        if name not in self._addresses:
            self._addresses[name] = f"{NETWORK}.{10 + len(self._addresses)}"
            with self._hosts.open("a") as hosts:
                if len(self._addresses) == 1:
                    hosts.write("127.0.0.1 localhost\n")
                hosts.write(f"{self._addresses[name]} {' '.join((name, *aliases))}\n")
            self._outside(f"""
                ip netns add {name}
                ip link add v{len(self._addresses)} type veth peer name eth0 netns {name}
                ip link set v{len(self._addresses)} master br0 up
                inside="nsenter --net=/run/netns/{name} ip"
                $inside addr add {self._addresses[name]}/16 dev eth0
                $inside link set eth0 up
                $inside link set lo up
                $inside route add default via {NETWORK}.1
            """)
        return self._addresses[name]

    def start(self, spec: PodSpec) -> Pod:
        """Start a pod; one of the same name that has ended keeps its address and starts anew."""
        address = self.address(spec.name, *spec.aliases)
        lines = ["set -e", f"mount --bind {self._hosts} /etc/hosts", "mount --bind /etc/resolv.none /etc/resolv.conf"]
        lines += [f"hostname {spec.name} 2>/dev/null || true"]
        for path, source in spec.mounts:
            make = (
                f"mkdir -p {path}"
                if source.is_dir()
                else f"mkdir -p {Path(path).parent}; [ -e {path} ] || touch {path}"
            )
            lines += [make, f"mount --bind {shlex.quote(str(source))} {path}"]
        lines += [
            f"mkdir -p {at} && mount -t tmpfs -o size={size},mode=1777 tmpfs {at}" for at, size in spec.memory_mounts
        ]
        lines += [f"cd {spec.folder}", f"exec {shlex.join(spec.command)}"]
        log = self._scratch / f"{spec.name}.log"
        inside = [
            "unshare",
            "--mount",
            "--uts",
            "--pid",
            "--fork",
            "--kill-child",
            "--mount-proc",
            "sh",
            "-c",
            "\n".join(lines),
        ]
        words = ["nsenter", "-t", str(self._first()), *_ENTER, "nsenter", f"--net=/run/netns/{spec.name}", *inside]
        with log.open("ab") as out:
            process = subprocess.Popen(
                words, env=dict(spec.environment), stdout=out, stderr=out, start_new_session=True
            )
        self._pods[spec.name] = Pod(spec, process, address, log)
        return self._pods[spec.name]

    def _outside(self, script: str) -> None:
        words = ["nsenter", "-t", str(self._first()), *_ENTER, "sh", "-ec", script]
        done = subprocess.run(words, capture_output=True, text=True)
        if done.returncode != 0:
            raise PermissionError(f"{script.strip()}: {done.stderr.strip()}")

    def _first(self) -> int:
        assert self._process is not None, "wanted inside of `with`"
        return int(psutil.Process(self._process.pid).children()[0].pid)


def _within(folder: str) -> list[str]:
    """Words that run a command in a folder of the namespace that was entered."""
    return ["sh", "-c", f'cd {folder} && exec "$@"', "sh"]
