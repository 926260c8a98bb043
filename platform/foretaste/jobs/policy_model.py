"""What a reward model adds to the rounds of `foretaste evaluate-policy`, and of whom rounds are where they are many."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from foretaste.contracts.columns import ROUNDS
from foretaste.evaluation.offpolicy.list_model import Earned, explained
from foretaste.evaluation.offpolicy.lists import modelled
from foretaste.evaluation.offpolicy.rounds import Floats, Ints
from foretaste.jobs.policy_rounds import number_of
from foretaste.ops.files import parquet_files

LARGEST = 1 << 63
DESCRIBED = "described"
"""Folder beside that of the rounds, with files of the same names."""


def sampled(files: Sequence[Path], most: int) -> tuple[pa.Table, float]:
    """Rounds of all actors, or of a share by hash where there are too many."""
    num = sum(pq.read_metadata(file).num_rows for file in files)
    share = min(1.0, most / max(num, 1))
    return pa.concat_tables([ROUNDS.empty_table(), *_of_some(files, share)]), share


def earned_by_titles(rewards: Path, *, until_us: int, folds: int) -> Earned:
    """What titles earned before an instant (microseconds), by folds of actors."""

    def parts() -> Iterator[tuple[list[str], Ints, Floats]]:
        for file in parquet_files(rewards):
            table = pq.read_table(file, columns=["title_id", "actor_id", "reward", "at"], partitioning=None)
            table = table.filter(pc.less(table["at"].cast(pa.int64()), until_us))
            actors = table["actor_id"].combine_chunks().dictionary_encode()
            number = np.array([number_of(actor) for actor in actors.dictionary.to_pylist()], dtype=np.int64)
            reward_R = table["reward"].to_numpy().astype(np.float64)  # NaN where it is not known
            yield table["title_id"].to_pylist(), number[actors.indices.to_numpy()], reward_R

    return Earned.of(parts(), folds=folds)


def with_model(rounds: pa.Table, files: Sequence[Path], share: float, *, folds: int) -> tuple[pa.Table, str]:
    """Rounds of some files with what a reward model predicts of them, and a word on it."""
    beside = [file.parents[1] / DESCRIBED / file.name for file in files]
    found = modelled(rounds, pa.concat_tables(_of_some(beside, share)), folds=folds)
    if found is None:
        return rounds, "none: there are too few rounds to learn from"
    gained = explained(np.asarray(found["predicted_reward"]), np.asarray(found["reward"]))
    return found, f"ridge, across {folds} folds of actors; of what is held out it explains {gained:.1%}"


def _of_some(files: Sequence[Path], share: float) -> list[pa.Table]:
    read = (pq.read_table(file, partitioning=None) for file in files)
    return [table if share >= 1.0 else table.filter(pc.less(table["actor"], int(share * LARGEST))) for table in read]
