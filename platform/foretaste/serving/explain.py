"""Why a title stands on a list and what was read of the member, in words that a person can check.

Shapes: N1 rows by catalogue code, G genres, K kinds, W values of a signal.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from foretaste.contracts.catalogue import Catalogue
from foretaste.contracts.controls import Source
from foretaste.contracts.intents import Intent, LabelConfig
from foretaste.contracts.wire import SignalValue
from foretaste.models.intent import IntentPrediction
from foretaste.serving.stages import Scored
from foretaste.signals.declared import CODES, SESSION_SIGNALS, Signal
from foretaste.surfaces.sources import Brought

EXPLORED = "explored"
BY_SOURCE = {Source.CONTINUE: "continue watching", Source.TRENDING: "trending", Source.NEW: "new release"}
POPULAR = "popular this week"
SEEN = "chosen before"
WORDS: dict[str, str] = {
    "discover": "something new",
    "from_list": "something from their list",
    "continue_series": "to go on with a series",
    "resume_unfinished": "to take up what they left unfinished",
    "rewatch": "to watch something again",
    "return_after_gap": "to come back to something from long ago",
    "search_then_play": "to search for a title and play it",
    "message_then_play": "to follow a message to a title",
    "sample": "to try a title for a moment",
    "look": "to look around",
    "save_for_later": "to put titles on their list",
    "rate": "to rate titles",
    "dislike": "to say what they do not like",
    "fetch": "to search for a title that they can name",
    "find": "to search for something to choose",
    "explore": "to look around by searching",
}
"""What a member wants, by class of action and search."""
NUM_GENRES = 2
POPULAR_SHARE = 0.05


def popular_titles(plays_7d_N1: NDArray[np.float32]) -> NDArray[np.bool_]:
    """Say of each title whether it is among the twentieth that was played most in the last seven days; bool[N1]."""
    num = max(1, round(POPULAR_SHARE * (len(plays_7d_N1) - 1)))
    least = np.partition(plays_7d_N1[1:], -num)[-num] if len(plays_7d_N1) > num else 0
    popular_N1 = (plays_7d_N1 >= least) & (plays_7d_N1 > 0)
    popular_N1[0] = False
    return popular_N1


def reasons(
    codes: Sequence[int],
    explored: Sequence[bool],
    *,
    prediction: IntentPrediction | None,
    catalogue: Catalogue,
    popular_N1: NDArray[np.bool_],
    seen: NDArray[np.int32],
    brought: Brought,
) -> list[list[str]]:
    """Give the reasons of each title, the strongest first; possibly none."""
    expected = {} if prediction is None else _expected(prediction)
    known = set(seen.tolist())
    return [
        [
            *([EXPLORED] if by_dice else []),
            *_brought(code, brought, catalogue),
            *_matches(code, expected, catalogue),
            *([SEEN] if code in known else []),
            *([POPULAR] if popular_N1[code] else []),
        ]
        for code, by_dice in zip(codes, explored, strict=True)
    ]


def sources_of(code: int, scored: Scored) -> list[str]:
    """What brought a title of the list to the pool."""
    return [source.value for source in scored.shaped.brought.by(code)] or [Source.SCORES.value]


def counted(scored: Scored) -> dict[str, int]:
    """Titles of the pool by what brought them; `scores` are those that nothing else did."""
    brought = scored.shaped.brought
    found = {source.value: int(np.isin(scored.codes_C, codes).sum()) for source, codes in brought.codes.items()}
    return found | {Source.SCORES.value: int((~np.isin(scored.codes_C, brought.all)).sum())}


def told(signals: Mapping[str, NDArray[Any]], catalogue: Catalogue) -> dict[str, SignalValue]:
    """Give signals by name: numbers, titles by id, and by genre, kind or action what is not 0."""
    return {one.name: _told(one, signals[one.name], catalogue) for one in SESSION_SIGNALS if one.name in signals}


def _told(signal: Signal, values_W: NDArray[Any], catalogue: Catalogue) -> SignalValue:
    values, names = values_W.tolist(), signal.names(catalogue)
    if names is not None:
        return {name: value for name, value in zip(names, values, strict=True) if value}
    if signal.unit == CODES:
        return [catalogue.ids[code - 1] for code in values if code]
    number: int | float = values[0]
    return number if signal.width == 1 else list(values)


def top_classes(prediction: IntentPrediction) -> list[tuple[str, str, float, float]]:
    """Head, its likeliest class, that one's probability and the head's weight; the head that weighs most first."""
    weight_I = prediction.attention_BI[0].tolist()
    found = []
    for head, weight in sorted(zip(prediction.heads, weight_I, strict=True), key=lambda pair: -pair[1]):
        share_C = prediction.intents[head][0]
        best = int(share_C.argmax())
        found.append((head, prediction.classes[head][best], float(share_C[best]), float(weight)))
    return found


def in_words(head: str, name: str, share: float, labels: LabelConfig) -> str:
    """Say what a member wants by the class of one head, e.g. «wants comedy (41%)»."""
    what = WORDS.get(name, name)
    if head == Intent.RECENCY.value:
        days = labels.recency_days.get(name)
        oldest = max(labels.recency_days.values())
        what = f"a title of the last {days} days" if days is not None else f"a title older than {oldest} days"
    elif head == Intent.KIND.value:
        what = f"a title of kind {name}"
    return f"wants {what} ({share:.0%})"


def _expected(prediction: IntentPrediction) -> dict[str, list[int]]:
    """Classes by head that the first member of a prediction probably wants: more than an even share says."""
    wanted = {}
    for head, num in ((Intent.GENRE.value, NUM_GENRES), (Intent.KIND.value, 1)):
        if head in prediction.intents:
            share_C = prediction.intents[head][0]
            best = np.argsort(-share_C, kind="stable")[:num]
            wanted[head] = [int(c) for c in best if share_C[c] > 1.0 / len(share_C)]
    return wanted


def _brought(code: int, brought: Brought, catalogue: Catalogue) -> list[str]:
    found = []
    for source in brought.by(code):
        if source is Source.SIMILAR:
            found.append(f"similar to {catalogue.names[brought.like[code] - 1]}")
        elif source in BY_SOURCE:
            found.append(BY_SOURCE[source])
    return found


def _matches(code: int, expected: Mapping[str, Sequence[int]], catalogue: Catalogue) -> list[str]:
    genres = [catalogue.genres[g] for g in expected.get(Intent.GENRE.value, ()) if catalogue.genres_N1G[code, g] > 0]
    kinds = [catalogue.kinds[k] for k in expected.get(Intent.KIND.value, ()) if catalogue.kind_N1[code] == k]
    return [f"matches predicted genre {name}" for name in genres] + [f"matches predicted kind {name}" for name in kinds]
