"""Releases: what answers together is rolled out, and taken back, together."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from foretaste.ops.bundles import fetch_bundle, file_bundle
from foretaste.ops.releases import (
    current_release,
    file_release,
    promote_release,
    release,
    releases,
    roll_back,
    rollout,
)

AT = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


def bundle(registry: Path, name: str, what: str) -> str:
    with file_bundle(registry, name, at=AT, about={}) as folder:
        (folder / "weights").write_text(what)
    return fetch_bundle(registry, name).version


def made(registry: Path, what: str, *, minutes: int = 0) -> str:
    models = {name: bundle(registry, name, f"{name} {what}") for name in ("intent", "ranker")}
    return file_release(registry, models, at=AT + timedelta(minutes=minutes), about={"what": what}).name


def test_a_release_answers_once_it_is_promoted(tmp_path: Path) -> None:
    first = made(tmp_path, "a")
    assert current_release(tmp_path) is None
    promote_release(tmp_path, first, at=AT)
    found = current_release(tmp_path)
    assert found is not None
    assert (found.name, found.about) == (first, {"what": "a"})
    assert set(found.models) == {"intent", "ranker"}


def test_the_same_models_are_the_same_release(tmp_path: Path) -> None:
    first = made(tmp_path, "a")
    assert made(tmp_path, "a", minutes=5) == first
    assert [one.name for one in releases(tmp_path)] == [first]


def test_a_rollback_goes_back_through_what_answered_and_not_to_and_fro(tmp_path: Path) -> None:
    a, b, c = (made(tmp_path, what, minutes=number) for number, what in enumerate("abc"))
    for name in (a, b, c):
        promote_release(tmp_path, name, at=AT)
    assert roll_back(tmp_path, at=AT).current == b
    assert roll_back(tmp_path, at=AT).current == a
    with pytest.raises(ValueError, match="nothing to roll back to"):
        roll_back(tmp_path, at=AT)
    promote_release(tmp_path, c, at=AT)
    assert roll_back(tmp_path, at=AT).current == a
    known = rollout(tmp_path)
    assert known is not None
    assert [step["why"] for step in known.history] == ["promoted"] * 3 + ["rolled back"] * 2 + [
        "promoted",
        "rolled back",
    ]


def test_what_answers_already_is_not_promoted_twice(tmp_path: Path) -> None:
    first = made(tmp_path, "a")
    for _ in range(2):
        promote_release(tmp_path, first, at=AT)
    known = rollout(tmp_path)
    assert known is not None
    assert len(known.history) == 1


def test_what_is_not_filed_is_refused_with_what_there_is(tmp_path: Path) -> None:
    first = made(tmp_path, "a")
    with pytest.raises(FileNotFoundError, match=f"no release nonsense in .*; there are {first}"):
        promote_release(tmp_path, "nonsense", at=AT)
    with pytest.raises(FileNotFoundError, match="no bundle intent nonsense"):
        file_release(tmp_path, {"intent": "nonsense"}, at=AT, about={})
    (tmp_path / "intent" / release(tmp_path, first).models["intent"] / "weights").write_text("other")
    with pytest.raises(ValueError, match="files have fingerprint"):
        file_release(tmp_path, dict(release(tmp_path, first).models), at=AT, about={})


def test_promotions_of_many_take_turns(tmp_path: Path) -> None:
    names = [made(tmp_path, what, minutes=number) for number, what in enumerate("abcdef")]
    with ThreadPoolExecutor(6) as threads:
        list(threads.map(lambda name: promote_release(tmp_path, name, at=AT), names))
    known = rollout(tmp_path)
    assert known is not None
    assert sorted(step["release"] for step in known.history) == sorted(names)
    assert known.current == known.history[-1]["release"]
