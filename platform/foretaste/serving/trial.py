"""A look at models before anybody is answered by them.

Shapes: N titles, C candidates.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from foretaste.contracts.catalogue import Catalogue
from foretaste.serving.batching import probe
from foretaste.serving.models import Models
from foretaste.signals.ranking import ranker_inputs
from foretaste.signals.views import MemberView, TitleView

LENGTHS = (0, 3, 40)
"""Interactions of the histories that are asked for."""
CANDIDATES = 64
MIN_SHARED = 0.5
"""Share of the titles that are served which another release has to know, or it is of another catalogue."""


def check_models(models: Models) -> None:
    """Ask an intent model and its ranker. Raises ValueError for an answer that is none, and whatever they raise."""
    if models.intent is None:
        raise ValueError("it has no intent model")
    if not len(models.catalogue):
        raise ValueError("its catalogue is empty")
    known, size = models.catalogue, min(CANDIDATES, len(models.catalogue))
    members = MemberView.absent(1, num_genres=len(known.genres), num_kinds=len(known.kinds))
    for length in LENGTHS:
        history, asof_B = probe(length, len(known))
        prediction = models.intent.predict(history, asof_B)
        if models.index is not None and prediction.query is not None:
            none_N1, nobody = np.zeros(len(known) + 1, dtype=np.bool_), np.zeros(0, dtype=np.int32)
            scores_N = models.index.scores(
                prediction.query, blocked_N1=none_N1, brought=nobody, size=size, boosted=False
            )  # fmt: skip
            prediction = replace(prediction, scores_BN=scores_N[None])
        _check("the intent model", (prediction.scores_BN, *prediction.intents.values()))
        if prediction.scores_BN.shape[1] not in (0, len(known)):  # none where an index finds titles
            raise ValueError(f"the intent model scores {prediction.scores_BN.shape[1]} titles of {len(known)}")
        if models.ranker is None:
            continue
        codes_BC = np.arange(1, 1 + size, dtype=np.int32)[None]
        inputs = ranker_inputs(
            history, asof_B, codes_BC, prediction, {}, known, members, TitleView.absent(known),
            length=models.ranker.recent, rule=models.rule,
        )  # fmt: skip
        scores_BC = models.ranker.scores(inputs)
        _check("the ranker", (scores_BC,))
        if scores_BC.shape != (1, size):
            raise ValueError(f"the ranker gives {scores_BC.shape[1]} scores of {size} candidates")


def check_catalogue(offered: Catalogue, served: Catalogue) -> None:
    """Raise ValueError where a catalogue cannot take the place of the one that is served."""
    shared = sum(title_id in offered.code_of for title_id in served.ids)
    if shared < MIN_SHARED * len(served):
        raise ValueError(f"its catalogue has {shared} of the {len(served)} titles that are served, too few")


def _check(what: str, values: Iterable[NDArray[Any]]) -> None:
    if not all(np.isfinite(value).all() for value in values):
        raise ValueError(f"{what} gives values that are not finite")
