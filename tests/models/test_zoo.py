"""Sequence models by name: what each reads, predicts, and takes over from the sizes given."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from foretaste.models.bodies import ForetasteConfig, TransActConfig
from foretaste.models.intent import IntentModelConfig
from foretaste.models.zoo import NETWORKS, network

IDS = {"sasrec", "bert4rec", "hstu", "esasrec"}


def test_every_name_gives_another_model() -> None:
    assert len({network(name).fingerprint() for name in NETWORKS}) == len(NETWORKS)


def test_an_unknown_name_is_refused_with_those_that_exist() -> None:
    with pytest.raises(ValueError, match=r"no sequence model 'sasrek'; there are lstm, .*sasrec"):
        network("sasrek")


@pytest.mark.parametrize("name", NETWORKS)
def test_sizes_are_those_given(name: str) -> None:
    base = IntentModelConfig(width=32, num_attention_heads=4, feedforward=48, dropout=0.4, max_length=50)
    made = network(name, base)
    assert made.sizes == base.sizes
    assert network(name).max_length == (100 if name == "transact" else IntentModelConfig().max_length)


@pytest.mark.parametrize("name", NETWORKS)
def test_models_of_ids_have_no_heads_and_the_others_read_all(name: str) -> None:
    made = network(name)
    assert (made.inputs == "ids") == (name in IDS)
    assert bool(made.intents) == (name not in IDS)
    assert made.body.both_ways == (name in {"bilstm", "bert4rec"})


def test_a_body_is_chosen_by_its_kind() -> None:
    made = IntentModelConfig.model_validate({"body": {"kind": "transact", "newest": 5}})
    assert made.body == TransActConfig(newest=5)
    assert IntentModelConfig().body == ForetasteConfig()


def test_a_setting_of_another_body_is_refused_by_name() -> None:
    with pytest.raises(ValidationError, match=r"(?s)body\.recurrent\.newest.*not permitted"):
        IntentModelConfig.model_validate({"body": {"kind": "recurrent", "newest": 5}})
    with pytest.raises(ValidationError, match=r"(?s)'foretaste', 'hierarchy', 'hstu', 'ligr', 'recurrent'"):
        IntentModelConfig.model_validate({"body": {"kind": "mamba"}})
