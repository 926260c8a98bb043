"""The whole chain as one more model: the intent model's candidates in the ranker's order, then all other titles.

A recommender of the contract is told a history and an instant; the chain also reads who asks, the acts and the slow
views of then. So it answers cases, not histories, and keeps what it needs to say how well its probabilities hold.

Shapes: B cases, N titles, C candidates each, M predictions.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from foretaste.evaluation.calibration import Reliability, reliability
from foretaste.evaluation.cases import Cases
from foretaste.evaluation.intervals import difference, resampled_means
from foretaste.evaluation.metrics import exclude_seen, per_case, target_ranks
from foretaste.models.ranker_heads import Head
from foretaste.models.ranker_scorer import RankerScorer
from foretaste.signals.followed import Followed, followed
from foretaste.signals.ranked_past import Reading

FIRST = 1_000.0
"""How far the candidates stand above all other titles."""


@runtime_checkable
class CaseRecommender(Protocol):
    """A model that is asked about cases: it reads more of them than their history."""

    @property
    def name(self) -> str:
        """Name in reports."""
        ...

    def scores_of(self, first: int, last: int, *, session: bool = True) -> NDArray[np.float32]:
        """Score the whole catalogue for the cases `first:last`: float32[B, N], finite, higher is better.

        Without `session` nothing of the session that is going on is known.
        """
        ...


@dataclass(frozen=True, slots=True)
class _Kept:
    """What is remembered of some cases."""

    case_B: NDArray[np.int64]
    intent_rank_B: NDArray[np.int64]
    rank_B: NDArray[np.int64]
    chances: dict[Head, NDArray[np.float64]]  # [B, C]
    after: Followed
    real_BC: NDArray[np.bool_]


class Chain:
    """Answers all cases of an evaluation as the service would have."""

    name = "ranker"
    time_aware = True

    def __init__(self, scorer: RankerScorer, reading: Reading, cases: Cases) -> None:
        """Read the slow views of the cases. The ranker has to belong to the intent model of `reading`."""
        self._scorer, self._cases, self._without_seen = scorer, cases, not reading.repeats
        self._past = reading.ask(cases.timeline, cases.start_B, cases.stop_B, cases.asof_B, cases.actors)
        self._kept: list[_Kept] = []

    def scores_of(self, first: int, last: int, *, session: bool = True) -> NDArray[np.float32]:
        """Score the whole catalogue for the cases `first:last`; see `CaseRecommender`."""
        scores_BN = np.empty((last - first, self._cases.num_titles), dtype=np.float32)
        for places, prediction, inputs in self._past.answers(np.arange(first, last), cut=not session):
            order_BC = self._scorer.scores(inputs)
            real_BC = inputs.code_BC > 0
            place_BC = np.argsort(np.argsort(-np.where(real_BC, order_BC, -np.inf), axis=1, kind="stable"), axis=1)
            part_BN = prediction.scores_BN.copy()
            row_X, column_X = np.nonzero(real_BC)
            part_BN[row_X, inputs.code_BC[row_X, column_X] - 1] = FIRST - place_BC[row_X, column_X]
            scores_BN[places] = part_BN
            if session:
                case_B = first + places
                after = followed(self._cases.timeline, self._cases.stop_B[case_B], inputs.code_BC)
                before_B, after_B = self._ranks(case_B, prediction.scores_BN), self._ranks(case_B, part_BN)
                self._kept.append(_Kept(case_B, before_B, after_B, self._scorer.chances(inputs), after, real_BC))
        return scores_BN

    def report(self, *, resamples: int, seed: int) -> dict[str, Any]:
        """Lift over the order of the intent model alone, and how well the probabilities of each head hold.

        `lift` is a paired difference with an interval by actors; heads that are off are None.
        """
        if not self._kept:
            raise ValueError("chain: no case was asked")
        case_B, before_B, after_B = (
            np.concatenate([getattr(kept, name) for kept in self._kept])
            for name in ("case_B", "intent_rank_B", "rank_B")
        )
        actor_B = self._cases.actor_B[case_B]
        values = {
            name: (per_case(before_B, (10,))[name], per_case(after_B, (10,))[name]) for name in ("ndcg@10", "hr@10")
        }
        lifts = {}
        for name, (one_B, two_B) in values.items():
            means_RM = resampled_means(np.column_stack([two_B - one_B]), actor_B, resamples=resamples, seed=seed)
            gain = float((two_B - one_B).mean())
            lifts[name] = difference(gain, means_RM[:, 0], len(np.unique(actor_B)), against="intent")
        heads = {head: self._reliability(head, resamples=resamples, seed=seed) for head in Head}
        return {"cases": len(case_B), "lift": lifts, "heads": heads}

    def _ranks(self, case_B: NDArray[np.int64], scores_BN: NDArray[np.float32]) -> NDArray[np.int64]:
        cases, target_B = self._cases, self._cases.target_B[case_B]
        if self._without_seen:
            histories = cases.timeline.take(cases.start_B[case_B], cases.stop_B[case_B])
            scores_BN = exclude_seen(scores_BN, histories, target_B)
        return target_ranks(scores_BN, target_B)

    def _reliability(self, head: Head, *, resamples: int, seed: int) -> Reliability | None:
        if head not in self._scorer.heads:
            return None
        chance, label, actor = [], [], []
        for kept in self._kept:
            label_BC = _LABELS[head](kept.after)
            known_BC = kept.real_BC & ~np.isnan(label_BC)
            chance.append(kept.chances[head][known_BC])
            label.append(label_BC[known_BC])
            actor.append(np.repeat(self._cases.actor_B[kept.case_B], known_BC.sum(axis=1)))
        chance_M, label_M, actor_M = (np.concatenate(parts) for parts in (chance, label, actor))
        if not len(label_M):
            return None
        return reliability(chance_M, label_M, actor_M, resamples=resamples, seed=seed)


_LABELS: Mapping[Head, Any] = {
    Head.PLAY: lambda after: after.chosen_BC,
    Head.FRACTION: lambda after: after.fraction_BC,
    Head.THUMB: lambda after: after.thumb_BC,
    Head.LIST: lambda after: after.listed_BC,
}
