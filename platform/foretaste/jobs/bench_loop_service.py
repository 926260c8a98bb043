"""The service of `bench loop`: what it knows of a visit, who serves it, and what it learns overnight.

It reads what any service could: what members played and when, which titles are out, what its own slates led to. The
policies are those of `foretaste.policies`, called list by list as they are when serving.

Shapes: S visits, M members, N titles in order of release, P places, B numbers of a title to a visit, G genres,
D features, C titles on sale, R rounds (a title shown in a visit).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from foretaste.policies.by_place import ByPlace
from foretaste.policies.contextual import Contextual, Published
from foretaste.policies.epsilon_greedy import EpsilonGreedy
from foretaste.policies.posterior import Posterior, PosteriorConfig
from foretaste.policies.slate import Slate, dice
from foretaste.worlds.config import DAY_US, WorldConfig
from foretaste.worlds.scenes import Round, State
from foretaste.worlds.titles import Titles

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Policy = EpsilonGreedy | ByPlace

NUMBERS = ("one", "match", "match squared", "kind", "fresh", "new", "older", "seen", "to continue", "to return")
"""What is known of a title to a visit, but which title it is."""
SCALE, _TITLE_SCALE = 2.0, 0.7
"""Deviations of the prior of their weights: titles are more alike than numbers."""
_USUAL_ODDS, _USUAL_CHANCE = -4.0, 0.02
_SMOOTHING = 4.0
"""Plays that everyone's taste counts beside a member's own."""
_FRESH, _NEW, _OLDER = 14, 30, 365


class Knowledge:
    """What is known of members, from what they played."""

    def __init__(self, config: WorldConfig, titles: Titles, state: State) -> None:
        """`state` is when what was last played by whom, as the simulation keeps it: all of it is in the log."""
        self._config, self._titles, self._state = config, titles, state
        num = len(state.last_MN)
        self._genre_MG = np.zeros((num, titles.genre_NG.shape[1]))
        self._shows_M, self._plays_M = np.zeros((2, num))

    def note(self, member_X: Ints, title_X: Ints) -> None:
        """Members played titles; nobody stands twice."""
        self._genre_MG[member_X] += self._titles.genre_NG[title_X]
        self._shows_M[member_X] += self._titles.show_N[title_X]
        self._plays_M[member_X] += 1.0

    def numbers(self, member_S: Ints, start_S: Ints) -> Floats:
        """NUMBERS of every title to each visit, [S, N, B]."""
        titles, everyone_G = self._titles, self._genre_MG.sum(axis=0) + 1.0
        taste_SG = self._genre_MG[member_S] + _SMOOTHING * everyone_G / everyone_G.sum()
        taste_SG /= taste_SG.sum(axis=1, keepdims=True)
        match_SN = np.zeros((len(member_S), len(titles)))
        for genre in range(taste_SG.shape[1]):  # not a matrix product: the same bits for a visit whoever is beside it
            match_SN += taste_SG[:, genre, None] * titles.genre_NG[None, :, genre]
        shows_S1 = ((self._shows_M + 1.0) / (self._plays_M + 2.0))[member_S, None]
        day_S = (start_S - self._config.first_us) // DAY_US
        age_SN = day_S[:, None] - titles.day_N[None, :]
        none_S = np.zeros_like(member_S)
        past = self._state.past(titles, Round(member_S, none_S, start_S, day_S, none_S.astype(np.bool_), none_S))
        continues_SN = past.to_continue()
        columns = (
            np.ones_like(match_SN),
            match_SN,
            match_SN**2,
            np.where(titles.show_N[None, :], shows_S1, 1.0 - shows_S1),
            age_SN <= _FRESH,
            age_SN <= _NEW,
            age_SN > _OLDER,
            past.seen_SN,
            continues_SN,
            past.to_return(),
        )
        return np.stack([np.asarray(column, dtype=np.float64) for column in columns], axis=2)


@dataclass(frozen=True, slots=True)
class Layout:
    """Where features stand: numbers, places but the first, titles."""

    places: int
    titles: int

    @property
    def width(self) -> int:
        """How many there are."""
        return len(NUMBERS) + self.places - 1 + self.titles

    def of(self, numbers_RB: Floats, title_R: Ints, place_R: Ints | None = None) -> Floats:
        """Features of titles, [R, D]; a title that is to be placed has no place yet, which is the first one's."""
        x_RD = np.zeros((len(title_R), self.width))
        first = len(NUMBERS) - 1
        x_RD[:, : len(NUMBERS)] = SCALE * numbers_RB
        if place_R is not None:
            lower = np.flatnonzero(place_R > 0)
            x_RD[lower, first + place_R[lower]] = SCALE
        x_RD[np.arange(len(title_R)), len(NUMBERS) + self.places - 1 + title_R] = _TITLE_SCALE
        return x_RD

    def own(self, weights_D: Floats) -> Floats:
        """What weights say of the titles themselves, [N]."""
        return _TITLE_SCALE * weights_D[len(NUMBERS) + self.places - 1 :]


