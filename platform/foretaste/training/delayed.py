"""Training of a model of delayed feedback: from decisions as they are known by now to a filed bundle."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file

from foretaste.models.delayed import DelayedConfig, DelayedModel
from foretaste.models.delayed_rows import Pending
from foretaste.models.delayed_zoo import build_delayed, delayed_config, delayed_model
from foretaste.ops.bundles import Bundle, fetch_bundle, file_bundle
from foretaste.ops.files import write_json
from foretaste.training.config import TrackingConfig, TrainingConfig
from foretaste.training.delayed_task import DelayedTask
from foretaste.training.executors import executor
from foretaste.training.loop import Epoch
from foretaste.training.runs import run_name
from foretaste.training.tracking import recorded

LEFT_OUT_EVERY = 10
"""One decision of so many chooses the epoch instead of being learned from."""


@dataclass(frozen=True, slots=True)
class DelayedResult:
    """A filed model of delayed feedback."""

    bundle: Bundle
    epochs: list[dict[str, Any]]
    best_epoch: int


def train_delayed(
    parts: Sequence[Pending],
    registry: Path,
    *,
    what: str,
    signals: Sequence[str],
    model: DelayedConfig,
    training: TrainingConfig,
    storage: Path,
    tracking: TrackingConfig,
    now: datetime,
    on_progress: Callable[[Epoch], None],
    start: DelayedModel | None = None,
    runs: str | None = None,
) -> DelayedResult:
    """Train p(final | so far, time since) of one feedback and file it as bundle «delayed-WHAT».

    Workers get whole parts; `start` is a model to go on from, otherwise one is made whose columns are standardised by
    all parts; checkpoints go to `runs`, by default to `storage`, until it is filed. Raises ValueError without a
    decision.
    """
    whole = Pending.join(parts)
    if not len(whole):
        raise ValueError(f"delayed {what}: no decision to learn from")
    network = start
    if network is None:
        num_codes = int(whole.code_N.max()) + 1
        sizes = {"num_columns": whole.context_NF.shape[1], "num_codes": num_codes, "num_signals": len(signals)}
        network = delayed_model(model, **sizes, seed=training.seed)
        network.expect(whole.tensors(torch.device("cpu")))
    described, weights = delayed_config(network), network.state_dict()
    name = f"delayed-{what}-{now:%Y%m%dT%H%M%S}"
    with recorded(tracking, name=name, storage=storage, about={"model": model, "training": training}) as run:

        def on_epoch(epoch: Epoch) -> None:
            run.epoch(epoch)
            on_progress(epoch)

        asked = run_name(f"delayed-{what}", described, model, training.taught(), dict(weights), whole)
        runner = executor(training, place=runs or storage, name=asked)
        runner.load(list(parts), _same)
        state = runner.train(partial(_task, described, weights, training), training, on_epoch)
        network.load_state_dict(state["best"])
        about = {
            "what": what,
            "signals": list(signals),
            "model_config": model.fingerprint(),
            "training_config": training.model_dump(mode="json"),
            "decisions": len(whole),
            "seen": int(np.isfinite(whole.delay_N).sum()),
            "best_epoch": state["best_epoch"],
        }
        bundle_name = f"delayed-{what}"
        with file_bundle(registry, bundle_name, at=now, about=about) as folder:
            write_json(described, folder / "config.json")
            tensors = {key: tensor.clone().contiguous() for key, tensor in network.state_dict().items()}
            save_file(tensors, folder / "weights.safetensors")
        filed = fetch_bundle(registry, bundle_name)
        run.tag("bundle", filed.version)
        runner.forget()
    return DelayedResult(filed, state["epochs"], state["best_epoch"])


def _same(part: Pending) -> tuple[Pending, int]:
    return part, len(part)


def _task(
    described: dict[str, Any],
    weights: dict[str, torch.Tensor],
    training: TrainingConfig,
    payloads: Sequence[Pending],
    rank: int,
) -> DelayedTask:
    whole = Pending.join(list(payloads))
    place_N = np.arange(len(whole))
    left_out = whole.rows(place_N % LEFT_OUT_EVERY == LEFT_OUT_EVERY - 1)
    learned = whole.rows(place_N % LEFT_OUT_EVERY != LEFT_OUT_EVERY - 1)
    network = build_delayed(described, weights)
    return DelayedTask(network, learned, training, rank=rank, left_out=left_out, has_left_out=True)
