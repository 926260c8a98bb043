"""What the online store was loaded with: of which generation, up to which publication, and when.

`<data>/online.json` is written after everything was loaded, so it never says more than is there. It keeps every load,
because between a publication and its load requests still read the rows of before, and so must a join for training.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from foretaste.ops.files import read_json, write_json
from foretaste.signals.views import Vocabulary

ONLINE = "online.json"


@dataclass(frozen=True, slots=True)
class Loaded:
    """The state of the online store."""

    generation: str
    fingerprint: str  # of what the rows of the generation mean
    vocabulary: Vocabulary
    loads: tuple[tuple[int, int], ...]  # (newest version that could be loaded, instant of the load in microseconds)
    previous: str | None  # generation that was loaded before, whose rows are still there

    def write(self, data: Path) -> None:
        """Say so in `data`."""
        said = {
            "generation": self.generation,
            "fingerprint": self.fingerprint,
            "genres": list(self.vocabulary.genres),
            "kinds": list(self.vocabulary.kinds),
            "previous": self.previous,
            "loads": [list(one) for one in self.loads],
        }
        write_json(said, data / ONLINE)

    def seen_from(self, at_B: NDArray[np.int64]) -> NDArray[np.int64]:
        """Instants at which the published rows are what requests at `at_B` (microseconds) read.

        That is `at_B` itself, but not later than the newest version of the load before; earlier than every load, where
        nobody read anything, it is `at_B`.
        """
        if not self.loads:
            return at_B
        through_L, loaded_L = (np.array(one, dtype=np.int64) for one in zip(*self.loads, strict=True))
        load_B = np.searchsorted(loaded_L, at_B, side="right") - 1
        limit_B = through_L[np.maximum(load_B, 0)] * 1000 + 1
        return np.where(load_B >= 0, np.minimum(at_B, limit_B), at_B)


def read_loaded(data: Path) -> Loaded:
    """Read what was loaded. Raises FileNotFoundError where nothing was."""
    if not (data / ONLINE).is_file():
        raise FileNotFoundError(f"{data / ONLINE} is not there: build the snapshots and load the online store first")
    said: Mapping[str, Any] = read_json(data / ONLINE)
    if "loads" not in said:
        raise FileNotFoundError(f"{data / ONLINE} was written by an earlier version: load the online store again")
    vocabulary = Vocabulary(tuple(said["genres"]), tuple(said["kinds"]))
    loads = tuple((int(through), int(at)) for through, at in said["loads"])
    return Loaded(said["generation"], said["fingerprint"], vocabulary, loads, said["previous"])
