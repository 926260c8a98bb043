"""What exploring may cost and whom it is for: the same bounds around every policy, in closed form.

Shapes: C candidates of the pool.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from foretaste.contracts.config import Frozen


class Exploration(Frozen):
    """Bounds of a policy's dice, of each place of a list."""

    epsilon: float = Field(0.0, ge=0, le=1, description="probability that a place is filled evenly among the next")
    among: int | None = Field(
        None, ge=1, description="best remaining candidates that epsilon chooses among; null: all of the pool"
    )
    cold_share: float = Field(
        0.0, ge=0, le=1, description="probability that a place is filled evenly among cold titles, where any remain"
    )
    budget: float | None = Field(
        None, ge=0, le=1, description="share of a place's estimated reward that may be given up; null: any"
    )

    @property
    def told(self) -> dict[str, Any]:
        """What differs from the defaults: what a decision logs of it."""
        return self.model_dump(mode="json", exclude_defaults=True)

    @property
    def only_epsilon(self) -> bool:
        """Whether it bounds nothing."""
        return self.among is None and self.cold_share == 0.0 and self.budget is None


UNBOUNDED = Exploration()


@dataclass(frozen=True, slots=True)
class Next:
    """The next place of a list."""

    probability_C: NDArray[np.float64]  # sums to 1; all 0 when none is left
    best: int  # the candidate that would stand there without dice; -1 when none is left
    worth: float  # of the best
    given_up: float  # expected: worth of the best less the mean worth by the probabilities


def bounded_next(
    base_C: NDArray[np.float64],
    worth_C: NDArray[np.float64],
    *,
    first: NDArray[np.int64],
    cold_C: NDArray[np.bool_],
    exploration: Exploration,
) -> Next:
    """Mix a policy's own distribution with dice among the `first` and among cold candidates, and keep to the budget.

    `base_C` sums to 1 over the candidates that are left; `first` are these, best first (one at least). The cold
    share comes first out of the budget and is cut where it costs more than what the others leave of it, who may claim
    half; the rest of the probability is drawn towards the best candidate until the expected loss is within what
    remains. Whatever the budget (above 0), no candidate that could have been chosen becomes impossible.
    """
    best = int(first[0])
    top = float(worth_C[best])
    rest_C = (1.0 - exploration.epsilon) * base_C
    among = first[: exploration.among]
    rest_C[among] += exploration.epsilon / len(among)
    share, cold_loss = 0.0, 0.0
    cold = first[cold_C[first]] if exploration.cold_share > 0.0 else first[:0]
    if len(cold):
        share = exploration.cold_share
        cold_loss = _loss(top, float(worth_C[cold].mean()))
    loss = _loss(top, float(rest_C @ worth_C))
    kept = 1.0
    if exploration.budget is not None:
        allowed = exploration.budget * top
        claimed = min(0.5 * allowed, (1.0 - share) * loss)
        share *= _within(allowed - claimed, share * cold_loss)
        kept = _within(allowed - share * cold_loss, (1.0 - share) * loss)
    probability_C = (1.0 - share) * kept * rest_C
    probability_C[best] += (1.0 - share) * (1.0 - kept)
    if share > 0.0:
        probability_C[cold] += share / len(cold)
    return Next(probability_C, best, top, share * cold_loss + (1.0 - share) * kept * loss)


def _loss(top: float, mean: float) -> float:
    """Sums of rounded numbers may be a little above the largest of them."""
    return max(0.0, top - mean)


def _within(allowed: float, cost: float) -> float:
    """Largest share of a cost, at most 1, that is allowed."""
    return 1.0 if cost <= allowed else max(0.0, allowed) / cost
