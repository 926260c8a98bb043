"""Libraries that measure what we measure, asked as programs in an environment of their own.

What goes over: `settings.json` and `input.npz`. What comes back: `result.json` and, where a program makes one,
`output.npz`. Each program says what its files hold.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from foretaste.contracts.config import Frozen
from foretaste.jobs.programs import run_program
from foretaste.ops.files import read_json, write_json


class OracleConfig(Frozen):
    """Where the oracles are, and how long they may take."""

    python: Path = Field(
        Path(".venv-oracles/bin/python"), description="interpreter that has the oracles' libraries; `make oracles`"
    )
    programs: Path = Field(Path("deployments/references"), description="folder of the programs that ask them")
    timeout_seconds: float = Field(1_800.0, gt=0, description="seconds after which a program is ended")

    def needed(self, program: str) -> Path:
        """The program's path; raises FileNotFoundError, saying how to get it, where it or the libraries are missing."""
        if not self.python.is_file():
            raise FileNotFoundError(
                f"{self.python}: the oracles are not installed; `make oracles` installs them beside the platform, or "
                "name an interpreter that has them: oracles.python"
            )
        path = self.programs / program
        if not path.is_file():
            raise FileNotFoundError(f"{path}: not here; run from a checkout, or name the folder: oracles.programs")
        return path


@dataclass(frozen=True, slots=True)
class Answer:
    """What an oracle said."""

    result: dict[str, Any]
    arrays: dict[str, NDArray[Any]] = field(default_factory=dict)


def ask(
    config: OracleConfig,
    program: str,
    settings: Mapping[str, Any],
    arrays: Mapping[str, NDArray[Any] | None],
    *,
    threads: int = 1,
) -> Answer:
    """Run an oracle's program on arrays; those that are None are left out.

    Raises FileNotFoundError where it is not installed, RuntimeError with what it said where it fails or takes too long.
    """
    path = config.needed(program)
    with tempfile.TemporaryDirectory(prefix="foretaste-oracle-") as name:
        folder = Path(name)
        write_json(dict(settings), folder / "settings.json")
        given: dict[str, Any] = {name: array for name, array in arrays.items() if array is not None}
        np.savez(folder / "input.npz", **given)
        run_program([str(config.python), str(path), str(folder)], config.timeout_seconds, threads, lambda _: None)
        found: dict[str, NDArray[Any]] = {}
        if (folder / "output.npz").is_file():
            with np.load(folder / "output.npz") as stored:
                found = {one: stored[one] for one in stored.files}
        return Answer(read_json(folder / "result.json"), found)
