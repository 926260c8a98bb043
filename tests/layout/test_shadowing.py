"""`platform/` is a source root; the standard library's module of that name must stay reachable."""

from __future__ import annotations

import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("folder", [".", "platform", "tests"])
def test_import_platform_finds_the_standard_library_from_every_folder(folder: str) -> None:
    found = subprocess.run(
        [sys.executable, "-c", "import platform; print(platform.__file__); platform.system()"],
        cwd=ROOT / folder,
        capture_output=True,
        text=True,
        check=True,
    ).stdout.strip()
    assert Path(found).parent == Path(sysconfig.get_paths()["stdlib"])


def test_no_package_stands_where_it_would_shadow_platform() -> None:
    assert not (ROOT / "platform" / "__init__.py").exists()
    assert not (ROOT / "tests" / "platform").exists()
    assert not list((ROOT / "tests").rglob("__init__.py"))
    assert not (ROOT / "features" / "__init__.py").exists()


def test_the_top_level_holds_the_agreed_folders_and_no_other() -> None:
    tracked = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    folders = {line.split("/")[0] for line in tracked.splitlines() if "/" in line}
    assert folders <= {"platform", "features", "deployments", "tests", "k8s", ".ci"}
