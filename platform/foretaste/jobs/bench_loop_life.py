"""A closed loop: members of a synthetic world live day by day with what arms show them, and arms learn every night.

First the world's own logging policy serves, so that all arms begin with the same knowledge. Then each member is served
by one arm, told by a hash, and every night the arms learn from outcomes that are old enough to be final: their own
(`own`), or everyone's (`shared`).

Shapes: S visits, M members, N titles, P places, B numbers of a title to a visit, C titles of a visit's pool.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from foretaste.jobs.bench_loop_service import (
    NUMBERS,
    ArmKind,
    Floats,
    Ints,
    Knowledge,
    Layout,
    Serving,
    Visits,
    prior_of,
)
from foretaste.ops.rollouts import PLACES, Arm, arm_of
from foretaste.policies.contextual import Published
from foretaste.policies.epsilon_greedy import EpsilonGreedy
from foretaste.policies.posterior import Posterior
from foretaste.worlds.choices import make_habits
from foretaste.worlds.config import DAY_US, WorldConfig
from foretaste.worlds.generate import catalogue_of
from foretaste.worlds.long_term import return_probability
from foretaste.worlds.members import make_members
from foretaste.worlds.openings import Openings
from foretaste.worlds.scenes import Round, Running, State
from foretaste.worlds.simulation import Simulation
from foretaste.worlds.slates import Logging

WARM = -1
"""Arm of visits before the experiment."""
_LEARNED = ("member", "arm", "title", "numbers", "reward")
LITTLE = 50
"""A title is cold that a model has learned from fewer showings of."""

Feedback = Literal["own", "shared"]


@dataclass(frozen=True)
class Loop:
    """How long arms serve and what they learn from."""

    world: WorldConfig
    warm_days: int  # served by the world's logging policy
    wait_days: int = 3  # until an outcome is final
    feedback: Feedback = "own"
    pool: int | None = None  # titles that a first stage, blind to which they are, leaves to the arms; None: all
    learns: bool = True  # false: once, before the experiment


def salted(arms: Sequence[str]) -> tuple[Arm, ...]:
    """Arms of even shares; who is in which is told by a hash, as when serving."""
    cut = np.linspace(0, PLACES, len(arms) + 1).round().astype(int).tolist()
    return tuple(Arm(name, name, ((cut[i], cut[i + 1]),)) for i, name in enumerate(arms))


def arms_of_members(ids: Sequence[str], arms: Sequence[Arm], *, seed: int) -> Ints:
    """Number of each member's arm. Raises ValueError for members whom no arm has."""
    number_of = {arm.name: number for number, arm in enumerate(arms)}
    found = [arm_of(one, arms, salt=f"{seed:016x}") for one in ids]
    if None in found:
        raise ValueError(f"arms: {found.count(None)} of {len(ids)} members are in none")
    return np.array([number_of[arm.name] for arm in found if arm is not None])


