"""Training of the intent model: from a prepared folder to a filed bundle."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial, reduce
from operator import add
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow.parquet as pq
import torch
from numpy.typing import NDArray
from safetensors.torch import save_file

from foretaste.contracts.catalogue import Catalogue, catalogue
from foretaste.contracts.intents import USUAL, Intent, LabelConfig, fingerprint, specifications
from foretaste.models.intent import IntentModel, IntentModelConfig, bundle_config, possible_classes
from foretaste.ops.bundles import Bundle, fetch_bundle, file_bundle
from foretaste.ops.files import read_json, write_json, write_parquet
from foretaste.ops.tables import described, prepared_files, read_titles
from foretaste.training.config import TrackingConfig, TrainingConfig
from foretaste.training.examples import Census, Examples, Part, census, parts, read_part
from foretaste.training.executors import Executor, Shard, executor
from foretaste.training.intent_task import IntentTask
from foretaste.training.loop import Epoch
from foretaste.training.runs import run_name
from foretaste.training.streaming import Count, Parts
from foretaste.training.tracking import recorded

PARTS_A_WORKER = 2
PARTS_RESIDENT = 8
"""Parts that a worker can hold at once where it cannot hold all."""
OF_THE_PREPARATION = ("created_at", "run")
"""What a manifest says of a run of preparation, and not of what it made."""


@dataclass(frozen=True, slots=True)
class TrainResult:
    """A trained model, filed."""

    bundle: Bundle
    epochs: list[dict[str, Any]]  # records of the run that chose the epoch: see loop.Epoch
    best_epoch: int
    metrics: dict[str, float]  # of validation at the best epoch
    seconds: float  # of training, all epochs and the refit


def train_intent(
    prepared: Path,
    registry: Path,
    *,
    model: IntentModelConfig,
    training: TrainingConfig,
    storage: Path,
    tracking: TrackingConfig,
    now: datetime,
    on_progress: Callable[[Epoch], None],
    labels: LabelConfig | None = None,
    runs: str | None = None,
) -> TrainResult:
    """Train the intent model on a prepared folder and file it as bundle «intent».

    Checkpoints go to `runs`, the URI of an object store, by default to `storage`, until the model is filed; whoever is
    asked for the same meanwhile goes on from them. With executor «ray» a Ray must be running. Raises ValueError where
    there is nothing to learn from. `labels` declares the intents.
    """
    titles = read_titles(prepared)
    known = catalogue(titles)
    manifest = read_json(prepared / "manifest.json")
    labels = (labels or LabelConfig()).following(manifest["target_actions"], manifest.get("engagement_by_action"))
    name = f"intent-{now:%Y%m%dT%H%M%S}"
    data = {key: value for key, value in described(manifest).items() if key not in OF_THE_PREPARATION}
    asked = run_name("intent", data, known.fingerprint, model, labels, training.taught())
    with recorded(tracking, name=name, storage=storage, about={"model": model, "training": training}) as run:

        def on_epoch(epoch: Epoch) -> None:
            run.epoch(epoch)
            on_progress(epoch)

        place = runs or storage
        fit = partial(_fit, prepared, known, manifest, labels=labels, model=model, place=place, on_epoch=on_epoch)
        fits = [fit(training, name=asked)]
        state = fits[0].state
        if training.refit:
            again = training.model_copy(update={"epochs": state["best_epoch"]})
            fits.append(fit(again, name=f"{asked}-refit"))
        chosen, counted, network, _ = fits[-1]
        network.load_state_dict(chosen["best"])
        best = state["epochs"][state["best_epoch"] - 1]
        about = {
            "model_config": model.fingerprint(),
            "labels": fingerprint(labels, specifications(labels, known)),
            "heads": {head.value: list(of) for head, of in network.classes.items()},
            "training_config": training.model_dump(mode="json"),
            "time_aware": model.time_aware,
            "prepared": described(manifest),
            "split": training.split,
            "refit": training.refit,
            "trained_until": datetime.fromtimestamp(counted.newest_us / 1e6, tz=UTC).isoformat(),
            "histories": counted.histories,
            "choices": counted.train,
            "best_epoch": state["best_epoch"],
            "metrics": best["metrics"],
        }
        with file_bundle(registry, "intent", at=now, about=about) as folder:
            write_json(bundle_config(network, known, labels), folder / "config.json")
            save_file({k: v.contiguous() for k, v in network.state_dict().items()}, folder / "weights.safetensors")
            write_parquet(titles, folder / "titles.parquet")
        bundle = fetch_bundle(registry, "intent")
        run.tag("bundle", bundle.version)
        for one in fits:
            one.runner.forget()
    seconds = sum(e["seconds"] for s in ([state, chosen] if training.refit else [state]) for e in s["epochs"])
    return TrainResult(bundle, state["epochs"], state["best_epoch"], best["metrics"], seconds)


class _Fit(NamedTuple):
    state: dict[str, Any]
    counted: Census
    network: IntentModel
    runner: Executor


def _fit(
    prepared: Path,
    known: Catalogue,
    manifest: dict[str, Any],
    training: TrainingConfig,
    *,
    labels: LabelConfig,
    model: IntentModelConfig,
    place: Path | str,
    name: str,
    on_epoch: Callable[[Epoch], None],
) -> _Fit:
    refit = name.endswith("-refit")
    targets = frozenset(manifest["target_actions"])
    read = partial(_read, known, split=training.split, refit=refit, target_actions=targets, labels=labels)
    runner = executor(training, place=place, name=name)
    counts = runner.load(parts(prepared, _num_parts(prepared, training)), read, _interactions)
    counted: Census = reduce(add, counts)
    if counted.train == 0:
        raise ValueError(
            f"{prepared}: no training rows under split {training.split!r} with {manifest['target_actions']}"
        )
    classes = classes_in(counted, model, known, labels)
    shares = shares_in(counted, classes, known, labels)
    make_network = partial(_network, model, known, classes, shares, labels, training.seed)
    make_task = partial(
        _task,
        make_network,
        [Count.of(one) for one in counts],
        counted,
        known,
        training,
        exclude_seen=not manifest["repeats"],
        labels=labels,
    )
    return _Fit(runner.train(make_task, training, on_epoch), counted, make_network(), runner)


def _num_parts(prepared: Path, training: TrainingConfig) -> int:
    """Parts enough for every worker, and so small that some fit where not all do."""
    rows: int = sum(pq.read_metadata(file).num_rows for file in prepared_files(prepared, "interactions"))
    streamed = rows > training.resident_interactions * training.num_workers
    return max(
        PARTS_A_WORKER * training.num_workers, PARTS_RESIDENT * rows // training.resident_interactions * streamed
    )


def _interactions(counted: Census) -> int:
    return counted.interactions


def _read(
    known: Catalogue, part: Part, *, split: str, refit: bool, target_actions: frozenset[str], labels: LabelConfig
) -> tuple[Examples, Census]:
    examples = read_part(part, known, split=split, refit=refit, target_actions=target_actions, labels=labels)
    return examples, census(examples, known, labels)


def classes_in(
    counted: Census, model: IntentModelConfig, known: Catalogue, labels: LabelConfig | None = None
) -> dict[Intent, tuple[str, ...]]:
    """Heads that are on, with their classes: those of the configuration whose data has two classes or more.

    Genres and kinds are all the catalogue's, since candidates have them whether chosen or not; of other intents only
    the classes that occur.
    """
    heads = {}
    for head, possible in possible_classes(known, labels or USUAL).items():
        occurs = counted.classes[head.value] > 0
        if head in model.intents and occurs.sum() > 1:
            whole = head in (Intent.GENRE, Intent.KIND)
            heads[head] = tuple(one for one, some in zip(possible, occurs, strict=True) if some or whole)
    return {head: heads[head] for head in model.intents if head in heads}


def shares_in(
    counted: Census, classes: dict[Intent, tuple[str, ...]], known: Catalogue, labels: LabelConfig
) -> dict[Intent, NDArray[np.float64]]:
    """Share of each class among the choices to learn from, as if each had been chosen once more."""
    shares = {}
    for head, possible in possible_classes(known, labels).items():
        if head in classes:
            counts_C = 1.0 + counted.classes[head.value][[possible.index(one) for one in classes[head]]]
            shares[head] = counts_C / counts_C.sum()
    return shares


def _network(
    model: IntentModelConfig,
    known: Catalogue,
    classes: dict[Intent, tuple[str, ...]],
    shares: dict[Intent, NDArray[np.float64]],
    labels: LabelConfig,
    seed: int,
) -> IntentModel:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = IntentModel(model, known, classes, labels)
    network.start_from(shares)
    return network


def _task(
    make_network: Callable[[], IntentModel],
    counts: list[Count],
    counted: Census,
    known: Catalogue,
    training: TrainingConfig,
    shard: Shard,
    rank: int,
    *,
    exclude_seen: bool,
    labels: LabelConfig,
) -> IntentTask:
    mine = Parts(shard, [counts[n] for n in shard.numbers], limit=training.resident_interactions)
    return IntentTask(
        make_network(), mine, counted, known, training, rank=rank, exclude_seen=exclude_seen, labels=labels
    )
