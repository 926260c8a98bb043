"""Who is in which arm: by a keyed hash, as many as the share says, and for as long as the arm has them."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from foretaste.ops.rollouts import PLACES, Arm, ShareError, arm_of, number_of, with_share

SALT = "00112233445566778899aabbccddeeff"
UNITS = [f"member {number}" for number in range(20_000)]


def of(arms: tuple[Arm, ...], units: list[str] = UNITS, salt: str = SALT) -> dict[str, str | None]:
    found = {unit: arm_of(unit, arms, salt=salt) for unit in units}
    return {unit: None if arm is None else arm.name for unit, arm in found.items()}


def test_an_arm_has_as_many_members_as_its_share_says() -> None:
    arms = with_share(with_share((), "canary", "r2", 0.1), "b", "r3", 0.25)
    who = list(of(arms).values())
    for name, share in (("canary", 0.1), ("b", 0.25), (None, 0.65)):
        count, sigma = who.count(name), np.sqrt(len(UNITS) * share * (1 - share))
        assert abs(count - len(UNITS) * share) < 4 * sigma, (name, count)


def test_a_member_stays_where_they_are_while_a_share_grows_and_shrinks() -> None:
    small = with_share(with_share((), "canary", "r2", 0.05), "b", "r3", 0.2)
    large = with_share(small, "canary", "r2", 0.3)
    before, after = of(small), of(large)
    for unit in UNITS:
        assert before[unit] == after[unit] or (before[unit], after[unit]) == (None, "canary")
    assert of(with_share(large, "canary", "r2", 0.05)) == before
    assert of(with_share(small, "b", "another", 0.2)) == before, "the release of an arm does not matter"


def test_another_salt_is_another_draw() -> None:
    arms = with_share((), "canary", "r2", 0.5)
    first, second = (of(arms, salt=salt) for salt in (SALT, SALT[::-1]))
    both = sum(first[unit] == second[unit] == "canary" for unit in UNITS)
    assert abs(both - len(UNITS) / 4) < 4 * np.sqrt(len(UNITS) * 3 / 16)


def test_numbers_are_fixed_for_good() -> None:
    assert [number_of(unit, SALT) for unit in ("m1", "m2", "ä")] == [5006, 9128, 5405]


@given(st.lists(st.tuples(st.sampled_from("abc"), st.integers(1, PLACES)), max_size=8))
def test_arms_never_overlap_and_have_what_was_asked_for(steps: list[tuple[str, int]]) -> None:
    arms: tuple[Arm, ...] = ()
    for name, places in steps:
        try:
            arms = with_share(arms, name, "r", places / PLACES)
        except ShareError:
            assert places > PLACES - sum(arm.places for arm in arms if arm.name != name)
            continue
        assert next(arm.places for arm in arms if arm.name == name) == places
        numbers = [number for arm in arms for since, until in arm.ranges for number in range(since, until)]
        assert len(numbers) == len(set(numbers))
        assert not numbers or (min(numbers) >= 0 and max(numbers) < PLACES)


@pytest.mark.parametrize("share", [0.0, -0.1, 1.1, 0.00001])
def test_a_share_that_is_none_is_refused(share: float) -> None:
    with pytest.raises(ShareError, match="wanted a share"):
        with_share((), "canary", "r2", share)
