"""The trained intent model as a recommender.

Shapes: B histories, N titles (column j is catalogue code j + 1), I heads that are on, C classes of one head.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import ValidationError
from torch import Tensor

from foretaste.contracts.catalogue import Catalogue
from foretaste.contracts.histories import Histories
from foretaste.contracts.intents import USUAL, Intent, LabelConfig, possible_classes, specifications
from foretaste.models.bodies import Encoded
from foretaste.models.decoding import Terms, pairs
from foretaste.models.losses import Added, add
from foretaste.models.network import IntentModel, IntentModelConfig
from foretaste.models.sequences import MINUTE_US, Sequences, sequences
from foretaste.models.steady import STEADY_ROWS, STEADY_TOKENS
from foretaste.models.title_query import TitleQuery, TitleTable, join_queries

__all__ = [
    "IntentModel",
    "IntentModelConfig",
    "IntentPrediction",
    "IntentRecommender",
    "build_intent",
    "bundle_config",
    "possible_classes",
]

BATCH_TOKENS = 16_384


@dataclass(frozen=True, slots=True)
class IntentPrediction:
    """What B members are about to do."""

    scores_BN: NDArray[np.float32]  # log-probability that the next title is this one; N is 0 where only `query` is told
    intents: dict[str, NDArray[np.float32]]  # [B, C]: probabilities of each head; a softmax also for genre
    classes: dict[str, tuple[str, ...]]
    attention_BI: NDArray[np.float32]  # weight of each head in the next title, in the order of `heads`
    heads: tuple[str, ...]
    z_BD: NDArray[np.float32]  # intent embedding: what the predicted intents say, fused; zeros without heads
    item_BD: NDArray[np.float32]  # state of the item encoder, whose products with `title_ND` are in the scores
    labels: LabelConfig = USUAL  # what the classes mean
    query: TitleQuery | None = None  # what titles are held against, where they are too many to score each

    def rows(self, index: slice) -> IntentPrediction:
        """Pick some members."""
        return replace(
            self,
            scores_BN=self.scores_BN[index],
            intents={head: share_BC[index] for head, share_BC in self.intents.items()},
            attention_BI=self.attention_BI[index],
            z_BD=self.z_BD[index],
            item_BD=self.item_BD[index],
            query=None if self.query is None else self.query.rows(index),
        )


class IntentRecommender:
    """Predicts intents and the next title of any histories, also empty ones; always in evaluation mode."""

    name = "intent"

    def __init__(self, model: IntentModel, catalogue: Catalogue, labels: LabelConfig | None = None) -> None:
        self.model = model.eval()
        self.catalogue = catalogue
        self.labels = labels or USUAL
        self.device = model.features.start.device
        self.steady_tokens = STEADY_TOKENS if model.config.body.steady else None
        """Tokens of which each sequence gets a multiple; None: they are packed, and rounding depends on the batch."""
        with torch.inference_mode():
            self._title_N1D, bias_N1 = self.model.titles()
            columns = self._title_N1D[1:]
            if model.decoder is not None:
                columns = torch.cat([columns, model.decoder.static_N1K[1:]], dim=1)
            self._title_DN, self._bias_N = columns.T.contiguous(), bias_N1[1:].clone()

    @property
    def title_N1D(self) -> NDArray[np.float32]:
        """Title vectors, row 0 for an unknown title; float32[N1, D], not to be written to."""
        vectors_N1D: NDArray[np.float32] = self._title_N1D.cpu().numpy()
        return vectors_N1D

    @property
    def time_aware(self) -> bool:
        """Whether the time of the question is read."""
        return self.model.config.time_aware

    @property
    def heads(self) -> tuple[str, ...]:
        """Names of the heads that are on."""
        return tuple(head.value for head in self.model.classes)

    def scores(self, histories: Histories, asof_B: NDArray[np.int64]) -> NDArray[np.float32]:
        """Log-probabilities of the next title as of `asof_B` (microseconds); float32[B, N]."""
        return self.predict(histories, asof_B).scores_BN

    def predict(self, histories: Histories, asof_B: NDArray[np.int64]) -> IntentPrediction:
        """Predict B members as of `asof_B` (microseconds); histories of like length are batched together."""
        return self._predict(histories, asof_B, whole=True)

    def ask(self, histories: Histories, asof_B: NDArray[np.int64]) -> IntentPrediction:
        """Predict the same without a score of any title, which `query` gives where it is held against `titles`."""
        return self._predict(histories, asof_B, whole=False)

    @property
    def titles(self) -> TitleTable:
        """What the queries of `ask` are held against."""
        decoder = self.model.decoder
        released_N = decoder.released_N if decoder is not None and decoder.recency else None
        bounds = () if decoder is None else decoder.bound_minutes
        return TitleTable(self._title_DN.T, self._bias_N, released_N, bounds)

    @torch.inference_mode()
    def _predict(self, histories: Histories, asof_B: NDArray[np.int64], *, whole: bool) -> IntentPrediction:
        num_titles = self._title_DN.shape[1] if whole else 0
        num_heads, width = len(self.model.classes), self.model.config.width
        scores_BN = np.empty((len(histories), num_titles), dtype=np.float32)
        attention_BI = np.full((len(histories), num_heads), 1.0 / max(1, num_heads), dtype=np.float32)
        z_BD, item_BD = (np.zeros((len(histories), width), dtype=np.float32) for _ in range(2))
        intents = {
            head.value: np.empty((len(histories), len(of)), dtype=np.float32) for head, of in self.model.classes.items()
        }
        queries: dict[int, TitleQuery] = {}
        for rows in _batches(histories, self.model.config.max_length):
            state_RK, last, added = self._last(histories.rows(rows), asof_B[rows])
            if whole:
                scores_BN[rows] = torch.log_softmax(self._logits(state_RK, added), dim=1).cpu().numpy()
            else:
                query = _query(state_RK, added, asof_B[rows])
                queries |= {int(b): query.rows(slice(r, r + 1)) for r, b in enumerate(rows)}
            item_BD[rows] = last.item_TD.cpu().numpy()
            if last.attention_TI is not None and last.z_TD is not None:
                attention_BI[rows], z_BD[rows] = last.attention_TI.cpu().numpy(), last.z_TD.cpu().numpy()
            for head, logits_RC in last.intents.items():
                intents[head.value][rows] = torch.softmax(logits_RC, dim=1).cpu().numpy()
        classes = {head.value: of for head, of in self.model.classes.items()}
        query_B = None if whole else join_queries([queries[b] for b in range(len(histories))])
        said = (scores_BN, intents, classes, attention_BI, self.heads, z_BD, item_BD, self.labels, query_B)
        return IntentPrediction(*said)

    @property
    def steady(self) -> bool:
        """Whether an answer is the same to the bit whatever it is batched with."""
        return self.steady_tokens is not None

    def _last(self, histories: Histories, asof_B: NDArray[np.int64]) -> tuple[Tensor, Encoded, Added]:
        config, both_ways = self.model.config, self.model.config.body.both_ways
        recent = histories.last(config.max_length)
        tokens = sequences(
            recent, asof_B, max_length=config.max_length, time_aware=config.time_aware, masked=both_ways,
            reading=self.model.reading, multiple=self.steady_tokens,
        ).to(self.device)  # fmt: skip
        last_B = torch.from_numpy(tokens.layout.offsets_B1[:-1] + recent.lengths_B + int(both_ways)).to(self.device)
        encoded = self.model(tokens, self._title_N1D)
        last, added = encoded.at(last_B), Added()
        state_BK = last.item_TD
        if self.model.decoder is not None:
            terms = self.model.decoder(encoded).at(last_B)  # of all tokens: their number has no odd rest
            state_BK = torch.cat([state_BK, terms.static_PK], dim=1)
            added = self._added(terms, recent, tokens, last_B)
        return state_BK, last, added

    def _logits(self, state_BK: Tensor, added: Added) -> Tensor:
        """Products with all titles, of at least STEADY_ROWS states, and what is added to them."""
        missing = max(0, STEADY_ROWS - len(state_BK))
        if missing and len(state_BK):
            state_BK = torch.cat([state_BK, state_BK[:1].expand(missing, -1)])
        logits_BN = torch.addmm(self._bias_N, state_BK, self._title_DN)[: len(state_BK) - missing]
        add(logits_BN, slice(0, len(logits_BN)), added)
        return logits_BN

    def _added(self, terms: Terms, recent: Histories, tokens: Sequences, last_B: Tensor) -> Added:
        decoder = self.model.decoder
        if decoder is None:
            return Added()
        released = None if terms.recency_PR is None else decoder.released(tokens.now_T[last_B])
        if terms.relation_PA is None:
            return Added(released, terms.recency_PR)
        found = pairs(recent, tokens, last_B, self.catalogue, self.labels)
        return Added(released, terms.recency_PR, found, terms.relation_PA)


def _query(state_BK: Tensor, added: Added, asof_B: NDArray[np.int64]) -> TitleQuery:
    """What states and terms say of any title."""
    size = len(state_BK)
    class_BR = np.zeros((size, 0), np.float32) if added.class_PR is None else added.class_PR.cpu().numpy()
    now_B = asof_B // MINUTE_US if added.released is None else added.released.now_P.cpu().numpy().astype(np.int64)
    start_B1, column_E, value_E = np.zeros(size + 1, np.int64), np.zeros(0, np.int64), np.zeros(0, np.float32)
    if added.pairs is not None and added.relation_PA is not None:
        start_B1, column_E = added.pairs.start_P1.astype(np.int64), added.pairs.column_E.cpu().numpy()
        row_E = np.repeat(np.arange(size), np.diff(start_B1))
        value_E = added.relation_PA.cpu().numpy()[row_E, added.pairs.relation_E.cpu().numpy()]
    return TitleQuery(state_BK.cpu().numpy(), now_B, class_BR, start_B1, column_E, value_E)


def _batches(histories: Histories, max_length: int) -> list[NDArray[np.int64]]:
    """Divide histories, sorted by length, into batches of about BATCH_TOKENS tokens with padding."""
    tokens_B = np.minimum(histories.lengths_B, max_length) + 1
    order_B = np.argsort(tokens_B, kind="stable")[::-1]
    batches, start = [], 0
    while start < len(order_B):
        size = max(1, BATCH_TOKENS // int(tokens_B[order_B[start]]))
        batches.append(order_B[start : start + size])
        start += size
    return batches


def bundle_config(model: IntentModel, catalogue: Catalogue, labels: LabelConfig | None = None) -> dict[str, Any]:
    """What `build_intent` needs beside the weights and the catalogue."""
    labels = labels or USUAL
    return {
        "model": model.config.model_dump(mode="json"),
        "heads": {head.value: list(of) for head, of in model.classes.items()},
        "labels": labels.model_dump(mode="json"),
        "specifications": _declared(labels, catalogue),
        "catalogue": catalogue.fingerprint,
    }


def _declared(labels: LabelConfig, catalogue: Catalogue) -> dict[str, Any]:
    return {spec.name.value: spec.model_dump(mode="json") for spec in specifications(labels, catalogue)}


def build_intent(config: Mapping[str, Any], catalogue: Catalogue, weights: Mapping[str, Tensor]) -> IntentRecommender:
    """Make a recommender of a bundle's configuration, its catalogue and its weights.

    Raises ValueError where the catalogue or the intents are not those that the model was trained with, RuntimeError
    (of torch) naming the tensors where the weights do not fit.
    """
    if config["catalogue"] != catalogue.fingerprint:
        raise ValueError(
            f"intent model was trained with catalogue {config['catalogue']}, given is {catalogue.fingerprint}"
        )
    labels = _labels(config, catalogue)
    classes = {Intent(name): tuple(of) for name, of in config["heads"].items()}
    model = IntentModel(IntentModelConfig(**config["model"]), catalogue, classes, labels)
    model.load_state_dict(dict(weights))
    return IntentRecommender(model, catalogue, labels)


def _labels(config: Mapping[str, Any], catalogue: Catalogue) -> LabelConfig:
    """Read what the classes mean, and check that it still means the same."""
    if "labels" not in config:
        raise ValueError("intent model was trained before its intents were declared: train it again")
    try:
        labels = LabelConfig(**config["labels"])
    except ValidationError as error:
        raise ValueError(f"intent model was trained with other intents: train it again; {error}") from error
    here, there = _declared(labels, catalogue), config["specifications"]
    for name in sorted(here.keys() | there.keys()):
        if here.get(name) != there.get(name):
            raise ValueError(
                f"intent model was trained with another intent {name!r}: it had {there.get(name)}, here is "
                f"{here.get(name)}: train it again"
            )
    unknown = {
        name: sorted(set(of) - set(here.get(name, {}).get("classes", ()))) for name, of in config["heads"].items()
    }
    if any(unknown.values()):
        raise ValueError(f"intent model has heads with classes that its intents do not have: {unknown}")
    return labels
