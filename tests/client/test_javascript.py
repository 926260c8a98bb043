"""The JavaScript client does what the Python one does, run by node; without node only its shape is looked at."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
SOURCE = ROOT / "platform" / "foretaste" / "client" / "foretaste.js"


@pytest.fixture(scope="module")
def told() -> dict[str, Any]:
    node = shutil.which("node")
    if node is None:
        pytest.skip("node is not installed: the JavaScript client is looked at and not run")
    script = Path(__file__).with_name("javascript.mjs")
    done = subprocess.run([node, str(script)], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def test_it_depends_on_nothing_and_keeps_no_list() -> None:
    text = SOURCE.read_text()
    assert (
        re.findall(r"^\s*import\s|require\(", re.sub(r"/\*.*?\*/", "", text, flags=re.DOTALL), flags=re.MULTILINE) == []
    )
    assert 'cache: "no-store"' in text
    for opening, closing in ("{}", "()", "[]"):
        bare = re.sub(r"//[^\n]*|/\*.*?\*/|\"[^\"\n]*\"|/\\/\+\$/", "", text, flags=re.DOTALL)
        assert bare.count(opening) == bare.count(closing)


def test_events_go_in_batches_with_ids_times_and_the_key(told: dict[str, Any]) -> None:
    found = told["batches"]
    assert (found["before"], found["told"], found["sizes"]) == (0, True, [4, 4, 2])
    assert found["ids"] == [f"e{number}" for number in range(10)]
    assert (found["at"], found["key"]) == (1767323045000, "k")


def test_after_any_passing_failure_everything_is_told_under_the_same_ids(told: dict[str, Any]) -> None:
    assert told["failures"] == [[True, "e0,e1,e2", 5, 0, 0]] * 6


def test_waits_are_drawn_below_a_bound_that_doubles_and_heed_retry_after(told: dict[str, Any]) -> None:
    drawn = told["waits"]["drawn"]
    assert all(0 < wait <= bound for wait, bound in zip(drawn, (100, 200, 400, 400, 400), strict=True))
    assert told["waits"]["retried"] == [7000]


def test_what_waits_outlives_a_reload_and_is_bounded(told: dict[str, Any]) -> None:
    assert told["survives_a_reload"] == {"waiting": 2, "ids": ["a0", "a1"], "left": 0}
    assert told["bounded"] == {"dropped": 3, "ids": ["e3", "e4", "e5", "e6", "e7"]}
    assert told["full_storage"] == 1


def test_what_will_never_be_taken_holds_up_nothing(told: dict[str, Any]) -> None:
    assert told["refused"] == {"stored": 7, "refused": 1, "waiting": 0}


def test_a_list_is_asked_for_after_what_was_recorded_and_what_was_shown_is_told(told: dict[str, Any]) -> None:
    found = told["just_in_time"]
    assert found["calls"] == ["/v1/events", "/v1/recommend", "/v1/recommend"]
    assert (found["titles"], found["ids"], found["stored"]) == (["t1", "t"], ["d1", "d2"], 2)
    assert {ack["path"] for ack in found["acks"]} == {"/v1/decisions/d2/ack"}
    assert {tuple(ack["shown"]) for ack in found["acks"]} == {("t1",)}


def test_there_is_no_list_rather_than_an_old_one(told: dict[str, Any]) -> None:
    assert told["no_old_list"] == [[True, 0], [True, 422], "d2"]


def test_in_the_background_everything_is_told(told: dict[str, Any]) -> None:
    assert told["background"] == 20
