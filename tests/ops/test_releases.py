"""Releases: what answers together is rolled out, and taken back, together."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from foretaste.ops.bundles import fetch_bundle, file_bundle
from foretaste.ops.files import write_json
from foretaste.ops.releases import (
    current_release,
    file_release,
    give_share,
    promote_release,
    release,
    releases,
    roll_back,
    rollout,
    shadow_release,
)
from foretaste.ops.rollouts import ShareError

SALT, OTHER = "00" * 16, "11" * 16
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


def test_arms_are_given_shares_keep_their_salt_and_end_with_a_promotion(tmp_path: Path) -> None:
    a, b, c = (made(tmp_path, what, minutes=number) for number, what in enumerate("abc"))
    with pytest.raises(ValueError, match="nothing answers yet"):
        give_share(tmp_path, b, arm="canary", share=0.1, salt=SALT, at=AT)
    promote_release(tmp_path, a, at=AT)
    give_share(tmp_path, b, arm="canary", share=0.1, salt=SALT, at=AT)
    found = give_share(tmp_path, c, arm="b", share=0.4, salt=OTHER, at=AT + timedelta(hours=1))
    assert found == rollout(tmp_path)
    assert (found.current, found.salt, found.arms_since) == (a, SALT, (AT + timedelta(hours=1)).isoformat())
    assert found.shares == {"canary": 0.1, "b": 0.4, "main": 0.5}
    assert found.names == {a, b, c}
    again = give_share(tmp_path, c, arm="b", share=0.4, salt=OTHER, at=AT + timedelta(hours=2))
    assert again == found, "the same again changes nothing"
    for arm in ("main", "A", "", "x" * 33):
        with pytest.raises(ShareError, match="wanted 1 to 32"):
            give_share(tmp_path, b, arm=arm, share=0.1, salt=SALT, at=AT)
    ended = promote_release(tmp_path, b, at=AT)
    assert (ended.current, ended.arms, ended.salt, ended.shares, ended.previous) == (b, (), "", {}, a)
    assert give_share(tmp_path, c, arm="canary", share=0.1, salt=OTHER, at=AT).salt == OTHER


def test_what_is_taken_back_is_what_was_rolled_out_last_or_what_is_named(tmp_path: Path) -> None:
    a, b, c = (made(tmp_path, what, minutes=number) for number, what in enumerate("abc"))
    for name in (a, b):
        promote_release(tmp_path, name, at=AT)
    give_share(tmp_path, c, arm="canary", share=0.1, salt=SALT, at=AT)
    give_share(tmp_path, a, arm="old", share=0.2, salt=SALT, at=AT)
    shadow_release(tmp_path, c, at=AT)
    assert roll_back(tmp_path, at=AT, name=a).shares == {"canary": 0.1, "main": 0.9}
    found = roll_back(tmp_path, at=AT)
    assert (found.current, found.arms, found.shadow) == (b, (), c)
    assert roll_back(tmp_path, at=AT, name=c).shadow is None
    with pytest.raises(ValueError, match="nothing to take back of it"):
        roll_back(tmp_path, at=AT, name=c)
    assert roll_back(tmp_path, at=AT).current == a
    with pytest.raises(ValueError, match="no release was promoted before"):
        roll_back(tmp_path, at=AT, name=a)


def test_a_rollback_of_what_answers_ends_its_arms_and_a_shadow_that_answers_is_none(tmp_path: Path) -> None:
    a, b = (made(tmp_path, what, minutes=number) for number, what in enumerate("ab"))
    promote_release(tmp_path, a, at=AT)
    shadow_release(tmp_path, b, at=AT)
    found = promote_release(tmp_path, b, at=AT)
    assert (found.current, found.shadow) == (b, None)
    give_share(tmp_path, a, arm="old", share=0.5, salt=SALT, at=AT)
    found = roll_back(tmp_path, at=AT, name=b)
    assert (found.current, found.arms) == (a, ())


def test_a_rollout_of_before_there_were_arms_is_read(tmp_path: Path) -> None:
    first = made(tmp_path, "a")
    step = {"at": AT.isoformat(), "release": first, "why": "promoted"}
    write_json({"current": first, "history": [step]}, tmp_path / "releases" / "rollout.json")
    found = rollout(tmp_path)
    assert found is not None
    assert (found.current, found.arms, found.shadow, found.shares, found.previous) == (first, (), None, {}, None)


def test_what_is_damaged_is_not_promoted(tmp_path: Path) -> None:
    first, bad = made(tmp_path, "a"), made(tmp_path, "b", minutes=1)
    promote_release(tmp_path, first, at=AT)
    (tmp_path / "ranker" / release(tmp_path, bad).models["ranker"] / "weights").write_text("other")
    with pytest.raises(ValueError, match="files have fingerprint"):
        promote_release(tmp_path, bad, at=AT)
    assert rollout(tmp_path).current == first  # type: ignore[union-attr]
    (tmp_path / "releases" / f"{bad}.json").write_text("{")
    with pytest.raises(ValueError, match=f"release .*{bad}.json cannot be read"):
        releases(tmp_path)
    (tmp_path / "releases" / "rollout.json").write_text('{"current": 1')
    with pytest.raises(ValueError, match=r"rollout.json cannot be read"):
        rollout(tmp_path)
