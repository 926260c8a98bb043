"""Whether policies do what they log, over 200,000 lists of each, and what a list costs them.

Shapes: C candidates of the pool, D features of a candidate.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import chisquare

from foretaste.jobs.bench_options import BenchOptions
from foretaste.ops.telemetry import say
from foretaste.policies.by_place import ByPlace
from foretaste.policies.contextual import LinearThompson, LinUCB, LogisticThompson, NeuralThompson, Published
from foretaste.policies.epsilon_greedy import BoundedEpsilonGreedy, EpsilonGreedy
from foretaste.policies.exploration import Exploration
from foretaste.policies.plackett_luce import PlackettLuce
from foretaste.policies.posterior import Posterior, PosteriorConfig
from foretaste.policies.slate import Slate, dice
from foretaste.policies.worth import Scale

DRAWS, QUICK_DRAWS = 200_000, 4_000
K = 3
LEAST_P = 0.001
FEW = 5.0
"""Slates that are expected less often than this are counted together."""
POOLS: dict[str, list[float]] = {
    "spread, some negative": [0.3, -1.0, 2.5, 0.0, 1.1, -0.2],
    "ties": [1.0, 1.0, 0.5, 1.0, 0.5, 0.5],
    "all zero": [0.0, 0.0, -0.0, 0.0, 0.0, 0.0],
    "all negative": [-5.0, -1.0, -3.0, -1.0, -2.0, -9.0],
}
WIDTH, CANDIDATES, PLACES = 33, 100, 10
Policy = EpsilonGreedy | ByPlace
Key = tuple[int, ...]


def posterior(kind: str, width: int) -> Published:
    """What was learned from a few hundred made-up rounds."""
    prior = Posterior.of(PosteriorConfig.model_validate({"kind": kind}), width)
    x_RD = dice(1).normal(size=(300, width)) / np.sqrt(width)
    reward_R = (dice(2).random(300) < 1.0 / (1.0 + np.exp(-x_RD[:, 0]))).astype(np.float64)
    return Published.of(prior.learned(prior.gathered(x_RD, reward_R)))


def policies(width: int) -> dict[str, Policy]:
    """Every policy, without bounds and with all of them, and behind protected places."""
    linear, logistic = posterior("linear", width), posterior("logistic", width)
    bounds = Exploration(epsilon=0.2, among=4, cold_share=0.15, budget=0.3)
    cold, protected = (1, 3), (1,)
    return {
        "greedy": EpsilonGreedy(0.0),
        "epsilon-greedy": EpsilonGreedy(0.2),
        "epsilon-greedy, protected": EpsilonGreedy(0.4, protected),
        "epsilon-greedy, bounded": BoundedEpsilonGreedy(exploration=bounds, cold=cold, scale=Scale.VALUE),
        "Plackett-Luce": PlackettLuce(temperature=0.7),
        "Plackett-Luce, bounded, protected": PlackettLuce(exploration=bounds, cold=cold, protected=protected),
        "LinUCB": LinUCB(posterior=linear, alpha=2.0),
        "LinUCB, bounded": LinUCB(posterior=linear, alpha=2.0, exploration=bounds, cold=cold),
        "linear Thompson": LinearThompson(posterior=linear),
        "logistic Thompson": LogisticThompson(posterior=logistic),
        "logistic Thompson, bounded, protected": LogisticThompson(
            posterior=logistic, exploration=bounds, cold=cold, protected=protected
        ),
        "neural-linear Thompson": NeuralThompson(posterior=logistic, exploration=Exploration(epsilon=0.05)),
    }


def propensities(options: BenchOptions) -> dict[str, Any]:
    """Chi-square tests of every policy, pool and place, and of whole lists; figures and bars."""
    draws = options.size or (QUICK_DRAWS if options.quick else DRAWS)
    figures: dict[str, Any] = {}
    tests: list[float] = []
    wrong = 0
    for name, policy in policies(WIDTH).items():
        least, started = 1.0, time.process_time()
        for number, values in enumerate(POOLS.values()):
            scores_C = np.array(values)
            x_CD = dice(3).normal(size=(len(values), WIDTH))
            found, differing = drawn_p_values(policy, scores_C, x_CD, draws=draws, seed=number)
            wrong += differing
            tests += found
            least = min([least, *found])
        figures[f"propensities: {name}"] = {"smallest p": least, "cpu_s": round(time.process_time() - started, 1)}
        say(f"{name:<40} smallest p {least:.4f}")
    figures["propensities"] = {"draws": draws, "tests": len(tests), "smallest p": min(tests), "seed": 0}
    bars = {
        f"smallest p of {len(tests)} chi-square tests over {draws:,} lists": {
            "value": round(min(tests), 5), "want": f">= {LEAST_P}", "holds": min(tests) >= LEAST_P,
        },
        "lists logged with another propensity than the enumerated one": {
            "value": wrong, "want": "== 0", "holds": wrong == 0,
        },
    }  # fmt: skip
    return {"figures": figures, "bars": bars}


def drawn_p_values(
    policy: Policy, scores_C: NDArray[np.float64], x_CD: NDArray[np.float64], *, draws: int, seed: int
) -> tuple[list[float], int]:
    """P-values of each place and of whole lists (1 where nothing is left to dice), and lists logged otherwise."""
    expected = enumerated(policy, scores_C, x_CD)
    draw, rng = drawer(policy, scores_C, x_CD), dice(seed)
    seen: Counter[Key] = Counter()
    logged: dict[Key, float] = {}
    for _ in range(draws):
        slate = draw(rng)
        key = tuple(slate.order_K.tolist())
        seen[key] += 1
        if key not in logged:
            logged[key] = slate.slate_propensity
    differing = sum(not np.isclose(value, expected.get(key, -1.0), rtol=1e-9) for key, value in logged.items())
    of_places = [p_value(at_place(seen, place), at_place(expected, place), draws) for place in range(K)]
    return [p_value(seen, expected, draws), *of_places], differing


def drawer(
    policy: Policy, scores_C: NDArray[np.float64], x_CD: NDArray[np.float64]
) -> Callable[[np.random.Generator], Slate]:
    """Draw lists of one pool, without computing what all of them share anew."""
    if isinstance(policy, EpsilonGreedy):
        return lambda rng: policy.choose(scores_C, k=K, rng=rng)
    places = policy.places(scores_C, features_CD=x_CD)
    return lambda rng: places.fill(K, rng)


def enumerated(policy: Policy, scores_C: NDArray[np.float64], x_CD: NDArray[np.float64]) -> dict[Key, float]:
    """Every possible list with its probability."""
    slates: dict[Key, float] = {(): 1.0}
    for _ in range(K):
        longer: dict[Key, float] = {}
        for placed, probability in slates.items():
            for one, share in enumerate(policy.distribution(scores_C, placed, features_CD=x_CD).tolist()):
                if share > 0.0:
                    longer[(*placed, one)] = probability * share
        slates = longer
    return slates


def at_place(slates: Mapping[Key, float], place: int) -> dict[Key, float]:
    """What stands at one place, summed over lists."""
    found: dict[Key, float] = {}
    for key, number in slates.items():
        found[(key[place],)] = found.get((key[place],), 0.0) + number
    return found


def p_value(seen: Mapping[Key, float], expected: Mapping[Key, float], draws: int) -> float:
    """Of a chi-square test, rare ones together; 0 where something was drawn that cannot be."""
    if set(seen) - set(expected):
        return 0.0
    often = [key for key, share in expected.items() if share * draws >= FEW]
    counts = [float(seen.get(key, 0)) for key in often]
    wanted = [expected[key] * draws for key in often]
    if len(often) < len(expected):
        counts.append(draws - sum(counts))
        wanted.append(draws - sum(wanted))
    if len(counts) < 2:
        return 1.0
    if wanted[-1] < FEW and len(counts) > 2:  # all rare ones together are rare still
        counts[-2:], wanted[-2:] = [sum(counts[-2:])], [sum(wanted[-2:])]
    return float(chisquare(counts, np.array(wanted) * draws / sum(wanted)).pvalue)


def cost(options: BenchOptions) -> dict[str, Any]:
    """CPU-time of a list of 10 from a pool of 100 with 33 features, in turns, beside epsilon-greedy's."""
    rounds, each = (3, 10) if options.quick else (15, 40)
    x_CD = dice(3).normal(size=(CANDIDATES, WIDTH))
    scores_C = -np.sort(-dice(4).normal(size=CANDIDATES))
    took: dict[str, list[float]] = {}
    known = policies(WIDTH)
    for number in range(rounds):
        for name, policy in known.items():
            started = time.process_time()
            for turn in range(each):
                policy.choose(scores_C, k=PLACES, rng=dice(number * each + turn), features_CD=x_CD)
            took.setdefault(name, []).append((time.process_time() - started) / each)
    of = float(np.median(took["epsilon-greedy"]))
    figures = {
        f"cost: {name}": {
            "cpu_ms": round(1e3 * float(np.median(times)), 3),
            "times epsilon-greedy": round(float(np.median(times)) / of, 1),
        }
        for name, times in took.items()
    }
    for name, found in figures.items():
        say(f"{name:<46} {found['cpu_ms']:.3f} CPU-ms, {found['times epsilon-greedy']:.1f} times epsilon-greedy")
    return {"figures": figures}
