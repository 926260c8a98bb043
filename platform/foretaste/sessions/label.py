"""What each choice says of the member's intent, as labels to learn from.

Shapes: B histories, T interactions of all of them together, G genres.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from foretaste.contracts.catalogue import UNKNOWN_TIME, Catalogue
from foretaste.contracts.histories import Histories
from foretaste.contracts.intents import ACTION_CLASSES, CONTINUE_WITHIN_DAYS, RECENCY_DAYS, Intent

DAY_US = 86_400_000_000
DISCOVER, CONTINUE, RETURN = range(len(ACTION_CLASSES))


def intent_labels(histories: Histories, catalogue: Catalogue) -> dict[str, NDArray[np.int32] | NDArray[np.float32]]:
    """Label every interaction with the intents that it reveals, given what stands before it in its own history.

    `action`, `kind`, `recency`: int32[T], the class code of `contracts.intents` (of `Catalogue.kinds`), -1 where
    the catalogue does not know. `genre`: float32[T, G], 1 for each genre of the title, 0 throughout when unknown.
    """
    return {
        Intent.ACTION.value: action_labels(histories),
        Intent.KIND.value: catalogue.kind_N1[histories.title_T],
        Intent.RECENCY.value: recency_labels(histories, catalogue),
        Intent.GENRE.value: catalogue.genres_N1G[histories.title_T],
    }


def action_labels(histories: Histories) -> NDArray[np.int32]:
    """Class code in `ACTION_CLASSES` of every interaction, -1 for a title outside the catalogue; int32[T].

    The past is any earlier interaction of the same history with the same title; «within seven days» includes
    the seventh day to the microsecond.
    """
    num_codes = int(histories.title_T.max(initial=0)) + 1
    key_T = np.repeat(np.arange(len(histories)), histories.lengths_B) * num_codes + histories.title_T
    order_T = np.argsort(key_T, kind="stable")
    again_T = np.flatnonzero(np.diff(key_T[order_T]) == 0)
    later, earlier = order_T[again_T + 1], order_T[again_T]
    labels_T = np.full(len(key_T), DISCOVER, dtype=np.int32)
    soon = histories.at_T[later] - histories.at_T[earlier] <= CONTINUE_WITHIN_DAYS * DAY_US
    labels_T[later] = np.where(soon, CONTINUE, RETURN)
    labels_T[histories.title_T == 0] = -1
    return labels_T


def recency_labels(histories: Histories, catalogue: Catalogue) -> NDArray[np.int32]:
    """Class code in `RECENCY_CLASSES` of every interaction, -1 without a release date; int32[T].

    A title seen before its release date counts as released this week.
    """
    released_T = catalogue.released_N1[histories.title_T]
    known_T = released_T != UNKNOWN_TIME
    age_T = histories.at_T - np.where(known_T, released_T, 0)
    labels_T = np.searchsorted(np.array(RECENCY_DAYS) * DAY_US, age_T, side="left").astype(np.int32)
    return np.where(known_T, labels_T, np.int32(-1))
