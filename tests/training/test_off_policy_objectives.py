"""Estimates of what a policy would have earned, as objectives: their values and gradients are those of the formulas."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from torch import Tensor

from foretaste.training.off_policy_objectives import (
    Objective,
    ObjectiveConfig,
    Rounds,
    cross_entropy,
    doubly_robust,
    importance,
    ips,
    log_chances,
    objective,
    penalised,
    regression,
    shifted,
    snips,
)

REWARD_3 = torch.tensor([0.2, 0.9, 0.4], dtype=torch.float64)
LOGGED_3 = torch.tensor([4 / 8, 1 / 8, 3 / 8], dtype=torch.float64)


def fair_log() -> tuple[Tensor, Tensor]:
    """Every action as often as its propensity says and rewarded as often as it is: means over it are expectations."""
    action = torch.tensor([a for a, times in enumerate((4, 1, 3)) for _ in range(10 * times)])
    paid = [torch.arange(10 * t) < 10 * t * r for t, r in zip((4, 1, 3), REWARD_3, strict=True)]
    return action, torch.cat(paid).double()


def value_and_gradient(made: Tensor, scores: Tensor) -> tuple[float, Tensor]:
    (gradient,) = torch.autograd.grad(made, scores)
    return float(made.detach()), gradient


def scored() -> Tensor:
    return torch.tensor([0.3, -0.5, 0.1], dtype=torch.float64, requires_grad=True)


def truth() -> tuple[float, Tensor]:
    scores = scored()
    return value_and_gradient(scores.softmax(0) @ REWARD_3, scores)


def log_ratio(scores: Tensor, action: Tensor) -> Tensor:
    return (scores.log_softmax(0) - LOGGED_3.log())[action]


@pytest.mark.parametrize("predicted", [torch.zeros(3, dtype=torch.float64), torch.tensor([0.9, 0.1, 0.5]).double()])
def test_value_and_gradient_of_ips_and_dr_are_those_of_the_policy_whatever_the_reward_model(predicted: Tensor) -> None:
    action, reward = fair_log()
    scores = scored()
    weight = importance(log_ratio(scores, action), cap=None)
    expected = (scores.softmax(0) @ predicted).expand(len(action))
    made = doubly_robust(weight, reward, predicted[action], expected).mean()
    value, gradient = value_and_gradient(made, scores)
    assert value == pytest.approx(truth()[0], abs=1e-12)
    torch.testing.assert_close(gradient, truth()[1])
    torch.testing.assert_close(ips(weight, reward), doubly_robust(weight, reward, 0 * weight, 0 * weight))


def test_self_normalised_terms_have_the_ratio_s_value_and_gradient_and_no_shift_of_rewards_turns_it() -> None:
    action, reward = fair_log()
    kept = torch.arange(0, len(action), 3)  # no longer fair: the mean weight is not 1
    found = []
    for moved in (0.0, 7.0):
        scores = scored()
        weight = importance(log_ratio(scores, action[kept]), cap=None)
        paid = reward[kept] + moved
        terms = snips(weight, paid)
        ratio = value_and_gradient((weight * paid).sum() / weight.sum(), scores)
        scores_again = scores.detach().clone().requires_grad_()
        again = snips(importance(log_ratio(scores_again, action[kept]), cap=None), paid).mean()
        value, gradient = value_and_gradient(again, scores_again)
        assert value == pytest.approx(ratio[0], abs=1e-12)
        torch.testing.assert_close(gradient, ratio[1])
        found.append((value, gradient, terms.var()))
    assert found[1][0] == pytest.approx(found[0][0] + 7.0)
    torch.testing.assert_close(found[0][1], found[1][1])
    torch.testing.assert_close(found[0][2], found[1][2])


def test_rewards_shifted_by_the_self_normalised_estimate_give_its_value_and_its_gradient_up_to_a_scale() -> None:
    action, reward = fair_log()
    kept = torch.arange(0, len(action), 3)
    scores = scored()
    weight = importance(log_ratio(scores, action[kept]), cap=None)
    normal, of_normal = value_and_gradient(snips(weight, reward[kept]).mean(), scores)
    scores = scored()
    weight = importance(log_ratio(scores, action[kept]), cap=None)
    value, gradient = value_and_gradient(shifted(weight, reward[kept], normal).mean(), scores)
    assert value == pytest.approx(normal, abs=1e-12)
    torch.testing.assert_close(gradient / weight.detach().mean(), of_normal)


def test_a_cap_bounds_weights_and_what_is_capped_teaches_nothing() -> None:
    ratio = torch.tensor([-3.0, 0.0, 1.0, 50.0, 5_000.0], requires_grad=True)
    weight = importance(ratio, cap=2.0)
    assert weight.tolist() == pytest.approx([np.exp(-3.0), 1.0, 2.0, 2.0, 2.0])
    (gradient,) = torch.autograd.grad(weight.sum(), ratio)
    assert gradient.tolist() == pytest.approx([np.exp(-3.0), 1.0, 0.0, 0.0, 0.0])
    assert torch.isfinite(importance(ratio, cap=None)).all()


def test_a_good_reward_model_makes_the_gradient_less_uncertain_than_propensities_alone() -> None:
    rng = np.random.default_rng(0)
    gradients: dict[str, list[Tensor]] = {"ips": [], "dr": []}
    for _ in range(200):
        action = torch.from_numpy(rng.choice(3, size=60, p=LOGGED_3.numpy()))
        reward = torch.from_numpy((rng.random(60) < REWARD_3[action].numpy()).astype(np.float64))
        for name, predicted in (("ips", 0 * REWARD_3), ("dr", REWARD_3)):
            scores = scored()
            weight = importance(log_ratio(scores, action), cap=None)
            expected = (scores.softmax(0) @ predicted).expand(60)
            gradients[name].append(
                value_and_gradient(doubly_robust(weight, reward, predicted[action], expected).mean(), scores)[1]
            )
    spread = {name: torch.stack(found).var(dim=0).sum() for name, found in gradients.items()}
    assert spread["dr"] < 0.8 * spread["ips"]
    for found in gradients.values():
        torch.testing.assert_close(torch.stack(found).mean(dim=0), truth()[1], atol=0.02, rtol=0)


def test_the_penalty_is_so_many_standard_errors_and_its_gradient_that_of_the_formula() -> None:
    rng = np.random.default_rng(1)
    log_ratio_R, reward_R = rng.normal(size=50), rng.random(50)
    ratio = torch.tensor(log_ratio_R, requires_grad=True)
    made = penalised(ips(importance(ratio, cap=None), torch.tensor(reward_R)), penalty=1.5, num_rounds=400)
    value, gradient = value_and_gradient(made, ratio)
    terms_R = np.exp(log_ratio_R) * reward_R
    assert value == pytest.approx(terms_R.mean() - 1.5 * terms_R.std(ddof=1) / np.sqrt(400))
    of_spread_R = (terms_R - terms_R.mean()) / (49 * terms_R.std(ddof=1))
    assert gradient.numpy() == pytest.approx((1 / 50 - 1.5 / np.sqrt(400) * of_spread_R) * terms_R)
    same = torch.ones(3, requires_grad=True)
    assert torch.isfinite(value_and_gradient(penalised(same, penalty=1.0, num_rounds=3), same)[1]).all()


def test_chances_of_a_list_are_plackett_luce_s_and_those_of_all_lists_add_up_to_one() -> None:
    scores = torch.tensor([[0.5, -1.0, 2.0, 9.0]], dtype=torch.float64)
    real = torch.tensor([[True, True, True, False]])
    total = 0.0
    for order in itertools.permutations(range(3), 2):
        chance = log_chances(scores, real, torch.tensor([[*order, -1]]))
        assert chance[0, :2].exp().sum(dim=1).tolist() == pytest.approx([1.0, 1.0])
        assert chance[0, 1, order[0]] == -torch.inf
        assert torch.isinf(chance[0, :, 3]).all()
        total += float(torch.exp(chance[0, 0, order[0]] + chance[0, 1, order[1]]))
    assert total == pytest.approx(1.0)
    left = log_chances(scores, real, torch.tensor([[2, 0, 1, -1]])).requires_grad_()
    assert torch.isfinite(left[0, 3]).all()  # nothing is left, and no number is broken


@pytest.mark.parametrize("kind", [kind for kind in Objective if kind not in ("cross_entropy", "regression")])
def test_every_objective_has_a_finite_gradient_where_nothing_logged_could_be_chosen(kind: Objective) -> None:
    ratio = torch.full((4,), -200.0, requires_grad=True)
    rounds = Rounds(ratio, torch.ones(4), torch.full((4,), 0.5), torch.full((4,), 0.5))
    config = ObjectiveConfig(objective=kind, variance_penalty=1.0)
    gradient = value_and_gradient(objective(rounds, config, shift=0.5, num_rounds=4), ratio)[1]
    assert torch.isfinite(gradient).all()


def test_supervised_losses_are_the_likelihoods_that_they_say_and_estimate_nothing() -> None:
    log_chance, reward = torch.log(torch.tensor([0.5, 0.25, 0.1])), torch.tensor([1.0, 0.5, -1.0])
    assert float(cross_entropy(log_chance, reward)) == pytest.approx(-np.log(0.5) - 0.5 * np.log(0.25))
    found = regression(log_chance, torch.tensor([1.0, 0.0, 0.5]))
    assert float(found) == pytest.approx(-np.log(0.5) - np.log(0.75) - 0.5 * np.log(0.1) - 0.5 * np.log(0.9), rel=1e-5)
    rounds = Rounds(*(torch.zeros(2) for _ in range(4)))
    with pytest.raises(ValueError, match="cross_entropy estimates no policy's reward"):
        objective(rounds, ObjectiveConfig(objective=Objective.CROSS_ENTROPY), shift=0.0, num_rounds=2)
    with pytest.raises(ValidationError, match="dr weighs by place"):
        ObjectiveConfig(objective=Objective.DR, weigh="above")
