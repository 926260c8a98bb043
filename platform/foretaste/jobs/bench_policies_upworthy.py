"""Bandits on real headlines: arms of Upworthy's tests, replayed with their observed click rates as the truth.

Every policy reads the same posterior (logistic, a weight of the test and one of each arm, priors measured on other
tests) and publishes it anew every `BATCH` rounds, as a service does; given a posterior its choices are independent, so
a batch is drawn at once from `distribution`. Settings are chosen on one half of the tests, figures are of the other.

Shapes: A arms of a test.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from numpy.typing import NDArray

from foretaste.jobs.bench_options import BenchOptions
from foretaste.ops.telemetry import say
from foretaste.policies.contextual import LinUCB, LogisticThompson, Published
from foretaste.policies.epsilon_greedy import EpsilonGreedy
from foretaste.policies.exploration import Exploration
from foretaste.policies.plackett_luce import PlackettLuce
from foretaste.policies.posterior import Posterior, PosteriorConfig
from foretaste.policies.slate import dice
from foretaste.policies.worth import Scale

FILE = Path("upworthy_sound_weeks.parquet")
WHERE = Path("../shared/data/upworthy")
ROUNDS, BATCH = 10_000, 100
CHOOSING, MEASURED = 60, 300
QUICK_CHOOSING, QUICK_MEASURED = 6, 16
FEW_CLICKS = 10
EPSILONS = (0.01, 0.02, 0.05, 0.1, 0.2)
TEMPERATURES = (0.05, 0.1, 0.2)
WIDTHS = (0.25, 0.5, 1.0)
ALPHAS = (0.5, 1.0, 2.0)
FALLING = (10.0, 50.0, 200.0)
"""Epsilon is this times the arms over the rounds so far (Auer, Cesa-Bianchi and Fischer, 2002)."""

Choice = Callable[[Published, NDArray[np.float64], NDArray[np.float64], int], NDArray[np.float64]]
"""From a posterior, the arms' features, their scores without it and the rounds so far to shares of the arms."""


@dataclass(frozen=True, slots=True)
class Test:
    """One test with its arms."""

    test_id: str
    rate_A: NDArray[np.float64]  # observed


@dataclass(frozen=True, slots=True)
class Prior:
    """How rates differ, as log odds: their mean, and deviations between tests and between arms of a test."""

    mean: float
    between_tests: float
    between_arms: float


def upworthy(options: BenchOptions) -> dict[str, Any]:
    """Best-arm regret of each policy over 10,000 rounds, and of Thompson sampling against the best epsilon-greedy."""
    path = (options.source or WHERE) / FILE if options.source is None or options.source.is_dir() else options.source
    if not path.is_file():
        return {"figures": {}, "bars": {}, "skipped": {"upworthy": f"no {path}: name its folder with --from"}}
    choosing, measured = (QUICK_CHOOSING, QUICK_MEASURED) if options.quick else (CHOOSING, options.size or MEASURED)
    tests, prior = read(path)
    half = len(tests) // 2
    chosen, settings = chosen_settings(tests[:half][:choosing], prior)
    regret = {name: played(choice, tests[half:][:measured], prior, say_as=name) for name, choice in chosen.items()}
    num = len(tests[half:][:measured])
    figures: dict[str, Any] = {
        f"upworthy: {name}": {
            "regret": round(float(found.mean()), 2),
            "interval": [round(value, 2) for value in interval(found)],
            "setting": settings.get(name),
        }
        for name, found in regret.items()
    }
    less = regret["Thompson"] - regret["epsilon-greedy"]
    low, high = interval(less)
    figures["upworthy"] = {
        "tests": num, "rounds": ROUNDS, "batch": BATCH, "chosen on": choosing, "seed": 0,
        "Thompson less epsilon-greedy": round(float(less.mean()), 2), "interval": [round(low, 2), round(high, 2)],
        "share of regret": round(float(regret["Thompson"].sum() / regret["epsilon-greedy"].sum()), 3),
        "prior": [round(prior.mean, 3), round(prior.between_tests, 3), round(prior.between_arms, 3)],
    }  # fmt: skip
    name = f"clicks lost to the best arm over {ROUNDS:,} rounds, Thompson less the best epsilon-greedy, upper end (95%)"
    return {"figures": figures, "bars": {name: {"value": round(high, 2), "want": "< 0", "holds": high < 0.0}}}


