"""Published segments of members: what it takes to say which one an intent embedding belongs to.

Shapes: B embeddings, K segments, D width of an embedding.
"""

from __future__ import annotations

from datetime import datetime
from typing import Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, FiniteFloat, model_validator

from foretaste.contracts.config import Frozen

INTENTS_FOLDER, SEGMENTS_FILE = "intents", "segments.json"
"""Where a workspace keeps them."""
PUBLISHED = "published"
"""Key of `Segments` in SEGMENTS_FILE; what stands beside it is for people."""


class Segments(Frozen):
    """Centres of K segments in the space of one model's intent embedding."""

    model: str = Field(description="fingerprint of the intent model")
    as_of: datetime = Field(description="instant as of which members were told apart")
    labels: tuple[str, ...] = Field(min_length=1, description="each in words")
    centres: tuple[tuple[FiniteFloat, ...], ...] = Field(min_length=1, description="K centres of width D")

    @model_validator(mode="after")
    def _whole(self) -> Self:
        widths = {len(centre) for centre in self.centres}
        if len(self.labels) != len(self.centres) or len(widths) != 1:
            raise ValueError(f"{len(self.labels)} labels, {len(self.centres)} centres of widths {sorted(widths)}")
        return self

    @property
    def centre_KD(self) -> NDArray[np.float64]:
        """The centres as one array."""
        return np.array(self.centres, dtype=np.float64)


def nearest(
    z_BD: NDArray[np.floating], centre_KD: NDArray[np.float64]
) -> tuple[NDArray[np.int32], NDArray[np.float64]]:
    """Number of the nearest centre of each embedding, the first of equals, and its Euclidean distance.

    Raises ValueError where the widths differ.
    """
    if z_BD.shape[1] != centre_KD.shape[1]:
        raise ValueError(f"embeddings have width {z_BD.shape[1]}, the segments' centres {centre_KD.shape[1]}")
    distance_BK = np.linalg.norm(z_BD[:, None, :].astype(np.float64) - centre_KD[None], axis=2)
    number_B = distance_BK.argmin(axis=1)
    return number_B.astype(np.int32), np.take_along_axis(distance_BK, number_B[:, None], axis=1)[:, 0]
