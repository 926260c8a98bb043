"""Ours: IntentRec's order of things, with the moment in both encoders and an attention that follows what is known.

Shapes: T tokens, D width, I heads that are on, C classes of one head; of one group: R rows, L places, H
attention heads.

    features + views of the last hours -> intent encoder -> heads -> attention over heads by what each tells -> Z
    features + views + Z -> item encoder; and the predicted classes reach titles by models.decoding

What differs from `hierarchy`: both encoders see views over several windows, since what tells an intent is mostly what
was done a moment ago; attention between tokens knows how long ago each was, not only how many tokens; and a head that
says much more of the next choice than its classes' shares do weighs more in Z, by the information in nats.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from foretaste.contracts.intents import DISCOVERING, Intent
from foretaste.models.bodies.contract import DECODABLE, Body, Classes, Encoded, Sizes, begin
from foretaste.models.bodies.hierarchy import TwoEncodersConfig, encoder, window_sums
from foretaste.models.encoder import Bias
from foretaste.models.layout import Group
from foretaste.models.sequences import NUM_GAPS, Sequences

LEAST = 0.01
"""Nats that every head is held to tell at least."""
HALF = 0.5
"""Added to counts before their logarithm is taken."""


class ForetasteConfig(TwoEncodersConfig):
    """Ours; where it is hierarchical, predicted classes also raise the titles that have them."""

    kind: Literal["foretaste"] = "foretaste"
    views_hours: tuple[float, ...] = Field(
        (1.0, 168.0), description="hours before the request over which what was done is summed up, a view each"
    )
    session_view: bool = Field(True, description="whether what was done in the newest session is summed up, too")
    time_bias: bool = Field(True, description="whether attention knows how long ago a token was")

    @property
    def reads_columns(self) -> bool:
        """Whether there are views, which count genres and kinds."""
        return bool(self.views_hours) or self.session_view

    @property
    def decodes(self) -> bool:
        """Whether predicted classes raise the titles that have them."""
        return self.own_heads

    def build(self, sizes: Sizes, classes: Classes) -> Body:
        """Make the body."""
        return Foretaste(self, sizes, classes) if self.own_heads else Moment(self, sizes)


class View(nn.Module):
    """What was done within some hours or the session: the mean of its features, and how often each column."""

    def __init__(self, hours: float | None, sizes: Sizes) -> None:
        super().__init__()
        self.minutes = None if hours is None else hours * 60.0
        self.of_mean = nn.Linear(sizes.width, sizes.width)
        self.of_counts = nn.Linear(sizes.num_columns + 1, sizes.width)

    def forward(self, features_TD: Tensor, tokens: Sequences) -> Tensor:
        """Sum up each token's window, [T, D]."""
        parts = [features_TD] if tokens.columns_TK is None else [features_TD, tokens.columns_TK]
        summed_TX, count_T1 = window_sums(torch.cat(parts, dim=-1), tokens, self.minutes)
        width = features_TD.shape[-1]
        counts_TK = torch.cat([summed_TX[:, width:], count_T1], dim=-1)
        mean_TD: Tensor = self.of_mean(summed_TX[:, :width] / count_T1.clamp(min=1))
        counted_TD: Tensor = self.of_counts(torch.log(counts_TK.clamp(min=0) + HALF))
        return mean_TD + counted_TD