@dataclass
class Life:
    """A world on its way; tells everything to `visits`."""

    loop: Loop
    arms: Mapping[str, ArmKind]
    seed: int
    simulation: Simulation = field(init=False)
    layout: Layout = field(init=False)
    arm_M: Ints = field(init=False)
    day: int = 0
    visits: list[dict[str, NDArray[Any]]] = field(default_factory=list)

    def __post_init__(self) -> None:
        """Nobody has come yet."""
        config = self.loop.world.model_copy(update={"seed": self.seed})
        titles, rng = catalogue_of(config), np.random.default_rng([self.seed, 2, 0])
        members = make_members(config, 0, rng)
        state = State.empty(len(members), len(titles))
        habits = make_habits(config, members, titles)
        self.simulation = Simulation(config, titles, members, habits, state, rng, slates=self, watch=self)
        self._knowledge = Knowledge(config, titles, state)
        self._logging = Logging(config, habits)
        self.layout = Layout(config.impressions_per_session, len(titles))
        self.arm_M = arms_of_members(members.ids, salted(list(self.arms)), seed=self.seed)
        self._known = {key: prior_of(self._kind(key), self.layout) for key in self._keys}
        self._shown = {key: np.zeros(len(titles), dtype=np.int64) for key in self._keys}
        self._learned = 0  # of the visits, by round
        self._day: list[int] = []  # of each round of visits
        self._serving: list[Serving] = []
        self._first_stage: Serving | None = None
        self._now: dict[str, NDArray[Any]] = {}

    @property
    def _keys(self) -> list[str]:
        """Names of posteriors: one an arm, or one a kind that all arms of it share."""
        if self.loop.feedback == "own":
            return list(self.arms)
        return sorted({arm.kind for arm in self.arms.values()})

    def _kind(self, key: str) -> str:
        return self.arms[key].kind if self.loop.feedback == "own" else key

    def posterior(self, arm: str) -> Posterior:
        """What an arm knows."""
        return self._known[arm if self.loop.feedback == "own" else self.arms[arm].kind]

    def run(self) -> Visits:
        """Live through the window."""
        for _ in range(self.loop.world.days - self.day):
            self.next_day()
        return Visits.join(self.visits)

    def next_day(self) -> None:
        """Live one more day, and the night after it."""
        self.day += 1
        self.simulation.live_until(self.simulation.config.first_us + self.day * DAY_US)
        self.learn()

    def learn(self) -> None:
        """Take up what has become final, and publish anew."""
        until = self._learned
        while until < len(self.visits) and self._day[until] < self.day - self.loop.wait_days:
            until += 1
        parts, self._learned = self.visits[self._learned : until], until
        if not self.loop.learns and self.day > self.loop.warm_days:
            return
        for key in self._keys if parts else ():
            new = mine = Visits.join(parts, names=_LEARNED)
            if self.loop.feedback == "own":
                number = list(self.arms).index(key)
                mine = new.take(np.flatnonzero((new["arm"] == number) | (new["arm"] == WARM)))
            if len(mine):
                posterior = self._known[key]
                self._known[key] = posterior.learned(posterior.gathered(*mine.rounds(self.layout)))
                self._shown[key] += np.bincount(mine["title"].ravel(), minlength=self.layout.titles)
        if self.day >= self.loop.warm_days:
            self.publish()

    def publish(self) -> None:
        """Serve by what is known from now on."""
        if self.loop.pool is not None and self._first_stage is None:
            x_RD, reward_R = Visits.join(self.visits, names=_LEARNED).rounds(self.layout)
            prior = prior_of("logistic", self.layout)
            known = prior.learned(prior.gathered(x_RD * (np.arange(self.layout.width) < len(NUMBERS)), reward_R))
            self._first_stage = Serving(EpsilonGreedy(0.0), Published.of(known))
        published = {key: Published.of(posterior) for key, posterior in self._known.items()}
        self._serving = []
        for name, arm in self.arms.items():
            key = name if self.loop.feedback == "own" else arm.kind
            cold = tuple(np.flatnonzero(self._shown[key] < LITTLE).tolist())
            self._serving.append(arm.serving(published[key], cold))

    def __call__(self, row_S: Ints, available_S: Ints, rng: np.random.Generator) -> tuple[Ints, Floats]:
        """Fill the slates of a round: what the world asks of whoever serves it."""
        start_S = self.simulation.visit_M[row_S]
        numbers_SNB = self._knowledge.numbers(row_S, start_S)
        num, places = len(row_S), self.layout.places
        arm_S = self.arm_M[row_S] if self._serving else np.full(num, WARM)
        pool_SC = self._pool(numbers_SNB, available_S)
        if not self._serving:
            title_SP, propensity_SP = self._logging(row_S, available_S, rng)
        else:
            title_SP, propensity_SP = np.zeros((num, places), dtype=np.int64), np.ones((num, places))
            first_SC = np.zeros((num, max(self.loop.pool or 0, 1)))
            means_ASN = [serving.means(numbers_SNB, self.layout) for serving in self._serving]
            for s, arm in enumerate(arm_S.tolist()):
                titles = np.arange(available_S[s]) if pool_SC is None else pool_SC[s]
                seed = _visit_seed(self.seed, int(row_S[s]), int(start_S[s]))
                asked = (numbers_SNB[s, titles], means_ASN[arm][s, titles], titles, self.layout)
                slate, first_C = self._serving[arm].slate(*asked, k=places, seed=seed)
                title_SP[s], propensity_SP[s] = titles[slate.order_K], slate.propensity_K
                if pool_SC is not None:
                    first_SC[s] = first_C
            if pool_SC is not None:
                s1 = np.arange(num)[:, None]
                self._now |= {"pool": pool_SC, "first": first_SC, "pool numbers": numbers_SNB[s1, pool_SC]}
        s1 = np.arange(num)[:, None]
        self._now |= {
            "arm": arm_S, "member": row_S, "title": title_SP, "propensity": propensity_SP,
            "numbers": numbers_SNB[s1, title_SP], "available": available_S,
        }  # fmt: skip
        return title_SP, propensity_SP

    def _pool(self, numbers_SNB: Floats, available_S: Ints) -> Ints | None:
        """Titles that a first stage leaves to the arms, by their number, [S, C]; None where it leaves all."""
        if self._first_stage is None:
            return None
        on_sale_SN = np.arange(self.layout.titles) < available_S[:, None]
        likely_SN = np.where(on_sale_SN, self._first_stage.means(numbers_SNB, self.layout), -np.inf)
        return np.sort(np.argsort(-likely_SN, axis=1, kind="stable")[:, : self.loop.pool], axis=1)

    def begun(self, round_: Round, running: Running) -> None:
        """Note what the slates are worth, and what the best would have been."""
        openings = Openings.of(self.simulation.config, running)
        title_SP = self._now["title"]
        self._now |= {
            "day": np.full(len(title_SP), self.day - 1),
            "worth": openings.worth(title_SP),
            "best": openings.worth(openings.best()),
            "reward": np.zeros(title_SP.shape),
        }
        if "pool" in self._now:
            self._now["alone"] = np.take_along_axis(openings.worth_alone(), self._now["pool"], axis=1)

    def chose(self, step: int, rows: Ints, title_X: Ints, place_X: Ints, completed_X: NDArray[np.bool_]) -> None:
        """Note what was played; the first choice of a visit earns where the slate led to it and it was finished."""
        self._knowledge.note(self._now["member"][rows], title_X)
        if step == 0:
            earned = np.flatnonzero((place_X >= 0) & completed_X)
            self._now["reward"][rows[earned], place_X[earned]] = 1.0

    def left(self, round_: Round, satisfaction_S: Floats, returned_S: Ints) -> None:
        """Note how likely a return within a week has become; the visit is logged."""
        gap_S = self.simulation.members.gap_days_M[round_.member_S]
        self._now["return"] = return_probability(self.simulation.config, gap_S, satisfaction_S)
        self.visits.append(self._now)
        self._day.append(self.day - 1)
        self._now = {}


def _visit_seed(seed: int, member: int, start_us: int) -> int:
    """Dice of a visit: they hang on whose it is and when, not on who else comes."""
    return int(np.random.SeedSequence([seed, member, start_us]).generate_state(1, np.uint64)[0])
