"""Figures of arms in a closed loop, on visits that one can count."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from foretaste.evaluation.loop_figures import METRICS, Served
from foretaste.evaluation.loop_page import page
from foretaste.evaluation.loop_report import loop_report

DAYS = 14


def _served(seed: int, *, best: bool = False) -> Served:
    rng = np.random.default_rng(seed)
    num = 400
    worth_S = rng.random(num) / 2
    return Served(
        arm_S=rng.integers(0, 2, num),
        day_S=np.sort(rng.integers(0, DAYS, num)),
        title_SP=rng.integers(0, 10, (num, 3)),
        reward_S=(rng.random(num) < worth_S).astype(np.float64),
        worth_S=worth_S,
        best_S=worth_S if best else worth_S + 0.25,
        new_S=rng.integers(0, 2, num),
        return_S=rng.random(num),
        members_A=np.array([30, 34]),
        on_sale_D=np.full(DAYS, 10),
    )


def test_figures_do_not_depend_on_the_order_of_visits_or_members() -> None:
    served = _served(1)
    shuffled = served.take(np.random.default_rng(2).permutation(400))
    for name, value_A in served.figures(0, DAYS).items():
        np.testing.assert_allclose(shuffled.figures(0, DAYS)[name], value_A, rtol=1e-12)
    np.testing.assert_allclose(shuffled.regret(DAYS), served.regret(DAYS), rtol=1e-12)


def test_who_shows_the_best_slates_regrets_nothing_and_others_what_they_gave_up() -> None:
    assert (_served(1, best=True).regret(DAYS) == 0.0).all()
    np.testing.assert_allclose(_served(1).regret(DAYS)[:, -1], 0.25 * DAYS)
    assert _served(1, best=True).figures(0, DAYS)["of_best"].tolist() == [1.0, 1.0]


def test_concentration_coverage_and_new_shares_are_counted_by_arm() -> None:
    one = np.zeros(4, dtype=np.int64)
    served = Served(
        arm_S=np.array([0, 0, 1, 1]), day_S=one, title_SP=np.array([[0, 1], [0, 1], [0, 1], [2, 3]]),
        reward_S=np.array([1.0, 0.0, 0.0, 0.0]), worth_S=np.full(4, 0.25), best_S=np.full(4, 0.5),
        new_S=np.array([0, 0, 1, 2]), return_S=np.full(4, 0.5), members_A=np.array([2, 4]),
        on_sale_D=np.array([4]),
    )  # fmt: skip
    found = served.figures(0, 1)
    assert found["coverage"].tolist() == [0.5, 1.0]
    assert found["gini"].tolist() == [0.5, 0.0]
    assert found["new"].tolist() == [0.0, 0.75]
    assert found["reward_a_day"].tolist() == [500.0, 0.0]
    assert found["visits"].tolist() == [7.0, 3.5]
    assert np.isnan(served.take(np.array([0])).figures(0, 1)["worth"][1])


def test_a_report_pairs_worlds_and_its_page_shows_every_arm() -> None:
    report = loop_report([_served(seed) for seed in range(3)], ["a", "b"], days=DAYS, ratio_p=[0.4] * 3, facts={"x": 1})
    worlds = [_served(seed).figures(0, DAYS)["worth"] for seed in range(3)]
    assert report.differences["b"]["worth"].value == pytest.approx(np.mean([w[1] - w[0] for w in worlds]))
    assert set(report.figures["a"]) == set(METRICS)
    assert len(report.weekly["gini"]["a"]) == 2
    html = page({"Arms & more": report})
    assert html.count("<img") == 4
    assert "Arms &amp; more" in html
    assert html == page({"Arms & more": dataclasses.replace(report)})


def test_no_report_is_made_of_less_than_a_week() -> None:
    with pytest.raises(ValueError, match="a week or more, found 1 and 6 days"):
        loop_report([_served(1)], ["a", "b"], days=6, ratio_p=[1.0], facts={})
