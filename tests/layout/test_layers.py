"""The layers hold, and the request path stays light."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def _loaded(module: str) -> set[str]:
    code = f"import {module}, sys; print('\\n'.join(sys.modules))"
    out = subprocess.run([sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, check=True)
    return set(out.stdout.split())


def test_every_import_contract_is_kept() -> None:
    done = subprocess.run(
        [str(Path(sys.executable).parent / "lint-imports"), "--no-cache"], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(
    ("module", "forbidden"),
    [
        ("foretaste.cli", {"ray", "torch", "feast", "mlflow", "polars", "pyarrow"}),
        ("foretaste.models.intent", {"ray", "feast", "mlflow", "fastapi"}),
        ("foretaste.policies.epsilon_greedy", {"torch", "ray", "pyarrow", "polars"}),
        ("foretaste.serving.ingress", {"ray.data", "ray.train", "mlflow", "feast", "foretaste.sessions"}),
    ],
)
def test_importing_a_module_does_not_load_what_it_must_not(module: str, forbidden: set[str]) -> None:
    assert not _loaded(module) & forbidden
