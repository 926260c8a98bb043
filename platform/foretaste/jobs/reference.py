"""Reference libraries, run as programs in an environment of their own and scored as our models are.

What goes over: `settings.json` (a ReferenceModel, the number of titles, whether seen titles are left out) and
`input.npz`: the training rows, and cases and validation cases as spans of one timeline. What comes back: `output.npz`,
the states of the cases and the vectors of the titles, whose product is the score, and `result.json`, the epochs.
Titles are catalogue codes, times microseconds since 1970.

Shapes: T interactions of the timeline, B cases, N titles (column j is catalogue code j + 1), D width.
"""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from foretaste.contracts.histories import Histories
from foretaste.evaluation.cases import Cases
from foretaste.jobs.programs import run_program
from foretaste.jobs.reference_models import ReferenceConfig, ReferenceModel
from foretaste.ops.files import read_json, write_json

CASES_AT_ONCE = 1_024


@dataclass(frozen=True, slots=True)
class Rows:
    """Training rows in the order of (actor, position): what is read, and of that what is predicted."""

    actor_T: NDArray[np.int64]
    title_T: NDArray[np.int32]  # catalogue code, never 0
    at_T: NDArray[np.int64]
    choice_T: NDArray[np.bool_]


def training_rows(
    interactions: pa.Table, cases: Cases, *, target_actions: Collection[str], fit_on: Collection[str] = ("train",)
) -> Rows:
    """Take from an INTERACTIONS table, that of `cases`, the rows that its split marks one of `fit_on`.

    All are read; choices, that is those by `target_actions`, are predicted. Titles that the catalogue does not have
    are left out.
    """
    marks = interactions["split_time" if cases.split == "time" else "split_last"]
    timeline = cases.timeline
    kept_T = _is_in(marks, fit_on) & (timeline.title_T > 0)
    actor_T = np.repeat(np.arange(len(timeline)), timeline.lengths_B)
    choice_T = _is_in(interactions["action"], target_actions)
    return Rows(actor_T[kept_T], timeline.title_T[kept_T], timeline.at_T[kept_T], choice_T[kept_T])


def _is_in(column: pa.ChunkedArray, values: Collection[str]) -> NDArray[np.bool_]:
    return np.asarray(pc.is_in(column, value_set=pa.array(sorted(values), pa.string())), dtype=np.bool_)


class ReferenceRecommender:
    """What a reference model said about the histories of some cases; it knows no others.

    A title that the model does not know stands last. Where it knows nothing of the history, it says how popular the
    titles are in its training rows, as one would with that library.
    """

    def __init__(
        self, model: ReferenceModel, found: dict[str, NDArray[Any]], cases: Cases, popularity_N: NDArray[np.int64]
    ) -> None:
        self.name = model.name
        self.time_aware = model.time_aware
        self.found = found
        self.popularity_N = popularity_N.astype(np.float32)
        self.row_of: dict[bytes, int] = {}
        for first in range(0, len(cases), CASES_AT_ONCE):
            part = slice(first, first + CASES_AT_ONCE)
            keys = self._keys(cases.timeline.take(cases.start_B[part], cases.stop_B[part]), cases.asof_B[part])
            self.row_of |= dict(zip(keys, range(first, first + len(keys)), strict=True))

    def scores(self, histories: Histories, asof_B: NDArray[np.int64]) -> NDArray[np.float32]:
        """Scores of all titles; float32[B, N]. Raises KeyError for a history that was not among the cases."""
        keys = self._keys(histories, asof_B)
        if missing := [number for number, key in enumerate(keys) if key not in self.row_of]:
            raise KeyError(f"{self.name}: was not asked about history {missing[0]}, of {int(asof_B[missing[0]])}")
        rows = np.array([self.row_of[key] for key in keys], dtype=np.int64)
        known_N = self.found["known_N"]
        scores_BN: NDArray[np.float32] = self.found["state_BD"][rows] @ self.found["title_ND"].T
        least_B = np.where(known_N, scores_BN, np.inf).min(axis=1, initial=np.inf)
        scores_BN[:, ~known_N] = (np.where(np.isfinite(least_B), least_B, 0.0) - 1.0)[:, None]
        scores_BN[self.found["cold_B"][rows]] = self.popularity_N
        return scores_BN

    def _keys(self, histories: Histories, asof_B: NDArray[np.int64]) -> list[bytes]:
        """What a case is known by: the digest of its titles and their times, and its instant where that is read."""
        titles, times = np.ascontiguousarray(histories.title_T), np.ascontiguousarray(histories.at_T)
        keys = []
        for start, stop, asof in zip(histories.offsets_B1[:-1], histories.offsets_B1[1:], asof_B, strict=True):
            digest = hashlib.blake2b(titles[start:stop].tobytes(), digest_size=16)
            digest.update(times[start:stop].tobytes())
            if self.time_aware:
                digest.update(int(asof).to_bytes(8, "little", signed=True))
            keys.append(digest.digest())
        return keys


@dataclass(frozen=True, slots=True)
class ReferenceResult:
    """A trained reference model and what its training took."""

    recommender: ReferenceRecommender
    facts: dict[str, Any]  # result.json of the program, with the settings


def train_reference(
    model: ReferenceModel,
    rows: Rows,
    cases: Cases,
    validation: Cases,
    *,
    validation_rows_V: NDArray[np.int64],
    exclude_seen: bool,
    config: ReferenceConfig,
    on_epoch: Callable[[dict[str, Any]], None],
) -> ReferenceResult:
    """Train a reference model on `rows` and let it answer `cases`.

    The best epoch is chosen by NDCG@10 of the cases `validation_rows_V` of `validation`, which share the timeline of
    `cases`; without any the last one is kept. Raises FileNotFoundError where the environment is missing,
    RuntimeError with what the program said where it fails or takes too long.
    """
    config.needed()
    if len(validation.timeline.title_T) != len(cases.timeline.title_T):
        raise ValueError("train_reference: cases and validation cases must be of the same interactions")
    with tempfile.TemporaryDirectory(prefix="foretaste-reference-") as name:
        folder = Path(name)
        facts = model.model_dump(mode="json") | {"num_titles": cases.num_titles, "exclude_seen": exclude_seen}
        write_json(facts, folder / "settings.json")
        np.savez(
            folder / "input.npz",
            train_actor_T=rows.actor_T, train_title_T=rows.title_T, train_at_T=rows.at_T,
            train_weight_T=rows.choice_T.astype(np.float64),
            title_T=cases.timeline.title_T, at_T=cases.timeline.at_T,
            case_start_B=cases.start_B, case_stop_B=cases.stop_B, case_asof_B=cases.asof_B,
            validation_start_B=validation.start_B[validation_rows_V],
            validation_stop_B=validation.stop_B[validation_rows_V],
            validation_asof_B=validation.asof_B[validation_rows_V],
            validation_target_B=validation.target_B[validation_rows_V],
        )  # fmt: skip
        run_program([str(config.python), str(config.program), name], config.timeout_seconds, model.threads, on_epoch)
        with np.load(folder / "output.npz") as stored:
            found = {one: stored[one] for one in stored.files}
        result = read_json(folder / "result.json")
    counts_N = np.bincount(rows.title_T[rows.choice_T], minlength=cases.num_titles + 1)[1:]
    return ReferenceResult(ReferenceRecommender(model, found, cases, counts_N), facts | result)
