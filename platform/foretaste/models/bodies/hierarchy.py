"""Intent first, then the title: two causal Transformers, the second fed with what the first predicts.

Shapes: T tokens, D width, I heads that are on, C classes of one head; of one group: R rows, L places.

    features -> intent encoder -> one softmax per head -> projections -> attention over heads -> Z
    features + short-term view + Z -> item encoder

After Oh et al., IntentRec, arXiv 2408.05353 (FM-Intent).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from foretaste.contracts.intents import Intent
from foretaste.models.bodies.contract import Body, BodySettings, Classes, Encoded, Sizes, begin
from foretaste.models.encoder import CausalEncoder
from foretaste.models.layout import Group
from foretaste.models.sequences import Sequences


class TwoEncodersConfig(BodySettings):
    """One encoder for the intents and one for titles, or as many blocks in one where there is no hierarchy."""

    intents: Literal["none", "flat", "hierarchical"] = Field(
        "hierarchical",
        description="none: no heads; flat: heads beside the title's, on one encoder of all blocks; hierarchical: what "
        "they predict is an input of the item encoder",
    )
    intent_blocks: int = Field(1, ge=1, description="Transformer blocks of the intent encoder")
    item_blocks: int = Field(2, ge=1, description="Transformer blocks of the item encoder")

    @property
    def has_heads(self) -> bool:
        """Whether intents are predicted."""
        return self.intents != "none"

    @property
    def own_heads(self) -> bool:
        """Whether the body itself predicts them, rather than from what it gives for titles."""
        return self.intents == "hierarchical"


class HierarchyConfig(TwoEncodersConfig):
    """IntentRec and what it is measured against: without intents, with flat heads, with a hierarchy."""

    kind: Literal["hierarchy"] = "hierarchy"
    short_term_hours: float | None = Field(
        None, gt=0, description="hours before the request that make the short-term view; null: there is none"
    )

    def build(self, sizes: Sizes, classes: Classes) -> Body:
        """Make the body."""
        if self.intents == "hierarchical":
            return Hierarchy(self, sizes, classes)
        return Flat(self, sizes)


def encoder(sizes: Sizes, num_blocks: int) -> CausalEncoder:
    """Make a causal Transformer of these sizes."""
    return CausalEncoder(
        width=sizes.width,
        num_blocks=num_blocks,
        num_heads=sizes.num_attention_heads,
        feedforward=sizes.feedforward,
        dropout=sizes.dropout,
    )


def window_sums(values_TX: Tensor, tokens: Sequences, minutes: float | None) -> tuple[Tensor, Tensor]:
    """Sum up what was done within some minutes before the next title is asked for: [T, X], and how much, [T, 1].

    Without minutes: what was done in the session of the newest interaction.
    """
    placed = tokens.layout
    session_T = tokens.session_T.double()
    ends = (session_T, session_T) if minutes is None else (tokens.minute_T, tokens.now_T - minutes)
    times = iter(placed.pad(torch.stack(ends, dim=1)))

    def of_group(values_RLX: Tensor, group: Group) -> Tensor:
        minute_RL, since_RL = next(times).unbind(-1)
        minute_RL = minute_RL.masked_fill(~placed.real(group), torch.inf)
        first_RL = torch.searchsorted(minute_RL.contiguous(), since_RL.contiguous()).clamp(min=1)  # 0 is the start
        place_L = torch.arange(group.length, device=values_RLX.device)
        total_RLX = values_RLX.cumsum(dim=1)
        before_RLX = total_RLX.gather(1, (first_RL - 1)[..., None].expand_as(total_RLX))
        count_RL1 = (place_L + 1 - first_RL).clamp(min=0)[..., None]
        return torch.cat([torch.where(count_RL1 > 0, total_RLX - before_RLX, 0.0), count_RL1], dim=-1)

    summed_TX1 = placed.each(values_TX, of_group)
    return summed_TX1[:, :-1], summed_TX1[:, -1:]


class ShortTerm(nn.Module):
    """The mean of what was done within some hours before the next title is asked for; zeros where nothing was."""

    def __init__(self, hours: float, width: int) -> None:
        super().__init__()
        self.minutes = hours * 60.0
        self.of_count = nn.Parameter(torch.randn(width) * 0.1)

    def forward(self, features_TD: Tensor, tokens: Sequences) -> Tensor:
        """Take each token's window, [T, D]."""
        summed_TD, count_T1 = window_sums(features_TD, tokens, self.minutes)
        return summed_TD / count_T1.clamp(min=1) + torch.log1p(count_T1) * self.of_count


