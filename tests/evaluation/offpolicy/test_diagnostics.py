"""A log that cannot answer is told from one that can, and why."""

from __future__ import annotations

import numpy as np
import pytest

from foretaste.evaluation.offpolicy.diagnostics import DiagnosticsConfig, Measures, Reason, checks
from foretaste.evaluation.offpolicy.rounds import Floats, Rounds


def logged(
    logging_A: Floats, target_A: Floats, *, num_rounds: int = 4_000, said_A: Floats | None = None, whole: bool = True
) -> Rounds:
    """Rounds of one context; `said_A` is what the log says of the policy that logged."""
    rng = np.random.default_rng(5)
    said_A = logging_A if said_A is None else said_A
    action_R = rng.choice(len(logging_A), size=num_rounds, p=logging_A)
    return Rounds.of(
        action=action_R,
        reward=rng.random(num_rounds),
        propensity=said_A[action_R],
        target=np.tile(target_A, (num_rounds, 1)),
        logging=np.tile(said_A, (num_rounds, 1)) if whole else None,
    )


EVEN, LEANING = np.full(4, 0.25), np.array([0.4, 0.3, 0.2, 0.1])


def failing(rounds: Rounds) -> set[Reason]:
    return {check.reason for check in checks(Measures.of(rounds), DiagnosticsConfig()) if not check.holds}


def test_a_log_of_an_even_policy_answers_for_a_leaning_one() -> None:
    rounds = logged(EVEN, LEANING)
    measures = Measures.of(rounds)
    assert failing(rounds) == set()
    assert measures.effective_rounds == pytest.approx(4_000 / (4 * (LEANING**2).sum()), rel=0.02)
    assert measures.unsupported_share == 0
    assert measures.largest_share == pytest.approx(1.6 / measures.weight)


@pytest.mark.parametrize("whole", [True, False])
def test_what_was_never_shown_cannot_be_judged_whether_the_policy_is_known_or_not(whole: bool) -> None:
    never = np.array([0.0, 0.4, 0.3, 0.3])
    rounds = logged(never, LEANING, whole=whole)
    found = failing(rounds)
    assert Reason.WEIGHTS_DO_NOT_AVERAGE_ONE in found
    assert (Reason.NO_SUPPORT in found) == whole
    if whole:
        assert Measures.of(rounds).unsupported_share == pytest.approx(0.4)


def test_a_large_weight_that_was_not_drawn_is_seen_where_the_policy_is_known() -> None:
    rare = np.array([1e-8, 0.4, 0.3, 0.29999999])
    rounds = logged(rare, np.array([0.3, 0.3, 0.2, 0.2]), num_rounds=500)
    assert rounds.weight_R.max() < 2
    assert Reason.FEW_EFFECTIVE_ROUNDS in failing(rounds)


def test_one_round_that_decides_is_named() -> None:
    action = np.zeros(1_000, dtype=np.int64)
    propensity = np.full(1_000, 0.5)
    propensity[17] = 0.002
    rounds = Rounds.of(action=action, reward=np.ones(1_000), propensity=propensity, target=np.full(1_000, 0.4))
    assert Reason.ONE_ROUND_DECIDES in failing(rounds)


def test_propensities_that_are_not_frequencies_are_found() -> None:
    wrong = np.array([0.25, 0.25, 0.3, 0.2])
    assert Reason.PROPENSITIES_ARE_NOT_FREQUENCIES in failing(logged(EVEN, LEANING, said_A=wrong))
    assert Measures.of(logged(EVEN, LEANING)).propensity_p(10.0) > 0.01


def test_a_short_log_and_an_empty_one_say_that_they_are_short() -> None:
    assert Reason.TOO_SHORT in failing(logged(EVEN, LEANING, num_rounds=20))
    assert Reason.TOO_SHORT in failing(logged(EVEN, LEANING).take(slice(0, 0)))


def test_true_propensities_raise_no_more_false_alarms_than_stated() -> None:
    rng = np.random.default_rng(1)
    alarms = 0
    for _ in range(200):
        logging_XA, target_XA = rng.dirichlet(np.ones(6), size=40), rng.dirichlet(np.ones(6), size=40)
        logging_XA = 0.7 * logging_XA + 0.3 / 6
        context_R = rng.integers(40, size=600)
        action_R = (rng.random(600)[:, None] > logging_XA.cumsum(axis=1)[context_R]).sum(axis=1).clip(max=5)
        rounds = Rounds.of(
            action=action_R,
            reward=np.zeros(600),
            propensity=logging_XA[context_R, action_R],
            target=target_XA[context_R],
            logging=logging_XA[context_R],
        )
        measures = Measures.of(rounds)
        alarms += (measures.propensity_p(10.0) < 0.05) + (measures.mean_weight_p < 0.05)
    assert alarms / 400 < 0.09  # both tests at 0.05: 2.6 standard errors and what the normal law misses


def test_measures_add_up_over_blocks() -> None:
    rounds = logged(EVEN, LEANING, num_rounds=1_000)
    whole = Measures.of(rounds)
    parts = Measures.of(rounds.take(slice(0, 333))) + Measures.of(rounds.take(slice(333, 1_000)))
    for name in ("num_rounds", "weight", "weight_squared", "largest_weight", "unsupported", "second_moment"):
        assert getattr(parts, name) == pytest.approx(getattr(whole, name), rel=1e-12)
    assert parts.counted_K == pytest.approx(whole.counted_K)
    assert parts.expected_K == pytest.approx(whole.expected_K, rel=1e-12)
    with pytest.raises(ValueError, match="same actions"):
        whole + Measures.of(logged(EVEN, LEANING, whole=False))


def test_every_check_says_what_was_found_and_what_was_wanted() -> None:
    said = [check.said for check in checks(Measures.of(logged(EVEN, LEANING)), DiagnosticsConfig())]
    assert len(said) == len(Reason)
    assert all("wanted" in sentence for sentence in said)