class InformedFusion(nn.Module):
    """Heads, and Z: their projections, weighed by what they say beyond the shares of their classes."""

    def __init__(self, width: int, classes: Classes) -> None:
        super().__init__()
        self.heads = nn.ModuleDict({name: nn.Linear(width, len(of)) for name, of in classes.items()})
        self.fused = [head for head in classes if head in DECODABLE]
        self.projections = nn.ModuleDict({name: nn.Linear(len(classes[name]), width) for name in self.fused})
        self.sharpness = nn.Parameter(torch.ones(()))
        for name, of in classes.items():
            self.register_buffer(f"log_share_{name}", torch.full((len(of),), 1.0 / len(of)).log())
        self.new = [c for c, one in enumerate(classes.get(Intent.ACTION, ())) if one in DISCOVERING]

    def start_from(self, log_shares: Mapping[Intent, Tensor]) -> None:
        """Let untrained heads say how often each class is chosen, and keep that to tell what is more."""
        begin(self.heads, log_shares)
        for name in self.heads:
            self.get_buffer(f"log_share_{name}").copy_(log_shares[Intent(name)])

    def forward(self, hidden_TD: Tensor) -> Encoded:
        """Predict every head and fuse those that titles have classes of; `item_TD` is Z."""
        logits = {Intent(name): head(hidden_TD) for name, head in self.heads.items()}
        log_p = {name: torch.log_softmax(one, dim=-1) for name, one in logits.items()}
        lifts = {name: one - self.get_buffer(f"log_share_{name}") for name, one in log_p.items()}
        if not self.fused:
            none_TI = hidden_TD.new_zeros((len(hidden_TD), len(logits)))
            return Encoded(torch.zeros_like(hidden_TD), logits, none_TI, torch.zeros_like(hidden_TD), lifts)
        projected_TID = torch.stack([self.projections[name](log_p[name].exp()) for name in self.fused], dim=1)
        told_TI = torch.stack([self._told(name, log_p[name], lifts[name]) for name in self.fused], dim=1)
        attention_TI = torch.softmax(F.softplus(self.sharpness) * torch.log(told_TI.clamp(min=0) + LEAST), dim=-1)
        z_TD = (attention_TI[..., None] * projected_TID).sum(dim=1)
        return Encoded(z_TD, logits, self._of_all(attention_TI, logits), z_TD, lifts)

    def _told(self, name: Intent, log_p_TC: Tensor, lift_TC: Tensor) -> Tensor:
        """What a head says of titles beyond the shares, nats, [T]: ways to find a new one are one class there."""
        if name is Intent.ACTION and len(self.new) > 1:
            kept = [c for c in range(log_p_TC.shape[1]) if c not in self.new]
            new_T1 = torch.logsumexp(log_p_TC[:, self.new], dim=1, keepdim=True)
            ever_T1 = torch.logsumexp((log_p_TC - lift_TC)[:, self.new], dim=1, keepdim=True)
            log_p_TC = torch.cat([new_T1, log_p_TC[:, kept]], dim=1)
            lift_TC = torch.cat([new_T1 - ever_T1, lift_TC[:, kept]], dim=1)
        return (log_p_TC.exp() * lift_TC).sum(dim=-1)

    def _of_all(self, attention_TI: Tensor, logits: dict[Intent, Tensor]) -> Tensor:
        """Attention in the order of all heads; 0 of those that are not fused."""
        none_T = attention_TI.new_zeros(len(attention_TI))
        of_head = dict(zip(self.fused, attention_TI.unbind(1), strict=True))
        return torch.stack([of_head.get(head, none_T) for head in logits], dim=1)


class TimeBias(nn.Module):
    """What attention adds for how long before the request a token was, by doubling classes of minutes."""

    def __init__(self, num_heads: int) -> None:
        super().__init__()
        self.by_gap = nn.Embedding(NUM_GAPS, num_heads)
        nn.init.zeros_(self.by_gap.weight)

    def of(self, gaps: dict[int, Tensor]) -> Bias:
        """Make the bias from the gaps of every group; a group's is made once for all blocks."""
        made: dict[int, Tensor] = {}

        def bias(group: Group) -> Tensor:
            if group.start not in made:
                bias_RHLL: Tensor = _Chosen.apply(self.by_gap.weight, gaps[group.start])  # type: ignore[no-untyped-call]
                later_LL = torch.ones(group.length, group.length, dtype=torch.bool, device=bias_RHLL.device).triu(1)
                made[group.start] = bias_RHLL.masked_fill(later_LL, float("-inf"))
            return made[group.start]

        return bias


