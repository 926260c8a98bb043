"""Scores that another program made for the same cases, from a file: asked and measured like any model.

The other program reads `cases.parquet` and the prepared tables, and writes one float32 array [B, N] as .npy, rows in
the order of the cases, columns in the order of the catalogue's codes.

Shapes: B cases, N titles (column j is catalogue code j + 1).
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from foretaste.contracts.catalogue import Catalogue
from foretaste.evaluation.cases import Cases
from foretaste.ops.files import read_json, write_json, write_parquet


class FiledScores:
    """One model's answers to all cases."""

    def __init__(self, name: str, path: Path, cases: Cases, *, time_aware: bool) -> None:
        """Open the scores. Raises ValueError where they are of other cases or of another shape."""
        self.name = name
        self.time_aware = time_aware
        about = read_json(path.parent / "cases.json")
        if about["fingerprint"] != cases.fingerprint:
            raise ValueError(f"{path}: scores are of cases {about['fingerprint']}, wanted {cases.fingerprint}")
        self._scores_BN = np.load(path, mmap_mode="r")
        if self._scores_BN.shape != (len(cases), cases.num_titles):
            raise ValueError(
                f"{path}: scores have shape {self._scores_BN.shape}, wanted {(len(cases), cases.num_titles)}"
            )

    def scores_of(self, first: int, last: int) -> NDArray[np.float32]:
        """Scores of the cases `first:last`; float32[B, N]."""
        return np.asarray(self._scores_BN[first:last], dtype=np.float32)


def write_cases(cases: Cases, catalogue: Catalogue, folder: Path) -> None:
    """Write what another program needs to answer: cases.parquet, titles in the order of codes, and cases.json.

    A case sees all interactions of its `actor_id` whose position is below `position`; `at` is when it is asked.
    """
    rows = {
        "case": np.arange(len(cases)),
        "actor_id": cases.actors,
        "position": cases.lengths_B,
        "at": pa.array(cases.asof_B, pa.timestamp("us", tz="UTC")),
        "title_id": [catalogue.ids[code - 1] for code in cases.target_B],
    }
    write_parquet(pa.table(rows), folder / "cases.parquet")
    write_parquet(pa.table({"title_id": list(catalogue.ids)}), folder / "titles.parquet")
    write_json({"fingerprint": cases.fingerprint, "cases": len(cases)}, folder / "cases.json")