class IntentFusion(nn.Module):
    """Predict each intent, project the predicted distributions, and attend over them."""

    def __init__(self, width: int, classes: Classes) -> None:
        super().__init__()
        self.heads = nn.ModuleDict({name: nn.Linear(width, len(of)) for name, of in classes.items()})
        self.projections = nn.ModuleDict({name: nn.Linear(len(of), width) for name, of in classes.items()})
        self.attention = nn.Linear(width, 1, bias=False)

    def start_from(self, log_shares: Mapping[Intent, Tensor]) -> None:
        """Let untrained heads say how often each class is chosen."""
        begin(self.heads, log_shares)

    def forward(self, hidden_TD: Tensor) -> tuple[Tensor, dict[Intent, Tensor], Tensor]:
        """Return Z [T, D], the logits of each head and the attention over heads [T, I]."""
        logits = {Intent(name): head(hidden_TD) for name, head in self.heads.items()}
        if not logits:
            return torch.zeros_like(hidden_TD), logits, hidden_TD.new_zeros((len(hidden_TD), 0))
        projected_TID = torch.stack(
            [self.projections[name](torch.softmax(logits[Intent(name)], dim=-1)) for name in self.heads], dim=1
        )
        attention_TI = torch.softmax(self.attention(projected_TID).squeeze(-1), dim=-1)
        return (attention_TI[..., None] * projected_TID).sum(dim=1), logits, attention_TI


class Hierarchy(nn.Module):
    """Two encoders; the second reads the features, the short-term view and Z together."""

    def __init__(self, config: HierarchyConfig, sizes: Sizes, classes: Classes) -> None:
        super().__init__()
        self.intent_encoder = encoder(sizes, config.intent_blocks)
        self.fusion = IntentFusion(sizes.width, classes)
        hours = config.short_term_hours
        self.short_term = None if hours is None else ShortTerm(hours, sizes.width)
        self.fuse = nn.Linear((2 if hours is None else 3) * sizes.width, sizes.width)
        self.item_encoder = encoder(sizes, config.item_blocks)

    def start_from(self, log_shares: Mapping[Intent, Tensor]) -> None:
        """Let untrained heads say how often each class is chosen."""
        self.fusion.start_from(log_shares)

    def forward(self, features_TD: Tensor, tokens: Sequences) -> Encoded:
        """Predict the intents, then encode with them."""
        z_TD, logits, attention_TI = self.fusion(self.intent_encoder(features_TD, tokens.layout))
        parts = [features_TD, z_TD]
        if self.short_term is not None:
            parts.append(self.short_term(features_TD, tokens))
        fused_TD = features_TD + self.fuse(torch.cat(parts, dim=-1))
        return Encoded(self.item_encoder(fused_TD, tokens.layout), logits, attention_TI, z_TD)


class Flat(nn.Module):
    """One encoder as deep as the two of the hierarchy together, with its short-term view if that has one."""

    def __init__(self, config: HierarchyConfig, sizes: Sizes) -> None:
        super().__init__()
        hours = config.short_term_hours
        self.short_term = None if hours is None else ShortTerm(hours, sizes.width)
        self.fuse = None if hours is None else nn.Linear(2 * sizes.width, sizes.width)
        self.encoder = encoder(sizes, config.intent_blocks + config.item_blocks)

    def forward(self, features_TD: Tensor, tokens: Sequences) -> Encoded:
        """Encode; heads, if any, stand on what this gives."""
        if self.short_term is not None and self.fuse is not None:
            view_TD = self.short_term(features_TD, tokens)
            features_TD = features_TD + self.fuse(torch.cat([features_TD, view_TD], dim=-1))
        return Encoded(self.encoder(features_TD, tokens.layout))
