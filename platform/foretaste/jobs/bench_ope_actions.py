"""Estimates over thousands of titles: clusters and a regression against the weights of titles, of groups, and neither.

The published world cannot be learned: what a feature is worth hangs on the cluster, so the gain is the clusters'.
A second world, where features are worth the same everywhere, shows what the regression adds, and found clusters.

Shapes: R rounds, X members, A titles, W worlds, L logs of each, B resamples.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from foretaste.evaluation.offpolicy.cluster_search import searched
from foretaste.evaluation.offpolicy.embeddings import Choices, chosen_features, groups_of, mips, offcem
from foretaste.evaluation.offpolicy.reward_regression import Predicted, two_steps
from foretaste.evaluation.offpolicy.synthetic_catalogue import (
    CatalogueLog,
    CatalogueWorld,
    CatalogueWorldConfig,
    dummies,
)
from foretaste.evaluation.offpolicy.terms import Sums, Terms
from foretaste.jobs.bench_options import BenchOptions
from foretaste.jobs.settings import Settings
from foretaste.ops.telemetry import say

SIZES, NUM_WORLDS, NUM_LOGS = (2_000, 5_000), 8, 10
QUICK_SIZES, QUICK_WORLDS, QUICK_LOGS = (300,), 2, 3
LEARNABLE = {"alike": True, "title_spread": 3.0, "num_rounds": 10_000}
LEARNABLE_WORLDS, LEARNABLE_LOGS = 5, 4
SEARCHED = (20, 50, 150, 400)
FOLDS, TRUTH_MEMBERS, RESAMPLES = 2, 2_000, 2_000
OURS = "offcem"
COMPARATORS = {
    "snips": ("snips",),
    "dr": ("dr", "dr, self-normalised"),
    "mips": (
        "mips, all features",
        "mips, all features, self-normalised",
        "mips, chosen",
        "mips, chosen, self-normalised",
    ),
}
"""Every setting of each: the best of all of them, in hindsight, is what ours is held against."""


def actions(settings: Settings, options: BenchOptions) -> dict[str, Any]:
    """Squared errors over logs of the published world at 2,000 and 5,000 titles; figures and bars."""
    sizes, worlds, logs = (
        (QUICK_SIZES, QUICK_WORLDS, QUICK_LOGS) if options.quick else (SIZES, options.seeds or NUM_WORLDS, NUM_LOGS)
    )
    figures: dict[str, Any] = {}
    bars: dict[str, Any] = {}
    for num_titles in sizes:
        config = CatalogueWorldConfig(num_titles=num_titles)
        errors = _errors(config, worlds, logs, settings.evaluation.seed)
        named = f"{num_titles:,} titles"
        figures[named] = {"world": config.model_dump(), "worlds": worlds, "logs": logs, **_figures(errors)}
        ratio = figures[named]["over the best"]
        bars[f"squared error over that of the best of SNIPS, DR and MIPS, {named}"] = {
            "value": ratio["value"],
            "interval": ratio["interval"],
            "want": "<= 0.5",
            "holds": ratio["value"] <= 0.5,
        }
    config = CatalogueWorldConfig.model_validate({"num_titles": sizes[0], **LEARNABLE})
    worlds, logs = (1, 2) if options.quick else (LEARNABLE_WORLDS, LEARNABLE_LOGS)
    errors = _errors(config, worlds, logs, settings.evaluation.seed)
    named = f"{sizes[0]:,} titles, what they earn can be learned"
    figures[named] = {"world": config.model_dump(), "worlds": worlds, "logs": logs, **_figures(errors)}
    return {"figures": figures, "bars": bars, "skipped": {}}


def _errors(config: CatalogueWorldConfig, worlds: int, logs: int, seed: int) -> dict[str, NDArray[np.float64]]:
    """Estimate minus truth of each estimator: name -> float64[W, L]."""
    found: dict[str, NDArray[np.float64]] = {}
    for number in range(worlds):
        rng = np.random.default_rng([seed, config.num_titles, number])
        world = CatalogueWorld.drawn(config, rng)
        truth = world.truth(TRUTH_MEMBERS, rng)
        for log in range(logs):
            for name, terms in _estimates(world, world.log(rng), rng).items():
                found.setdefault(name, np.zeros((worlds, logs)))[number, log] = Sums.of(terms).value - truth
        mean = {name: float((errors_WL[number] ** 2).mean()) for name, errors_WL in found.items()}
        say(f"{config.num_titles:>6,} titles, world {number}: ours {mean[OURS]:.2f}, SNIPS {mean['snips']:.2f}")
    return found


def _estimates(world: CatalogueWorld, log: CatalogueLog, rng: np.random.Generator) -> dict[str, Terms]:
    """All estimators on one log; those that need a reward model have the same."""
    config, reward_R = world.config, log.reward_R
    choices = Choices(log.context_R, log.action_R, reward_R, log.logging_XA, log.target_XA)
    numbers_XN = np.column_stack([np.ones(len(log.numbers_XC)), log.numbers_XC])
    dummies_AE = dummies(world.feature_AD, config.num_values)
    model = two_steps(choices, numbers_XN, dummies_AE, world.cluster_A, folds=FOLDS, rng=rng)
    weight_R = choices.weight_R
    all_R = choices.group_weight_R(groups_of(world.feature_AD))
    cluster_R = choices.group_weight_R(world.cluster_A)
    _, chosen_R = chosen_features(choices, world.feature_AD)
    found = {
        "snips": mips(reward_R, weight_R, normalised=True),
        "dr": _doubly_robust(reward_R, weight_R, model, normalised=False),
        "dr, self-normalised": _doubly_robust(reward_R, weight_R, model, normalised=True),
        "mips, all features": mips(reward_R, all_R),
        "mips, all features, self-normalised": mips(reward_R, all_R, normalised=True),
        "mips, chosen": mips(reward_R, chosen_R),
        "mips, chosen, self-normalised": mips(reward_R, chosen_R, normalised=True),
        OURS: _doubly_robust(reward_R, cluster_R, model, normalised=True),
        "offcem, not self-normalised": _doubly_robust(reward_R, cluster_R, model, normalised=False),
        "direct method": Terms(len(reward_R), base_R=model.expected_R),
        "mips on the clusters of ours": mips(reward_R, cluster_R),
        "mips on the clusters of ours, self-normalised": mips(reward_R, cluster_R, normalised=True),
    }
    if config.alike:
        sizes = [size for size in SEARCHED if size < config.num_titles]
        searching = searched(choices, numbers_XN, dummies_AE, sizes=sizes, folds=FOLDS, rng=rng)
        found["offcem, clusters found"] = searching.terms
    return found


def _doubly_robust(
    reward_R: NDArray[np.float64], weight_R: NDArray[np.float64], model: Predicted, *, normalised: bool
) -> Terms:
    """The same formula whatever the weights are of: of titles it is DR, of clusters OffCEM."""
    return offcem(reward_R, weight_R, model.predicted_R, model.expected_R, normalised=normalised)


def _figures(errors: dict[str, NDArray[np.float64]]) -> dict[str, Any]:
    squared = {name: errors_WL**2 for name, errors_WL in errors.items()}
    rows = {
        name: {
            "squared error": round(float(squared[name].mean()), 3),
            "bias": round(float(errors_WL.mean()), 3),
            "standard deviation": round(float(errors_WL.std()), 3),
        }
        for name, errors_WL in errors.items()
    }
    compared = [name for names in COMPARATORS.values() for name in names]
    over = {"over the best": compared, "over clusters without regression": [n for n in rows if "clusters" in n]}
    return {"estimators": rows, **{key: _ratio(squared, names) for key, names in over.items()}}


def _ratio(squared: dict[str, NDArray[np.float64]], names: list[str]) -> dict[str, Any]:
    """Ours over the best of the names; for the interval worlds and then logs are drawn again, and the best is anew."""
    ours_WL, theirs_NWL = squared[OURS], np.stack([squared[name] for name in names])
    worlds, logs = ours_WL.shape
    rng = np.random.default_rng(0)
    world_BW1 = rng.integers(worlds, size=(RESAMPLES, worlds, 1))
    log_BWL = rng.integers(logs, size=(RESAMPLES, worlds, logs))
    ours_B = ours_WL[world_BW1, log_BWL].mean(axis=(1, 2))
    best_B = theirs_NWL[:, world_BW1, log_BWL].mean(axis=(2, 3)).min(axis=0)
    means_N = theirs_NWL.mean(axis=(1, 2))
    return {
        "value": round(float(ours_WL.mean() / means_N.min()), 3),
        "interval": [round(float(end), 3) for end in np.quantile(ours_B / best_B, [0.025, 0.975])],
        "best": names[int(means_N.argmin())],
    }
