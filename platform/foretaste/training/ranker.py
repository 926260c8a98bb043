"""Training of the ranker: from a prepared folder, the current intent model and the slow views to a filed bundle."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file

from foretaste.contracts.catalogue import Catalogue, catalogue
from foretaste.contracts.sessions import SessionRule
from foretaste.models.intent import IntentRecommender, build_intent
from foretaste.models.ranker import Ranker, RankerConfig
from foretaste.models.ranker_heads import Head
from foretaste.models.ranker_scorer import ranker_bundle_config
from foretaste.ops.bundles import Bundle, fetch_bundle, file_bundle
from foretaste.ops.files import read_json, read_parquet, write_json, write_parquet
from foretaste.ops.tables import read_prepared
from foretaste.signals.candidates import CANDIDATE_COLUMNS
from foretaste.signals.declared import SIGNALS_VERSION
from foretaste.signals.past_acts import PastActs
from foretaste.signals.ranked_past import Reading, SlowViews
from foretaste.signals.requests import NUM_ABOUT, REQUEST_COLUMNS
from foretaste.training.config import TrackingConfig, TrainingConfig
from foretaste.training.executors import executor
from foretaste.training.impressions import impressions, slates
from foretaste.training.intent import TrainResult
from foretaste.training.loop import Epoch
from foretaste.training.ranker_cases import REPORT, RankerCases, choices, join, questions
from foretaste.training.ranker_report import calibrate, chosen_epoch, lift, taught
from foretaste.training.ranker_task import Folded, RankerTask
from foretaste.training.runs import run_name
from foretaste.training.tracking import recorded

CASES_A_PART = 2_000
Payload = tuple[RankerCases, RankerCases, RankerCases | None]
"""Choices, the same with the current session cut off, and slates."""


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
    read_events: int = 200,
    runs: str | None = None,
) -> TrainResult:
    """Train the ranker on the validation window of the time split and file it as bundle «ranker».

    Needs a current intent model that was trained before that window; the ranker belongs to it. `read_events` is how
    many acts of a member a request reads. Checkpoints go to `runs`, by default to `storage`, until it is filed. Raises
    ValueError where the intent model has seen the window, or the window has no choices.
    """
    bundle = fetch_bundle(registry, "intent")
    intent, known = _intent(bundle)
    cases = _cases(prepared, intent, known, features, model, seed=training.seed, read_events=read_events)
    name = f"ranker-{now:%Y%m%dT%H%M%S}"
    with recorded(tracking, name=name, storage=storage, about={"model": model, "training": training}) as run:

        def on_epoch(epoch: Epoch) -> None:
            run.epoch(epoch)
            on_progress(epoch)

        make_networks = partial(_networks, model, _standard(cases[0]), intent.title_N1D, training.seed)
        has_selection = bool((cases[0].fold_B != REPORT).any())
        make_task = partial(_task, make_networks, training, has_selection=has_selection)
        asked = run_name("ranker", bundle.fingerprint, model, training.taught(), cases)
        runner = executor(training, place=runs or storage, name=asked)
        runner.load(_shares(cases, training.num_workers), _same)
        state = runner.train(make_task, training, on_epoch)
        networks, best_epoch = chosen_epoch(make_networks, state, cases[0])
        heads = taught(cases[0])
        network = networks.kept
        network.calibrate(calibrate(networks, cases[0], heads))
        figures = lift(networks, cases[0])
        run.values(figures, best_epoch)
        about = {
            "model_config": model.fingerprint(),
            "training_config": training.model_dump(mode="json"),
            "intent_fingerprint": bundle.fingerprint,
            "intent_version": bundle.version,
            "signals": SIGNALS_VERSION,
            "views": features.contract("ranker"),
            "cases": len(cases[0]),
            "slates": 0 if cases[2] is None else len(cases[2]),
            "heads": {head.value: heads.get(head) for head in Head},
            "best_epoch": best_epoch,
            "metrics": figures,
        }
        with file_bundle(registry, "ranker", at=now, about=about) as folder:
            write_json(ranker_bundle_config(network), folder / "config.json")
            write_json(list(network.columns), folder / "columns.json")
            save_file({k: v.contiguous() for k, v in network.state_dict().items()}, folder / "weights.safetensors")
            write_parquet(read_parquet(bundle.path / "titles.parquet"), folder / "titles.parquet")
        filed = fetch_bundle(registry, "ranker")
        run.tag("bundle", filed.version)
        runner.forget()
    seconds = sum(epoch["seconds"] for epoch in state["epochs"])
    return TrainResult(filed, state["epochs"], best_epoch, figures, seconds)


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


def _cases(
    prepared: Path, intent: IntentRecommender, known: Catalogue, features: SlowViews, model: RankerConfig, *, seed: int,
    read_events: int,
) -> Payload:  # fmt: skip
    """Everything that is learned from, as it was known then."""
    manifest = read_json(prepared / "manifest.json")
    rule = SessionRule(**manifest.get("config", {}).get("rule", {}))
    acts = PastActs(read_prepared(prepared, "acts"), known, rule, limit=read_events)
    reading = Reading(
        intent, known, features, acts, rule, bool(manifest["repeats"]), min(model.num_candidates, len(known)),
        model.recent,
    )  # fmt: skip
    asked = questions(prepared, known, manifest, limit=model.max_cases, seed=seed)
    whole, cut = choices(asked, reading, folds=model.folds, cut=model.session_dropout > 0)
    found = slates(prepared, known, manifest, limit=model.max_cases, seed=seed) if model.impression_weight else None
    shown = None if found is None else impressions(found, asked.timeline, asked.names, reading, folds=model.folds)
    return whole, cut, shown


Standard = tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor, dict[Head, float]]


def _standard(cases: RankerCases) -> Standard:
    """Means and deviations of all columns over the candidates that are learned from, and how often heads are true."""
    mine = cases.rows(np.flatnonzero(cases.fold_B != REPORT))
    if not len(mine):
        raise ValueError("ranker: no actor of the validation window is left to learn from")
    real_BC, count_B = mine.real_BC, mine.real_BC.sum(axis=1)
    candidates_MF = mine.inputs.features_BCF[real_BC].astype(np.float64)
    weight_B = count_B / max(1, count_B.sum())
    requests_MR = mine.inputs.request_BR.astype(np.float64)
    mean_R = weight_B @ requests_MR
    deviation_R = np.sqrt(weight_B @ (requests_MR - mean_R) ** 2)
    context_MX = mine.inputs.context_BX.astype(np.float64)
    arrays = (
        np.concatenate([candidates_MF.mean(axis=0), mean_R]),
        np.concatenate([candidates_MF.std(axis=0), deviation_R]),
        context_MX.mean(axis=0),
        context_MX.std(axis=0),
    )
    mean_F, deviation_F, mean_X, deviation_X = (torch.from_numpy(array).float() for array in arrays)
    shares: dict[Head, float] = {head: rate["share"] for head, rate in taught(mine).items() if head is not Head.PLAY}
    return mean_F, deviation_F, mean_X, deviation_X, shares


def _networks(model: RankerConfig, standard: Standard, title_N1D: NDArray[np.float32], seed: int) -> Folded:
    """Make the networks, all with the same first weights."""

    def one() -> Ranker:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            network = Ranker(model, CANDIDATE_COLUMNS, REQUEST_COLUMNS, NUM_ABOUT, len(standard[2]), title_N1D)
        network.standardise(*standard[:4])
        network.expect(standard[4])
        return network

    return Folded(one(), [one() for _ in range(model.folds)])


def _shares(cases: Payload, num_workers: int) -> list[Payload]:
    """Divide cases so that every worker has as many, give or take one."""
    num_parts = max(1, -(-len(cases[0]) // (CASES_A_PART * num_workers))) * num_workers

    def part(of: RankerCases, number: int) -> RankerCases:
        return of.rows(np.arange(number, len(of), num_parts))

    whole, cut, shown = cases
    return [(part(whole, n), part(cut, n), None if shown is None else part(shown, n)) for n in range(num_parts)]


def _same(cases: Payload) -> tuple[Payload, int]:
    return cases, len(cases[0])


def _task(
    make_networks: Callable[[], Folded],
    training: TrainingConfig,
    payloads: Sequence[Payload],
    rank: int,
    *,
    has_selection: bool,
) -> RankerTask:
    whole, cut = join([whole for whole, _, _ in payloads]), join([cut for _, cut, _ in payloads])
    slated = [shown for _, _, shown in payloads if shown is not None]
    shown = join(slated) if slated else None
    return RankerTask(make_networks(), whole, cut, shown, training, rank=rank, has_selection=has_selection)
