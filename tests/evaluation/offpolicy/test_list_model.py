"""A reward model of lists is fair to every list: it knows nothing of whom it predicts, and what it says cancels out."""

from __future__ import annotations

import zlib
from itertools import permutations

import numpy as np
import pytest

from foretaste.evaluation.offpolicy.estimators import DR, IPS, SNDR, SNIPS
from foretaste.evaluation.offpolicy.list_model import Described, Earned, cross_fitted, describe, explained, folds_of
from foretaste.evaluation.offpolicy.lists import List, described_table, modelled, rounds_table
from foretaste.evaluation.offpolicy.tables import rounds_of
from foretaste.evaluation.offpolicy.terms import Sums

FOLDS, TITLES = 4, tuple("abcde")
WORTH = np.array([0.1, 0.7, 0.3, 0.5, 0.2])
SCORES = np.array([0.9, 0.1, 0.5, 0.3, 0.2])


def chances(scores_C: np.ndarray, above: tuple[int, ...], sharpness: float) -> np.ndarray:
    weight_C = np.exp(sharpness * scores_C)
    weight_C[list(above)] = 0.0
    return np.asarray(weight_C / weight_C.sum())


def log(num: int, seed: int, *, flip: int | None = None) -> tuple[list[List], Earned]:
    """Lists of two titles; with `flip` the actors of that fold earned the opposite."""
    rng, told = np.random.default_rng(seed), []
    for number in range(num):
        actor, order_C = number % 120, rng.permutation(5)
        titles, scores_C = [TITLES[one] for one in order_C], SCORES[order_C]
        chosen: tuple[int, ...] = ()
        logging_KC, target_KC = np.zeros((2, 5)), np.zeros((2, 5))
        for place in range(2):
            logging_KC[place], target_KC[place] = (chances(scores_C, chosen, s) for s in (1.0, -3.0))
            chosen += (int(rng.choice(5, p=logging_KC[place])),)
        reward_K = (rng.random(2) < WORTH[order_C[list(chosen)]]).astype(float)
        if flip is not None and folds_of(np.array([actor]), FOLDS)[0] == flip:
            reward_K = 1.0 - reward_K
        told.append((actor, titles, scores_C, chosen, reward_K, logging_KC, target_KC, number))
    earned = Earned.of(
        (
            (([titles[at] for at in chosen]), np.full(2, actor), reward_K)
            for actor, titles, _, chosen, reward_K, *_ in told
        ),
        folds=FOLDS,
    )
    lists = []
    for actor, titles, scores_C, chosen, reward_K, logging_KC, target_KC, number in told:
        read = describe(
            scores_C, titles, chosen, target_KC,
            guest=False, num_events=number % 7, at_us=number * 60_000_000, actor=actor, earned=earned,
        )  # fmt: skip
        at = (np.arange(2), np.array(chosen))
        lists.append(List(actor, at[1], reward_K, logging_KC[at], target_KC[at], described=read))
    return lists, earned


def asked(lists: list[List]) -> tuple[np.ndarray, np.ndarray]:
    """What is predicted of the first places and expected of the policy there."""
    read = [one.described for one in lists if one.described is not None]
    found = cross_fitted(
        Described(np.stack([one.chosen_KD[0] for one in read]), np.stack([one.expected_KD[0] for one in read])),
        np.ones(len(lists)),
        np.array([one.reward_K[0] for one in lists]),
        np.zeros(len(lists), np.int64),
        np.array([one.actor for one in lists]),
        folds=FOLDS,
    )
    assert found is not None
    return found.predicted_R, found.expected_R


def test_nothing_of_an_actor_is_in_what_is_predicted_of_them() -> None:
    fold_S = folds_of(np.arange(1_200) % 120, FOLDS)
    one, other = asked(log(1_200, 0)[0]), asked(log(1_200, 0, flip=2)[0])
    for before, after in zip(one, other, strict=True):
        np.testing.assert_array_equal(before[fold_S == 2], after[fold_S == 2])
        assert np.abs(before - after)[fold_S != 2].min() > 0
    assert explained(one[0], np.array([made.reward_K[0] for made in log(1_200, 0)[0]])) > 0.05


