"""Training of the ranker: from a prepared folder, the current intent model and the slow views to a filed bundle."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file

from foretaste.contracts.catalogue import Catalogue, catalogue
from foretaste.contracts.sessions import SessionRule
from foretaste.models.intent import IntentRecommender, build_intent
from foretaste.models.ranker import Ranker, RankerConfig, ranker_bundle_config
from foretaste.ops.bundles import Bundle, fetch_bundle, file_bundle
from foretaste.ops.files import read_json, read_parquet, write_json, write_parquet
from foretaste.signals.candidates import CANDIDATE_COLUMNS
from foretaste.signals.declared import SIGNALS_VERSION
from foretaste.training.config import TrackingConfig, TrainingConfig
from foretaste.training.executors import executor
from foretaste.training.intent import TrainResult
from foretaste.training.loop import Epoch
from foretaste.training.ranker_cases import LEARN, SELECT, RankerCases, SlowViews, answer, join, questions
from foretaste.training.ranker_task import RankerTask, lift
from foretaste.training.tracking import recorded

CASES_A_PART = 2_000


def train_ranker(
    prepared: Path,
    registry: Path,
    features: SlowViews,
    *,
    model: RankerConfig,
    training: TrainingConfig,
    storage: Path,
    tracking: TrackingConfig,
    now: datetime,
    on_progress: Callable[[Epoch], None],
) -> TrainResult:
    """Train the ranker on the validation window of the time split and file it as bundle «ranker».

    Needs a current intent model that was trained before that window; the ranker belongs to it. Raises ValueError
    where the intent model has seen the window, or the window has no choices.
    """
    bundle = fetch_bundle(registry, "intent")
    intent, known = _intent(bundle)
    manifest = read_json(prepared / "manifest.json")
    asked = questions(prepared, known, manifest, limit=model.max_cases, seed=training.seed)
    cases = answer(
        asked,
        intent,
        known,
        features,
        num_candidates=model.num_candidates,
        repeats=manifest["repeats"],
        rule=SessionRule(**manifest.get("config", {}).get("rule", {})),
    )
    name = f"ranker-{now:%Y%m%dT%H%M%S}"
    with recorded(tracking, name=name, storage=storage, about={"model": model, "training": training}) as run:

        def on_epoch(epoch: Epoch) -> None:
            run.epoch(epoch)
            on_progress(epoch)

        make_network = partial(_network, model, *_standard(cases), training.seed)
        make_task = partial(_task, make_network, training, has_selection=bool((cases.role_B == SELECT).any()))
        runner = executor(training, storage=storage, name=name)
        runner.load(_shares(cases, training.num_workers), _same)
        state = runner.train(make_task, training, on_epoch)
        network = make_network()
        network.load_state_dict(state["best"])
        figures = lift(network, cases)
        run.values(figures, state["best_epoch"])
        about = {
            "model_config": model.fingerprint(),
            "training_config": training.model_dump(mode="json"),
            "intent_fingerprint": bundle.fingerprint,
            "intent_version": bundle.version,
            "signals": SIGNALS_VERSION,
            "views": features.contract("ranker"),
            "cases": len(cases),
            "best_epoch": state["best_epoch"],
            "metrics": figures,
        }
        with file_bundle(registry, "ranker", at=now, about=about) as folder:
            write_json(ranker_bundle_config(network), folder / "config.json")
            write_json(list(network.columns), folder / "columns.json")
            save_file({k: v.contiguous() for k, v in network.state_dict().items()}, folder / "weights.safetensors")
            write_parquet(read_parquet(bundle.path / "titles.parquet"), folder / "titles.parquet")
        filed = fetch_bundle(registry, "ranker")
        run.tag("bundle", filed.version)
    seconds = sum(epoch["seconds"] for epoch in state["epochs"])
    return TrainResult(filed, state["epochs"], state["best_epoch"], figures, seconds)


def _intent(bundle: Bundle) -> tuple[IntentRecommender, Catalogue]:
    about: dict[str, Any] = bundle.manifest["about"]
    if about["split"] != "time" or about["refit"]:
        why = "refit on validation rows" if about["refit"] else f"trained under split {about['split']!r}"
        raise ValueError(
            f"intent model {bundle.version} was {why}: its scores of the validation window are not those it would give "
            "live; train it under split 'time' without refit first"
        )
    known = catalogue(read_parquet(bundle.path / "titles.parquet"))
    weights = load_file(bundle.path / "weights.safetensors")
    return build_intent(read_json(bundle.path / "config.json"), known, weights), known


def _standard(cases: RankerCases) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean and deviation of every column over the candidates that are learned from."""
    mine = cases.role_B == LEARN
    rows_RF = cases.features_BCF[mine][cases.real_BC[mine]].astype(np.float64)
    if not len(rows_RF):
        raise ValueError("ranker: no actor of the validation window is left to learn from")
    return torch.from_numpy(rows_RF.mean(axis=0)).float(), torch.from_numpy(rows_RF.std(axis=0)).float()


def _network(model: RankerConfig, mean_F: torch.Tensor, deviation_F: torch.Tensor, seed: int) -> Ranker:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = Ranker(model, CANDIDATE_COLUMNS)
    network.standardise(mean_F, deviation_F)
    return network


def _shares(cases: RankerCases, num_workers: int) -> list[RankerCases]:
    """Divide cases so that every worker has as many, give or take one."""
    num_parts = max(1, -(-len(cases) // (CASES_A_PART * num_workers))) * num_workers
    return [cases.rows(np.arange(part, len(cases), num_parts)) for part in range(num_parts)]


def _same(cases: RankerCases) -> tuple[RankerCases, int]:
    return cases, len(cases)


def _task(
    make_network: Callable[[], Ranker],
    training: TrainingConfig,
    payloads: Sequence[RankerCases],
    rank: int,
    *,
    has_selection: bool,
) -> RankerTask:
    return RankerTask(make_network(), join(payloads), training, rank=rank, has_selection=has_selection)
