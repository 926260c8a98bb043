"""The network that every sequence model is: features of tokens, a body, heads, and titles to be predicted.

Shapes: T packed tokens, D width, P predictions, I heads that are on, C classes of one head, N titles, N1 = N + 1 rows
with row 0 for an unknown title, X rows of a title table, K static columns of the decoder.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from pydantic import Field, model_validator
from torch import Tensor, nn

from foretaste.contracts.catalogue import Catalogue
from foretaste.contracts.config import Frozen
from foretaste.contracts.events import ACTIONS, ENTRIES
from foretaste.contracts.intents import RELATIONS, USUAL, Intent, LabelConfig
from foretaste.models.bodies import Body, BodyConfig, Encoded, ForetasteConfig, OwnHeads, Sizes, begin
from foretaste.models.decoding import Decoder
from foretaste.models.dropout import Dropout
from foretaste.models.sequences import NUM_GAPS, NUM_HOURS, NUM_NUMBERS, Reading, Sequences
from foretaste.models.titles import TitleVectors


class IntentModelConfig(Frozen):
    """Sizes and choices of a sequence model; `body` says which one it is."""

    width: int = Field(64, ge=4, description="width of token and title vectors, a multiple of 2 x num_attention_heads")
    num_attention_heads: int = Field(2, ge=1, description="attention heads of every block")
    feedforward: int = Field(128, ge=4, description="width inside the feed-forward layers")
    dropout: float = Field(0.2, ge=0, lt=1, description="share of activations dropped in training")
    max_length: int = Field(200, ge=1, description="interactions read of a history, the newest; also of one window")
    inputs: Literal["features", "ids"] = Field(
        "features", description="what is read of an interaction: all that is known of it, or the title's id alone"
    )
    time_aware: bool = Field(
        True, description="whether the time between the newest interaction and the request is an input"
    )
    body: BodyConfig = Field(ForetasteConfig(), description="what encodes the tokens")
    intents: tuple[Intent, ...] = Field(tuple(Intent), description="heads to train where the data has classes for them")
    intent_weight: float = Field(0.3, ge=0, description="weight of the summed intent losses beside the item loss")
    head_weights: dict[Intent, float] = Field({}, description="weight of single heads within that sum, by default 1")
    weigh_by: Literal["choices", "duration"] = Field(
        "choices", description="whether every choice weighs the same in training, or by how long it was played"
    )
    full_softmax_titles: int = Field(20_000, ge=1, description="largest catalogue trained with the full softmax")
    num_negatives: int = Field(2_048, ge=1, description="shared negatives a micro-batch of larger catalogues")
    learn_first: bool = Field(True, description="whether the first choice of a history is learned too, from nothing")
    hide_share: float = Field(
        0.2, gt=0, lt=1, description="share of choices hidden in training, for bodies that look both ways"
    )

    @model_validator(mode="after")
    def _heads_are_even(self) -> IntentModelConfig:
        if self.width % (2 * self.num_attention_heads):
            raise ValueError(
                f"width {self.width} must be a multiple of 2 x num_attention_heads = {2 * self.num_attention_heads}"
            )
        return self

    @property
    def sizes(self) -> Sizes:
        """What all bodies are built with."""
        return Sizes(self.width, self.num_attention_heads, self.feedforward, self.dropout, self.max_length)


class Features(nn.Module):
    """One vector a token: its title, and unless `inputs` is ids, how, how far, when, and what it was to the member."""

    def __init__(self, config: IntentModelConfig, labels: LabelConfig) -> None:
        super().__init__()
        width = config.width
        self.scale = math.sqrt(width)
        self.all = config.inputs == "features"
        self.start = nn.Parameter(torch.randn(width) * 0.1)
        self.masked = nn.Parameter(torch.randn(width) * 0.1) if config.body.both_ways else None
        if self.all:
            self.actions = nn.Embedding(len(ACTIONS) + 1, width)
            self.gaps = nn.Embedding(NUM_GAPS, width)
            self.hours = nn.Embedding(NUM_HOURS, width)
            self.ways = nn.Embedding(len(ENTRIES) + 1, width)
            self.relations = nn.Embedding(len(RELATIONS) + 1, width)
            self.recency = nn.Embedding(len(labels.recency_classes) + 1, width)
            self.numbers = nn.Linear(NUM_NUMBERS, width, bias=False)
            embedded = (self.actions, self.gaps, self.hours, self.ways, self.relations, self.recency)
            for table in (*embedded, self.numbers):
                nn.init.normal_(table.weight, std=0.1)
        self.norm = nn.LayerNorm(width)
        self.dropout = Dropout(config.dropout)

    def forward(self, tokens: Sequences, title_XD: Tensor) -> Tensor:
        """Sum up what is known of each token, [T, D]."""
        summed_TD = F.embedding(tokens.title_T, title_XD) * self.scale
        if self.all:
            summed_TD = summed_TD + (
                self.actions(tokens.action_T)
                + self.gaps(tokens.gap_T)
                + self.hours(tokens.hour_T)
                + self.ways(tokens.way_T)
                + self.relations(tokens.relation_T)
                + self.recency(tokens.recency_T)
                + self.numbers(tokens.numbers_TF)
            )
        summed_TD = summed_TD + (tokens.layout.index_T == 0)[:, None] * self.start
        if self.masked is not None:
            summed_TD = torch.where(tokens.masked_T[:, None], summed_TD + self.masked, summed_TD)
        features_TD: Tensor = self.dropout(self.norm(summed_TD))
        return features_TD


class IntentModel(nn.Module):
    """A sequence model; `classes` names the heads that are on, with their classes, `labels` what they mean."""

    def __init__(
        self,
        config: IntentModelConfig,
        catalogue: Catalogue,
        classes: Mapping[Intent, tuple[str, ...]],
        labels: LabelConfig = USUAL,
    ) -> None:
        super().__init__()
        self.config = config
        self.classes = dict(classes) if config.body.has_heads else {}
        self.sampled = len(catalogue) > config.full_softmax_titles
        described = config.inputs == "features"
        self.titles = TitleVectors(config.width, catalogue, described=described, sparse=self.sampled)
        self.features = Features(config, labels)
        self.reading = Reading(catalogue, labels) if described and not config.body.both_ways else None
        num_columns = self.titles.num_columns + len(RELATIONS) if described else 0
        sizes = replace(config.sizes, num_columns=num_columns)
        self.body: Body = config.body.build(sizes, self.classes)
        flat = {} if config.body.own_heads else self.classes
        self.heads = nn.ModuleDict({name: nn.Linear(config.width, len(of)) for name, of in flat.items()})
        self.decoder = Decoder(self.classes, catalogue, labels) if config.body.decodes and self.classes else None

    @torch.no_grad()
    def start_from(self, shares: Mapping[Intent, NDArray[np.float64]]) -> None:
        """Let untrained heads say how often each class is chosen; what they learn is what changes that."""
        log_shares = {head: torch.from_numpy(np.log(share_C)).float() for head, share_C in shares.items()}
        begin(self.heads, log_shares)
        if isinstance(self.body, OwnHeads):
            self.body.start_from(log_shares)

    def forward(self, tokens: Sequences, title_XD: Tensor) -> Encoded:
        """Encode packed tokens, whose codes are rows of `title_XD`: vectors that `titles` gives."""
        if self.config.body.reads_columns and self.titles.described:
            relation_TR = F.one_hot(tokens.relation_T, len(RELATIONS) + 1)[:, 1:]
            columns_TK = self.titles.columns(tokens.code_T)
            tokens = tokens.described(torch.cat([columns_TK, relation_TR.to(columns_TK.dtype)], dim=1))
        encoded = self.body(self.features(tokens, title_XD), tokens)
        if not self.heads:
            return encoded
        logits = {Intent(name): head(encoded.item_TD) for name, head in self.heads.items()}
        return replace(encoded, intents=logits)
