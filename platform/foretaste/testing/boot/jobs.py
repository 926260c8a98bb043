"""Jobs of a booted cluster, submitted and read by Ray's own command line, run in the cluster's pods."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from foretaste.testing.boot.machine import Pod

WORKSPACE = "/srv/foretaste/workspace"
SUBMITTED_SECONDS = 600.0
EPOCH = re.compile(r"epoch (\d+)/\d+")


@dataclass(frozen=True)
class Jobs:
    """The job API at an address, asked from a pod that holds the token."""

    pod: Pod
    address: str
    token: str

    def submit(
        self, words: Sequence[str], *, token: str | None = None, wait: bool = True, **options: Path | str
    ) -> tuple[int, str]:
        """`ray job submit` with its options spelled as keywords; exit status and all that it said."""
        told = [f"--{name.replace('_', '-')}={value}" for name, value in options.items()]
        told += [] if wait else ["--no-wait"]
        given = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": self.token} if token is None else _with(token)
        done = self.pod.run(
            ["ray", "job", "submit", "--address", self.address, *told, "--", *words],
            environment=given,
            seconds=SUBMITTED_SECONDS,
        )
        return done.returncode, done.stdout + done.stderr

    def stop(self, name: str) -> str:
        """`ray job stop`; returns once the job has ended."""
        done = self.pod.run(["ray", "job", "stop", "--address", self.address, name], seconds=SUBMITTED_SECONDS)
        return done.stdout + done.stderr

    def about(self, name: str) -> dict[str, Any]:
        """What the job API knows of a job."""
        found: dict[str, Any] = json.loads(self._asked(f"/api/jobs/{name}"))
        return found

    def names(self) -> set[str]:
        """Names of all submissions."""
        return {one["submission_id"] for one in json.loads(self._asked("/api/jobs/"))}

    def log(self, name: str) -> str:
        """What a job said so far."""
        return str(json.loads(self._asked(f"/api/jobs/{name}/logs"))["logs"])

    def _asked(self, path: str) -> str:
        words = ["curl", "-s", "-m", "60", "-H", f"authorization: Bearer {self.token}", f"{self.address}{path}"]
        return self.pod.run(words).stdout


def _with(token: str) -> Mapping[str, str]:
    return (
        {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": token}
        if token
        else {"RAY_AUTH_MODE": "disabled", "RAY_AUTH_TOKEN": ""}
    )


def result(log: str) -> dict[str, Any]:
    """The JSON that a verb ended its output with."""
    found: dict[str, Any] = json.loads([line for line in log.splitlines() if line.startswith("{")][-1])
    return found


def epochs(log: str) -> list[int]:
    """Numbers of the epochs that a log tells of, in its order."""
    return [int(number) for number in EPOCH.findall(log)]
