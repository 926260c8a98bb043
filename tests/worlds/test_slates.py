"""Draws by rows of weights, and the slates that are made of them."""

from __future__ import annotations

import math

import numpy as np
import pytest

from foretaste.worlds.choices import draw, make_habits, row_cdf
from foretaste.worlds.config import WorldConfig
from foretaste.worlds.generate import catalogue_of
from foretaste.worlds.members import make_members
from foretaste.worlds.slates import draw_slates

SMALL = WorldConfig(num_members=220, num_movies=36, num_shows=24, days=35)


def test_a_draw_has_the_odds_of_its_row_and_never_takes_a_weight_of_zero() -> None:
    weight_SN = np.array([[1.0, 0.0, 3.0, 0.0], [0.0, 2.0, 0.0, 2.0]])
    row_X = np.repeat([0, 1], 20_000)
    drawn_X = draw(row_cdf(weight_SN), 4, row_X, np.random.default_rng(1).random(40_000))
    share_SN = np.array([np.bincount(drawn_X[row_X == row], minlength=4) for row in (0, 1)]) / 20_000
    np.testing.assert_allclose(share_SN, weight_SN / weight_SN.sum(axis=1, keepdims=True), atol=0.015)
    assert draw(row_cdf(weight_SN), 4, np.array([0, 1]), np.array([1.0 - 2**-53, 0.0])).tolist() == [2, 1]


def test_the_propensity_of_a_slate_is_the_frequency_of_its_titles() -> None:
    config = SMALL.model_copy(update={"impressions_per_session": 3, "slate_exploration": 0.2})
    titles = catalogue_of(config)
    members = make_members(config, 0, np.random.default_rng(2))
    habits = make_habits(config, members, titles)
    num, available = 60_000, 30
    slate_SP, propensity_SP = draw_slates(
        config, habits, np.full(num, 5), np.full(num, available), np.random.default_rng(3)
    )
    assert slate_SP.max() < available
    assert all(len(set(row)) == 3 for row in slate_SP[:200].tolist())
    first_N = np.bincount(slate_SP[:, 0], minlength=available) / num
    for title in range(available):
        expected = propensity_SP[slate_SP[:, 0] == title, 0].mean()
        assert first_N[title] == pytest.approx(expected, abs=4.0 * math.sqrt(expected / num))
    for place in range(3):
        assert (1.0 / propensity_SP[:, place]).mean() == pytest.approx(available - place, rel=0.03)
