"""Sessions in which a mood that no log holds drives what is shown, what is played and who returns.

In a good mood a member plays what is put before them, and the service, which reads the mood off acts that its log does
not keep, puts more before them; and in a good mood they come back soon anyway. Who played returns more often, but only
in part because they played. One place of the page is given by dice of logged propensity to a title new to the member:
what that moves, nothing else moves. Members, titles, satisfaction and returns are the world's own.

Both answers of every session are known: what would be played shown and not, and who would return having played and not,
by the same dice.

Shapes: S sessions, D controls, M members, N titles.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from foretaste.contracts.config import Frozen
from foretaste.worlds.config import DAY_US, WorldConfig
from foretaste.worlds.members import affinity, make_members
from foretaste.worlds.titles import make_titles
from foretaste.worlds.viewing import next_visit, satisfaction

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
CONTROLS = ("affinity", "quality", "logarithm of the member's mean gap in days")
"""What the log holds of a session besides: known to the service when it decides."""
_LASTING = 0.3
"""Share of the variance of mood that is the member's own; the rest is the evening's."""
_PLAYS = -3.0
_PLAYS_IF_SHOWN = 3.0
_PLAYS_BY_AFFINITY = 2.0
_MIDDLING_MATCH, _MIDDLING_FRACTION = 0.35, 0.4
_MATCH_OF_PLAY, _FRACTION_OF_PLAY = 0.25, 0.3


class MoodConfig(Frozen):
    """How strong the mood is, and how much the dice may decide."""

    num_sessions: int = Field(200_000, ge=100, le=20_000_000, description="sessions")
    shown_if_good: float = Field(1.0, ge=0.0, description="slope of the service's showing in the mood, both standard")
    played_if_good: float = Field(1.2, ge=0.0, description="logit of playing per standard deviation of mood")
    returns_if_good: float = Field(0.15, ge=0.0, description="match and played fraction per standard deviation of mood")
    least_exploration: float = Field(0.3, gt=0.0, lt=1.0, description="propensity of the dice at affinity 0")
    most_exploration: float = Field(0.7, gt=0.0, lt=1.0, description="propensity of the dice at affinity 1")
    return_days: float = Field(7.0, gt=0.0, description="days within which a return counts")


@dataclass(frozen=True, slots=True)
class MoodSessions:
    """S sessions: what a log would hold, and the truth behind it."""

    member_S: NDArray[np.int64]
    control_SD: Floats  # CONTROLS, each less its mean
    shown_S: Bools  # by the dice; what the mood showed is in no log
    propensity_S: Floats  # of shown_S, logged
    played_S: Bools
    returned_S: Bools
    mood_S: Floats
    plays_if_shown_S: Bools
    plays_if_not_S: Bools
    returns_if_played_S: Bools
    returns_if_not_S: Bools

    @property
    def effect_on_compliers(self) -> float:
        """Mean effect of playing on returning over those who play because the dice showed the title."""
        return float(self._effect_S[self.plays_if_shown_S & ~self.plays_if_not_S].mean())

    @property
    def effect_on_all(self) -> float:
        """Mean effect of playing on returning over all sessions."""
        return float(self._effect_S.mean())

    @property
    def _effect_S(self) -> NDArray[np.int64]:
        return self.returns_if_played_S.astype(np.int64) - self.returns_if_not_S


def mood_sessions(world: WorldConfig, config: MoodConfig, *, seed: int) -> MoodSessions:
    """Draw sessions of the members of the world's first partition."""
    rng = np.random.default_rng([world.seed, seed])
    titles, members = make_titles(world), make_members(world, 0, rng)
    num = config.num_sessions
    member_S, title_S = rng.integers(len(members), size=num), rng.integers(len(titles), size=num)
    affinity_S = affinity(members, titles)[member_S, title_S]
    lasting_M = rng.normal(size=len(members))
    mood_S = np.sqrt(_LASTING) * lasting_M[member_S] + np.sqrt(1 - _LASTING) * rng.normal(size=num)

    propensity_S = config.least_exploration + (config.most_exploration - config.least_exploration) * affinity_S
    dice_S = rng.random(num) < propensity_S
    mood_shows_S = config.shown_if_good * mood_S + rng.normal(size=num) > 1.5
    wish_S = _PLAYS + config.played_if_good * mood_S + _PLAYS_BY_AFFINITY * affinity_S + rng.logistic(size=num)
    plays_if_shown_S = wish_S + _PLAYS_IF_SHOWN > 0
    plays_if_not_S = wish_S + _PLAYS_IF_SHOWN * mood_shows_S > 0
    played_S = np.where(dice_S, plays_if_shown_S, plays_if_not_S)

    luck, gap_S = int(rng.integers(2**32)), members.gap_days_M[member_S]
    quality_S = titles.quality_N[title_S]

    def returns(played: bool) -> Bools:
        """Who returns in time: the same luck with the title played and without."""
        same = np.random.default_rng(luck)
        good_S = config.returns_if_good * mood_S
        match_S = np.clip(_MIDDLING_MATCH + good_S + played * _MATCH_OF_PLAY, 0.0, 1.0)
        fraction_S = np.clip(_MIDDLING_FRACTION + good_S + played * _FRACTION_OF_PLAY * 2 * quality_S, 0.0, 1.0)
        satisfied_S, start_S = satisfaction(match_S, fraction_S, same), np.full(num, world.first_us)
        visit_S = next_visit(world, gap_S, members.evening_M[member_S], satisfied_S, start_S, same)
        return np.asarray(visit_S - start_S <= config.return_days * DAY_US)

    if_played_S, if_not_S = returns(True), returns(False)
    control_SD = np.column_stack([affinity_S, quality_S, np.log(gap_S)])
    return MoodSessions(
        member_S=member_S,
        control_SD=control_SD - control_SD.mean(axis=0),
        shown_S=dice_S,
        propensity_S=propensity_S,
        played_S=played_S,
        returned_S=np.where(played_S, if_played_S, if_not_S),
        mood_S=mood_S,
        plays_if_shown_S=plays_if_shown_S,
        plays_if_not_S=plays_if_not_S,
        returns_if_played_S=if_played_S,
        returns_if_not_S=if_not_S,
    )
