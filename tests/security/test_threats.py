"""The threat model names tests and checks that are there, and leaves no threat without either."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from foretaste.testing.manifests.checks import CHECKS

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "platform/THREATS.md").read_text()
ROWS = re.findall(r"^\| (\d+) \| (.*?) \| (.*?) \| (.*?) \|$", TEXT, flags=re.MULTILINE)


def test_threats_are_numbered_through() -> None:
    assert [int(number) for number, *_ in ROWS] == list(range(1, len(ROWS) + 1))
    assert len(ROWS) > 20


@pytest.mark.parametrize(("number", "shown"), [(number, shown) for number, _, _, shown in ROWS])
def test_what_is_said_to_show_that_a_threat_is_stopped_is_there(number: str, shown: str) -> None:
    tests = re.findall(r"`(tests/[\w/.]+)::(\w+)`", shown)
    checks = re.findall(r"`([a-z-]+)`", re.sub(r"`tests/[^`]*`", "", shown))
    assert tests or checks, number
    for file, name in tests:
        assert f"def {name}(" in (ROOT / file).read_text(), f"{file}::{name}"
    assert set(checks) <= set(CHECKS)


def test_paths_that_the_page_names_are_there() -> None:
    for path in re.findall(r"`((?:tests|k8s|deployments|platform)/[\w./-]*\w)`", TEXT):
        assert (ROOT / path).exists(), path
