"""Histories as packed tokens: a start token, then the newest interactions of each.

Shapes: B histories, T tokens of all of them together, F = 3 numbers an interaction.
The last token of a history is where its next title is predicted. With `masked`, one more token stands at the end, in
the place of what is to be predicted, for models that look both ways.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from foretaste.contracts.catalogue import UNKNOWN_TIME, Catalogue
from foretaste.contracts.histories import Histories
from foretaste.contracts.intents import LabelConfig
from foretaste.contracts.relations import Past, recency_classes, relations
from foretaste.models.layout import Layout, layout

NUM_NUMBERS = 3
NUM_GAPS = 34
"""Classes of a time gap: 0 there is none; 1 zero seconds; 2 + floor(log2(seconds)) up to 136 years."""
NUM_HOURS = 1 + 7 * 24
"""Classes of the hour of the week, UTC: 0 not known, then Monday midnight to Sunday eleven at night."""
MINUTE_US = 60_000_000
HOUR_US = 3_600_000_000
_EPOCH_HOUR = 3 * 24
"""1970 began on a Thursday."""


@dataclass(frozen=True, slots=True)
class Sequences:
    """B token sequences, packed; token t + 1 of a sequence is interaction t, and sees what came before t."""

    layout: Layout
    title_T: Tensor  # int64, row of the title table that is given; usually the catalogue code
    code_T: Tensor  # int64, catalogue code; 0 at the start, for unknown titles and masked ones
    action_T: Tensor  # int64, 1 + events.ACTION_CODES; 0 at the start and where masked
    gap_T: Tensor  # int64, class of the time gap
    hour_T: Tensor  # int64, class of the hour of the week
    way_T: Tensor  # int64, 1 + code in events.ENTRIES of what led there; 0 at the start and where masked
    relation_T: (
        Tensor  # int64, 1 + code in intents.RELATIONS of what the title was to the member by then; 0 if not read
    )
    recency_T: Tensor  # int64, 1 + class of how new the title was by then; 0 if unknown or not read
    numbers_TF: Tensor  # float32: log dwell, played fraction (0 when unknown), whether that is known
    minute_T: Tensor  # float64, minutes since 1970 of the interaction; of the first one at the start
    now_T: Tensor  # float64, minutes since 1970 at which the next is asked for, where the time is known; else minute_T
    session_T: Tensor  # int64, of the interaction; -1 at the start
    masked_T: Tensor  # bool: a title is to be predicted here from both sides
    columns_TK: Tensor | None = None  # float32, genres and kind of the title, for bodies that read them

    def to(self, device: torch.device) -> Sequences:
        """Move all tensors to a device."""
        return Sequences(*(getattr(self, f.name).to(device) for f in fields(self) if getattr(self, f.name) is not None))

    def coded(self, title_T: Tensor) -> Sequences:
        """The same with other rows of titles: those of a part of the title table."""
        return replace(self, title_T=title_T)

    def described(self, columns_TK: Tensor) -> Sequences:
        """The same with genres and kinds of the titles."""
        return replace(self, columns_TK=columns_TK)


def gap_classes(gap_us: NDArray[np.int64]) -> NDArray[np.int64]:
    """Class of each gap in microseconds; a negative one counts as zero seconds."""
    seconds = np.maximum(gap_us, 0) / 1e6
    return np.where(seconds < 1, 1, 2 + np.log2(np.maximum(seconds, 1)).astype(np.int64)).clip(max=NUM_GAPS - 1)


def hour_classes(at_us: NDArray[np.int64]) -> NDArray[np.int64]:
    """Class of the hour of the week of each instant in microseconds."""
    return 1 + (at_us // HOUR_US + _EPOCH_HOUR) % (NUM_HOURS - 1)


@dataclass(frozen=True, slots=True)
class Reading:
    """What is needed to say what a title was to a member when it was chosen."""

    catalogue: Catalogue
    labels: LabelConfig

    def relations(self, histories: Histories) -> NDArray[np.int32]:
        """Code in intents.RELATIONS of each interaction, from those before it of the same title; int32[T]."""
        standing = Past(histories, self.labels).before_each()
        return relations(standing, self.catalogue.series_N1[histories.title_T], histories.at_T, self.labels)

    def recency(self, histories: Histories) -> NDArray[np.int32]:
        """Class in LabelConfig.recency_classes of each interaction, -1 without a known release; int32[T]."""
        released_T = self.catalogue.released_N1[histories.title_T]
        return recency_classes(histories.at_T - released_T, released_T != UNKNOWN_TIME, self.labels)


def sequences(
    histories: Histories,
    asof_B: NDArray[np.int64],
    *,
    max_length: int,
    time_aware: bool,
    masked: bool = False,
    reading: Reading | None = None,
    multiple: int | None = None,
) -> Sequences:
    """Turn the newest `max_length` interactions of each history into tokens.

    The gap of a token is the time until what follows it: the next interaction, or `asof_B` (microseconds) for the
    last one, which a request knows. Without `time_aware` it is the time since the interaction before it, and nothing
    of `asof_B` is read. Without `reading` nothing says what titles were to the member. With `multiple` every sequence
    is filled up behind its end, where nothing before it looks, to a multiple of so many tokens.
    """
    recent = histories.last(max_length)
    length_B = recent.lengths_B
    tokens_B = length_B + 1 + int(masked)
    if multiple is not None:
        tokens_B = -(-tokens_B // multiple) * multiple
    begin_B = np.cumsum(tokens_B) - tokens_B
    num = int(tokens_B.sum())
    token_X = np.arange(len(recent.title_T)) + np.repeat(begin_B + 1 - recent.offsets_B1[:-1], length_B)
    at_T = np.repeat(_firsts(recent, asof_B, time_aware), tokens_B)
    at_T[token_X] = recent.at_T
    now_T = at_T.copy()
    if time_aware:
        now_T[:-1] = at_T[1:]
        now_T[begin_B + length_B] = asof_B
    used_T = slice(None) if multiple is None else _filled(begin_B, length_B + 1 + int(masked), tokens_B)
    at_T, now_T = at_T[used_T], now_T[used_T]
    names = ("title", "action", "gap", "hour", "way", "relation", "recency")
    values = {name: np.zeros(num, dtype=np.int64) for name in names}
    values["title"][token_X], values["action"][token_X] = recent.title_T, recent.action_T + 1
    values["way"][token_X] = recent.entry_T + 1
    if reading is not None:
        values["relation"][token_X] = np.where(recent.title_T > 0, reading.relations(recent) + 1, 0)
        values["recency"][token_X] = np.where(recent.title_T > 0, reading.recency(recent) + 1, 0)
    if time_aware:
        values["gap"][token_X] = gap_classes((now_T - at_T)[token_X])
        values["hour"] = hour_classes(now_T)
    else:
        gap_X = gap_classes(np.diff(recent.at_T, prepend=recent.at_T[:1]))
        gap_X[recent.offsets_B1[:-1][length_B > 0]] = 0
        values["gap"][token_X], values["hour"][token_X] = gap_X, hour_classes(recent.at_T)
    numbers_TF = np.zeros((num, NUM_NUMBERS), dtype=np.float32)
    numbers_TF[token_X] = _numbers(recent)
    session_T = np.full(num, -1, dtype=np.int64)
    session_T[token_X] = recent.session_T
    session_T = session_T[used_T]
    masked_T = np.zeros(num, dtype=np.bool_)
    if masked:
        end_B = begin_B + length_B + 1
        masked_T[end_B] = True
        at_T[end_B] = now_T[end_B] = now_T[end_B - 1]
        values["hour"][end_B] = values["hour"][end_B - 1] if time_aware else 0
    columns = (values["title"], values["title"].copy(), *(values[name] for name in names[1:]), numbers_TF)
    times = (at_T / MINUTE_US, now_T / MINUTE_US, session_T, masked_T)
    placed = layout(tokens_B, exact=multiple is not None, used_B=length_B + 1 + int(masked))
    return Sequences(placed, *(torch.from_numpy(a) for a in (*columns, *times)))


def masks(tokens: Sequences, hidden_T: NDArray[np.bool_], *, time_aware: bool) -> Sequences:
    """Hide interactions, so that models that look both ways have something to predict; what is hidden is not read.

    Of a hidden one no more is known than of what a request asks for: that it comes now.
    """
    seen_T = torch.from_numpy(~hidden_T)
    now_T = torch.where(seen_T, tokens.now_T, tokens.minute_T)
    hour_T = torch.where(seen_T, tokens.hour_T, tokens.hour_T.roll(1) if time_aware else 0)
    return replace(
        tokens,
        title_T=tokens.title_T * seen_T,
        code_T=tokens.code_T * seen_T,
        action_T=tokens.action_T * seen_T,
        way_T=tokens.way_T * seen_T,
        relation_T=tokens.relation_T * seen_T,
        recency_T=tokens.recency_T * seen_T,
        gap_T=tokens.gap_T * seen_T,
        hour_T=hour_T,
        now_T=now_T,
        numbers_TF=tokens.numbers_TF * seen_T[:, None],
        masked_T=tokens.masked_T | ~seen_T,
    )


def _firsts(recent: Histories, asof_B: NDArray[np.int64], time_aware: bool) -> NDArray[np.int64]:
    """Instant of the start token: of the first interaction, or where there is none the request, where it is known."""
    first_B = asof_B.copy() if time_aware else np.zeros(len(recent), dtype=np.int64)
    some_B = recent.lengths_B > 0
    first_B[some_B] = recent.at_T[recent.offsets_B1[:-1][some_B]]
    return first_B


def _filled(begin_B: NDArray[np.int64], used_B: NDArray[np.int64], tokens_B: NDArray[np.int64]) -> NDArray[np.int64]:
    """For each token that fills a sequence up, the last one that is used; itself for all others."""
    place_T = np.arange(int(tokens_B.sum())) - np.repeat(begin_B, tokens_B)
    return np.repeat(begin_B, tokens_B) + np.minimum(place_T, np.repeat(used_B - 1, tokens_B))


def _numbers(recent: Histories) -> NDArray[np.float32]:
    known_X = ~np.isnan(recent.fraction_T)
    return np.column_stack([np.log1p(recent.dwell_T) / 8.0, np.where(known_X, recent.fraction_T, 0.0), known_X])
