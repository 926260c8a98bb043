"""What is specific to sequence models in the training loop.

Shapes: B cases, T tokens, P predictions, N titles, N1 catalogue codes, D width, K width with the static columns of the
decoder, X rows of a part of the title table, S shared negatives, A relations.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from foretaste.contracts.catalogue import Catalogue
from foretaste.contracts.histories import Histories
from foretaste.contracts.intents import Intent, LabelConfig
from foretaste.models.bodies import Encoded
from foretaste.models.decoding import pairs
from foretaste.models.intent import IntentModel, IntentRecommender, possible_classes
from foretaste.models.losses import (
    Added,
    class_loss,
    extras,
    full_softmax_loss,
    multi_label_loss,
    sampled_softmax_loss,
)
from foretaste.training.config import TrainingConfig
from foretaste.training.examples import Census, Examples
from foretaste.training.negatives import Drawn, Negatives
from foretaste.training.streaming import Count, Parts, in_steps
from foretaste.training.windows import Making, MicroBatch, cut, steps

NDCG_AT = 10
CASES_AT_ONCE = 256


class IntentTask:
    """Trains a sequence model on this worker's histories; `counted` is the census of all workers' examples."""

    def __init__(
        self,
        network: IntentModel,
        examples: Examples | Parts,
        counted: Census,
        catalogue: Catalogue,
        config: TrainingConfig,
        *,
        rank: int,
        exclude_seen: bool,
        labels: LabelConfig | None = None,
    ) -> None:
        self.network: IntentModel = network
        self.parts = _resident(examples) if isinstance(examples, Examples) else examples
        self.num_predictions = self.parts.train
        self.catalogue = catalogue
        self.config = config
        self.rank = rank
        self.exclude_seen = exclude_seen
        self.labels = labels or LabelConfig()
        self.negatives = Negatives(counted.chosen_N1[1:]) if network.sampled else None
        self.cases, self.asof_B, self.target_B = self._cases(counted)
        self.validates = counted.validation > 0
        self.codes = _codes(network, catalogue, self.labels)

    def _cases(self, counted: Census) -> tuple[Histories, NDArray[np.int64], NDArray[np.int64]]:
        """Draw this worker's share of the validation cases: histories cut before the choice to be predicted."""
        there = sum(count.validation for count in self.parts.counts)
        share = min(1.0, self.config.validation_cases / max(1, counted.validation))
        rng = np.random.default_rng([self.config.seed, self.rank])
        return self.parts.cases(np.sort(rng.choice(there, size=round(share * there), replace=False)))

    def steps(self, epoch: int, num_steps: int) -> Iterator[Iterator[MicroBatch]]:
        """Divide the epoch's windows into steps; order and cuts follow from (seed, epoch, rank)."""
        rng = np.random.default_rng([self.config.seed, epoch, self.rank])
        divide = partial(self._divide, rng)
        return in_steps(self.parts.groups(rng), divide, total=self.parts.train, num_steps=num_steps)

    def _divide(self, rng: np.random.Generator, examples: Examples, num_steps: int) -> Iterator[Iterator[MicroBatch]]:
        model = self.network.config
        making = Making(
            examples,
            self.catalogue,
            model.max_length,
            model.time_aware,
            reading=self.network.reading,
            learn_first=model.learn_first,
            weight_T=by_duration(examples) if model.weigh_by == "duration" else None,
            hide_share=model.hide_share if model.body.both_ways else None,
        )
        offsets_B1 = examples.histories.offsets_B1
        seen_T1 = np.concatenate([[0], np.cumsum(examples.newest_T)])
        start_B = offsets_B1[:-1]
        stop_B = start_B + seen_T1[offsets_B1[1:]] - seen_T1[start_B]
        windows = cut(start_B, stop_B, model.max_length, rng)
        return steps(windows, making, num_steps=num_steps, micro_batch_tokens=self.config.micro_batch_tokens, rng=rng)

    def loss(self, micro_batch: MicroBatch) -> tuple[Tensor, int]:
        """Summed loss of the next titles, plus the weighted losses of the intents."""
        device = self.network.features.start.device
        batch = micro_batch.to(device)
        drawn = None if self.negatives is None else self.negatives.draw(batch, self.network.config.num_negatives)
        if drawn is None:
            title_XD, bias_X = self.network.titles()
        else:
            title_XD, bias_X = self.network.titles(drawn.code_X)
            batch = replace(batch, tokens=batch.tokens.coded(drawn.input_T))
        encoded = self.network(batch.tokens, title_XD).at(batch.token_P)
        state_PK, added = self._added(encoded, batch)
        static = self.network.decoder
        if static is not None:
            columns = static.static_N1K if drawn is None else static.static_N1K[drawn.code_X]
            title_XD = torch.cat([title_XD, columns], dim=1)
        if drawn is None:
            loss = full_softmax_loss(
                state_PK, title_XD[1:], bias_X[1:], batch.title_P, weight_P=batch.weight_P, added=added
            )
        else:
            loss = self._sampled(state_PK, title_XD, bias_X, drawn, batch, added)
        config = self.network.config
        for head, logits_PC in encoded.intents.items():
            part = self._intent_loss(head, logits_PC, batch)
            loss = loss + config.intent_weight * config.head_weights.get(head, 1.0) * part
        return loss, len(batch.title_P)

    def _added(self, encoded: Encoded, batch: MicroBatch) -> tuple[Tensor, Added]:
        """States with the weights of static columns, and what else predicted classes and histories add to logits."""
        decoder, now_P = self.network.decoder, batch.tokens.now_T[batch.token_P]
        terms = None
        state_PK = encoded.item_TD
        if decoder is not None:
            terms = decoder(encoded)
            state_PK = torch.cat([state_PK, terms.static_PK], dim=1)
        relation_PA = None if terms is None or self.exclude_seen else terms.relation_PA
        found = None
        if (self.exclude_seen and not self.network.config.body.both_ways) or relation_PA is not None:
            found = pairs(batch.recent, batch.tokens, batch.token_P, self.catalogue, self.labels)
        if terms is None or decoder is None or terms.recency_PR is None:
            return state_PK, Added(pairs=found, relation_PA=relation_PA)
        return state_PK, Added(decoder.released(now_P), terms.recency_PR, found, relation_PA)

    def _sampled(
        self, state_PK: Tensor, title_XK: Tensor, bias_X: Tensor, drawn: Drawn, batch: MicroBatch, added: Added
    ) -> Tensor:
        extra_PS, own_P = extras(added, drawn.negative_S, batch.title_P)
        own_P = own_P + (state_PK * title_XK[drawn.target_P]).sum(dim=1) + bias_X[drawn.target_P]
        shift_S = bias_X[drawn.negative_X] - drawn.log_expected_S
        return sampled_softmax_loss(state_PK, title_XK[drawn.negative_X], shift_S, own_P, extra_PS, batch.weight_P)

    def _intent_loss(self, head: Intent, logits_PC: Tensor, batch: MicroBatch) -> Tensor:
        if head is Intent.GENRE:
            return multi_label_loss(logits_PC, batch.genres_PG, batch.weight_P)
        return class_loss(logits_PC, self.codes[head].to(logits_PC.device)[batch.labels[head.value]], batch.weight_P)

    def validate(self) -> dict[str, tuple[float, float]]:
        """Item loss, NDCG@10 and hit rate@10 of the validation cases, each predicted as a request would be."""
        if not self.validates:
            return {}
        recommender = IntentRecommender(self.network, self.catalogue, self.labels)
        loss = ndcg = hits = 0.0
        for first in range(0, len(self.cases), CASES_AT_ONCE):
            rows = np.arange(first, min(first + CASES_AT_ONCE, len(self.cases)))
            part_loss, rank_R = self._ranks(recommender, rows)
            hit_R = rank_R < NDCG_AT
            loss += part_loss
            hits += float(hit_R.sum())
            ndcg += float((hit_R / np.log2(rank_R + 2.0)).sum())
        count = float(len(self.cases))
        return {"loss": (loss, count), "ndcg": (ndcg, count), "hit_rate": (hits, count)}

    def _ranks(
        self, recommender: IntentRecommender, rows: NDArray[np.int64]
    ) -> tuple[float, NDArray[np.int64]]:  # fmt: skip
        """Summed item loss of some cases and, per case, how many titles stand not below the target."""
        cases, target_R1 = self.cases.rows(rows), self.target_B[rows][:, None]
        logprob_RN = recommender.scores(cases, self.asof_B[rows])
        own_R1 = np.take_along_axis(logprob_RN, target_R1, axis=1)
        if self.exclude_seen:
            row_T = np.repeat(np.arange(len(rows)), cases.lengths_B)
            known = cases.title_T > 0
            logprob_RN[row_T[known], cases.title_T[known] - 1] = -np.inf
        return -float(own_R1.sum()), above(logprob_RN, target_R1)


