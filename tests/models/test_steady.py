"""An answer is the same to the bit whatever it is batched with, so that requests may share a batch and be replayed."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from foretaste.contracts.catalogue import catalogue
from foretaste.contracts.histories import Histories
from foretaste.contracts.intents import USUAL, possible_classes
from foretaste.models.intent import IntentModel, IntentModelConfig, IntentPrediction, IntentRecommender
from foretaste.models.zoo import NETWORKS, network
from foretaste.testing.builders import titles_table
from foretaste.testing.contract_recommender import MINUTE_US, START_US

KNOWN = catalogue(titles_table(301))
STEADY = tuple(name for name in NETWORKS if network(name).body.steady)
LENGTHS = (0, 1, 2, 3, 30, 31, 32, 33, 70, 5, 0, 17, 64, 40, 9, 50)


def recommender(name: str, **changes: bool) -> IntentRecommender:
    torch.manual_seed(0)
    config = network(name, IntentModelConfig(width=32, feedforward=64, max_length=50)).model_copy(update=changes)
    made = IntentModel(config, KNOWN, {head: possible_classes(KNOWN)[head] for head in config.intents}, USUAL)
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    return IntentRecommender(made, KNOWN)


def histories() -> tuple[Histories, NDArray[np.int64]]:
    rng = np.random.default_rng(0)
    offsets_B1 = np.concatenate([[0], np.cumsum(LENGTHS)]).astype(np.int64)
    num = int(offsets_B1[-1])
    row_T = np.repeat(np.arange(len(LENGTHS)), LENGTHS)
    place_T = np.arange(num) - offsets_B1[row_T]
    fraction_T = np.where(rng.random(num) < 0.5, rng.random(num), np.nan).astype(np.float32)
    made = Histories(
        offsets_B1,
        rng.integers(0, 120, num).astype(np.int32),
        rng.integers(0, 8, num).astype(np.int32),
        START_US + place_T * 17 * MINUTE_US,
        (place_T // 4).astype(np.int32),
        (rng.random(num) * 4_000).astype(np.float32),
        fraction_T,
        rng.integers(0, 3, num).astype(np.int32),
    )
    return made, START_US + (np.array(LENGTHS) * 17 + 11) * MINUTE_US


def assert_row(found: IntentPrediction, row: int, alone: IntentPrediction) -> None:
    for name in ("scores_BN", "attention_BI", "z_BD", "item_BD"):
        assert np.array_equal(getattr(found, name)[row], getattr(alone, name)[0]), name
    for head, share_BC in found.intents.items():
        assert np.array_equal(share_BC[row], alone.intents[head][0]), head


@pytest.mark.parametrize("name", STEADY)
def test_an_answer_is_the_same_to_the_bit_whatever_it_is_batched_with(name: str) -> None:
    made, (asked, asof_B) = recommender(name), histories()
    assert made.steady
    alone = [made.predict(asked.rows(np.array([row])), asof_B[[row]]) for row in range(len(asked))]
    for size in (2, 3, 5, 16):
        for first in range(0, len(asked), size):
            rows = np.arange(first, min(first + size, len(asked)))
            found = made.predict(asked.rows(rows), asof_B[rows])
            for place, row in enumerate(rows):
                assert_row(found, place, alone[row])


def test_so_it_is_without_the_time() -> None:
    made, (asked, asof_B) = recommender("foretaste", time_aware=False), histories()
    together = made.predict(asked, asof_B)
    for row in range(len(asked)):
        assert_row(together, row, made.predict(asked.rows(np.array([row])), asof_B[[row]]))


def test_what_fills_a_sequence_up_changes_nothing_but_the_last_bits() -> None:
    made, (asked, asof_B) = recommender("foretaste"), histories()
    packed = IntentRecommender(made.model, KNOWN)
    packed.steady_tokens = None
    assert np.allclose(made.scores(asked, asof_B), packed.scores(asked, asof_B), atol=1e-4)


@pytest.mark.parametrize("name", ["bert4rec", "bilstm", "gru4rec", "hstu"])
def test_models_that_are_not_steady_say_so(name: str) -> None:
    assert not recommender(name).steady
