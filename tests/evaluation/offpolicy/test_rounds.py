"""Logged rounds: what is laid out, and what is refused."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from foretaste.evaluation.offpolicy.rounds import Rounds

TWO: dict[str, Any] = {
    "action": [0, 2],
    "reward": [1.0, 0.0],
    "propensity": [0.5, 0.25],
    "target": [[0.5, 0.5, 0.0], [0.2, 0.2, 0.6]],
}
THREE_D = np.stack([np.array(TWO["target"]), np.full((2, 3), 1 / 3)], axis=2)


def test_a_distribution_gives_the_probability_of_what_was_chosen() -> None:
    rounds = Rounds.of(**TWO, predicted=[[0.1, 0.2, 0.3], [0.4, 0.5, 0.6]])
    assert rounds.target_R.tolist() == [0.5, 0.6]
    assert rounds.weight_R.tolist() == [1.0, 2.4]
    assert rounds.predicted_R is not None
    assert rounds.predicted_R.tolist() == [0.1, 0.6]
    assert rounds.expected_R is not None
    assert rounds.expected_R.tolist() == pytest.approx([0.15, 0.54])
    assert len(rounds) == 2


def test_only_the_probability_of_the_logged_action_is_enough() -> None:
    rounds = Rounds.of(**{**TWO, "target": [0.5, 0.6]}, predicted=[0.1, 0.6], expected=[0.15, 0.54])
    assert rounds.target_RA is None
    rounds.need("ips", "target_R", "expected_R")
    with pytest.raises(ValueError, match=r"mips needs \['target_RA'\] of each round"):
        rounds.need("mips", "target_RA")


def test_a_round_is_read_at_its_own_position() -> None:
    rounds = Rounds.of(**{**TWO, "target": THREE_D}, position=[1, 0], predicted=THREE_D * 2)
    assert rounds.target_R.tolist() == pytest.approx([1 / 3, 0.6])
    assert rounds.predicted_R is not None
    assert rounds.predicted_R.tolist() == pytest.approx([2 / 3, 1.2])
    assert rounds.target_RA is not None
    assert rounds.target_RA.ravel().tolist() == pytest.approx([1 / 3] * 3 + [0.2, 0.2, 0.6])


def test_empty_lists_are_a_log_of_no_round() -> None:
    assert len(Rounds.of(action=[], reward=[], propensity=[], target=[], position=[], actor=[])) == 0
    with pytest.raises(ValueError, match="one for each of 2 rounds"):
        Rounds.of(**{**TWO, "action": []})


def test_rounds_are_taken_with_all_that_is_known_of_them() -> None:
    logging = [[0.5, 0.25, 0.25], [0.5, 0.25, 0.25]]
    rounds = Rounds.of(**TWO, actor=[7, 8], context=[[1.0], [2.0]], logging=logging).take(np.array([1, 1]))
    assert rounds.actor_R is not None
    assert rounds.actor_R.tolist() == [8, 8]
    assert rounds.context_RC is not None
    assert rounds.context_RC.tolist() == [[2.0], [2.0]]
    assert rounds.logging_RA is not None
    assert len(rounds.logging_RA) == len(rounds) == 2
    assert rounds.predicted_RA is None


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"propensity": [0.5, 0.0]}, r"propensity of round 1 is 0.0, wanted in \(0, 1\] \(1 of 2 rounds\)"),
        ({"propensity": [np.nan, 0.5]}, r"propensity of round 0 is nan, wanted finite"),
        ({"propensity": [0.5, 1.5]}, r"propensity of round 1 is 1.5, wanted in \(0, 1\]"),
        ({"propensity": [0.5]}, r"propensity: wanted one for each of 2 rounds, found shape \(1,\)"),
        ({"reward": [1.0, np.inf]}, r"reward of round 1 is inf"),
        ({"action": [0, 3]}, r"action of round 1 is 3, wanted in 0..2, as target has"),
        ({"action": [0.0, 2.0]}, r"action: wanted whole numbers.* found float64"),
        ({"action": [-1, 2]}, r"action of round 0 is -1, wanted 0 or more"),
        (
            {"target": [[0.5, 0.5, 0.1], [0.2, 0.2, 0.6]]},
            r"target of round 0 is 1.1, wanted probabilities with the sum 1",
        ),
        (
            {"target": [[0.5, 0.5, 0.0], [1.2, -0.2, 0]]},
            r"target of round 1 is -0.2, wanted probabilities of 0 or more",
        ),
        ({"target": [[0.5, 0.5, 0.0], [np.nan, 1, 0]]}, r"target of round 1 is nan"),
        ({"target": [0.5, 1.6]}, r"target of round 1 is 1.6"),
        ({"target": THREE_D}, r"target: has 2 positions, but no position of each round was given"),
        ({"target": THREE_D, "position": [0, 2]}, r"position of round 1 is 2, wanted in 0..1, as target has"),
        ({"target": [[1.0]]}, r"target: wanted 2 rounds x actions"),
        ({"predicted": [[0.1, 0.2], [0.4, 0.5]]}, r"action of round 1 is 2, wanted in 0..1, as predicted has"),
        ({"predicted": [[0.1] * 4] * 2}, r"predicted: wanted \(2, 3\) \(rounds, actions\) as target has"),
        (
            {"predicted": [[0.1] * 3, [0.1, np.nan, 0.1]]},
            r"predicted of round 1 is nan, wanted finite for every action",
        ),
        ({"logging": [0.5, 0.25]}, r"logging: wanted probabilities of every action"),
        ({"logging": [[0.5, 0.25, 0.25], [0.2, 0.2, 0.6]]}, r"propensity of round 1 is 0.25, wanted what logging has"),
        ({"context": [1.0, 2.0]}, r"context: wanted 2 rounds x numbers"),
    ],
)
def test_what_cannot_be_answered_from_is_refused_with_the_round_at_fault(changed: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Rounds.of(**{**TWO, **changed})