def read(path: Path) -> tuple[list[Test], Prior]:
    """Tests in an order by dice, and how rates differ in the first half of them. Raises ValueError without columns."""
    table = pq.read_table(path, columns=["clickability_test_id", "impressions", "clicks"])
    ids = np.asarray(table["clickability_test_id"].to_pylist())
    shown, clicks = (np.asarray(table[name], dtype=np.float64) for name in ("impressions", "clicks"))
    names, of_arm = np.unique(ids, return_inverse=True)
    enough = np.bincount(of_arm, clicks) >= FEW_CLICKS
    enough &= (np.bincount(of_arm) >= 2) & (np.bincount(of_arm, shown <= 0) == 0)
    order = [int(test) for test in dice(0).permutation(len(names)) if enough[test]]
    arms = [np.flatnonzero(of_arm == test) for test in order]
    tests = [Test(str(names[test]), clicks[a] / shown[a]) for test, a in zip(order, arms, strict=True)]
    return tests, _prior([np.log((clicks[a] + 0.5) / (shown[a] - clicks[a] + 0.5)) for a in arms[: len(arms) // 2]])


def _prior(odds: Sequence[NDArray[np.float64]]) -> Prior:
    """By moments, of the observed rates: these are the truth here, what chance there was in them included."""
    num = np.array([len(one) for one in odds])
    of_arms = float(np.average([one.var(ddof=1) for one in odds], weights=num - 1))
    means = np.array([one.mean() for one in odds])
    return Prior(float(means.mean()), max(0.01, float(means.var(ddof=1) - (of_arms / num).mean())) ** 0.5, of_arms**0.5)


def chosen_settings(tests: Sequence[Test], prior: Prior) -> tuple[dict[str, Choice], dict[str, float]]:
    """Each policy at the setting that loses least in these tests."""
    families: dict[str, tuple[Callable[[float], Choice], Sequence[float]]] = {
        "Thompson": (_thompson, WIDTHS),
        "epsilon-greedy": (lambda value: _greedy(lambda rounds, arms: value), EPSILONS),
        "epsilon-greedy, falling": (lambda value: _greedy(lambda n, arms: min(1.0, value * arms / (n + 1))), FALLING),
        "Plackett-Luce": (_softmax, TEMPERATURES),
        "LinUCB": (_upper_bound, ALPHAS),
    }
    chosen: dict[str, Choice] = {"Thompson, as it is": _thompson(1.0), "even": _greedy(lambda rounds, arms: 1.0)}
    settings = {}
    for name, (family, values) in families.items():
        lost = {value: float(played(family(value), tests, prior).mean()) for value in values}
        settings[name] = min(lost, key=lost.__getitem__)
        chosen[name] = family(settings[name])
        say(f"{name}: {', '.join(f'{value:g} loses {clicks:.1f}' for value, clicks in lost.items())}")
    return chosen, settings


def played(choice: Choice, tests: Sequence[Test], prior: Prior, *, say_as: str | None = None) -> NDArray[np.float64]:
    """Expected clicks that each test loses to its best arm."""
    found = np.array([_regret(choice, test, prior, seed=number) for number, test in enumerate(tests)])
    if say_as is not None:
        say(f"{say_as:<26} loses {found.mean():.2f} clicks of a test's {ROUNDS:,} rounds")
    return found


def _regret(choice: Choice, test: Test, prior: Prior, *, seed: int) -> float:
    num, rng = len(test.rate_A), dice(seed)
    x_AD = np.concatenate([np.full((num, 1), prior.between_tests / prior.between_arms), np.eye(num)], axis=1)
    config = PosteriorConfig(kind="logistic", prior_precision=prior.between_arms**-2)
    posterior, scores_A = Posterior.of(config, num + 1), np.full(num, prior.mean)
    lost = 0.0
    for rounds in range(0, ROUNDS, BATCH):
        share_A = choice(Published.of(posterior), x_AD, scores_A, rounds)
        times_A = rng.multinomial(BATCH, share_A / share_A.sum())
        clicks_A = rng.binomial(times_A, test.rate_A)
        lost += float(times_A @ (test.rate_A.max() - test.rate_A))
        tried = times_A > 0
        evidence = posterior.gathered(
            x_AD[tried],
            clicks_A[tried] / times_A[tried],
            weight_R=times_A[tried].astype(np.float64),
            offset_R=scores_A[tried],
        )
        posterior = posterior.learned(evidence)
    return lost


def _thompson(width: float) -> Choice:
    def choice(
        known: Published, x_AD: NDArray[np.float64], scores_A: NDArray[np.float64], rounds: int
    ) -> NDArray[np.float64]:
        return LogisticThompson(posterior=known, width=width).distribution(scores_A, (), features_CD=x_AD)

    return choice


def _greedy(epsilon: Callable[[int, int], float]) -> Choice:
    def choice(
        known: Published, x_AD: NDArray[np.float64], scores_A: NDArray[np.float64], rounds: int
    ) -> NDArray[np.float64]:
        return EpsilonGreedy(epsilon(rounds, len(x_AD))).distribution(scores_A + x_AD @ known.mean_D, ())

    return choice


def _softmax(temperature: float) -> Choice:
    def choice(
        known: Published, x_AD: NDArray[np.float64], scores_A: NDArray[np.float64], rounds: int
    ) -> NDArray[np.float64]:
        return PlackettLuce(temperature=temperature).distribution(scores_A + x_AD @ known.mean_D, ())

    return choice


def _upper_bound(alpha: float) -> Choice:
    def choice(
        known: Published, x_AD: NDArray[np.float64], scores_A: NDArray[np.float64], rounds: int
    ) -> NDArray[np.float64]:
        policy = LinUCB(posterior=known, alpha=alpha, scale=Scale.LOGIT, exploration=Exploration())
        return policy.distribution(scores_A, (), features_CD=x_AD)

    return choice


def interval(values: NDArray[np.float64]) -> tuple[float, float]:
    """Of the mean over tests, 95%, by 2,000 resamples."""
    means = values[dice(1).integers(len(values), size=(2_000, len(values)))].mean(axis=1)
    low, high = np.quantile(means, (0.025, 0.975)).tolist()
    return low, high
