"""What is specific to the intent model in the training loop.

Shapes: B cases, P predictions, N titles, N1 catalogue codes, D width, S shared negatives.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from foretaste.contracts.catalogue import Catalogue
from foretaste.contracts.histories import Histories
from foretaste.contracts.intents import Intent, LabelConfig
from foretaste.models.intent import IntentModel, possible_classes
from foretaste.models.losses import class_loss, full_softmax_loss, multi_label_loss, sampled_softmax_loss
from foretaste.models.sequences import sequences
from foretaste.training.config import TrainingConfig
from foretaste.training.examples import Census, Examples
from foretaste.training.windows import MicroBatch, Windows, by_length, cut, steps

NDCG_AT = 10


class IntentTask:
    """Trains the intent model on this worker's histories; `counted` is the census of all workers' examples."""

    def __init__(
        self,
        network: IntentModel,
        examples: Examples,
        counted: Census,
        catalogue: Catalogue,
        config: TrainingConfig,
        *,
        rank: int,
        exclude_seen: bool,
        labels: LabelConfig | None = None,
    ) -> None:
        self.network: IntentModel = network
        self.num_predictions = int(examples.train_T.sum())
        self.examples = examples
        self.catalogue = catalogue
        self.config = config
        self.rank = rank
        self.exclude_seen = exclude_seen
        self.sampled = len(catalogue) > network.config.full_softmax_titles
        popular_N = counted.chosen_N1[1:].astype(np.float64)
        q_N = 0.5 * popular_N / max(1.0, popular_N.sum()) + 0.5 / len(catalogue)
        self.q_N = torch.from_numpy(q_N / q_N.sum())
        self.cases, self.asof_B, self.target_B = self._cases(counted)
        self.validates = counted.validation > 0
        self.codes = _codes(network, catalogue, labels or LabelConfig())

    def _cases(self, counted: Census) -> tuple[Histories, NDArray[np.int64], NDArray[np.int64]]:
        """Draw this worker's share of the validation cases: histories cut before the choice to be predicted."""
        histories = self.examples.histories
        index_V = np.flatnonzero(self.examples.validation_T)
        share = min(1.0, self.config.validation_cases / max(1, counted.validation))
        rng = np.random.default_rng([self.config.seed, self.rank])
        chosen = np.sort(rng.choice(index_V, size=round(share * len(index_V)), replace=False))
        begin_B = histories.offsets_B1[np.searchsorted(histories.offsets_B1, chosen, side="right") - 1]
        return histories.take(begin_B, chosen), histories.at_T[chosen], histories.title_T[chosen].astype(np.int64) - 1

    def steps(self, epoch: int, num_steps: int) -> Iterator[Iterator[MicroBatch]]:
        """Divide the epoch's windows into steps; order and cuts follow from (seed, epoch, rank)."""
        rng = np.random.default_rng([self.config.seed, epoch, self.rank])
        model = self.network.config
        return steps(
            self._windows(rng),
            self.examples,
            self.catalogue,
            num_steps=num_steps,
            max_length=model.max_length,
            time_aware=model.time_aware,
            micro_batch_tokens=self.config.micro_batch_tokens,
            rng=rng,
        )

    def _windows(self, rng: np.random.Generator) -> Windows:
        offsets_B1 = self.examples.histories.offsets_B1
        seen_T1 = np.concatenate([[0], np.cumsum(self.examples.newest_T)])
        start_B = offsets_B1[:-1]
        stop_B = start_B + seen_T1[offsets_B1[1:]] - seen_T1[start_B]
        return cut(start_B, stop_B, self.network.config.max_length, rng)

    def loss(self, micro_batch: MicroBatch) -> tuple[Tensor, int]:
        """Summed loss of the next titles, plus the weighted losses of the intents."""
        device = self.network.title_bias.device
        batch = micro_batch.to(device)
        title_N1D = self.network.titles()
        encoded = self.network(batch.tokens, title_N1D)
        loss = self._title_loss(encoded.item_BLD[batch.row_P, batch.token_P], title_N1D[1:], batch.title_P)
        config = self.network.config
        for head, logits_BLC in encoded.intents.items():
            part = self._intent_loss(head, logits_BLC[batch.row_P, batch.token_P], batch)
            loss = loss + config.intent_weight * config.head_weights.get(head, 1.0) * part
        return loss, len(batch.title_P)

    def _intent_loss(self, head: Intent, logits_PC: Tensor, batch: MicroBatch) -> Tensor:
        if head is Intent.GENRE:
            return multi_label_loss(logits_PC, batch.genres_PG)
        return class_loss(logits_PC, self.codes[head].to(logits_PC.device)[batch.labels[head.value]])

    def _title_loss(self, item_PD: Tensor, title_ND: Tensor, target_P: Tensor) -> Tensor:
        bias_N = self.network.title_bias
        if not self.sampled:
            return full_softmax_loss(item_PD, title_ND, bias_N, target_P)
        negative_S = torch.multinomial(self.q_N, self.network.config.num_negatives, replacement=True)
        log_q_N = self.q_N.log().float().to(item_PD.device)
        return sampled_softmax_loss(item_PD, title_ND, bias_N, target_P, negative_S.to(item_PD.device), log_q_N)

    def validate(self) -> dict[str, tuple[float, float]]:
        """Item loss, NDCG@10 and hit rate@10 of the validation cases, each predicted as a request would be."""
        if not self.validates:
            return {}
        lengths_B = np.minimum(self.cases.lengths_B, self.network.config.max_length) + 1
        title_N1D = self.network.titles()
        loss = ndcg = hits = 0.0
        for rows in by_length(lengths_B, np.arange(len(self.cases)), self.config.micro_batch_tokens * 2):
            part_loss, rank_R = self._ranks(rows, title_N1D)
            hit_R = rank_R < NDCG_AT
            loss += part_loss
            hits += float(hit_R.sum())
            ndcg += float((hit_R / torch.log2(rank_R + 2.0)).sum())
        count = float(len(self.cases))
        return {"loss": (loss, count), "ndcg": (ndcg, count), "hit_rate": (hits, count)}

    def _ranks(self, rows: NDArray[np.int64], title_N1D: Tensor) -> tuple[float, Tensor]:
        """Summed item loss of some cases and, per case, how many titles stand above the target."""
        model, device = self.network.config, title_N1D.device
        cases = self.cases.rows(rows)
        tokens = sequences(cases, self.asof_B[rows], max_length=model.max_length, time_aware=model.time_aware)
        encoded = self.network(tokens.to(device), title_N1D)
        last_RD = encoded.item_BLD[torch.arange(len(rows)), tokens.length_B.to(device) - 1]
        logits_RN = self.network.title_logits(last_RD, title_N1D)
        target_R1 = torch.from_numpy(self.target_B[rows]).to(device)[:, None]
        own_R1 = logits_RN.gather(1, target_R1)
        loss = float((torch.logsumexp(logits_RN, dim=1, keepdim=True) - own_R1).sum())
        if self.exclude_seen:
            row_T = np.repeat(np.arange(len(rows)), cases.lengths_B)
            known = cases.title_T > 0
            logits_RN[torch.from_numpy(row_T[known]), torch.from_numpy(cases.title_T[known].astype(np.int64) - 1)] = (
                float("-inf")
            )
        return loss, (logits_RN > own_R1).sum(dim=1)


def _codes(network: IntentModel, catalogue: Catalogue, labels: LabelConfig) -> dict[Intent, Tensor]:
    """For each head, the column of its logits by the code of the class, -1 for a class that it does not have.

    The last element is that of code -1.
    """
    return {
        head: torch.tensor([of.index(one) if one in of else -1 for one in declared] + [-1])
        for head, declared in possible_classes(catalogue, labels).items()
        if (of := network.classes.get(head)) is not None
    }
