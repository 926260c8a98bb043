"""How well intents are predicted: of the next choice, and of the rest of its session.

Every head is compared, case by case, with the shares of its classes among the choices to learn from.

Shapes: B cases, T interactions of the timeline, C classes of one head, X what they are grouped to (or the same).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from foretaste.contracts.histories import Histories
from foretaste.contracts.intents import Intent
from foretaste.evaluation.cases import Cases
from foretaste.evaluation.intervals import figure, resampled_means
from foretaste.models.intent import IntentPrediction
from foretaste.sessions.intent_horizons import one_hot, rest_of_session
from foretaste.surfaces.page import continuing, sides

NEXT, REST = "next", "rest"
HORIZONS = (NEXT, REST)
LAYOUT = "layout"
"""Name of the layout hint among the heads; its classes are surfaces.page.HINTS."""
LEAST = 1e-6
"""Probability below which none is counted, so that one surprise does not make a mean."""


class Predictor(Protocol):
    """The intent model."""

    def predict(self, histories: Histories, asof_B: NDArray[np.int64]) -> IntentPrediction:
        """Predict what B members are about to do."""
        ...


def intent_figures(
    model: Predictor,
    cases: Cases,
    labels_T: Mapping[str, NDArray[Any]],
    declared: Mapping[str, tuple[str, ...]],
    learned_T: NDArray[np.bool_],
    *,
    limit: int = 20_000,
    resamples: int = 1000,
    seed: int = 0,
) -> dict[str, dict[str, Any]]:
    """Measure every head of the model on both horizons, by the name of the head and `HORIZONS`.

    `labels_T` are `sessions.label.intent_labels` of the cases' timeline, whose codes index `declared` classes;
    `learned_T` marks the choices to learn from, whose shares are the prior. `next` is the label of the choice asked
    for, `rest` the labels of that choice and what follows it in its session, as shares; classes that a head does not
    have do not count, nor do cases without a label. Of each: cases, `hit` (the likeliest class is there), `log_loss`
    in nats (cross-entropy), the same two of the prior, and `gain`, by how much the model's log loss is lower, with its
    95% interval by actors. Beside the heads stands the layout hint, LAYOUT, where the action head can give it; cases
    that choose nothing do not count there. At most `limit` cases, drawn with `seed`.
    """
    rows = np.arange(len(cases))
    if len(rows) > limit:
        rows = np.sort(np.random.default_rng(seed).choice(rows, size=limit, replace=False))
    histories = cases.timeline.take(cases.start_B[rows], cases.stop_B[rows])
    said = model.predict(histories, cases.asof_B[rows])
    found: dict[str, dict[str, Any]] = {}
    for head, chance_BC in said.intents.items():
        kept = [declared[head].index(name) for name in said.classes[head]]
        here_TC = one_hot(labels_T[head], len(declared[head]))[:, kept]
        rest_TC = here_TC + rest_of_session(labels_T[head], cases.timeline, len(declared[head]))[:, kept]
        asked = {head: (chance_BC.astype(np.float64), np.eye(len(kept), dtype=np.int32))}
        share_B, both = continuing(said.intents, said.classes), sides(said.classes[head])
        if head == Intent.ACTION.value and share_B is not None and both is not None:
            side_C2 = np.stack(both, axis=1).astype(np.int32)
            asked[LAYOUT] = (np.stack([1.0 - share_B, share_B], axis=1), side_C2)
        for name, (given_BX, class_CX) in asked.items():
            prior_X = (here_TC[learned_T] @ class_CX).sum(axis=0) + 1.0
            found[name] = {
                horizon: _figures(
                    given_BX, prior_X / prior_X.sum(), (wanted_TC @ class_CX)[cases.stop_B[rows]],
                    cases.actor_B[rows], resamples, seed,
                )
                for horizon, wanted_TC in ((NEXT, here_TC), (REST, rest_TC))
            }  # fmt: skip
    return found


def _figures(
    chance_BC: NDArray[np.float64],
    prior_C: NDArray[np.float64],
    counts_BC: NDArray[np.int32],
    actor_B: NDArray[np.int64],
    resamples: int,
    seed: int,
) -> dict[str, Any]:
    some_B = counts_BC.sum(axis=1) > 0
    if not some_B.any():
        return {"cases": 0}
    counts_BC, chance_BC, actor_B = counts_BC[some_B], chance_BC[some_B], actor_B[some_B]
    share_BC = counts_BC / counts_BC.sum(axis=1, keepdims=True)
    prior_BC = np.broadcast_to(prior_C, chance_BC.shape)
    values_BM = np.column_stack(
        [
            one_BC
            for given_BC in (chance_BC, prior_BC)
            for one_BC in (
                counts_BC[np.arange(len(counts_BC)), given_BC.argmax(axis=1)] > 0,
                -(share_BC * np.log(np.maximum(given_BC, LEAST))).sum(axis=1),
            )
        ]
    ).astype(np.float64)
    gain_B = values_BM[:, 3] - values_BM[:, 1]
    means_RM = resampled_means(gain_B[:, None], actor_B, resamples=resamples, seed=seed)
    gain = figure(float(gain_B.mean()), means_RM[:, 0], len(np.unique(actor_B)))
    hit, loss, prior_hit, prior_loss = values_BM.mean(axis=0).tolist()
    return {
        "cases": len(gain_B),
        "hit": hit,
        "hit_prior": prior_hit,
        "log_loss": loss,
        "log_loss_prior": prior_loss,
        "gain": {"value": gain.value, "low": gain.low, "high": gain.high},
    }
