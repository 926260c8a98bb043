"""Estimators by hand, over all that a policy could have logged, and in blocks of any size."""

from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from foretaste.evaluation.offpolicy.estimators import (
    CLIPPED_IPS,
    DM,
    DR,
    DROS,
    EVERY,
    HARMONIC_IPS,
    IPS,
    REPLAY,
    SNDR,
    SNIPS,
    SWITCH_DR,
    Estimator,
)
from foretaste.evaluation.offpolicy.rounds import Floats, Rounds
from foretaste.evaluation.offpolicy.stream import Summary, cut, estimate, summarise
from foretaste.evaluation.offpolicy.terms import Sums, Terms

HAND = Rounds.of(
    action=[0, 1, 1, 0],
    reward=[1.0, 0.0, 2.0, 1.0],
    propensity=[0.5, 0.5, 0.25, 0.75],
    target=[[1.0, 0.0], [1.0, 0.0], [0.0, 1.0], [0.3, 0.7]],
    predicted=[[0.5, 1.0]] * 4,
)


def drawn(num_rounds: int = 500, *, seed: int = 0) -> Rounds:
    """Rounds of three actions, of which one earns more."""
    rng = np.random.default_rng(seed)
    logging = np.array([0.6, 0.3, 0.1])
    action = rng.choice(3, size=num_rounds, p=logging)
    target = rng.dirichlet([1.0, 2.0, 1.0], size=num_rounds)
    target[::4] = [0.0, 1.0, 0.0]
    reward = rng.random(num_rounds) + (action == 1)
    predicted = np.array([0.4, 1.2, 0.5]) + rng.random((num_rounds, 3)) / 5
    return Rounds.of(action=action, reward=reward, propensity=logging[action], target=target, predicted=predicted)


@pytest.mark.parametrize(
    ("estimator", "value"),
    [
        (REPLAY, (1 + 2) / 2),
        (IPS, (2 + 0 + 8 + 0.4) / 4),
        (CLIPPED_IPS.tuned(3), (2 + 0 + 6 + 0.4) / 4),
        (SNIPS, (2 + 0 + 8 + 0.4) / (2 + 0 + 4 + 0.4)),
        (HARMONIC_IPS.tuned(0.5), (2 / 1.5 + 0 + 8 / 2.5 + 0.4 / 0.7) / 4),
        (DM, (0.5 + 0.5 + 1.0 + 0.85) / 4),
        (DR, (2.85 + 2 * 0.5 + 0 + 4 * 1.0 + 0.4 * 0.5) / 4),
        (SNDR, 2.85 / 4 + (1 + 4 + 0.2) / 6.4),
        (SWITCH_DR.tuned(3), (2.85 + 1 + 0.2) / 4),
        (DROS.tuned(2), (2.85 + 2 * 2 / 6 * 0.5 + 2 * 4 / 18 + 2 * 0.4 / 2.16 * 0.5) / 4),
    ],
    ids=lambda of: of.name if isinstance(of, Estimator) else "",
)
def test_an_estimate_is_what_it_is_by_hand(estimator: Estimator, value: float) -> None:
    assert estimate(HAND, [estimator])[estimator.name].value == pytest.approx(value, rel=1e-14)
    assert estimator(HAND).per_round_R.mean() == pytest.approx(value, rel=1e-14)


def test_the_ends_of_every_tuning_are_the_estimators_that_they_lie_between() -> None:
    rounds = drawn()
    values = estimate(rounds, [IPS, DM, DR]).values
    for tuned, same in (
        (CLIPPED_IPS.tuned(np.inf), "ips"),
        (HARMONIC_IPS.tuned(0), "ips"),
        (SWITCH_DR.tuned(np.inf), "dr"),
        (SWITCH_DR.tuned(0), "dm"),
        (DROS.tuned(np.inf), "dr"),
        (DROS.tuned(0), "dm"),
    ):
        # Weights of 0 are not above a ceiling of 0, and add nothing.
        assert estimate(rounds, [tuned])[tuned.name].value == pytest.approx(values[same], rel=1e-12), tuned.name


@pytest.mark.parametrize("estimator", [IPS, DR], ids=lambda e: e.name)
def test_over_all_that_could_be_logged_an_unbiased_estimate_is_the_truth(estimator: Estimator) -> None:
    logging_A, target_A, reward_A = np.array([0.7, 0.2, 0.1]), np.array([0.1, 0.3, 0.6]), np.array([1.0, 3.0, -2.0])
    rounds = Rounds.of(
        action=[0, 1, 2],
        reward=reward_A,
        propensity=logging_A,
        target=np.tile(target_A, (3, 1)),
        predicted=np.tile([5.0, -1.0, 0.0], (3, 1)),
    )
    assert logging_A @ estimator(rounds).per_round_R == pytest.approx(target_A @ reward_A)


