"""What a prediction says of some titles is what it says of them among all."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from foretaste.contracts.catalogue import catalogue
from foretaste.contracts.histories import Histories, concatenate
from foretaste.models.intent import IntentModel, IntentModelConfig, IntentRecommender, possible_classes
from foretaste.testing.builders import titles_table
from foretaste.testing.contract_recommender import MINUTE_US, START_US, one_history

KNOWN = catalogue(titles_table(150))


@pytest.fixture(scope="module")
def model() -> IntentRecommender:
    torch.manual_seed(0)
    config = IntentModelConfig(width=16, feedforward=32, max_length=20)
    network = IntentModel(config, KNOWN, possible_classes(KNOWN))
    with torch.no_grad():
        for weight in network.parameters():
            weight.add_(0.2 * torch.randn_like(weight))
    return IntentRecommender(network, KNOWN)


def questions() -> tuple[Histories, NDArray[np.int64]]:
    dice = np.random.default_rng(0)
    parts = [one_history(dice.integers(0, 151, size=size).tolist()) for size in (0, 1, 7, 30, 3)]
    asof = START_US + np.arange(5) * 90 * 1440 * MINUTE_US + 60 * 1440 * MINUTE_US
    return concatenate(parts), asof.astype(np.int64)


def test_a_query_held_against_all_titles_gives_the_models_own_scores(model: IntentRecommender) -> None:
    histories, asof_B = questions()
    whole, asked = model.predict(histories, asof_B), model.ask(histories, asof_B)
    query, table, all_N = asked.query, model.titles, np.arange(150)
    assert query is not None
    assert query.class_BR.shape[1] > 2
    assert len(query.column_E) > 20
    assert asked.scores_BN.shape == (5, 0)
    for b in range(5):
        logits_N = table.logits(query, b, all_N, table.classes(int(query.now_B[b]))).astype(np.float64)
        np.testing.assert_allclose(logits_N - np.log(np.exp(logits_N).sum()), whole.scores_BN[b], atol=2e-5)
        some = np.array([3, 4, 77, 149])
        few = table.logits(query, b, some, table.classes(int(query.now_B[b])))
        np.testing.assert_allclose(few, logits_N[some], atol=1e-5)
    for head, share_BC in whole.intents.items():
        np.testing.assert_array_equal(share_BC, asked.intents[head])
    np.testing.assert_array_equal(whole.z_BD, asked.z_BD)


def test_a_query_has_the_same_bits_alone_and_beside_others(model: IntentRecommender) -> None:
    histories, asof_B = questions()
    together = model.ask(histories, asof_B)
    for b in range(5):
        alone, row = model.ask(histories.rows(np.array([b])), asof_B[[b]]).query, together.rows(slice(b, b + 1)).query
        assert alone is not None
        assert row is not None
        for name in ("state_BK", "now_B", "class_BR", "start_B1", "column_E", "value_E"):
            np.testing.assert_array_equal(getattr(alone, name), getattr(row, name), err_msg=name)
