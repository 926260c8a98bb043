"""What a trained ranker is worth: the epoch that is kept, its calibration, and its lift over the intent model's order.

Shapes: B cases, C candidates, H heads, A actors.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from foretaste.models.calibration import fit_line
from foretaste.models.ranker_heads import Head
from foretaste.training.ranker_cases import REPORT, RankerCases
from foretaste.training.ranker_task import Folded, named, ndcg, out_of_fold, places

LEAST_POSITIVES = 20
"""Labels that are not 0 below which a head is not taught."""


def labels_of(cases: RankerCases) -> dict[Head, NDArray[np.float32]]:
    """What each head is to predict, NaN where it is not known; float32[B, C] each."""
    played_BC = np.where(cases.real_BC, cases.chosen_BC, np.nan).astype(np.float32)
    labels = (played_BC, cases.fraction_BC, cases.thumb_BC, np.where(cases.real_BC, cases.listed_BC, np.nan))
    return dict(zip(Head, labels, strict=True))


def taught(cases: RankerCases) -> dict[Head, dict[str, float]]:
    """How many labels each head has and their mean, without those of which the log tells too little."""
    found = {}
    for head, label_BC in labels_of(cases).items():
        known = label_BC[~np.isnan(label_BC)]
        if head is Head.PLAY or (known > 0).sum() >= LEAST_POSITIVES:
            found[head] = {"labels": float(len(known)), "share": float(known.mean()) if len(known) else 0.0}
    return found


def chosen_epoch(
    make_networks: Callable[[], Folded], state: Mapping[str, Any], cases: RankerCases
) -> tuple[Folded, int]:
    """The networks of the best epoch, or the untrained ones (epoch 0, the intent order).

    Those trained have to be better on actors whom they have not learned from by more than the standard error of that.
    """
    trained = make_networks()
    trained.load_state_dict(state["best"])
    learned = cases.rows(np.flatnonzero(cases.fold_B != REPORT))
    gain_B = ndcg(places(out_of_fold(trained, learned)[..., 0], learned)) - ndcg(named(learned))
    gain, error = mean_by_actor(gain_B, learned.actor_B)
    return (trained, int(state["best_epoch"])) if gain > error else (make_networks(), 0)


def calibrate(networks: Folded, cases: RankerCases, heads: Mapping[Head, Any]) -> dict[Head, tuple[float, float]]:
    """Line of each head that is on, fitted on what networks say of actors that they have not learned from."""
    learned = cases.rows(np.flatnonzero(cases.fold_B != REPORT))
    logits_BCH = out_of_fold(networks, learned)
    lines = {}
    for place, (head, label_BC) in enumerate(labels_of(learned).items()):
        known_BC = ~np.isnan(label_BC)
        if head in heads and known_BC.any():
            lines[head] = fit_line(logits_BCH[..., place][known_BC], label_BC[known_BC])
    return lines


def lift(networks: Folded, cases: RankerCases) -> dict[str, float]:
    """What the ranker adds to the intent model's order, with 95% intervals by actors.

    `lift` is of the actors whom nothing was learned from or chosen by; `lift_out_of_fold` of the others, each by the
    network that has not learned from them, but the epoch was chosen by their mean.
    """
    logits_BCH = out_of_fold(networks, cases)
    before_B, after_B = ndcg(named(cases)), ndcg(places(logits_BCH[..., 0], cases))
    figures: dict[str, float] = {}
    for suffix, mine in (("", cases.fold_B == REPORT), ("_out_of_fold", cases.fold_B != REPORT)):
        if not mine.any():
            continue
        gain, error = mean_by_actor(after_B[mine] - before_B[mine], cases.actor_B[mine])
        figures |= {
            f"ndcg{suffix}": float(after_B[mine].mean()),
            f"intent_ndcg{suffix}": float(before_B[mine].mean()),
            f"lift{suffix}": gain,
            f"lift_low{suffix}": gain - 1.96 * error,
            f"lift_high{suffix}": gain + 1.96 * error,
            f"reached{suffix}": float((named(cases)[mine] >= 0).mean()),
            f"cases{suffix}": float(mine.sum()),
        }
    return figures


def mean_by_actor(value_B: NDArray[np.float64], actor_B: NDArray[np.int64]) -> tuple[float, float]:
    """Mean over cases, and its standard error where the cases of an actor go together (linearised ratio)."""
    _, place_B = np.unique(actor_B, return_inverse=True)
    off_A = np.bincount(place_B, weights=value_B - value_B.mean())
    number = len(off_A)
    spread = number / max(1, number - 1) * float((off_A**2).sum())
    return float(value_B.mean()), float(np.sqrt(spread) / len(value_B))
