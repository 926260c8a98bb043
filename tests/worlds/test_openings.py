"""What a slate is worth to the visit that it opens, against what members do, and against every other slate."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import permutations
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from foretaste.worlds.choices import make_habits
from foretaste.worlds.config import DAY_US, WorldConfig
from foretaste.worlds.generate import catalogue_of
from foretaste.worlds.members import make_members
from foretaste.worlds.openings import Openings
from foretaste.worlds.scenes import Round, Running, State
from foretaste.worlds.simulation import Simulation

SMALL = WorldConfig(
    num_members=500, num_movies=40, num_shows=20, days=21, sessions_per_week=4.0, impressions_per_session=3,
    slate_boost=40.0, members_per_partition=500,
)  # fmt: skip


@dataclass
class Noted:
    """Every visit's worth, the best there was, and what came of it."""

    config: WorldConfig
    worth: list[NDArray[np.float64]] = field(default_factory=list)
    best: list[NDArray[np.float64]] = field(default_factory=list)
    earned: list[NDArray[np.float64]] = field(default_factory=list)
    day: list[NDArray[np.int64]] = field(default_factory=list)

    def begun(self, round_: Round, running: Running) -> None:
        openings = Openings.of(self.config, running)
        self.worth.append(openings.worth(running.offer.slate_SP))
        self.best.append(openings.worth(openings.best()))
        self.earned.append(np.zeros(len(round_.member_S)))
        self.day.append(round_.day_S)

    def chose(
        self,
        step: int,
        rows: NDArray[np.int64],
        title_X: NDArray[np.int64],
        place_X: NDArray[np.int64],
        completed_X: NDArray[np.bool_],
    ) -> None:
        if step == 0:
            self.earned[-1][rows] = (place_X >= 0) & completed_X

    def left(self, round_: Round, satisfaction_S: NDArray[np.float64], returned_S: NDArray[np.int64]) -> None:
        assert (returned_S > round_.start_S).all()


def _simulation(config: WorldConfig, watch: Any) -> Simulation:
    titles, rng = catalogue_of(config), np.random.default_rng([config.seed, 2, 0])
    members = make_members(config, 0, rng)
    habits = make_habits(config, members, titles)
    return Simulation(config, titles, members, habits, State.empty(len(members), len(titles)), rng, watch=watch)


def test_what_slates_are_worth_is_what_they_earn_and_nothing_is_worth_more_than_the_best() -> None:
    noted = Noted(SMALL)
    _simulation(SMALL, noted).run()
    worth, earned, best = (np.concatenate(x) for x in (noted.worth, noted.earned, noted.best))
    assert len(worth) > 2_000
    error = np.sqrt((worth * (1.0 - worth)).sum()) / len(worth)
    assert earned.mean() == pytest.approx(worth.mean(), abs=4.0 * error)
    high = worth > np.median(worth)
    assert earned[high].mean() - earned[~high].mean() == pytest.approx(
        worth[high].mean() - worth[~high].mean(), abs=8.0 * error
    )
    assert (best >= worth - 1e-12).all()


def test_a_title_alone_is_worth_what_a_slate_of_it_is() -> None:
    config = SMALL.model_copy(update={"impressions_per_session": 1, "num_members": 40, "days": 7})
    found: list[Openings] = []

    class Kept(Noted):
        def begun(self, round_: Round, running: Running) -> None:
            found.append(Openings.of(self.config, running))
            super().begun(round_, running)

    _simulation(config, Kept(config)).run()
    alone_SN = found[0].worth_alone()
    for title in (0, 7, 31):
        slate_SP = np.full((len(alone_SN), 1), title)
        np.testing.assert_allclose(found[0].worth(slate_SP), alone_SN[:, title], rtol=1e-12)
    on_sale = found[0].weight_SN > 0
    np.testing.assert_allclose(found[0].worth(found[0].best()), np.where(on_sale, alone_SN, 0.0).max(axis=1))


def test_the_best_slate_is_that_of_all_orders() -> None:
    rng = np.random.default_rng(3)
    openings = Openings(rng.exponential(1.0, (30, 6)) ** 2, rng.random((30, 6)), np.array([40.0, 20.0, 13.0]))
    every = [openings.worth(np.tile(order, (30, 1))) for order in permutations(range(6), 3)]
    np.testing.assert_allclose(openings.worth(openings.best()), np.max(every, axis=0), rtol=1e-12)


def test_living_day_by_day_opens_no_visit_before_its_day() -> None:
    noted = Noted(SMALL)
    simulation = _simulation(SMALL, noted)
    for day in range(5):
        rounds = len(noted.day)
        simulation.live_until(SMALL.first_us + (day + 1) * DAY_US)
        assert np.unique(np.concatenate(noted.day[rounds:])).tolist() == [day]
    assert (simulation.visit_M >= SMALL.first_us + 5 * DAY_US).all()


def test_a_world_of_aspects_is_refused() -> None:
    config = SMALL.model_copy(update={"mechanism": "aspects"})
    with pytest.raises(ValueError, match="wanted mechanism weights"):
        _simulation(config, Noted(config)).run()
