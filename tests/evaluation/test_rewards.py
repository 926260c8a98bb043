"""What titles are worth is learned by counting, and what a policy earns is estimated with whole members as the unit."""

from __future__ import annotations

import numpy as np
import pytest

from foretaste.evaluation.reward_estimates import Estimate, follows, of_members, paired, per_slate
from foretaste.evaluation.reward_long_term import Visits, greedy, index, long_term_of
from foretaste.evaluation.reward_page import headline, page
from foretaste.evaluation.reward_report import RewardReport, Row, kendall, neighbours
from foretaste.evaluation.reward_values import edges, learn


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
    size, base_M, member_S = 12_000, rng.uniform(0.3, 0.7, 400), np.repeat(np.arange(400), 30)
    quality_N, draw_N = np.linspace(-0.3, 0.3, 6), np.array([0.0, 1.0, 0.0, 1.0, 0.5, -0.5])
    odds_MN = np.exp(-3.0 * (base_M - 0.5)[:, None] * quality_N) * rng.random((400, 6))
    order_SN = np.argsort(-odds_MN[member_S] * rng.random((size, 6)), axis=1)
    title_SP = order_SN[:, :2]

    def chosen(title_SP: np.ndarray) -> np.ndarray:  # by a logit with an alternative that is worth 0 of quality
        odds_SP = np.exp(draw_N[title_SP] + np.array([0.0, -0.7]))
        return np.asarray(odds_SP / (1.0 + odds_SP.sum(axis=1, keepdims=True)))

    share_SP, dice_S = chosen(title_SP), rng.random(size)[:, None]
    edge_SP = np.cumsum(share_SP, axis=1)
    played_SP = ((dice_S < edge_SP) & (dice_S >= edge_SP - share_SP)).astype(np.float64)
    liked_S = (played_SP * quality_N[title_SP]).sum(axis=1) + rng.normal(0.0, 0.1, size)
    returns_S = (rng.random(size) < base_M[member_S] + liked_S).astype(np.float64)
    returns_S[::9] = np.nan
    feedback_SF = np.stack([liked_S, rng.random(size)], axis=1)
    visits = Visits(member_S, returns_S, feedback_SF, title_SP, title_SP % 2, played_SP, np.ones(size))
    always = {f"{a} over {b}": np.tile([a, b], (size, 1)) for a, b in ((5, 4), (4, 2), (0, 1))}
    found = long_term_of(visits, {n: (t, t % 2) for n, t in always.items()}, num_titles=6, num_bands=2)
    assert found.order == list(always)
    for name, title in always.items():
        truth = base_M.mean() + float((chosen(title) * quality_N[title]).sum(axis=1).mean())
        one = found.value[name]
        assert abs(one.value - truth) < 3 * np.hypot(one.error, found.logged.error) < 0.1, name
    assert found.over("5 over 4", "0 over 1").low > 0.1
    once = Visits(np.arange(9), np.ones(9), np.ones((9, 1)), title_SP[:9], title_SP[:9], played_SP[:9], np.ones(9))
    with pytest.raises(ValueError, match="members with two visits"):
        index(once)


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
    assert "long_term is first in the long run, returns +0.2000 (+0.1804 to +0.2196, more than chance)" in headline(
        report
    )
    text = page(report)
    assert text.count("<table") == 6
    assert "<script" not in text
    assert report.plain()["lived_gaps"]["long_term over clicks"]["value"] == pytest.approx(0.35)