def test_what_an_estimator_needs_and_does_not_have_is_named() -> None:
    bare = Rounds.of(action=[0], reward=[1.0], propensity=[0.5], target=[0.5])
    with pytest.raises(ValueError, match=r"dr needs \['expected_R', 'predicted_R'\]"):
        DR(bare)
    with pytest.raises(ValueError, match="ips has nothing to tune"):
        IPS.tuned(3)
    with pytest.raises(ValueError, match="dros: wanted a tuning of 0 or more, found -1"):
        DROS.tuned(-1)


def test_no_number_is_made_up_where_no_round_could_have_been_the_targets() -> None:
    never = Rounds.of(action=[0, 0], reward=[1.0, 1.0], propensity=[0.5, 0.5], target=[[0.0, 1.0]] * 2)
    with pytest.raises(ValueError, match="snips: no estimate: of 2 rounds none is one"):
        _ = estimate(never, [SNIPS]).values
    with pytest.raises(ValueError, match="no estimate: of 0 rounds"):
        _ = estimate(never.take(slice(0)), [IPS])["ips"].value
    assert estimate(never, [IPS]).values == {"ips": 0.0}


@given(size=st.integers(1, 600), seed=st.integers(0, 3))
def test_blocks_of_any_size_in_any_order_give_the_same_sums(size: int, seed: int) -> None:
    rounds = drawn(500)
    whole = summarise([rounds], EVERY)
    blocks = list(cut(rounds, size))
    order = np.random.default_rng(seed).permutation(len(blocks))
    parts = [summarise([blocks[number]], EVERY) for number in order]
    found = sum(parts, Summary())
    for name, sums in whole.sums.items():
        np.testing.assert_allclose(found[name].moments_44, sums.moments_44, rtol=1e-12, atol=1e-12)
        assert (found[name].low, found[name].high) == (sums.low, sums.high)
        assert found[name].value == pytest.approx(sums.value, rel=1e-12)
        assert found[name].standard_error == pytest.approx(sums.standard_error, rel=1e-9)


def test_sums_of_other_estimators_are_not_added() -> None:
    with pytest.raises(ValueError, match=r"wanted sums of \['ips'\], found \['snips'\]"):
        estimate(HAND, [IPS]) + estimate(HAND, [SNIPS])


def test_the_standard_error_of_a_mean_is_exact_and_of_a_ratio_that_of_leaving_rounds_out() -> None:
    rounds = drawn(300)
    added_R = DR(rounds).per_round_R
    assert estimate(rounds, [DR])["dr"].standard_error == pytest.approx(added_R.std(ddof=1) / np.sqrt(300))
    for estimator in (SNIPS, SNDR):
        terms = estimator(rounds)
        jackknife = np.sqrt(299 / 300 * ((left_out(terms) - left_out(terms).mean()) ** 2).sum())
        assert estimate(rounds, [estimator])[estimator.name].standard_error == pytest.approx(jackknife, rel=0.02)
    assert np.isnan(Sums.of(DR(rounds.take(slice(1)))).standard_error)


def left_out(terms: Terms) -> Floats:
    """The estimate without each of the rounds."""
    _, base_R, gain_R, mass_R = terms.columns_4R
    base_left_R = (base_R.sum() - base_R) / (len(base_R) - 1)
    left_R: Floats = base_left_R + (gain_R.sum() - gain_R) / (mass_R.sum() - mass_R)
    return left_R


def test_rounds_in_any_order_have_the_same_estimate() -> None:
    for order in permutations(range(4)):
        values = estimate(HAND.take(np.array(order)), EVERY).values
        assert values == pytest.approx(estimate(HAND, EVERY).values, rel=1e-14)


def test_effective_rounds_count_weights_that_are_alike_fully() -> None:
    alike = Rounds.of(action=[0] * 5, reward=[1.0] * 5, propensity=[0.5] * 5, target=[0.25] * 5)
    assert estimate(alike, [SNIPS])["snips"].effective_rounds == pytest.approx(5)
    assert estimate(HAND, [SNIPS])["snips"].effective_rounds == pytest.approx(6.4**2 / (4 + 16 + 0.16))