class _Chosen(torch.autograd.Function):
    """Rows of a table by their number, the columns in front: [C, H] by [R, L, L] gives [R, H, L, L].

    An embedding adds its gradients up row by row, which for rows of a few columns takes longer than the attention.
    """

    @staticmethod
    def forward(ctx: Any, table_CH: Tensor, number_RLL: Tensor) -> Tensor:
        ctx.save_for_backward(table_CH, number_RLL)
        return torch.stack([column_C[number_RLL] for column_C in table_CH.unbind(1)], dim=1)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        (grad_RHLL,), (table_CH, number_RLL) = grads, ctx.saved_tensors
        none_C, number = table_CH.new_zeros(len(table_CH)), number_RLL.flatten()
        summed = [none_C.index_add(0, number, of_RLL.flatten()) for of_RLL in grad_RHLL.to(none_C.dtype).unbind(1)]
        return torch.stack(summed, dim=1), None


def gaps_between(tokens: Sequences) -> dict[int, Tensor]:
    """Class of the time from each token to the request at each later one, [R, L, L] by the start of the group."""
    placed = tokens.layout
    gaps = {}
    for group, times_RL2 in zip(
        placed.groups, placed.pad(torch.stack([tokens.minute_T, tokens.now_T], 1)), strict=True
    ):
        minute_RL, now_RL = times_RL2.unbind(-1)
        second_RLL = (now_RL[:, :, None] - minute_RL[:, None, :]).float().mul_(60.0).clamp_(min=0.5)
        gaps[group.start] = second_RLL.log2_().floor_().add_(2.0).clamp_(max=NUM_GAPS - 1).long()
    return gaps


class Views(nn.Module):
    """Features with what was done within several spans of hours added."""

    def __init__(self, config: ForetasteConfig, sizes: Sizes) -> None:
        super().__init__()
        self.of = nn.ModuleList(View(hours, sizes) for hours in config.views_hours)
        if config.session_view:
            self.of.append(View(None, sizes))

    def forward(self, features_TD: Tensor, tokens: Sequences) -> Tensor:
        """Add up, [T, D]."""
        joined_TD = features_TD
        for view in self.of:
            joined_TD = joined_TD + view(features_TD, tokens)
        return joined_TD


class Moment(nn.Module):
    """One encoder as deep as the two of the hierarchy, with the same views and times; heads, if any, stand on it."""

    def __init__(self, config: ForetasteConfig, sizes: Sizes) -> None:
        super().__init__()
        self.views = Views(config, sizes)
        self.encoder = encoder(sizes, config.intent_blocks + config.item_blocks)
        self.time = TimeBias(sizes.num_attention_heads) if config.time_bias else None

    def forward(self, features_TD: Tensor, tokens: Sequences) -> Encoded:
        """Encode."""
        bias = None if self.time is None else self.time.of(gaps_between(tokens))
        return Encoded(self.encoder(self.views(features_TD, tokens), tokens.layout, bias))


class Foretaste(nn.Module):
    """Two encoders that both see the moment; the second reads Z too."""

    def __init__(self, config: ForetasteConfig, sizes: Sizes, classes: Classes) -> None:
        super().__init__()
        self.views = Views(config, sizes)
        self.intent_encoder = encoder(sizes, config.intent_blocks)
        self.fusion = InformedFusion(sizes.width, classes)
        self.fuse = nn.Linear(2 * sizes.width, sizes.width)
        self.item_encoder = encoder(sizes, config.item_blocks)
        self.intent_time, self.item_time = (
            TimeBias(sizes.num_attention_heads) if config.time_bias else None for _ in range(2)
        )

    def start_from(self, log_shares: Mapping[Intent, Tensor]) -> None:
        """Let untrained heads say how often each class is chosen."""
        self.fusion.start_from(log_shares)

    def forward(self, features_TD: Tensor, tokens: Sequences) -> Encoded:
        """Predict the intents, then encode with them."""
        gaps = {} if self.intent_time is None else gaps_between(tokens)
        of_intents = None if self.intent_time is None else self.intent_time.of(gaps)
        of_items = None if self.item_time is None else self.item_time.of(gaps)
        joined_TD = self.views(features_TD, tokens)
        fused = self.fusion(self.intent_encoder(joined_TD, tokens.layout, of_intents))
        with_z_TD = joined_TD + self.fuse(torch.cat([joined_TD, fused.item_TD], dim=-1))
        item_TD = self.item_encoder(with_z_TD, tokens.layout, of_items)
        return Encoded(item_TD, fused.intents, fused.attention_TI, fused.z_TD, fused.lifts)
