"""What each interaction says of the member's intent, as labels to learn from.

Shapes: T interactions of all histories together, C classes of one intent.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from foretaste.contracts.catalogue import Catalogue
from foretaste.contracts.histories import Histories
from foretaste.contracts.intents import LabelConfig, specifications
from foretaste.sessions.intent_rules import RULES, Labelled, Queries, queries_of

__all__ = ["Labels", "intent_labels", "queries_of"]

Labels = dict[str, NDArray[np.int32] | NDArray[np.float32]]


def intent_labels(
    histories: Histories, catalogue: Catalogue, config: LabelConfig | None = None, queries: Queries | None = None
) -> Labels:
    """Label every interaction with the intents that it reveals, by name of the intent.

    Of a single-label intent the code of its class, -1 where it has none: int32[T]; of a multi-label one 1 for each
    of its classes: float32[T, C]. `queries` are `queries_of` the table that the histories were packed from; without
    them no search is known by its words.
    """
    config = config or LabelConfig()
    unknown = Queries(np.full(len(histories.title_T), -1, dtype=np.int32), ())
    given = Labelled(histories, catalogue, queries or unknown, config)
    return {spec.name.value: RULES[spec.rule](given) for spec in specifications(config, catalogue)}
