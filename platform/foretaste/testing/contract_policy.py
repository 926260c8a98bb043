"""What every slate policy has to keep: call `assert_policy` with one in your tests."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from scipy.stats import chisquare

from foretaste.policies.slate import SlatePolicy, dice

SCORES: dict[str, list[float]] = {
    "spread": [0.3, -1.0, 2.5, 0.0, 1.1],
    "ties": [1.0, 1.0, 0.5, 1.0, 0.5],
    "all equal": [0.0, 0.0, 0.0, 0.0],
    "negative": [-5.0, -1.0, -3.0],
    "signed zeros": [0.0, -0.0, 0.0],
    "huge": [1e300, -1e300, 1.0],
    "one": [7.0],
    "none": [],
}
"""Pools of at most five, small enough to enumerate."""

Features = Callable[[int], NDArray[np.float64]]
"""Features of that many candidates, the same ones each time."""


def assert_policy(policy: SlatePolicy, *, seed: int = 0, draws: int = 20_000, features: Features | None = None) -> None:
    """Check every clause of the contract; raises AssertionError naming the pool that breaks it.

    `features` describe the candidates to a policy that reads any.
    """
    for what, values in SCORES.items():
        scores_C = np.array(values, dtype=np.float64)
        for k in (0, 1, 3, 10):
            _assert_slate(policy, scores_C, k=k, seed=seed, what=f"{what}, k={k}", features=features)
    for what in ("spread", "ties", "all equal"):
        scores_C = np.array(SCORES[what])
        _assert_frequencies(policy, scores_C, k=2, seed=seed, draws=draws, what=what, features=features)
    for bad in (np.array([1.0, np.nan]), np.zeros((2, 2))):
        _assert_refused(policy, bad, k=1, features=features)
    _assert_refused(policy, np.array([1.0]), k=-1, features=features)


def _assert_slate(
    policy: SlatePolicy,
    scores_C: NDArray[np.float64],
    *,
    k: int,
    seed: int,
    what: str,
    features: Features | None,
) -> None:
    before = scores_C.copy()
    x_CD = None if features is None else features(len(scores_C))
    slate = policy.choose(scores_C, k=k, rng=dice(seed), features_CD=x_CD)
    again = policy.choose(scores_C, k=k, rng=dice(seed), features_CD=x_CD)
    np.testing.assert_array_equal(scores_C, before, err_msg=f"{what}: scores were changed")
    order = slate.order_K.tolist()
    assert len(slate) == min(k, len(scores_C)), f"{what}: {len(slate)} places"
    assert len(set(order)) == len(order), f"{what}: a candidate stands twice in {order}"
    assert order == again.order_K.tolist(), f"{what}: one seed gave two slates"
    assert slate.propensity_K.tolist() == again.propensity_K.tolist(), f"{what}: one seed gave two propensities"
    assert (slate.propensity_K > 0).all(), f"{what}: chosen with propensity 0"
    assert (slate.propensity_K <= 1.0 + 1e-12).all(), f"{what}: propensity above 1"
    np.testing.assert_allclose(slate.slate_propensity, np.prod(slate.propensity_K), err_msg=what)
    for place, chosen in enumerate(order):
        next_C = policy.distribution(scores_C, order[:place], features_CD=x_CD)
        np.testing.assert_allclose(next_C.sum(), 1.0, atol=1e-12, err_msg=f"{what}: place {place} does not sum to 1")
        assert not next_C[order[:place]].any(), f"{what}: place {place} may repeat a title"
        np.testing.assert_allclose(slate.propensity_K[place], next_C[chosen], rtol=1e-12, err_msg=what)
    if slate.price is not None:
        assert len(slate.price.best_K) == len(slate.price.given_up_K) == len(order), f"{what}: a place has no price"
        assert (slate.price.given_up_K >= 0).all(), f"{what}: more is expected than the best"
        assert (slate.price.given_up_K <= slate.price.best_K * (1 + 1e-12)).all(), f"{what}: more than all is given up"


def _assert_frequencies(
    policy: SlatePolicy,
    scores_C: NDArray[np.float64],
    *,
    k: int,
    seed: int,
    draws: int,
    what: str,
    features: Features | None,
) -> None:
    """Every ordered slate appears as often as its slate propensity says (chi-square, 1 in 10,000)."""
    rng = dice(seed)
    seen: Counter[tuple[int, ...]] = Counter()
    logged: dict[tuple[int, ...], float] = {}
    x_CD = None if features is None else features(len(scores_C))
    for _ in range(draws):
        slate = policy.choose(scores_C, k=k, rng=rng, features_CD=x_CD)
        key = tuple(slate.order_K.tolist())
        seen[key] += 1
        assert abs(logged.setdefault(key, slate.slate_propensity) - slate.slate_propensity) < 1e-12, (
            f"{what}: slate {key} was logged with two propensities"
        )
    expected = _slates(policy, scores_C, k=k, features_CD=x_CD)
    assert set(seen) <= set(expected), f"{what}: slates outside the distribution: {set(seen) - set(expected)}"
    np.testing.assert_allclose(sum(expected.values()), 1.0, atol=1e-9, err_msg=f"{what}: slates do not sum to 1")
    for key, propensity in logged.items():
        np.testing.assert_allclose(propensity, expected[key], rtol=1e-9, err_msg=f"{what}: slate {key}")
    if len(expected) > 1:
        keys = sorted(expected)
        observed = [seen[key] for key in keys]
        result = chisquare(observed, [expected[key] * draws for key in keys])
        assert result.pvalue > 1e-4, f"{what}: frequencies differ from propensities, p = {result.pvalue:.2g}"


def _slates(
    policy: SlatePolicy, scores_C: NDArray[np.float64], *, k: int, features_CD: NDArray[np.float64] | None
) -> dict[tuple[int, ...], float]:
    """Every possible slate with its probability, by enumeration: the slow twin of `choose`."""
    slates: dict[tuple[int, ...], float] = {(): 1.0}
    for _ in range(min(k, len(scores_C))):
        longer: dict[tuple[int, ...], float] = {}
        for placed, probability in slates.items():
            for candidate, share in enumerate(policy.distribution(scores_C, placed, features_CD=features_CD).tolist()):
                if share > 0.0:
                    longer[(*placed, candidate)] = probability * share
        slates = longer
    return slates


def _assert_refused(policy: SlatePolicy, scores: NDArray[np.float64], *, k: int, features: Features | None) -> None:
    try:
        policy.choose(scores, k=k, rng=dice(0), features_CD=None if features is None else features(len(scores)))
    except ValueError:
        return
    raise AssertionError(f"scores {scores.tolist()} with k={k} were not refused")