def prior_of(kind: str, layout: Layout) -> Posterior:
    """What is believed before any outcome: few slates earn anything, and all titles are alike."""
    prior_D = np.zeros(layout.width)
    prior_D[0] = (_USUAL_ODDS if kind == "logistic" else _USUAL_CHANCE) / SCALE
    return Posterior.of(PosteriorConfig.model_validate({"kind": kind, "noise": _USUAL_CHANCE}), prior_D)


@dataclass
class Visits:
    """What was logged of visits, and what the world knows of them; every column is by visit."""

    columns: dict[str, NDArray[Any]]

    def __len__(self) -> int:
        return len(self.columns["member"])

    def __getitem__(self, name: str) -> NDArray[Any]:
        return self.columns[name]

    def take(self, rows: NDArray[Any]) -> Visits:
        """Some of them."""
        return Visits({name: column[rows] for name, column in self.columns.items()})

    @staticmethod
    def join(parts: Sequence[Mapping[str, NDArray[Any]]], names: Sequence[str] | None = None) -> Visits:
        """All of them, in order, with the named columns or all that the first has."""
        return Visits({name: np.concatenate([part[name] for part in parts]) for name in names or parts[0]})

    def rounds(self, layout: Layout) -> tuple[Floats, Floats]:
        """Features and rewards of what was shown, [R, D] and [R]."""
        title_SP = self["title"]
        place_SP = np.broadcast_to(np.arange(title_SP.shape[1]), title_SP.shape)
        numbers_RB = self["numbers"].reshape(-1, len(NUMBERS))
        return layout.of(numbers_RB, title_SP.ravel(), place_SP.ravel()), self["reward"].ravel()


@dataclass(frozen=True, slots=True)
class Serving:
    """A policy and what it knows tonight; policies without a posterior of their own rank by its mean."""

    policy: Policy
    known: Published

    def means(self, numbers_SNB: Floats, layout: Layout) -> Floats:
        """What the mean of the weights says of every title to each visit, [S, N]; of one visit whoever is beside it."""
        scores_SN: Floats = np.zeros(numbers_SNB.shape[:2]) + layout.own(self.known.mean_D)
        for number in range(numbers_SNB.shape[2]):
            scores_SN += SCALE * self.known.mean_D[number] * numbers_SNB[:, :, number]
        return scores_SN

    def slate(
        self, numbers_CB: Floats, mean_C: Floats, titles: Ints, layout: Layout, *, k: int, seed: int
    ) -> tuple[Slate, Floats]:
        """Fill the slate of a visit from some titles by the dice of its seed, and give what the first place could be.

        The order is of places among the titles, the probabilities are of each of them, [C].
        """
        scores_C, x_CD = self._read(numbers_CB, mean_C, titles, layout)
        if isinstance(self.policy, ByPlace):
            places = self.policy.places(scores_C, features_CD=x_CD)
            return places.fill(k, dice(seed)), places.next(()).probability_C
        slate = self.policy.choose(scores_C, k=k, rng=dice(seed), features_CD=x_CD)
        return slate, self.policy.distribution(scores_C, ())

    def _read(self, numbers_CB: Floats, mean_C: Floats, titles: Ints, layout: Layout) -> tuple[Floats, Floats | None]:
        if isinstance(self.policy, Contextual):
            return np.zeros(len(titles)), layout.of(numbers_CB, titles)
        return mean_C, None


@dataclass(frozen=True)
class ArmKind:
    """A policy as an experiment has it: with which posterior, made anew every night."""

    kind: str  # of the posterior, linear or logistic
    policy: Policy | type[Contextual]
    settings: Mapping[str, Any] = field(default_factory=dict)

    def serving(self, known: Published, cold: tuple[int, ...]) -> Serving:
        """The policy of tomorrow; `cold` are titles of which little is known."""
        if isinstance(self.policy, type):
            return Serving(self.policy(posterior=known, cold=cold, **self.settings), known)
        return Serving(replace(self.policy, cold=cold), known)
