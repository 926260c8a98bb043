"""Evidence adds up whoever gathered it, equals the closed forms, fades by time, and comes back to the bit."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.optimize import minimize

from foretaste.policies.posterior import DAY_US, Evidence, Posterior, PosteriorConfig
from foretaste.policies.slate import dice

D = 3
LINEAR = PosteriorConfig(kind="linear", prior_precision=2.0, noise=0.5, noise_rounds=4.0)
LOGISTIC = PosteriorConfig(kind="logistic", prior_precision=0.5)


def rounds(num: int, seed: int = 0) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Features and clicks of a logistic model."""
    x_RD = dice(seed).normal(size=(num, D))
    chance_R = 1 / (1 + np.exp(-(x_RD @ np.array([1.0, -0.5, 0.0]) - 0.5)))
    return x_RD, (dice(seed + 1).random(num) < chance_R).astype(float)


def test_the_linear_posterior_is_ridge_regression_and_its_noise_is_conjugate() -> None:
    x_RD, reward_R = rounds(30)
    prior_D = np.array([0.5, 0.0, -0.5])
    posterior = Posterior.of(LINEAR, prior_D)
    posterior = posterior.learned(posterior.gathered(x_RD, reward_R))
    wide_RD = np.concatenate([x_RD, np.sqrt(2.0) * np.eye(D)])
    mean_D = np.linalg.lstsq(wide_RD, np.concatenate([reward_R, np.sqrt(2.0) * prior_D]))[0]
    np.testing.assert_allclose(posterior.mean_D, mean_D, rtol=1e-10)
    rest = ((reward_R - x_RD @ mean_D) ** 2).sum() + 2.0 * ((mean_D - prior_D) ** 2).sum()
    assert posterior.noise == pytest.approx((4.0 * 0.5 + rest) / 34.0)
    covariance_DD = posterior.root() @ posterior.root().T
    np.testing.assert_allclose(covariance_DD, posterior.noise * np.linalg.inv(x_RD.T @ x_RD + 2.0 * np.eye(D)))


def test_the_logistic_posterior_of_one_batch_is_its_mode_and_its_curvature() -> None:
    x_RD, reward_R = rounds(60)
    offset_R = dice(7).normal(size=60)
    posterior = Posterior.of(LOGISTIC, D)
    posterior = posterior.learned(posterior.gathered(x_RD, reward_R, offset_R=offset_R))

    def cost(at_D: NDArray[np.float64]) -> float:
        odds_R = offset_R + x_RD @ at_D
        return float((np.logaddexp(0, odds_R) - reward_R * odds_R).sum() + 0.25 * at_D @ at_D)

    found = minimize(cost, np.zeros(D), tol=1e-12)
    np.testing.assert_allclose(posterior.mean_D, found.x, atol=1e-5)
    chance_R = 1 / (1 + np.exp(-(offset_R + x_RD @ posterior.mean_D)))
    bend_DD = x_RD.T @ (x_RD * (chance_R * (1 - chance_R))[:, None]) + 0.5 * np.eye(D)
    np.testing.assert_allclose(posterior.precision_DD, bend_DD, rtol=1e-10)


@pytest.mark.parametrize("config", [LINEAR, LOGISTIC], ids=lambda config: config.kind)
def test_evidence_of_replicas_adds_up_in_any_order(config: PosteriorConfig) -> None:
    x_RD, reward_R = rounds(90)
    posterior = Posterior.of(config, D)
    parts = [posterior.gathered(x_RD[rows], reward_R[rows]) for rows in np.split(np.arange(90), 3)]
    a, b, c = parts
    for one, other in ((a.plus(b).plus(c), c.plus(b.plus(a))), (a.plus(b), b.plus(a))):
        np.testing.assert_allclose(one.precision_DD, other.precision_DD, rtol=1e-12)
        np.testing.assert_allclose(one.shift_D, other.shift_D, rtol=1e-9, atol=1e-12)
        assert one.num_rounds == other.num_rounds
    merged = posterior.learned(a).learned(b).learned(c)
    whole = posterior.learned(posterior.gathered(x_RD, reward_R))
    if config.kind == "linear":
        np.testing.assert_allclose(merged.mean_D, whole.mean_D, rtol=1e-9)
    deviation_D = np.sqrt(whole.noise * np.diag(np.linalg.inv(whole.precision_DD)))
    assert (np.abs(merged.mean_D - whole.mean_D) < 0.7 * deviation_D).all()
    assert merged.noise == pytest.approx(whole.noise)


def test_logistic_batches_one_after_another_come_close_to_all_at_once() -> None:
    x_RD, reward_R = rounds(600)
    online = Posterior.of(LOGISTIC, D)
    for rows in np.split(np.arange(600), 60):
        online = online.learned(online.gathered(x_RD[rows], reward_R[rows]))
    whole = Posterior.of(LOGISTIC, D)
    whole = whole.learned(whole.gathered(x_RD, reward_R))
    deviation_D = np.sqrt(np.diag(np.linalg.inv(whole.precision_DD)))
    assert (np.abs(online.mean_D - whole.mean_D) < 0.5 * deviation_D).all()
    np.testing.assert_allclose(np.diag(online.precision_DD), np.diag(whole.precision_DD), rtol=0.1)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 30), st.floats(-3, 3)), min_size=1, max_size=6), st.randoms())
