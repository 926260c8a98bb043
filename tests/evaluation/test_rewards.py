"""What titles are worth is learned by counting, and what a policy earns is estimated with whole members as the unit."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from foretaste.evaluation.reward_estimates import Estimate, follows, of_members, paired, per_slate
from foretaste.evaluation.reward_long_term import greedy, long_term_of
from foretaste.evaluation.reward_page import headline, page
from foretaste.evaluation.reward_report import RewardReport, Row, kendall, neighbours
from foretaste.evaluation.reward_values import edges, learn
from foretaste.evaluation.reward_visits import Columns, Shown, Visits


def test_much_data_gives_the_means_of_title_and_band_and_little_is_drawn_to_what_is_alike() -> None:
    rng = np.random.default_rng(0)
    size = 200_000
    title_X, affinity_X, place_X = rng.integers(0, 3, size), rng.random(size), rng.integers(0, 2, size)
    truth = np.array([[0.1, 0.3], [0.2, 0.2], [0.0, 0.5]])
    band_X = (affinity_X > 0.5).astype(np.int64)
    reward_X = (rng.random(size) < truth[title_X, band_X] * np.where(place_X == 0, 1.0, 0.5)).astype(np.float64)
    known = {"num_titles": 4, "edges_G": np.array([0.5])}
    values = learn(reward_X, title_X, affinity_X, place_X, **known)  # type: ignore[arg-type]
    np.testing.assert_allclose(values.value_NG[:3], truth, atol=0.01)
    np.testing.assert_allclose(values.weight_P, [1.0, 0.5], atol=0.03)
    assert 0.05 < values.value_NG[3, 0] < values.value_NG[3, 1] < 0.5  # never shown: as its band is
    score = values.score(np.array([[0.9, 0.1, 0.9, 0.1]]))
    np.testing.assert_allclose(score[0, :3], [0.3, 0.2, 0.5], atol=0.01)
    np.testing.assert_allclose(score[1], values.value_NG.mean(axis=1))
    with pytest.raises(ValueError, match="no outcome has a known reward"):
        learn(np.zeros(0), np.zeros(0, np.int64), np.zeros(0), np.zeros(0, np.int64), **known)  # type: ignore[arg-type]
    assert edges(np.array([0.0, 0.0, 0.0, 1.0]), 4).tolist() == sorted(set(edges(np.array([0.0, 0, 0, 1.0]), 4)))


def test_a_slate_follows_a_score_place_by_place_among_what_is_on_sale_and_not_above() -> None:
    score_SN = np.array([[3.0, 2.0, 1.0, 9.0]] * 3)
    slate_SP = np.array([[0, 1], [1, 0], [2, 0]])
    found = follows(score_SN, np.array([3, 3, 3]), slate_SP)
    assert found.tolist() == [[True, True], [False, True], [False, True]]


def test_weighting_a_log_gives_the_value_of_the_other_policy_and_its_interval_covers_it() -> None:
    rng = np.random.default_rng(1)
    covered = []
    for _ in range(200):
        size, truth = 600, np.array([0.2, 0.6])
        chosen = rng.integers(0, 2, size)
        reward_SP = (rng.random(size) < truth[chosen]).astype(np.float64)[:, None]
        found = per_slate(reward_SP, (chosen == 1)[:, None] / 0.5, rng.integers(0, 150, size))
        covered.append(found.low <= 0.6 <= found.high)
        assert found.num == pytest.approx((chosen == 1).sum())
    assert 0.90 < np.mean(covered) <= 0.99
    nothing = per_slate(np.array([[np.nan]]), np.ones((1, 1)), np.zeros(1, np.int64))
    assert np.isnan(nothing.value)


def test_members_whose_value_is_unknown_are_left_out_of_means_and_pairs() -> None:
    one, other = np.array([1.0, 2.0, np.nan, 4.0]), np.array([0.0, 1.0, 5.0, np.nan])
    assert of_members(one).value == pytest.approx(7 / 3)
    gap = paired(one, other)
    assert (gap.value, gap.error, gap.num) == (1.0, 0.0, 2.0)
    assert of_members(np.array([0.5, 0.1]), np.array([1.0, 3.0])).value == pytest.approx(0.2)


def test_a_log_alone_values_policies_though_who_returns_often_was_shown_the_worse_titles() -> None:
    rng = np.random.default_rng(2)
    members, visits_each, titles = 400, 20, 6
    size, member_S = members * visits_each, np.repeat(np.arange(members), visits_each)
    rate_M, band_MN = rng.gamma(3.0, 0.05, members), rng.integers(0, 2, (members, titles))
    quality_N, draw_N = np.linspace(-0.5, 0.5, titles), np.array([0.3, 1.0, 0.0, 0.5, 0.8, -1.0])
    worse_MN = np.exp(-4.0 * (rate_M > 0.15)[:, None] * quality_N)
    logged_SP = np.argsort(-worse_MN[member_S] * rng.random((size, titles)), axis=1)[:, :2]

    def chances(title_SP: np.ndarray) -> np.ndarray:  # of a choice on the slate or beside it
        draw_SN = draw_N + 1.0 * band_MN[member_S]
        draw_SN[np.arange(size)[:, None], title_SP] += np.array([2.0, 1.3])
        return np.asarray(np.exp(draw_SN) / np.exp(draw_SN).sum(axis=1, keepdims=True))

    chosen_S = (chances(logged_SP).cumsum(axis=1) < rng.random(size)[:, None]).sum(axis=1)
    days_S = rng.exponential(1.0 / (rate_M[member_S] * np.exp(quality_N[chosen_S])))
    seen_S = days_S < 30.0
    visits = Visits(
        member_S=member_S,
        days_S=np.minimum(days_S, 30.0),
        returned_S=seen_S,
        until_S=np.full(size, 30.0),
        title_SP=logged_SP,
        sale_S=np.full(size, titles),
        band_MN=band_MN,
        past_SN=np.zeros((size, titles), np.uint8),
        visit_C=np.arange(size),
        chosen_C=chosen_S,
        feedback_CF=np.stack([quality_N[chosen_S] + rng.normal(0.0, 0.2, size), rng.random(size)], axis=1),
    )
    # the last draws few and leaves what draws to be found beside it, which is worth more than the first two
    always = {"50 of quality": (4, 5), "35": (3, 5), "20": (2, 3), "10": (5, 0), "0": (0, 1)}
    found = long_term_of(visits, {name: np.tile(pair, (size, 1)) for name, pair in always.items()})

    def truth(pair: tuple[int, int]) -> float:
        back_SN = 1.0 - np.exp(-7.0 * rate_M[member_S][:, None] * np.exp(quality_N))
        return float((chances(np.tile(pair, (size, 1))) * back_SN).sum(axis=1).mean())

    true = {name: truth(pair) for name, pair in always.items()}
    assert found.order == sorted(true, key=lambda name: -true[name])
    for name, one in found.value.items():
        assert abs(one.value - true[name]) < 4 * np.hypot(one.error, found.logged.error) < 0.15, name
        gap = found.over(name, "0")
        assert abs(gap.value - (true[name] - true["0"])) < max(0.012, 4 * gap.error), name
    alone = visits.without(np.arange(members) > 0)
    assert set(alone.member_S) == {0}
    assert len(alone.chosen_C) == visits_each == len(alone.title_SP)
    with pytest.raises(ValueError, match="members with two returns"):
        long_term_of(replace(visits, returned_S=np.zeros(size, bool)), {})


def test_visits_of_several_parts_keep_their_own_members_and_choices() -> None:
    one = Visits(
        member_S=np.array([0, 0, 1]), days_S=np.ones(3), returned_S=np.ones(3, bool), until_S=np.ones(3),
        title_SP=np.array([[0, 1]] * 3), sale_S=np.full(3, 3), band_MN=np.array([[0, 1, 0], [1, 0, 1]]),
        past_SN=np.zeros((3, 3), np.uint8), visit_C=np.array([0, 2, 2]), chosen_C=np.array([1, 2, 0]),
        feedback_CF=np.ones((3, 1)),
    )  # fmt: skip
    both = Visits.joined([one, one])
    assert both.member_S.tolist() == [0, 0, 1, 2, 2, 3]
    assert both.visit_C.tolist() == [0, 2, 2, 3, 5, 5]
    rest = both.without(np.array([True, False, False, True]))
    assert (rest.member_S.tolist(), rest.visit_C.tolist(), rest.chosen_C.tolist()) == ([1, 2, 2], [0, 0, 1], [2, 0, 1])
    columns, rng = Columns.of(both), np.random.default_rng(0)
    value_K, shown = rng.random(sum(columns.sizes)), Shown.of(both, both.title_SP)
    value_SN = columns.each(both, value_K, shown)
    np.testing.assert_allclose(columns.chosen(both) @ value_K, value_SN[both.visit_C, both.chosen_C])
    other_SN = rng.random(value_SN.shape)
    assert value_K @ columns.gathered(both, other_SN, shown) == pytest.approx((value_SN * other_SN).sum())


def test_greedy_slates_hold_what_is_on_sale_by_score_and_equal_ones_in_order() -> None:
    score_SN = np.array([[1.0, 2.0, 2.0, 9.0]] * 2)
    assert greedy(score_SN, np.array([3, 4]), 3).tolist() == [[1, 2, 0], [3, 1, 2]]


def test_orders_are_compared_by_pairs_and_the_page_tells_who_is_first() -> None:
    assert kendall(["a", "b", "c"], ["a", "b", "c"]) == 1.0
    assert kendall(["a", "b", "c"], ["c", "b", "a"]) == -1.0
    one = Estimate(0.5, 0.01, 100.0)

    def row(name: str, value: float, true: float) -> Row:
        long_term = {"value": Estimate(value, 0.01, 9.0), "true": Estimate(true, 0.01, 9.0)}
        return Row(name, **{field: one for field in Row.__dataclass_fields__ if field != "program"} | long_term)

    values = {"clicks": np.array([0.1, 0.2]), "long_term": np.array([0.5, 0.5])}
    order = ["long_term", "clicks"]
    report = RewardReport(
        rows=[row("long_term", 0.15, 0.6), row("clicks", 0.5, 0.1)],
        logging={"value": one},
        gaps={"long_term over clicks": Estimate(0.2, 0.01, 100.0)},
        lived_gaps=neighbours(values, order),
        true_gaps=neighbours(values, order),
        over_clicks=Estimate(0.2, 0.01, 100.0),
        lived_over_clicks=paired(values["long_term"], values["clicks"]),
        facts={"seed": 1},
    )
    assert (report.agreement, report.lived_agreement) == (1.0, -1.0)
    assert "long_term is first in the long run, +0.2000 (+0.1804 to +0.2196, more than chance)" in headline(report)
    text = page(report)
    assert text.count("<table") == 6
    assert "<script" not in text
    assert report.plain()["lived_gaps"]["long_term over clicks"]["value"] == pytest.approx(0.35)
