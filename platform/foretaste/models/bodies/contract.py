"""What stands between the features of tokens and the prediction of titles: one contract, many models.

Shapes: T packed tokens, D width, I heads that are on, C classes of one head.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

from torch import Tensor, nn

from foretaste.contracts.config import Frozen
from foretaste.contracts.intents import Intent
from foretaste.models.sequences import Sequences

Classes = Mapping[Intent, tuple[str, ...]]
"""Heads that are on, with their classes."""
DECODABLE = frozenset({Intent.ACTION, Intent.GENRE, Intent.KIND, Intent.RECENCY})
"""Heads whose class of a title is known before it is chosen; what a search was for is not."""


@dataclass(frozen=True, slots=True)
class Sizes:
    """What all bodies are built with."""

    width: int
    num_attention_heads: int
    feedforward: int
    dropout: float
    max_length: int  # interactions; a sequence has up to two tokens more
    num_columns: int = 0  # of Sequences.columns_TK


@dataclass(frozen=True, slots=True)
class Encoded:
    """What a body makes of tokens."""

    item_TD: Tensor  # its product with a title's vector is the title's logit
    intents: dict[Intent, Tensor] = field(default_factory=dict)  # logits [T, C]; empty where the body has no heads
    attention_TI: Tensor | None = None  # weight of each head in Z, in the order of `intents`; sums to 1
    z_TD: Tensor | None = None  # the intent embedding
    lifts: dict[Intent, Tensor] = field(default_factory=dict)  # [T, C] by how much classes are likelier than ever, nats

    def at(self, index_P: Tensor) -> Encoded:
        """Pick some tokens."""
        intents = {head: logits_TC[index_P] for head, logits_TC in self.intents.items()}
        attention, z = (None if one is None else one[index_P] for one in (self.attention_TI, self.z_TD))
        lifts = {head: lift_TC[index_P] for head, lift_TC in self.lifts.items()}
        return Encoded(self.item_TD[index_P], intents, attention, z, lifts)


class Body(Protocol):
    """Encodes tokens; what it says of a token depends on tokens up to it alone, unless it looks both ways."""

    def __call__(self, features_TD: Tensor, tokens: Sequences) -> Encoded:
        """Encode packed tokens of these features."""
        ...


def begin(heads: nn.ModuleDict, log_shares: Mapping[Intent, Tensor]) -> None:
    """Let linear heads, by the names of their intents, say how often each class is chosen before they learn."""
    for name, head in heads.items():
        if isinstance(head, nn.Linear):
            head.bias.copy_(log_shares[Intent(name)])


@runtime_checkable
class OwnHeads(Protocol):
    """A body that predicts intents itself."""

    def start_from(self, log_shares: Mapping[Intent, Tensor]) -> None:
        """Let untrained heads say how often each class is chosen."""
        ...


class BodySettings(Frozen, ABC):
    """What a body's configuration says of it, and how it is made; heads stand beside the titles' unless it says so."""

    @property
    def both_ways(self) -> bool:
        """Whether later tokens are read: then titles are hidden and predicted in their own place (Cloze)."""
        return False

    @property
    def steady(self) -> bool:
        """Whether what it says of a sequence is the same to the bit whatever it is batched with, filled up to a length.

        tests/models/test_steady.py holds it to that.
        """
        return not self.both_ways

    @property
    def has_heads(self) -> bool:
        """Whether intents are predicted where the configuration asks for them."""
        return True

    @property
    def own_heads(self) -> bool:
        """Whether the body itself predicts them, rather than from what it gives for titles."""
        return False

    @property
    def reads_columns(self) -> bool:
        """Whether it reads genres and kinds of tokens' titles beside their vectors."""
        return False

    @property
    def decodes(self) -> bool:
        """Whether the predicted classes raise the titles that have them."""
        return False

    @abstractmethod
    def build(self, sizes: Sizes, classes: Classes) -> Body:
        """Make the body, a torch module."""