def _resident(examples: Examples) -> Parts:
    count = Count(len(examples.train_T), int(examples.train_T.sum()), int(examples.validation_T.sum()))
    return Parts([examples], [count], limit=count.interactions)


def above(score_RN: NDArray[np.float32], target_R1: NDArray[np.int64]) -> NDArray[np.int64]:
    """Count the titles that do not stand below the target, itself left out; what is no number stands above."""
    own_R1 = np.take_along_axis(score_RN, target_R1, axis=1)
    counts_R: NDArray[np.int64] = (~(score_RN < own_R1)).sum(axis=1) - 1
    return counts_R


def by_duration(examples: Examples) -> NDArray[np.float32]:
    """Weight of each choice: the logarithm of the seconds it was played, over its mean; the mean where unknown."""
    dwell_T = np.log1p(examples.histories.dwell_T)
    known_T = examples.train_T & (dwell_T > 0)
    mean = float(dwell_T[known_T].mean()) if known_T.any() else 1.0
    return np.where(dwell_T > 0, dwell_T / mean, 1.0).astype(np.float32)


def _codes(network: IntentModel, catalogue: Catalogue, labels: LabelConfig) -> dict[Intent, Tensor]:
    """For each head, the column of its logits by the code of the class, -1 for a class that it does not have.

    The last element is that of code -1.
    """
    return {
        head: torch.tensor([of.index(one) if one in of else -1 for one in declared] + [-1])
        for head, declared in possible_classes(catalogue, labels).items()
        if (of := network.classes.get(head)) is not None
    }
