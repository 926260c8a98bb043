"""Small, untrained models filed as bundles: enough to load, to serve and to refuse."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

import numpy as np
import pyarrow as pa
import torch
from safetensors.torch import save_file
from torch import nn

from foretaste.contracts.catalogue import catalogue
from foretaste.models.intent import IntentModel, IntentModelConfig, bundle_config, possible_classes
from foretaste.models.ranker import Ranker, RankerConfig
from foretaste.models.ranker_scorer import ranker_bundle_config
from foretaste.ops.bundles import Bundle, fetch_bundle, file_bundle
from foretaste.ops.files import read_json, write_json, write_parquet
from foretaste.signals.candidates import CANDIDATE_COLUMNS
from foretaste.signals.requests import NUM_ABOUT, REQUEST_COLUMNS

SMALL = IntentModelConfig(width=8, feedforward=8, num_attention_heads=1, max_length=10)


def file_intent(registry: Path, titles: pa.Table, *, at: datetime, seed: int = 0, repeats: bool = True) -> Bundle:
    """File an untrained intent model of a TITLES table."""
    known = catalogue(titles)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = IntentModel(SMALL, known, possible_classes(known))
    with file_bundle(registry, "intent", at=at, about={"prepared": {"repeats": repeats}}) as folder:
        write_json(bundle_config(model, known), folder / "config.json")
        _save(model, folder)
        write_parquet(titles, folder / "titles.parquet")
    return fetch_bundle(registry, "intent")


def file_ranker(
    registry: Path,
    *,
    intent: str | None,
    at: datetime,
    columns: tuple[str, ...] = CANDIDATE_COLUMNS,
    seed: int = 0,
    by_dice: bool = False,
) -> Bundle:
    """File an untrained ranker that says it was trained with the intent model of fingerprint `intent`.

    It scores all alike, or `by_dice` in a way that depends on every feature.
    """
    heads = read_json(fetch_bundle(registry, "intent").path / "config.json")["heads"]
    context = SMALL.width + sum(map(len, heads.values()))
    vectors = np.zeros((1, SMALL.width), dtype=np.float32)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = Ranker(RankerConfig(hidden=(4,)), columns, REQUEST_COLUMNS, NUM_ABOUT, context, vectors)
        if by_dice:
            for weight in model.parameters():
                if weight.ndim == 2:
                    nn.init.normal_(weight, std=0.3)
    with file_bundle(registry, "ranker", at=at, about={"intent_fingerprint": intent}) as folder:
        write_json(ranker_bundle_config(model), folder / "config.json")
        _save(model, folder)
    return fetch_bundle(registry, "ranker")


def _save(model: nn.Module, folder: Path) -> None:
    save_file({name: value.contiguous() for name, value in model.state_dict().items()}, folder / "weights.safetensors")
