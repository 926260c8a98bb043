"""Logged decisions as lists to learn from: the pool as the policy had it, what it chose by dice, and what that earned.

Shapes: B decisions, C candidates of the largest pool, K places of the longest list.
"""

from __future__ import annotations

import zlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
from numpy.typing import NDArray

from foretaste.contracts.catalogue import Catalogue
from foretaste.contracts.events import GUEST
from foretaste.contracts.histories import Histories
from foretaste.models.ranker_inputs import RankerInputs, join_inputs
from foretaste.signals.ranked_past import Reading
from foretaste.training.off_policy_lists import LoggedLists, join_lists

READ = ("decision_id", "member_id", "session_id", "at", "candidates", "items")
"""Columns of DECISIONS that are read."""


@dataclass(frozen=True, slots=True)
class Decided:
    """B decisions, not yet described."""

    ids: list[str]
    actors: list[str]
    at_B: NDArray[np.int64]  # microseconds
    code_BC: NDArray[np.int32]  # the pool as catalogue codes, 0 for padding
    chosen_BK: NDArray[np.int64]
    propensity_BK: NDArray[np.float64]
    reward_BK: NDArray[np.float64]
    left_out: Mapping[str, int]  # decisions by why they are

    def __len__(self) -> int:
        return len(self.ids)


def decided(decisions: pa.Table, rewards: pa.Table, known: Catalogue, *, limit: int, seed: int) -> Decided:
    """Join DECISIONS (columns of READ) with REWARDS by place; at most `limit` of them, drawn by `seed`.

    Left out are decisions without a reward, of another list than the pool's, with titles that the catalogue does not
    have, and those that no policy filled by dice. Raises ValueError where none is left, saying why.
    """
    paid = _paid(rewards)
    rows, why = [], Counter[str]()
    for row in decisions.select(list(READ)).to_pylist():
        reason = _unusable(row, paid, known)
        if reason is None:
            rows.append(row)
        else:
            why[reason] += 1
    if not rows:
        told = ", ".join(f"{number} {reason}" for reason, number in sorted(why.items())) or "there are none"
        raise ValueError(f"no decision to learn from: {told}")
    if len(rows) > limit:
        kept = np.sort(np.random.default_rng(seed).choice(len(rows), size=limit, replace=False))
        why["beyond the limit"] = len(rows) - limit
        rows = [rows[n] for n in kept]
    return _laid_out(rows, paid, known, dict(why))


def described(
    found: Decided, timeline: Histories, timeline_actors: list[str], reading: Reading
) -> LoggedLists[RankerInputs]:
    """Describe the pools as the ranker would have read them at the instants of the decisions."""
    number = {actor: place for place, actor in enumerate(timeline_actors)}
    actor_B = np.array([number.get(actor, -1) for actor in found.actors], dtype=np.int64)
    start_B = np.where(actor_B >= 0, timeline.offsets_B1[:-1][actor_B], 0)
    end_B = np.where(actor_B >= 0, timeline.offsets_B1[1:][actor_B], 0)
    before = [np.searchsorted(timeline.at_T[a:b], at) for a, b, at in zip(start_B, end_B, found.at_B, strict=True)]
    past = reading.ask(timeline, start_B, start_B + np.array(before, dtype=np.int64), found.at_B, found.actors)
    actor = np.array([zlib.crc32(one.encode()) for one in found.actors], dtype=np.int64)
    parts, order = [], []
    for rows, _, inputs in past.answers(np.arange(len(found)), shown_BP=found.code_BC):
        parts.append(
            LoggedLists.of(
                inputs,
                real=inputs.code_BC > 0,
                chosen=found.chosen_BK[rows],
                propensity=found.propensity_BK[rows],
                reward=found.reward_BK[rows],
                actor=actor[rows],
            )
        )
        order.append(rows)
    whole = join_lists(parts, join_inputs([part.inputs for part in parts]))
    return whole.rows(np.argsort(np.concatenate(order)))


def _paid(rewards: pa.Table) -> dict[tuple[str, int], float]:
    frame = pl.DataFrame(pl.from_arrow(rewards)).select("decision_id", "position", "reward")
    known = frame.filter(pl.col("reward").is_not_null() & pl.col("position").is_not_null())
    return {(decision, place): reward for decision, place, reward in known.iter_rows()}


def _unusable(row: Mapping[str, Any], paid: Mapping[tuple[str, int], float], known: Catalogue) -> str | None:
    items, pool = row["items"], row["candidates"]
    if not any((row["decision_id"], item["position"]) in paid for item in items):
        return "without a known reward"
    titles = [item["title_id"] for item in items]
    places = [item["position"] for item in items] == list(range(len(items)))
    if len(set(pool)) < len(pool) or len(set(titles)) < len(titles) or not set(titles) <= set(pool) or not places:
        return "whose list is not of their pool"
    if (known.codes(pool) == 0).any():
        return "with titles that the models do not know"
    if all(item["propensity"] >= 1.0 - 1e-9 for item in items):
        return "that no dice took part in"
    return None


def _laid_out(
    rows: Sequence[Mapping[str, Any]], paid: Mapping[tuple[str, int], float], known: Catalogue, why: dict[str, int]
) -> Decided:
    size, places = max(len(row["candidates"]) for row in rows), max(len(row["items"]) for row in rows)
    code_BC = np.zeros((len(rows), size), dtype=np.int32)
    chosen_BK = np.full((len(rows), places), -1, dtype=np.int64)
    propensity_BK, reward_BK = np.ones(chosen_BK.shape), np.full(chosen_BK.shape, np.nan)
    for b, row in enumerate(rows):
        code_BC[b, : len(row["candidates"])] = known.codes(row["candidates"])
        place_of = {title: place for place, title in enumerate(row["candidates"])}
        for k, item in enumerate(row["items"]):
            chosen_BK[b, k], propensity_BK[b, k] = place_of[item["title_id"]], item["propensity"]
            reward_BK[b, k] = paid.get((row["decision_id"], k), np.nan)
    return Decided(
        [row["decision_id"] for row in rows],
        [row["member_id"] or GUEST + row["session_id"] for row in rows],
        np.array([int(row["at"].timestamp() * 1e6 + 0.5) for row in rows], dtype=np.int64),
        code_BC,
        chosen_BK,
        propensity_BK,
        reward_BK,
        why,
    )
