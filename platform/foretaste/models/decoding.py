"""From predicted intents to titles: a title is likelier where the classes that it would be chosen as are.

    logit(title) = state x vector + bias + sum over heads of gain x log (p(class of the title) / its share)

Which class a title has is known before it is chosen: its genres and kind always, its recency at an instant, and what it
is to the member (new, begun, on the list ...) by the same rule that labels the past. An untrained head says no more
than the shares of its classes, which add nothing.

Shapes: P predictions, N1 codes of titles, K static columns (genres, kinds), R classes of recency, A relations, I heads,
C classes of one head, T interactions or tokens, E pairs of a prediction and a title of its history.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from foretaste.contracts.catalogue import UNKNOWN_TIME, Catalogue
from foretaste.contracts.histories import Histories
from foretaste.contracts.intents import DISCOVERIES, RELATIONS, Intent, LabelConfig
from foretaste.contracts.relations import DISCOVER, Past, relations
from foretaste.models.bodies.contract import Classes, Encoded
from foretaste.models.sequences import MINUTE_US, Sequences

UNKNOWN_MINUTE = 2**31 - 1
"""Release of a title of which none is known."""
NEW = (RELATIONS[DISCOVER], *DISCOVERIES)
"""Classes of the action head that say that a title was never chosen before."""


@dataclass(frozen=True, slots=True)
class Terms:
    """What P predictions add to the logits of titles, by the classes of the titles."""

    static_PK: Tensor
    recency_PR: Tensor | None  # the last column is of titles without a known release: 0
    relation_PA: Tensor | None  # what stands at DISCOVER is 0

    def at(self, index_X: Tensor) -> Terms:
        """Pick some predictions."""
        recency, relation = (None if one is None else one[index_X] for one in (self.recency_PR, self.relation_PA))
        return Terms(self.static_PK[index_X], recency, relation)


@dataclass(frozen=True, slots=True)
class Pairs:
    """Titles that stand in the history of a prediction, in order of predictions."""

    start_P1: NDArray[np.int64]
    column_E: Tensor  # catalogue code - 1
    relation_E: Tensor  # index of contracts.intents.RELATIONS


@dataclass(frozen=True, slots=True)
class Released:
    """Classes of recency by the age, in whole minutes, that titles have when they are asked for.

    Behind the classes of the bounds stands that of what is older, then that of titles whose release is not known. In
    order of release titles of one class stand side by side, so that nothing is worked out for each title.
    """

    bound_minutes: tuple[int, ...]  # rising
    released_N: Tensor  # int32, minutes since 1970; UNKNOWN_MINUTE where unknown
    order_N: Tensor  # int64, titles by release, the unknown ones last
    place_N: Tensor  # int64, of each title in that order
    now_P: Tensor  # int32

    @classmethod
    def among(cls, bound_minutes: tuple[int, ...], released_N: Tensor, now_P: Tensor) -> Released:
        """Order titles by their release."""
        order_N = torch.argsort(released_N, stable=True)
        return cls(bound_minutes, released_N, order_N, _inverse(order_N), now_P)

    def rows(self, rows: slice) -> Released:
        """Pick some predictions."""
        return replace(self, now_P=self.now_P[rows])

    def of(self, column_X: Tensor) -> Released:
        """The same of some titles alone."""
        return Released.among(self.bound_minutes, self.released_N[column_X], self.now_P)

    def spread(self, class_PR: Tensor) -> Tensor:
        """Give every title what its class has; [P, N]."""
        spread_PN: Tensor = _Spread.apply(class_PR, self)  # type: ignore[no-untyped-call]
        return spread_PN

    def sums(self, value_PN: Tensor) -> Tensor:
        """Sum up the values of the titles of each class; [P, R]."""
        ordered = value_PN.index_select(1, self.order_N).view(-1)
        summed = torch.segment_reduce(ordered, "sum", lengths=self.lengths().view(-1), unsafe=True)
        return summed.view(len(self.now_P), -1)[:, self.classes_in_order()]

    def own(self, column_P: Tensor) -> Tensor:
        """Class of one title for each prediction; int64 [P]."""
        released_P = self.released_N[column_P]
        class_P = sum((self.now_P - released_P > bound for bound in self.bound_minutes), torch.zeros_like(column_P))
        return class_P.masked_fill(released_P == UNKNOWN_MINUTE, len(self.bound_minutes) + 1)

    def lengths(self) -> Tensor:
        """How many titles each class has, the oldest class first and the unknown last; int64 [P, R]."""
        bounds = torch.tensor(self.bound_minutes[::-1], dtype=torch.int32, device=self.now_P.device)
        ordered_N = self.released_N[self.order_N]
        older_PB = torch.searchsorted(ordered_N, (self.now_P[:, None] - bounds).contiguous())
        none_P1 = torch.zeros_like(older_PB[:, :1])
        known_P1 = none_P1 + torch.searchsorted(ordered_N, ordered_N.new_tensor(UNKNOWN_MINUTE))
        ends = torch.cat([none_P1, older_PB, known_P1, torch.full_like(none_P1, len(ordered_N))], dim=1)
        return ends.diff(dim=1)

    def classes_in_order(self) -> list[int]:
        """Turn classes into the order of `lengths`, or back."""
        return [*range(len(self.bound_minutes), -1, -1), len(self.bound_minutes) + 1]


class _Spread(torch.autograd.Function):
    """What each class has, for all titles of it; its gradient sums up."""

    @staticmethod
    def forward(ctx: Any, class_PR: Tensor, released: Released) -> Tensor:
        ctx.released = released
        shape = (len(released.now_P), len(released.released_N))
        ordered, lengths = class_PR[:, released.classes_in_order()].reshape(-1), released.lengths().view(-1)
        if class_PR.device.type == "cpu":  # NumPy's needs no index of every title
            flat = torch.from_numpy(np.repeat(ordered.numpy(), lengths.numpy()))
        else:
            flat = ordered.repeat_interleave(lengths, output_size=shape[0] * shape[1])
        return flat.view(shape).index_select(1, released.place_N)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        (grad_PN,) = grads
        return ctx.released.sums(grad_PN), None


def _inverse(order_N: Tensor) -> Tensor:
    place_N = torch.empty_like(order_N)
    place_N[order_N] = torch.arange(len(order_N), device=order_N.device)
    return place_N


class Decoder(nn.Module):
    """Turns predicted classes into what they add to the logits of titles."""

    static_N1K: Tensor
    released_N: Tensor
    order_N: Tensor
    place_N: Tensor

    def __init__(self, classes: Classes, catalogue: Catalogue, labels: LabelConfig) -> None:
        super().__init__()
        self.heads = tuple(classes)
        self.gain = nn.Parameter(torch.zeros(len(classes)))
        self.static = [head for head in (Intent.GENRE, Intent.KIND) if head in classes]
        columns = [_columns(head, classes[head], catalogue) for head in self.static]
        static_N1K = np.concatenate([np.zeros((len(catalogue) + 1, 0), np.float32), *columns], axis=1)
        self.register_buffer("static_N1K", torch.from_numpy(static_N1K), persistent=False)
        unknown_N = catalogue.released_N1[1:] == UNKNOWN_TIME
        released_N = np.where(unknown_N, UNKNOWN_MINUTE, catalogue.released_N1[1:] // MINUTE_US).astype(np.int32)
        self.register_buffer("released_N", torch.from_numpy(released_N), persistent=False)
        order_N = torch.argsort(self.released_N, stable=True)
        self.register_buffer("order_N", order_N, persistent=False)
        self.register_buffer("place_N", _inverse(order_N), persistent=False)
        self.bound_minutes = tuple(days * 1440 for days in labels.recency_days.values())
        self.recency = [(labels.recency_classes.index(one), c) for c, one in enumerate(classes.get(Intent.RECENCY, ()))]
        action = classes.get(Intent.ACTION, ())
        self.relations = [(RELATIONS.index(one), action.index(one)) for one in RELATIONS if one in action]
        self.new = [action.index(one) for one in NEW if one in action]

    @property
    def num_static(self) -> int:
        """Static columns of a title."""
        return self.static_N1K.shape[1]

    def forward(self, encoded: Encoded) -> Terms:
        """Weigh the predicted classes of P tokens; wants `lifts`."""
        gain_I = torch.nn.functional.softplus(self.gain)
        scale, said = dict(zip(self.heads, gain_I, strict=True)), encoded.lifts
        static = [scale[head] * said[head] for head in self.static]
        none_P0 = encoded.item_TD[:, :0]
        recency_PR = relation_PA = None
        if self.recency:
            said_PC = scale[Intent.RECENCY] * said[Intent.RECENCY]
            recency_PR = said_PC.new_zeros((len(said_PC), len(self.bound_minutes) + 2))
            places, columns = zip(*self.recency, strict=True)
            recency_PR = recency_PR.index_add(1, _places(places, said_PC), said_PC[:, list(columns)])
        if len(self.relations) > 1 and self.new:
            relation_PA = scale[Intent.ACTION] * self._over_new(encoded)
        return Terms(torch.cat([none_P0, *static], dim=1), recency_PR, relation_PA)

    def _over_new(self, encoded: Encoded) -> Tensor:
        """By how much likelier each relation is to be chosen than a title that is new, as against ever, [P, A]."""
        lift_PC = encoded.lifts[Intent.ACTION]
        log_p_PC = torch.log_softmax(encoded.intents[Intent.ACTION], dim=-1)
        new_P1 = torch.logsumexp(log_p_PC[:, self.new], dim=1, keepdim=True)
        ever_P1 = torch.logsumexp((log_p_PC - lift_PC)[:, self.new], dim=1, keepdim=True)
        kept = [(place, column) for place, column in self.relations if place != DISCOVER]
        places, columns = zip(*kept, strict=True)
        over_PA = lift_PC.new_zeros((len(lift_PC), len(RELATIONS)))
        return over_PA.index_add(1, _places(places, lift_PC), lift_PC[:, list(columns)] - (new_P1 - ever_P1))

    def released(self, now_P: Tensor) -> Released:
        """Ages of all titles at the instants of predictions (minutes)."""
        return Released(self.bound_minutes, self.released_N, self.order_N, self.place_N, now_P.floor().int())


def _columns(head: Intent, classes: tuple[str, ...], catalogue: Catalogue) -> NDArray[np.float32]:
    if head is Intent.KIND:
        codes = [catalogue.kinds.index(one) for one in classes]
        return np.asarray(catalogue.kind_N1[:, None] == np.array(codes), dtype=np.float32)
    genres_N1G = catalogue.genres_N1G[:, [catalogue.genres.index(one) for one in classes]]
    return np.asarray(genres_N1G / np.maximum(catalogue.genres_N1G.sum(axis=1, keepdims=True), 1.0), dtype=np.float32)


def _places(index: Sequence[int], like: Tensor) -> Tensor:
    return torch.tensor(list(index), dtype=torch.int64, device=like.device)


def pairs(
    recent: Histories, tokens: Sequences, token_P: Tensor, catalogue: Catalogue, labels: LabelConfig
) -> Pairs:  # fmt: skip
    """List, for every predicted token, the titles of its history and what they are to the member by then.

    `recent` are the histories that `tokens` were made of, cut to their length. An interaction speaks for its title
    until the next one with that title.
    """
    offsets_B1 = tokens.layout.offsets_B1
    token_T = np.arange(len(recent.title_T)) + np.repeat(offsets_B1[:-1] + 1 - recent.offsets_B1[:-1], recent.lengths_B)
    standing, next_T = Past(recent, labels).after_each()
    last_T = np.repeat(offsets_B1[1:] - 1, recent.lengths_B)
    there_T = next_T < len(next_T)
    last_T[there_T] = token_T[next_T[there_T]] - 1
    number = np.full(int(offsets_B1[-1]), -1, dtype=np.int64)
    number[token_P.cpu().numpy()] = np.arange(len(token_P))
    count_T = np.where(recent.title_T > 0, last_T - token_T + 1, 0)
    of_E = np.repeat(np.arange(len(token_T)), count_T)
    at_E = np.arange(len(of_E)) - np.repeat(np.cumsum(count_T) - count_T, count_T) + token_T[of_E]
    row_E = number[at_E]
    of_E, at_E, row_E = (a[row_E >= 0] for a in (of_E, at_E, row_E))
    small = len(token_P) <= np.iinfo(np.uint16).max  # sorted by radix
    order = np.argsort(row_E.astype(np.uint16) if small else row_E, kind="stable")
    of_E, at_E, row_E = of_E[order], at_E[order], row_E[order]
    code_E = recent.title_T[of_E]
    now_E = np.rint(tokens.now_T.cpu().numpy()[at_E] * MINUTE_US).astype(np.int64)
    relation_E = relations(standing.rows(of_E), catalogue.series_N1[code_E], now_E, labels)
    start_P1 = np.searchsorted(row_E, np.arange(len(token_P) + 1))
    columns = (code_E.astype(np.int64) - 1, relation_E.astype(np.int64))
    return Pairs(start_P1, *(torch.from_numpy(one).to(token_P.device) for one in columns))