def test_estimates_with_the_model_have_the_truth_and_smaller_errors_and_a_model_that_says_nothing_is_none() -> None:
    lists, _ = log(4_000, 1)
    table, read = (
        rounds_table(
            [List(o.actor, o.chosen_K[:1], o.reward_K[:1], o.propensity_K[:1], o.target_K[:1]) for o in lists]
        ),
        described_table(lists, 0),
    )
    found = modelled(table, read, folds=FOLDS)
    assert found is not None
    rounds = rounds_of(found)
    truth = float(chances(SCORES, (), -3.0) @ WORTH)
    sums = {one.name: Sums.of(one(rounds)) for one in (IPS, SNIPS, DR, SNDR)}
    error = {name: one.standard_error for name, one in sums.items()}
    for name, one in sums.items():
        assert abs(one.value - truth) < 3 * error[name], name
    assert error["dr"] < 0.9 * error["ips"]
    zero = np.zeros(len(rounds))
    of_nothing = rounds_of(
        found.drop_columns(["predicted_reward", "expected_reward"])
        .append_column("predicted_reward", [zero])
        .append_column("expected_reward", [zero])
    )
    for with_model, plain in ((DR, IPS), (SNDR, SNIPS)):
        assert Sums.of(with_model(of_nothing)).value == pytest.approx(Sums.of(plain(rounds)).value, rel=1e-12)
    with pytest.raises(ValueError, match="a description of each of 4000 rounds, found 3999"):
        modelled(table, read.slice(1), folds=FOLDS)
    assert modelled(table.slice(0, 40), read.slice(0, 40), folds=FOLDS) is None


def test_over_all_lists_that_can_be_logged_what_the_model_adds_is_nothing_at_every_place() -> None:
    _, earned = log(200, 2)
    added = np.zeros(2)
    for chosen in permutations(range(5), 2):
        logging_KC = np.stack([chances(SCORES, chosen[:k], 1.0) for k in range(2)])
        target_KC = np.stack([chances(SCORES, chosen[:k], -3.0) for k in range(2)])
        at = (np.arange(2), np.array(chosen))
        read = describe(
            SCORES, TITLES, chosen, target_KC, guest=True, num_events=3, at_us=0, actor=5, earned=earned
        )  # fmt: skip
        one = List(5, at[1], np.zeros(2), logging_KC[at], target_KC[at], described=read)
        above_K = np.append(1.0, one.weight_K[:-1])
        said_K, would_K = read.chosen_KD.sum(axis=1), read.expected_KD.sum(axis=1)  # any model: all weights 1
        added += logging_KC[at].prod() * (above_K * would_K - one.weight_K * said_K)
    np.testing.assert_allclose(added, 0.0, atol=1e-12)


def test_actors_of_one_bucket_are_spread_over_all_folds() -> None:
    numbers = np.array([n for n in range(40_000) if zlib.crc32(f"m{n}".encode()) % 8 == 3])
    for some in (numbers, numbers * 8 + 3, np.arange(4_000) << 40):
        share = np.bincount(folds_of(some, 5), minlength=5) / len(some)
        np.testing.assert_allclose(share, 0.2, atol=0.03)


def test_a_title_that_the_judged_pool_lacks_is_neither_learned_from_nor_predicted() -> None:
    _, earned = log(100, 3)
    target_KC = np.full((1, 5), 0.2)
    told = {"guest": False, "num_events": 0, "at_us": 0, "actor": 1, "earned": earned}
    read = describe(SCORES, ["a", "b", "c", "d", "new"], [-1], target_KC, **told)  # type: ignore[arg-type]
    assert np.isnan(read.chosen_KD).all()
    assert np.isfinite(read.expected_KD).all()
