"""Logged lists as rounds: a place is a round, whose weight is that of all that stands down to it.

What a place earns is believed to depend on the titles down to it and on none below (McInerney et al., KDD 2020). So a
place counts by how much likelier the list down to it was under the policy that is judged; a list's places are rounds
of one actor, and what is checked of weights is checked of whole lists, for each depth to which lists may be judged.

Shapes: K places of a list, S lists, C candidates, R rounds, D depths.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from functools import reduce
from operator import add
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from foretaste.contracts.columns import ROUNDS
from foretaste.evaluation.offpolicy.diagnostics import DiagnosticsConfig, Measures, checks
from foretaste.evaluation.offpolicy.list_model import Described, cross_fitted
from foretaste.evaluation.offpolicy.rounds import Floats, Ints, Rounds


@dataclass(frozen=True)
class List:
    """One logged list; probabilities are of the title at its place given those above it."""

    actor: int
    chosen_K: Ints  # number in the logged pool
    reward_K: Floats
    propensity_K: Floats
    target_K: Floats
    logging_KC: Floats | None = None  # the whole distribution of who logged; None: not known
    outside_K: Floats | None = None  # mass of the judged policy on what is never chosen when logged
    described: Described | None = None  # what a reward model reads; None: there is none

    @property
    def weight_K(self) -> Floats:
        """How much likelier the list down to each place is under the judged policy."""
        return np.asarray(np.cumprod(self.target_K / self.propensity_K), dtype=np.float64)


def rounds_table(lists: Sequence[List]) -> pa.Table:
    """ROUNDS of lists: propensity and target are those of the list down to the place."""
    sizes = [len(one.reward_K) for one in lists]
    columns = {
        "chosen": _joined([one.chosen_K for one in lists], np.int64),
        "reward": _joined([one.reward_K for one in lists], np.float64),
        "propensity": _joined([np.cumprod(one.propensity_K) for one in lists], np.float64),
        "target": _joined([np.cumprod(one.target_K) for one in lists], np.float64),
        "position": _joined([np.arange(size) for size in sizes], np.int32),
        "actor": np.repeat(np.array([one.actor for one in lists], dtype=np.int64), sizes),
    }
    num = sum(sizes)
    arrays = [pa.array(columns[f.name], f.type) if f.name in columns else pa.nulls(num, f.type) for f in ROUNDS]
    return pa.Table.from_arrays(arrays, schema=ROUNDS)


def described_table(lists: Sequence[List], place: int) -> pa.Table:
    """What a reward model reads of a place of lists that all have it, a row each, and the weight of what is above."""
    found = [(one, one.described) for one in lists if one.described is not None]
    return pa.table(
        {
            "actor": pa.array([one.actor for one, _ in found], pa.int64()),
            "above": pa.array([one.weight_K[place - 1] if place else 1.0 for one, _ in found], pa.float64()),
            "chosen": pa.array([told.chosen_KD[place] for _, told in found], pa.list_(pa.float64())),
            "expected": pa.array([told.expected_KD[place] for _, told in found], pa.list_(pa.float64())),
        }
    )


def modelled(rounds: pa.Table, described: pa.Table, *, folds: int) -> pa.Table | None:
    """ROUNDS with what a cross-fitted model predicts of them; None where there is too little to learn from.

    Both have the same rounds in the same order; raises ValueError where they have not.
    """
    if not rounds["actor"].equals(described["actor"]):
        raise ValueError(f"wanted a description of each of {rounds.num_rows} rounds, found {described.num_rows}")
    read = {name: _matrix(described[name]) for name in ("chosen", "expected")}
    reward_R, place_R, actor_R = (np.asarray(rounds[name]) for name in ("reward", "position", "actor"))
    found = cross_fitted(
        Described(read["chosen"], read["expected"]),
        np.asarray(described["above"]),
        reward_R,
        place_R.astype(np.int64),
        actor_R,
        folds=folds,
    )
    if found is None:
        return None
    for name, values_R in (("predicted_reward", found.predicted_R), ("expected_reward", found.expected_R)):
        rounds = rounds.set_column(rounds.column_names.index(name), ROUNDS.field(name), pa.array(values_R))
    return rounds


def by_depth(lists: Sequence[List], *, depth: int) -> list[Measures]:
    """Measures of lists that are judged down to 1, 2, ... `depth` places; a shorter list counts as it is."""
    weight_SD = np.ones((len(lists), depth))
    outside_SD = np.zeros((len(lists), depth))
    for number, one in enumerate(lists):
        weight_K = one.weight_K[:depth]
        size = len(weight_K)
        weight_SD[number, :size] = weight_K
        weight_SD[number, size:] = weight_K[-1] if size else 1.0
        if one.outside_K is not None:
            above_K = np.concatenate([[1.0], weight_K[:-1]])
            outside_SD[number, :size] = above_K * one.outside_K[:size]
    known = all(one.outside_K is not None for one in lists)
    counts_D3B = np.cumsum([_counts(lists, place) for place in range(depth)], axis=0)
    return [
        Measures(
            len(lists),
            float(weight_SD[:, place].sum()),
            float(weight_SD[:, place] @ weight_SD[:, place]),
            float(weight_SD[:, place].max(initial=0.0)),
            float(outside_SD[:, : place + 1].sum()) if known else None,
            None,
            *counts_D3B[place],
        )
        for place in range(depth)
    ]


def answered_depth(measures: Sequence[Measures], config: DiagnosticsConfig) -> int:
    """The deepest place down to which the log can say something; 1 where it cannot at all. Reads no reward."""
    good = [depth for depth, one in enumerate(measures, 1) if all(check.holds for check in checks(one, config))]
    return max(good, default=1)


def added(parts: Iterable[Sequence[Measures]]) -> list[Measures]:
    """Measures of several parts of a log, by depth."""
    return [reduce(add, found) for found in zip(*parts, strict=True)]


def plain(measures: Measures) -> dict[str, Any]:
    """As JSON has it."""
    values = {field.name: getattr(measures, field.name) for field in fields(Measures)}
    return {name: value.tolist() if isinstance(value, np.ndarray) else value for name, value in values.items()}


def measures_of(told: Mapping[str, Any]) -> Measures:
    """Measures again of what `plain` gave."""
    arrays = {name: np.array(value, dtype=np.float64) for name, value in told.items() if isinstance(value, list)}
    return Measures(**{**told, **arrays})


def _counts(lists: Sequence[List], place: int) -> tuple[Floats, Floats, Floats]:
    """Counted and expected choices of a place and their variance, by bin of propensity, where the logging is known."""
    told = [(one, one.logging_KC) for one in lists if one.logging_KC is not None and place < len(one.reward_K)]
    width = max((logging_KC.shape[1] for _, logging_KC in told), default=1)
    logging_RC = np.zeros((len(told), width))
    for number, (_, logging_KC) in enumerate(told):
        logging_RC[number, : logging_KC.shape[1]] = logging_KC[place]
    chosen_R = np.array([one.chosen_K[place] for one, _ in told], dtype=np.int64)
    chance_R = logging_RC[np.arange(len(told)), chosen_R]
    nothing_R = np.zeros(len(told))
    found = Measures.of(
        Rounds.of(action=chosen_R, reward=nothing_R, propensity=chance_R, target=chance_R, logging=logging_RC)
    )
    bins = len(found.counted_K) - width  # the rest is by number in the pool, and pools differ
    return found.counted_K[:bins], found.expected_K[:bins], found.variance_K[:bins]


def _matrix(column: pa.ChunkedArray) -> Floats:
    whole = column.combine_chunks()
    return np.asarray(whole.flatten(), dtype=np.float64).reshape(len(whole), -1)


def _joined(parts: Sequence[NDArray[Any]], kind: Any) -> NDArray[Any]:
    return np.concatenate([np.zeros(0, dtype=kind), *parts]).astype(kind)