def test_evidence_fades_by_time_whatever_the_order_it_is_added_in(days: list[tuple[int, float]], order: object) -> None:
    config = LINEAR.model_copy(update={"half_life_days": 5.0})
    posterior = Posterior.of(config, 1)
    parts = [posterior.gathered(np.ones((1, 1)), np.array([reward]), at_us=day * DAY_US) for day, reward in days]
    last = max(day for day, _ in days)
    shuffled = list(parts)
    order.shuffle(shuffled)  # type: ignore[attr-defined]
    total = Evidence.none(1)
    for part in shuffled:
        total = total.plus(part, half_life_days=5.0)
    share = [2.0 ** (-(last - day) / 5.0) for day, _ in days]
    assert total.num_rounds == pytest.approx(sum(share))
    assert total.shift_D[0] == pytest.approx(sum(s * reward for s, (_, reward) in zip(share, days, strict=True)))
    assert total.at_us == last * DAY_US


def test_faded_evidence_leaves_the_prior() -> None:
    config = LOGISTIC.model_copy(update={"half_life_days": 1.0})
    posterior = Posterior.of(config, np.array([0.2, 0.0, 0.0]))
    learned = posterior.learned(posterior.gathered(*rounds(200)))
    later = learned.learned(Evidence.none(D).faded(60 * DAY_US, half_life_days=1.0))
    np.testing.assert_allclose(later.mean_D, posterior.mean_D, atol=1e-6)
    assert later.fingerprint != learned.fingerprint


def test_draws_have_the_posteriors_mean_and_covariance_and_are_its_own() -> None:
    posterior = Posterior.of(LOGISTIC, D)
    posterior = posterior.learned(posterior.gathered(*rounds(50)))
    drawn_MD = posterior.draws(20_000)
    np.testing.assert_allclose(drawn_MD.mean(axis=0), posterior.mean_D, atol=0.02)
    np.testing.assert_allclose(np.cov(drawn_MD.T), np.linalg.inv(posterior.precision_DD), atol=0.02)
    assert posterior.draws(8).tobytes() == posterior.draws(8).tobytes()


def test_linear_draws_are_wider_where_the_noise_is_hardly_known() -> None:
    unsure, sure = (
        Posterior.of(LINEAR.model_copy(update={"noise_rounds": rounds}), D).draws(5_000) for rounds in (3.0, None)
    )
    assert np.quantile(np.abs(unsure), 0.99) > 1.3 * np.quantile(np.abs(sure), 0.99)


@pytest.mark.parametrize("config", [LINEAR, LOGISTIC], ids=lambda config: config.kind)
def test_a_posterior_is_restored_to_the_bit(config: PosteriorConfig) -> None:
    posterior = Posterior.of(config, D)
    posterior = posterior.learned(posterior.gathered(*rounds(50), at_us=77))
    again = Posterior.restored(posterior.arrays(), posterior.about())
    assert again.fingerprint == posterior.fingerprint
    assert again.draws(4).tobytes() == posterior.draws(4).tobytes()
    with pytest.raises(ValueError, match="without shift, at_us"):
        arrays = {name: value for name, value in posterior.arrays().items() if name != "shift"}
        Posterior.restored(arrays, {"posterior": posterior.about()["posterior"]})


def test_any_bit_changes_the_fingerprint() -> None:
    posterior = Posterior.of(LOGISTIC, D)
    more = posterior.learned(posterior.gathered(*rounds(1)))
    other = Posterior.of(LOGISTIC.model_copy(update={"prior_precision": 0.6}), D)
    assert len({posterior.fingerprint, more.fingerprint, other.fingerprint}) == 3


@pytest.mark.parametrize(
    ("change", "what"),
    [
        ({"x_RD": np.zeros((2, 4))}, r"wanted 3 of each round, got shape \(2, 4\)"),
        ({"reward_R": np.array([0.5, 2.0])}, "reward: wanted 0..1, round 1 of 2 has 2.0"),
        ({"reward_R": np.array([np.nan, 0.0])}, "reward: round 0 of 2 is not finite"),
        ({"reward_R": np.zeros(3)}, r"reward: wanted one of each of 2 rounds, got shape \(3,\)"),
        ({"weight_R": np.array([1.0, -1.0])}, "weight: round 1 counts less than nothing"),
        ({"offset_R": np.array([np.inf, 0.0])}, "offset: round 0 of 2 is not finite"),
    ],
)
def test_rounds_that_will_not_do_are_named(change: dict[str, NDArray[np.float64]], what: str) -> None:
    given = {"x_RD": np.zeros((2, D)), "reward_R": np.zeros(2)} | change
    with pytest.raises(ValueError, match=what):
        Posterior.of(LOGISTIC, D).gathered(**given)  # type: ignore[arg-type]


def test_extreme_rounds_keep_the_newton_steps_finite() -> None:
    posterior = Posterior.of(LOGISTIC, D)
    x_RD = 1e3 * dice(0).normal(size=(40, D))
    reward_R = (x_RD[:, 0] > 0).astype(float)
    learned = posterior.learned(posterior.gathered(x_RD, reward_R))
    assert np.isfinite(learned.mean_D).all()
    assert np.isfinite(learned.draws(4)).all()
