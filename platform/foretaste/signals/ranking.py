"""Everything that the ranker reads of requests, put together: one function for requests, training and replays.

Shapes: B requests, C candidates each, N titles, N1 catalogue codes, X numbers of the intents.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from foretaste.contracts.catalogue import Catalogue
from foretaste.contracts.histories import Histories
from foretaste.contracts.sessions import SessionRule
from foretaste.models.intent import IntentPrediction
from foretaste.models.ranker_inputs import RankerInputs
from foretaste.signals.candidates import candidate_features
from foretaste.signals.column_groups import Signals
from foretaste.signals.requests import recent, request_features
from foretaste.signals.session import current_session
from foretaste.signals.views import MemberView, TitleView


def ranker_inputs(
    histories: Histories,
    asof_B: NDArray[np.int64],
    candidates_BC: NDArray[np.int32],
    prediction: IntentPrediction,
    signals: Signals,
    catalogue: Catalogue,
    members: MemberView,
    titles: TitleView,
    *,
    length: int,
    rule: SessionRule,
) -> RankerInputs:
    """Describe B requests with their candidates (catalogue codes, 0 is padding) as of `asof_B` (microseconds).

    `signals` are of signals.signals, [B, W] each, none where they failed; `length` is how many of the newest
    interactions are read. Raises ValueError where shapes do not fit each other.
    """
    first_B = current_session(histories, asof_B, rule=rule)
    newest = recent(histories, asof_B, first_B, length=length)
    return RankerInputs(
        candidate_features(
            histories,
            asof_B,
            candidates_BC,
            prediction.scores_BN,
            prediction.intents,
            catalogue,
            members,
            titles,
            signals=signals,
            first_B=first_B,
            labels=prediction.labels,
            classes=prediction.classes,
        ),
        request_features(histories, asof_B, first_B, members, signals),
        np.concatenate([prediction.z_BD, *prediction.intents.values()], axis=1),
        candidates_BC,
        newest.title_BL,
        newest.action_BL,
        newest.about_BLA,
        newest.now_BL,
    )
