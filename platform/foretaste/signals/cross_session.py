"""What the sessions before the open one say, one function a signal; see `declared.SESSION_SIGNALS`.

Each gives [B, width] of its declared type.

Shapes: B answers, G genres, K kinds.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from foretaste.signals.declared import AWAY_DAYS
from foretaste.signals.in_session import mean_fraction
from foretaste.signals.scene import Scene, Whole, mean, pick, shares, since

HOUR_US, DAY_US = 3_600_000_000, 86_400_000_000


def num_sessions(scene: Scene) -> Whole:
    """Count the sessions that are visible."""
    return scene.num_sessions_B[:, None]


def past_sessions(scene: Scene) -> Whole:
    """Count the sessions before the open one that are looked at."""
    return scene.num_past_B[:, None]


def past_genres(scene: Scene) -> NDArray[np.float32]:
    """Share of each genre in their interactions that say yes."""
    return shares(scene.past_R.sums(scene.genres_RG * scene.yes_R[:, None]))


def past_kinds(scene: Scene) -> NDArray[np.float32]:
    """Share of each kind in their interactions that say yes."""
    return shares(scene.past_R.sums(scene.kinds_RK * scene.yes_R[:, None]))


def past_depth(scene: Scene) -> NDArray[np.float32]:
    """Mean number of their events."""
    return mean(scene.past_E.sizes_B[:, None], scene.num_past_B[:, None], unit=1, otherwise=0.0)


def past_fraction_mean(scene: Scene) -> NDArray[np.float32]:
    """Mean played fraction of their interactions."""
    return mean_fraction(scene, scene.past_R)


def away(scene: Scene) -> NDArray[np.float32]:
    """Time since the newest event before the open session."""
    return since(scene.asof_B, _left_B(scene), scene.before_E.sizes_B > 0, unit_us=HOUR_US)


def returned(scene: Scene) -> Whole:
    """Say whether the visit begins long after the one before."""
    came_B = np.where(scene.open_B, pick(scene.at_E, scene.now_E.first_B, scene.open_B), scene.asof_B)
    long_B = came_B - _left_B(scene) > AWAY_DAYS * DAY_US
    return (long_B & (scene.before_E.sizes_B > 0)).astype(np.int64)[:, None]


def _left_B(scene: Scene) -> Whole:
    """Time of the newest event before the open session, 0 where there is none."""
    return pick(scene.at_E, scene.before_E.stop_B - 1, scene.before_E.sizes_B > 0)
