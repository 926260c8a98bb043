"""How the slate that opens a session comes about: the logging policy, with exact propensities.

Shapes: S sessions, M members of the partition, N titles in order of release, P places of the slate.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from foretaste.worlds.choices import Habits, draw
from foretaste.worlds.config import WorldConfig


def draw_slates(
    config: WorldConfig,
    habits: Habits,
    row_S: NDArray[np.int64],
    available_S: NDArray[np.int64],
    rng: np.random.Generator,
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Fill the slates as the logging policy does; gives titles and their propensities, [S, P].

    Place by place: with probability `slate_exploration` any title that is available and not above, evenly, else one
    of them in proportion to exp(appeal + what the service knows of the taste). A guest's row is the last.
    """
    cdf, num, width = habits.policy_cdf, len(row_S), habits.base_2MN.shape[2]
    reach_S = cdf[row_S * width + available_S - 1] - row_S  # the share of the row that is available
    slate_SP = np.full((num, config.impressions_per_session), -1, dtype=np.int64)
    propensity_SP = np.zeros(slate_SP.shape)
    left_S = np.ones(num)
    for place in range(slate_SP.shape[1]):
        explores_S = rng.random(num) < config.slate_exploration
        todo = np.arange(num)
        while len(todo):  # what stands above is drawn again: the same as drawing among the rest
            u = rng.random(len(todo))
            greedy = draw(cdf, width, row_S[todo], u * reach_S[todo])
            even = (u * available_S[todo]).astype(np.int64)
            found = np.minimum(np.where(explores_S[todo], even, greedy), available_S[todo] - 1)
            slate_SP[todo, place] = found
            todo = todo[(slate_SP[todo, :place] == found[:, None]).any(axis=1)]
        column_S = slate_SP[:, place]
        cell_S = row_S * width + column_S
        below_S = np.where(column_S > 0, cdf[cell_S - 1], row_S)
        share_S = (cdf[cell_S] - below_S) / reach_S
        even_S = config.slate_exploration / (available_S - place)
        propensity_SP[:, place] = even_S + (1.0 - config.slate_exploration) * share_S / left_S
        left_S = left_S - share_S
    return slate_SP, propensity_SP
