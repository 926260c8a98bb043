"""What a member chooses on a visit: a conditional logit over all that is on sale, where what is shown draws more.

What is chosen beside a slate is thereby what would have been chosen anyway, less what the slate drew away: a favourite
that is not shown is found elsewhere (McFadden 1974). Titles, titles in a band and what showing adds to a title are
drawn towards 0. The choices of a visit count as if each was made from all titles.

Shapes: S visits, C choices, X places of slates, P places of one, N titles, K columns of a choice.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.optimize import minimize

from foretaste.evaluation.reward_visits import Columns, Floats, Ints, Shown, Visits

PRECISION = (1.0, 4.0, 0.1, 0.01, 0.5, 4.0)
"""One over the variance that is expected of each group of columns."""
_ROUNDS = 80


@dataclass(frozen=True)
class Draws:
    """How titles draw."""

    columns: Columns
    draw_K: Floats
    place_P: Floats

    def shares(self, visits: Visits, title_SP: Ints) -> Floats:
        """Share of a visit's choices that go to each title where slates are shown: float64[S, N]."""
        return self.of_shown(visits, Shown.of(visits, title_SP))

    def of_shown(self, visits: Visits, shown: Shown) -> Floats:
        """The same for slates that are taken apart."""
        draw_SN = self.columns.each(visits, self.draw_K, shown)
        draw_SN[shown.visit_X, shown.title_X] += self.place_P[shown.place_X]
        draw_SN[np.arange(visits.num_titles) >= visits.sale_S[:, None]] = -np.inf
        draw_SN -= draw_SN.max(axis=1, keepdims=True)
        np.exp(draw_SN, out=draw_SN)
        draw_SN /= draw_SN.sum(axis=1, keepdims=True)
        return draw_SN


def draws(visits: Visits, start: Draws | None = None, *, rounds: int = _ROUNDS) -> Draws:
    """Learn how titles draw; `start` is where the search begins."""
    columns, places = Columns.of(visits), visits.title_SP.shape[1]
    width = sum(columns.sizes)
    shown, num_S = Shown.of(visits, visits.title_SP), visits.num_choices_S[:, None]
    size, precision_F = len(num_S), np.concatenate([columns.repeat(PRECISION), np.zeros(places)])

    def loss(free_F: Floats) -> tuple[float, Floats]:
        off_SN = Draws(columns, free_F[:width], free_F[width:]).of_shown(visits, shown)
        share_C = off_SN[visits.visit_C, visits.chosen_C]
        off_SN *= num_S
        np.subtract.at(off_SN, (visits.visit_C, visits.chosen_C), 1.0)
        of_places_P = np.bincount(shown.place_X, off_SN[shown.visit_X, shown.title_X], places)
        toward_F = np.concatenate([columns.gathered(visits, off_SN, shown), of_places_P])
        value = 0.5 * float((precision_F * free_F**2).sum()) - float(np.log(np.maximum(share_C, 1e-300)).sum())
        return value / size, (toward_F + precision_F * free_F) / size

    first_F = np.zeros(width + places) if start is None else np.concatenate([start.draw_K, start.place_P])
    found_F = minimize(loss, first_F, jac=True, method="L-BFGS-B", options={"maxiter": rounds}).x
    return Draws(columns, found_F[:width], found_F[width:])
