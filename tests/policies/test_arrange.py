"""The order before anything is explored: unlike titles, little that jumps, and propensities that stay exact."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from foretaste.policies.arrange import dealt, diversify, hold, kept_places, steadiness
from foretaste.policies.epsilon_greedy import EpsilonGreedy
from foretaste.policies.slate import dice
from foretaste.testing.contract_policy import assert_policy


def has(*rows: str) -> np.ndarray:
    """Properties a, b, c of candidates."""
    return np.array([[letter in row for letter in "abc"] for row in rows])


def value(has_CG: np.ndarray, one: int, placed: list[int], weight: float) -> float:
    """What a candidate is worth at the next place: the readable twin."""

    def like(other: int) -> float:
        lengths = max(1, has_CG[one].sum()) ** 0.5 * max(1, has_CG[other].sum()) ** 0.5
        return float((has_CG[one] & has_CG[other]).sum() / lengths)

    return (1 - weight) * (1 - one / len(has_CG)) - weight * max((like(other) for other in placed), default=0.0)


def test_without_a_weight_nothing_moves() -> None:
    assert diversify(has("a", "a", "b"), weight=0.0, num=3).tolist() == [0, 1, 2]
    assert diversify(has(), weight=1.0, num=3).tolist() == []


def test_unlike_titles_come_up_and_what_is_below_the_places_stays() -> None:
    assert diversify(has("a", "a", "a", "b", "c"), weight=0.5, num=3).tolist() == [0, 3, 4, 1, 2]
    assert diversify(has("a", "a", "a", "b", "c"), weight=0.5, num=2).tolist() == [0, 3, 1, 2, 4]


@settings(max_examples=100, deadline=None)
@given(st.lists(st.sampled_from(["", "a", "b", "ab", "abc", "c"]), max_size=9), st.floats(0, 1), st.integers(0, 10))
def test_at_each_place_stands_what_is_worth_most_there(rows: list[str], weight: float, num: int) -> None:
    has_CG = has(*rows) if rows else np.zeros((0, 3), dtype=np.bool_)
    found = diversify(has_CG, weight=weight, num=num).tolist()
    assert sorted(found) == list(range(len(rows)))
    for place, chosen in enumerate(found[:num]):
        worth = [value(has_CG, one, found[:place], weight) for one in found[place:]]
        assert value(has_CG, chosen, found[:place], weight) >= max(worth) - 1e-9
    assert found[num:] == sorted(found[num:])


def test_protected_places_keep_their_titles() -> None:
    assert hold([9, 8, 1, 2, 3], [1, 2, 3], protected=2, max_move=None, num=3) == [1, 2, 9, 8, 3]


def test_a_protected_title_that_is_gone_leaves_its_place_to_the_best() -> None:
    assert hold([9, 8, 2, 3], [1, 2, 3], protected=2, max_move=None, num=3) == [9, 2, 8, 3]
    assert kept_places([9, 2, 8], [1, 2, 3], protected=2) == (1,)


def test_titles_move_no_further_than_they_may() -> None:
    assert hold([5, 4, 3, 2, 1], [1, 2, 3, 4, 5], protected=0, max_move=1, num=5) == [2, 1, 4, 3, 5]
    assert hold([9, 8, 1, 2, 3], [1, 2, 3], protected=0, max_move=1, num=3) == [9, 1, 2, 8, 3]
    assert hold([9, 8, 3, 2, 1], [1, 2, 3], protected=0, max_move=0, num=3) == [1, 2, 3, 9, 8]


def test_where_titles_are_too_few_those_behind_the_list_come_forward() -> None:
    assert hold([0, 1, 2], [0, 3, 2, 1], protected=4, max_move=3, num=3) == [0, 1, 2]
    assert hold([1, 2], [9, 8, 1, 2], protected=4, max_move=None, num=5) == [1, 2]


def test_without_a_list_before_or_bounds_the_order_is_the_wanted_one() -> None:
    assert hold([3, 1, 2], [], protected=5, max_move=0, num=3) == [3, 1, 2]
    assert hold([3, 1, 2], [1, 2, 3], protected=0, max_move=None, num=3) == [3, 1, 2]


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_every_title_of_the_list_before_stays_within_its_bounds(data: st.DataObject) -> None:
    wanted = data.draw(st.permutations(range(data.draw(st.integers(1, 12)))))
    before = data.draw(st.permutations(range(16)))[: data.draw(st.integers(0, 10))]
    protected, max_move = data.draw(st.integers(0, 4)), data.draw(st.none() | st.integers(0, 4))
    num = data.draw(st.integers(0, 14))
    found = hold(wanted, before, protected=protected, max_move=max_move, num=num)
    assert sorted(found) == sorted(wanted)
    shown = found[:num]
    for place, title in enumerate(before):
        if title not in wanted or place >= len(shown):
            continue
        if place < protected:
            assert found[place] == title
        elif max_move is not None and place + max_move < len(shown):
            assert title in shown
            assert found.index(title) <= place + max_move
    if max_move is None and protected == 0:
        assert found == list(wanted)


def test_the_result_is_the_best_list_within_the_bounds_place_by_place() -> None:
    before = [0, 1, 2, 3]
    for wanted in itertools.permutations([0, 1, 2, 3, 4]):
        found = hold(wanted, before, protected=1, max_move=1, num=4)
        may = [
            order[:4]
            for order in itertools.permutations(wanted)
            if order[0] == 0
            and all(abs(order.index(title) - title) <= 1 for title in (1, 2, 3) if order.index(title) < 4)
            and all(order.index(title) < 4 for title in (1, 2))
        ]
        best = min(may, key=lambda order: [wanted.index(title) for title in order])
        assert tuple(found[:4]) == best


def test_scores_are_dealt_anew_so_that_a_policy_keeps_the_arranged_order() -> None:
    scores_C = np.array([0.2, 0.9, 0.2, 0.5])
    assert dealt(scores_C).tolist() == [0.9, 0.5, 0.2, 0.2]
    slate = EpsilonGreedy(0.0).choose(dealt(scores_C), k=4, rng=dice(1))
    assert slate.order_K.tolist() == [0, 1, 2, 3]


def test_steadiness_counts_what_stays_and_the_largest_move() -> None:
    found = steadiness(["c", "x", "a"], ["a", "b", "c", "d"])
    assert (found.kept, found.largest_move, found.of) == (2, 2, 4)
    assert steadiness([], ["a"]).largest_move == 0


@pytest.mark.parametrize(
    ("epsilon", "protected"), [(0.0, (0, 1)), (1.0, (1,)), (0.4, (0, 1)), (0.4, (2,)), (0.4, (0, 1, 2, 3, 4, 5))]
)
def test_protected_places_keep_the_contract_of_policies(epsilon: float, protected: tuple[int, ...]) -> None:
    assert_policy(EpsilonGreedy(epsilon, protected), draws=4_000)


def test_nothing_is_explored_at_a_protected_place_and_its_propensity_is_one() -> None:
    policy = EpsilonGreedy(1.0, (0, 2))
    for seed in range(50):
        slate = policy.choose(np.arange(6.0)[::-1], k=4, rng=dice(seed))
        assert slate.order_K[[0, 2]].tolist() == [0, 2]
        assert slate.propensity_K.tolist() == [1.0, 1 / 4, 1.0, 1 / 3]
        assert slate.explored_K.tolist() == [False, True, False, True]
