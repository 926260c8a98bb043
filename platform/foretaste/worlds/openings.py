"""What a slate is worth to the visit that it opens: the probability that the visit begins with one of its titles, found
on the slate, and that this one is watched to its end. Exact, by the law by which the world draws, given what the visit
is for; so also what any other slate would have been worth, and which would have been worth most.

A first choice has the weight w of its title, raised by 1 + b_p on place p of the slate; chosen, it was found there with
probability b_p / (1 + b_p). So a slate is worth

    sum over places of b_p w v / (W + sum over places of b_p w)

with v the probability of being watched to its end and W the weight of all titles without a slate.

Shapes: S visits, N titles, P places.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from foretaste.worlds.config import WorldConfig
from foretaste.worlds.scenes import Running
from foretaste.worlds.viewing import finish_probability

_STEPS = 20


@dataclass(frozen=True)
class Openings:
    """S visits as they open."""

    weight_SN: NDArray[np.float64]  # of being the first choice, without a slate; 0: not to be had
    finish_SN: NDArray[np.float64]  # probability of being watched to its end, once chosen
    boost_P: NDArray[np.float64]  # b

    @classmethod
    def of(cls, config: WorldConfig, running: Running) -> Openings:
        """Of sessions that have just begun. Raises ValueError for a world whose weights are not factors."""
        if config.intents and config.mechanism != "weights":
            raise ValueError(f"openings: wanted mechanism weights, or no intents, found {config.mechanism}")
        titles, slate_SP = running.offer.titles, running.offer.slate_SP
        num, places = slate_SP.shape
        rows, columns = np.arange(num), np.arange(len(titles))
        boost_P = config.slate_boost / (1.0 + np.arange(places, dtype=np.float64))
        weight_SN = running.mechanism.weigh(rows).copy()
        weight_SN[rows[:, None], slate_SP] /= 1.0 + boost_P
        title_X = np.tile(columns, num)
        match_X = running.mechanism.match(np.repeat(rows, len(columns)), title_X)
        return cls(weight_SN, finish_probability(titles, title_X, match_X).reshape(weight_SN.shape), boost_P)

    def worth(self, slate_SP: NDArray[np.int64]) -> NDArray[np.float64]:
        """What a slate of each visit is worth, [S], 0..1."""
        row_S1 = np.arange(len(slate_SP))[:, None]
        raised_SP = self.boost_P[: slate_SP.shape[1]] * self.weight_SN[row_S1, slate_SP]
        earned_S = (raised_SP * self.finish_SN[row_S1, slate_SP]).sum(axis=1)
        return np.asarray(earned_S / (self.weight_SN.sum(axis=1) + raised_SP.sum(axis=1)))

    def worth_alone(self) -> NDArray[np.float64]:
        """What each title is worth as a slate of its own, [S, N]."""
        raised_SN = self.boost_P[0] * self.weight_SN
        total_S1 = self.weight_SN.sum(axis=1, keepdims=True)
        return np.asarray(raised_SN * self.finish_SN / (total_S1 + raised_SN))

    def best(self) -> NDArray[np.int64]:
        """The slate that is worth most to each visit, [S, P]; who makes it knows what the visit is for.

        A ratio is largest where its numerator less that ratio times its denominator is: Dinkelbach, Management Science
        1967. For a given ratio titles stand in order of w (v - ratio), since b falls with the place. At least P titles
        must be on sale.
        """
        places = len(self.boost_P)
        out_SN = self.weight_SN <= 0.0
        ratio_S = np.zeros(len(self.weight_SN))
        slate_SP = np.full((len(ratio_S), places), -1, dtype=np.int64)
        for _ in range(_STEPS):
            gain_SN = np.where(out_SN, -np.inf, self.weight_SN * (self.finish_SN - ratio_S[:, None]))
            before_SP, slate_SP = slate_SP, np.argsort(-gain_SN, axis=1, kind="stable")[:, :places]
            ratio_S = self.worth(slate_SP)
            if (before_SP == slate_SP).all():
                break
        return slate_SP
