"""Every model of delayed feedback by name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from foretaste.models.delayed import DelayedConfig, DelayedModel, Ignore, Method, Oracle, Vanilla, Wait
from foretaste.models.delayed_survival import ExponentialDelay, Hazard, Landmark
from foretaste.models.delayed_weighted import (
    ElapsedSampling,
    FakeNegativeCalibrated,
    FakeNegativeWeighted,
    RealNegatives,
)

DELAYED: dict[Method, type[DelayedModel]] = {
    "oracle": Oracle,
    "vanilla": Vanilla,
    "wait": Wait,
    "ignore": Ignore,
    "fake_negative_weighted": FakeNegativeWeighted,
    "fake_negative_calibrated": FakeNegativeCalibrated,
    "dfm": ExponentialDelay,
    "es_dfm": ElapsedSampling,
    "defer": RealNegatives,
    "hazard": Hazard,
    "landmark": Landmark,
}


def delayed_model(
    config: DelayedConfig, *, num_columns: int, num_codes: int, num_signals: int, seed: int
) -> DelayedModel:
    """Make the model that the configuration names, with first weights drawn from the seed."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return DELAYED[config.method](config, num_columns, num_codes, num_signals)


def delayed_config(model: DelayedModel) -> dict[str, dict[str, Any]]:
    """What, beside the weights, makes a model again."""
    sizes = {
        "num_columns": len(model.tower.mean_F),
        "num_codes": model.tower.codes.num_embeddings,
        "num_signals": model.num_signals,
    }
    return {"config": model.config.model_dump(mode="json"), "sizes": sizes}


def build_delayed(described: Mapping[str, dict[str, Any]], weights: Mapping[str, Tensor]) -> DelayedModel:
    """Make a model of what `delayed_config` told and its weights."""
    config = DelayedConfig.model_validate(described["config"])
    model = delayed_model(config, **described["sizes"], seed=0)
    model.load_state_dict(dict(weights))
    return model.eval()
