"""Intent first, then the title: two causal Transformers, the second fed with what the first predicts.

Shapes: B histories, L tokens, D width, I heads that are on, C classes of one head, N titles, N1 = N + 1 rows with
row 0 for an unknown title, G genres, P predictions.

    features -> intent encoder -> one softmax per head -> projections -> attention over heads -> Z
    features + Z -> item encoder -> logits against the same title vectors that the features are made of

After Oh et al., IntentRec, arXiv 2408.05353 (FM-Intent).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from pydantic import Field, model_validator
from torch import Tensor, nn

from foretaste.contracts.catalogue import Catalogue
from foretaste.contracts.config import Frozen
from foretaste.contracts.events import ACTIONS
from foretaste.contracts.intents import Intent
from foretaste.contracts.intents import possible_classes as possible_classes
from foretaste.models.encoder import CausalEncoder
from foretaste.models.sequences import NUM_GAPS, NUM_NUMBERS, Sequences


class IntentModelConfig(Frozen):
    """Sizes and choices of the intent model."""

    width: int = Field(64, ge=4, description="width of token and title vectors, a multiple of 2 x num_attention_heads")
    intent_blocks: int = Field(1, ge=1, description="Transformer blocks of the intent encoder")
    item_blocks: int = Field(2, ge=1, description="Transformer blocks of the item encoder")
    num_attention_heads: int = Field(2, ge=1, description="attention heads of every block")
    feedforward: int = Field(128, ge=4, description="width inside the feed-forward layers")
    dropout: float = Field(0.2, ge=0, lt=1, description="share of activations dropped in training")
    max_length: int = Field(200, ge=1, description="interactions read of a history, the newest; also of one window")
    time_aware: bool = Field(
        True, description="whether the time between the newest interaction and the request is an input"
    )
    intents: tuple[Intent, ...] = Field(tuple(Intent), description="heads to train where the data has classes for them")
    intent_weight: float = Field(0.1, ge=0, description="weight of the summed intent losses beside the item loss")
    head_weights: dict[Intent, float] = Field({}, description="weight of single heads within that sum, by default 1")
    full_softmax_titles: int = Field(20_000, ge=1, description="largest catalogue trained with the full softmax")
    num_negatives: int = Field(2_048, ge=1, description="shared negatives a micro-batch of larger catalogues")

    @model_validator(mode="after")
    def _heads_are_even(self) -> IntentModelConfig:
        if self.width % (2 * self.num_attention_heads):
            raise ValueError(
                f"width {self.width} must be a multiple of 2 x num_attention_heads = {2 * self.num_attention_heads}"
            )
        return self


@dataclass(frozen=True, slots=True)
class Encoded:
    """What the two encoders make of token sequences."""

    item_BLD: Tensor
    intents: dict[Intent, Tensor]  # logits [B, L, C] of each head that is on
    attention_BLI: Tensor  # weight of each head in Z, in the order of `intents`; sums to 1
    z_BLD: Tensor  # the intent embedding


class TitleVectors(nn.Module):
    """One vector a title: its own, its genres' and its kind's. The same for input and output."""

    genres_N1G: Tensor
    kind_N1: Tensor

    def __init__(self, width: int, catalogue: Catalogue) -> None:
        super().__init__()
        self.own = nn.Embedding(len(catalogue) + 1, width)
        self.of_genres = nn.Linear(max(1, len(catalogue.genres)), width, bias=False)
        self.of_kind = nn.Embedding(len(catalogue.kinds) + 1, width)
        genres_N1G = F.pad(torch.from_numpy(catalogue.genres_N1G), (0, 0 if catalogue.genres else 1))
        share_N1G = genres_N1G / genres_N1G.sum(1, keepdim=True).clamp(min=1.0)
        self.register_buffer("genres_N1G", share_N1G, persistent=False)
        self.register_buffer("kind_N1", torch.from_numpy(catalogue.kind_N1).long() + 1, persistent=False)
        for table in (self.own, self.of_kind, self.of_genres):
            nn.init.normal_(table.weight, std=1.0 / math.sqrt(width) / 2)

    def forward(self) -> Tensor:
        """All title vectors, [N1, D]."""
        vectors_N1D: Tensor = self.own.weight + self.of_genres(self.genres_N1G) + self.of_kind(self.kind_N1)
        return vectors_N1D


class IntentFusion(nn.Module):
    """Predict each intent, project the predicted distributions, and attend over them."""

    def __init__(self, width: int, classes: Mapping[Intent, tuple[str, ...]]) -> None:
        super().__init__()
        self.heads = nn.ModuleDict({name: nn.Linear(width, len(of)) for name, of in classes.items()})
        self.projections = nn.ModuleDict({name: nn.Linear(len(of), width) for name, of in classes.items()})
        self.query = nn.Linear(width, width, bias=False)

    def forward(self, hidden_BLD: Tensor) -> tuple[Tensor, dict[Intent, Tensor], Tensor]:
        """Return Z [B, L, D], the logits of each head and the attention over heads [B, L, I]."""
        logits = {Intent(name): head(hidden_BLD) for name, head in self.heads.items()}
        if not logits:
            return torch.zeros_like(hidden_BLD), logits, hidden_BLD.new_zeros((*hidden_BLD.shape[:2], 0))
        projected_BLID = torch.stack(
            [self.projections[name](torch.softmax(logits[Intent(name)], dim=-1)) for name in self.heads], dim=2
        )
        scale = 1.0 / math.sqrt(hidden_BLD.shape[-1])
        agreement_BLI = torch.einsum("bld,blid->bli", self.query(hidden_BLD), projected_BLID) * scale
        attention_BLI = torch.softmax(agreement_BLI, dim=-1)
        return torch.einsum("bli,blid->bld", attention_BLI, projected_BLID), logits, attention_BLI


class IntentModel(nn.Module):
    """The hierarchical intent model; `classes` names the heads that are on, with their classes."""

    def __init__(
        self, config: IntentModelConfig, catalogue: Catalogue, classes: Mapping[Intent, tuple[str, ...]]
    ) -> None:
        super().__init__()
        self.config = config
        self.classes = dict(classes)
        width = config.width
        self.titles = TitleVectors(width, catalogue)
        self.title_bias = nn.Parameter(torch.zeros(len(catalogue)))
        self.actions = nn.Embedding(len(ACTIONS) + 1, width)
        self.gaps = nn.Embedding(NUM_GAPS, width)
        self.start = nn.Parameter(torch.randn(width) * 0.1)
        self.numbers = nn.Linear(NUM_NUMBERS, width, bias=False)
        for table in (self.actions, self.gaps, self.numbers):
            nn.init.normal_(table.weight, std=0.1)
        self.input_norm = nn.LayerNorm(width)
        self.dropout = nn.Dropout(config.dropout)
        self.intent_encoder = self._encoder(config.intent_blocks)
        self.fusion = IntentFusion(width, classes)
        self.fuse = nn.Linear(2 * width, width)
        self.item_encoder = self._encoder(config.item_blocks)

    def _encoder(self, num_blocks: int) -> CausalEncoder:
        return CausalEncoder(
            width=self.config.width,
            num_blocks=num_blocks,
            num_heads=self.config.num_attention_heads,
            feedforward=self.config.feedforward,
            dropout=self.config.dropout,
        )

    def forward(self, tokens: Sequences, title_N1D: Tensor) -> Encoded:
        """Encode token sequences; `title_N1D` is `self.titles()`, which the caller keeps for the logits."""
        features_BLD = self._features(tokens, title_N1D)
        z_BLD, logits, attention_BLI = self.fusion(self.intent_encoder(features_BLD))
        fused_BLD = features_BLD + self.fuse(torch.cat([features_BLD, z_BLD], dim=-1))
        return Encoded(self.item_encoder(fused_BLD), logits, attention_BLI, z_BLD)

    def _features(self, tokens: Sequences, title_N1D: Tensor) -> Tensor:
        summed_BLD = (
            F.embedding(tokens.title_BL, title_N1D) * math.sqrt(self.config.width)
            + self.actions(tokens.action_BL)
            + self.gaps(tokens.gap_BL)
            + self.numbers(tokens.numbers_BLF)
        )
        summed_BLD[:, 0] += self.start
        features_BLD: Tensor = self.dropout(self.input_norm(summed_BLD))
        return features_BLD

    def title_logits(self, item_PD: Tensor, title_N1D: Tensor) -> Tensor:
        """Logits of the N titles that can be recommended, [P, N]; column j is catalogue code j + 1."""
        return torch.addmm(self.title_bias, item_PD, title_N1D[1:].T)
