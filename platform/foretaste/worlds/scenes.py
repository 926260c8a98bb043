"""What members have seen, which sessions are open, how far they are.

Shapes: S sessions of the round, M members of the partition, N titles, P places of the slate.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from foretaste.contracts.events import Action
from foretaste.worlds.choices import Mechanism, Offer, Past
from foretaste.worlds.config import DAY_US, SECOND_US, WorldConfig
from foretaste.worlds.intents import Intents
from foretaste.worlds.log import Log
from foretaste.worlds.titles import Titles


@dataclass(frozen=True)
class Round:
    """The sessions that open."""

    member_S: NDArray[np.int64]
    number_S: NDArray[np.int64]  # of the session in the partition
    start_S: NDArray[np.int64]
    day_S: NDArray[np.int64]
    guest_S: NDArray[np.bool_]
    num_choices_S: NDArray[np.int64]


@dataclass
class State:
    """What the members of a partition have seen so far."""

    last_MN: NDArray[np.int64]  # microseconds of the last choice, 0: never
    unfinished_MN: NDArray[np.bool_]  # movies
    watched_MN: NDArray[np.int32]  # episodes of shows

    @classmethod
    def empty(cls, members: int, titles: int) -> State:
        """Nobody has seen anything."""
        shape = (members, titles)
        return cls(np.zeros(shape, np.int64), np.zeros(shape, np.bool_), np.zeros(shape, np.int32))

    def past(self, titles: Titles, round_: Round) -> Past:
        """What the members of the round have behind them."""
        last_SN = self.last_MN[round_.member_S]
        more_SN = self.watched_MN[round_.member_S] < titles.episodes_DN[round_.day_S]
        return Past(
            seen_SN=last_SN > 0,
            recent_SN=round_.start_S[:, None] - last_SN <= 7 * DAY_US,
            open_SN=np.where(titles.show_N, more_SN, self.unfinished_MN[round_.member_S]),
        )


@dataclass
class Running:
    """What the sessions of a round have and how far they are."""

    intents: Intents  # as the sessions opened
    offer: Offer
    mechanism: Mechanism
    information_SA: NDArray[np.float64]
    told_genre_S: NDArray[np.int64]
    clock_S: NDArray[np.int64]
    match_S: NDArray[np.float64]  # summed over choices
    fraction_S: NDArray[np.float64]


@dataclass(frozen=True)
class Scene:
    """All that an act of the members of a round reads and changes."""

    config: WorldConfig
    titles: Titles
    state: State
    rng: np.random.Generator
    log: Log
    round_: Round
    running: Running

    def emit(self, action: Action, rows: NDArray[np.int64], **values: Any) -> None:
        """Log one event now in each of some sessions."""
        self.log.add(action, self.round_.number_S[rows], self.running.clock_S[rows], **values)

    def wait(self, rows: NDArray[np.int64], seconds_X: NDArray[np.float64]) -> None:
        """Let time pass in some sessions."""
        self.running.clock_S[rows] += seconds(seconds_X)


def seconds(value_X: NDArray[np.float64]) -> NDArray[np.int64]:
    """Microseconds of a number of seconds."""
    return np.asarray(value_X * SECOND_US).astype(np.int64)
