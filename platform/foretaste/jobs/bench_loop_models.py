"""Models of the loop's catalogue: those that are to be judged, and the reward model that helps to judge them.

Shapes: S visits, N titles, D features, R rounds.
"""

from __future__ import annotations

import numpy as np

from foretaste.jobs.bench_loop_service import NUMBERS, SCALE, Floats, Layout, Visits, prior_of
from foretaste.policies.contextual import Published

FOLDS = 3


def next_models(warm: Visits, layout: Layout) -> dict[str, Floats]:
    """Weights of models made of what was logged before the period, [D] each; the last two are of the serving one."""
    x_RD, reward_R = warm.rounds(layout)
    numbers_D = np.arange(layout.width) < len(NUMBERS)
    taste_D = np.isin(np.arange(layout.width), [NUMBERS.index(name) for name in ("match", "match squared", "kind")])
    half_R = np.repeat(warm["member"] % 2 == 0, layout.places)
    prior = prior_of("logistic", layout)
    serving = prior.learned(prior.gathered(x_RD, reward_R))
    newer_D = serving.mean_D.copy()
    newer_D[NUMBERS.index("new")] += 1.0 / SCALE
    return {
        "numbers only": _fitted("logistic", layout, x_RD * numbers_D, reward_R),
        "without taste": _fitted("logistic", layout, x_RD * ~taste_D, reward_R),
        "of half of the members": _fitted("logistic", layout, x_RD[half_R], reward_R[half_R]),
        "linear": _fitted("linear", layout, x_RD, reward_R),
        "a draw of the posterior": Published.of(serving).draws_MD[0],
        "newer titles first": newer_D,
    }


def scores(visits: Visits, weights_D: Floats, layout: Layout) -> Floats:
    """Of every title on sale to each visit, [S, N]; -inf for others."""
    numbers = len(NUMBERS)
    own_N = layout.of(np.zeros((layout.titles, numbers)), np.arange(layout.titles)) @ weights_D
    scores_SN = SCALE * visits["all numbers"] @ weights_D[:numbers] + own_N
    return np.where(np.arange(layout.titles) < visits["available"][:, None], scores_SN, -np.inf)


def predictions(visits: Visits, layout: Layout, *, seed: int) -> Floats:
    """What a model learned from other members' visits expects of each title, [S, N]."""
    x_SD, reward_S = visits.rounds(layout)
    members = int(visits["member"].max()) + 1
    fold_S = np.random.default_rng(seed).permutation(np.arange(members) % FOLDS)[visits["member"]]
    predicted_SN = np.zeros((len(visits), layout.titles))
    prior = prior_of("logistic", layout)
    for fold in range(FOLDS):
        learn, predict = fold_S != fold, np.flatnonzero(fold_S == fold)
        known = prior.learned(prior.gathered(x_SD[learn], reward_S[learn]))
        predicted_SN[predict] = 1.0 / (1.0 + np.exp(-scores(visits.take(predict), known.mean_D, layout)))
    return predicted_SN


def _fitted(kind: str, layout: Layout, x_RD: Floats, reward_R: Floats) -> Floats:
    """Mean weights; a feature that is always 0 has that of the prior, 0 but for the constant."""
    prior = prior_of(kind, layout)
    return prior.learned(prior.gathered(x_RD, reward_R)).mean_D
