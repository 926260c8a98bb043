"""One model, one seed, one protocol: trained, asked once, and kept, so that a long run can stop and go on.

A trained model lies in `trained/`, keyed by its configuration, the training's, the data and the code that it depends
on; what it answered in `cells/`, keyed by all that and by the protocol. Other targets, seeds or models are added to
what is there; nothing is read that was made by other code or of other data.

Shapes: B cases, I heads that are on.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from foretaste.contracts.histories import Histories
from foretaste.contracts.intents import specifications
from foretaste.evaluation.baselines import fit_baselines
from foretaste.evaluation.cases import Cases, Split, cases
from foretaste.evaluation.intents import intent_figures
from foretaste.evaluation.protocols import BESIDE, Protocol
from foretaste.evaluation.ranking import BLOCK_BYTES, ask, check_blind
from foretaste.jobs.bench_models_data import Log, bench_folder, log
from foretaste.jobs.bench_models_names import (
    baseline_config,
    code_of_evaluation,
    code_of_training,
    network_config,
)
from foretaste.jobs.bench_options import BenchOptions
from foretaste.jobs.bench_reference_cells import Reference
from foretaste.jobs.evaluate import load_intent
from foretaste.jobs.reference_models import RECIPES
from foretaste.jobs.settings import Settings
from foretaste.models.baselines import BASELINES
from foretaste.models.contract import Recommender
from foretaste.models.intent import IntentModelConfig, IntentRecommender
from foretaste.ops.bundles import fetch_bundle
from foretaste.ops.files import read_json, whole_folder, write_json
from foretaste.ops.telemetry import say
from foretaste.training.config import TrackingConfig, TrainingConfig
from foretaste.training.intent import train_intent

FORMAT = 1
INTENT_CASES = 4_000
QUICK_EPOCHS = 2
AT_ONCE = 512


@dataclass(frozen=True)
class Cell:
    """What one model of one seed answered."""

    model: str
    seed: int
    about: dict[str, Any]  # what it depends on
    facts: dict[str, Any]  # costs and heads; empty of a classic model
    rank_B: NDArray[np.int64]  # ties of scores by catalogue code
    last_B: NDArray[np.int64]  # the same with the target last among equals
    cut_B: NDArray[np.int64] | None  # without what was done in the target's session, where that was asked for
    attention_BI: NDArray[np.float32] | None  # weight of each head; None without heads
    after_BI: NDArray[np.float32] | None  # the same after the choice, of a session's last; NaN of others; where asked
    heads: tuple[str, ...]


class Comparison:
    """The models of one log under one split; cases and models are made as they are asked for."""

    def __init__(self, settings: Settings, options: BenchOptions, name: str, split: Split) -> None:
        self.settings = settings
        self.options = options
        self.name = name
        self.split = split
        self.folder = bench_folder(settings) / (f"{name}-quick" if options.quick else name)
        self._logs: dict[int | None, Log] = {}
        self._cases: dict[int | None, Cases] = {}

    def log(self, seed: int = 0) -> Log:
        """The log as the run with that seed reads it."""
        key = seed if self.options.ties == "shuffled" else None
        if key not in self._logs:
            self._logs[key] = log(self.settings, self.options, self.name, ties_seed=key)
        return self._logs[key]

    def protocol(self, seed: int = 0) -> Protocol:
        """The rules of the run with that seed."""
        return self.options.protocol(self.split, seed=seed, exclude_seen=not self.log(seed).manifest["repeats"])

    def cases(self, seed: int = 0) -> Cases:
        """The questions of the run with that seed."""
        given, protocol = self.log(seed), self.protocol(seed)
        if given.ties_seed not in self._cases:
            self._cases[given.ties_seed] = cases(
                given.interactions, given.catalogue, split=self.split, target_actions=given.target_actions,
                targets=protocol.targets, limit=self.settings.evaluation.limit, seed=self.settings.evaluation.seed,
            )  # fmt: skip
        return self._cases[given.ties_seed]

    def training(self, seed: int) -> TrainingConfig:
        """How networks are trained here: in this process, by one thread."""
        update = {"executor": "plain", "split": self.split, "seed": seed, "refit": self.options.refit,
                  "num_workers": 1, "threads_per_worker": 1}  # fmt: skip
        if self.options.quick:
            update["epochs"] = min(QUICK_EPOCHS, self.settings.training.epochs)
        return self.settings.training.model_copy(update=update)

    def network(self, name: str, seed: int) -> IntentModelConfig:
        """The configuration of a network under the rules of the run with that seed."""
        return network_config(self.settings, name, self.protocol(seed), quick=self.options.quick)

    def _made(self, model: str, seed: int) -> _Classic | _Network | Reference:
        if model in RECIPES:
            return Reference(self, model, seed)
        return _Classic(self, model, seed) if model in BASELINES else _Network(self, model, seed)

    def cell(self, model: str, seed: int, *, session: bool = False, after: bool = False) -> Cell:
        """Answer of one model; kept. With `session` it is asked again without the target's own session.

        With `after` networks say which heads they attend to when all of a session has been seen.

        A classic model draws nothing: without shuffled ties all seeds have the same cell.
        """
        if model in BASELINES and self.options.ties == "stable":
            seed = 0
        made = self._made(model, seed)
        about = made.about | {
            "format": FORMAT, "protocol": self.protocol(seed).model_dump(mode="json"), "session": session,
            "after": after,
            "limit": self.settings.evaluation.limit, "drawn": self.settings.evaluation.seed,
            "evaluation": code_of_evaluation(),
        }  # fmt: skip
        folder = self.folder / "cells" / f"{model}-s{seed}-{_key(about)}"
        if not folder.is_dir():
            say(f"bench models: {self.name}, {model}, seed {seed}")
            _answer(self, made, about, folder, session=session, after=after)
        return _read(model, seed, folder)


class _Classic:
    """A model that counts."""

    def __init__(self, comparison: Comparison, name: str, seed: int) -> None:
        self.comparison, self.name, self.seed = comparison, name, seed
        self.config = baseline_config(name, comparison.protocol(seed), comparison.name)
        self.about = {
            "model": name,
            "config": self.config.model_dump(mode="json"),
            "data": comparison.log(seed).fingerprint,
            "fit_on": list(comparison.protocol(seed).fit_on),
            "code": code_of_training(self.config),
        }

    @cached_property
    def recommender(self) -> Recommender:
        """The model, fitted."""
        given = self.comparison.log(self.seed)
        return fit_baselines(
            given.interactions, given.catalogue, protocol=self.comparison.protocol(self.seed),
            target_actions=given.target_actions, configs=[self.config],
        )[0]  # fmt: skip

    def facts(self) -> dict[str, Any]:
        """Nothing is trained."""
        return {}


class _Network:
    """A model that is trained."""

    def __init__(self, comparison: Comparison, name: str, seed: int) -> None:
        self.comparison, self.name, self.seed = comparison, name, seed
        self.config = comparison.network(name, seed)
        self.training = comparison.training(seed)
        self.labels = comparison.settings.labels
        self.about = {
            "model": name,
            "config": self.config.model_dump(mode="json"),
            "training": self.training.model_dump(mode="json"),
            "labels": self.labels.model_dump(mode="json"),
            "data": comparison.log(seed).fingerprint,
            "code": code_of_training(self.config),
        }
        self.folder = comparison.folder / "trained" / f"{name}-s{seed}-{_key(self.about)}"

    @cached_property
    def recommender(self) -> Recommender:
        """The model under its name."""
        return Watched(self.trained, self.name)

    @cached_property
    def trained(self) -> IntentRecommender:
        """The model, trained now or before."""
        if not (self.folder / "training.json").is_file():
            self._train()
        bundle = fetch_bundle(self.folder / "registry", "intent")
        about = bundle.manifest["about"]
        self.comparison.protocol(self.seed).check_training(self.name, split=about["split"], refit=about["refit"])
        return load_intent(bundle, self.comparison.log(self.seed).catalogue)

    def facts(self) -> dict[str, Any]:
        """What training cost, and how well the heads predict."""
        return {**read_json(self.folder / "training.json"), "intents": self._intents()}

    def _train(self) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)
        done = train_intent(
            self.comparison.log(self.seed).prepared, self.folder / "registry", model=self.config,
            training=self.training, storage=self.folder / "runs", tracking=TrackingConfig(enabled=False),
            now=datetime.now(UTC), on_progress=lambda epoch: None, labels=self.labels,
        )  # fmt: skip
        shutil.rmtree(self.folder / "runs", ignore_errors=True)
        loaded = load_intent(done.bundle, self.comparison.log(self.seed).catalogue)
        names = ("cpu_seconds", "training_cpu_seconds")
        whole, training = ([float(epoch[name]) for epoch in done.epochs] for name in names)
        write_json(
            {
                "parameters": sum(p.numel() for p in loaded.model.parameters()),
                "epochs": len(whole),
                "best_epoch": done.best_epoch,
                "cpu_seconds_per_epoch": float(np.mean(training)),
                "cpu_seconds_to_best": float(np.sum(training[: done.best_epoch])),
                "cpu_seconds_with_validation": float(np.sum(whole)),
                "validation": done.metrics,
            },
            self.folder / "training.json",
        )

    def _intents(self) -> dict[str, Any]:
        given, asked = self.comparison.log(self.seed), self.comparison.cases(self.seed)
        model = self.trained
        if not model.heads:
            return {}
        declared = {spec.name.value: spec.classes for spec in specifications(model.labels, given.catalogue)}
        return intent_figures(
            model, asked, given.labels_T, declared, given.learned_T(asked.split), limit=INTENT_CASES, resamples=100
        )


class Watched:
    """A network under the name that it has here, which keeps the attention of all that it was asked."""

    def __init__(self, trained: IntentRecommender, name: str) -> None:
        self.name = name
        self.time_aware = trained.time_aware
        self.heads = trained.heads
        self.attention: list[NDArray[np.float32]] = []
        self._trained = trained

    def scores(self, histories: Histories, asof_B: NDArray[np.int64]) -> NDArray[np.float32]:
        """Log-probabilities of the next title; float32[B, N]."""
        said = self._trained.predict(histories, asof_B)
        self.attention.append(said.attention_BI)
        return said.scores_BN


def _answer(
    comparison: Comparison,
    made: _Classic | _Network | Reference,
    about: dict[str, Any],
    folder: Path,
    *,
    session: bool,
    after: bool,
) -> None:
    """Ask the model all cases and write the cell, whole or not at all."""
    asked, protocol, model = comparison.cases(made.seed), comparison.protocol(made.seed), made.recommender
    protocol.check_cases(asked)
    protocol.check_model(model)
    if protocol.track == "blind" and model.name != BESIDE and not isinstance(made, Reference):
        check_blind(made.trained if isinstance(made, _Network) else model, asked)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        rank_B, last_B = _ranks(model, asked, protocol)
        attention_BI = np.concatenate(model.attention) if isinstance(model, Watched) and model.heads else None
        told = after and isinstance(made, _Network) and bool(made.trained.heads)
        after_BI = attention_after(made.trained, asked) if told and isinstance(made, _Network) else None
        cut_B = _ranks(model, asked, protocol, session=False)[0] if session else None
        facts = made.facts()
    finally:
        torch.set_num_threads(threads)
    with whole_folder(folder) as partial:
        np.save(partial / "ranks.npy", np.stack([rank_B, last_B]).astype(np.int32))
        if cut_B is not None:
            np.save(partial / "cut.npy", cut_B.astype(np.int32))
        if attention_BI is not None:
            np.save(partial / "attention.npy", attention_BI)
        if after_BI is not None:
            np.save(partial / "after.npy", after_BI)
        heads = list(model.heads) if isinstance(model, Watched) else []
        write_json({"about": about, "facts": facts, "heads": heads}, partial / "cell.json")


def attention_after(trained: IntentRecommender, asked: Cases) -> NDArray[np.float32]:
    """Weights of the heads when the last choice of a session has been seen to its end; NaN rows of other cases."""
    timeline = asked.timeline
    key_B = np.stack([asked.actor_B, timeline.session_T[asked.stop_B]])
    _, last = np.unique(key_B[:, ::-1], axis=1, return_index=True)
    rows = np.sort(len(asked) - 1 - last)
    stop_R = asked.stop_B[rows]
    ended_R = asked.asof_B[rows] + np.rint(timeline.dwell_T[stop_R].astype(np.float64) * 1e6).astype(np.int64)
    after_BI = np.full((len(asked), len(trained.heads)), np.nan, dtype=np.float32)
    for first in range(0, len(rows), AT_ONCE):
        at = slice(first, first + AT_ONCE)
        seen = timeline.take(asked.start_B[rows[at]], stop_R[at] + 1)
        after_BI[rows[at]] = trained.predict(seen, ended_R[at]).attention_BI
    return after_BI


def _ranks(
    model: Recommender, asked: Cases, protocol: Protocol, *, session: bool = True
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Ranks with equal scores by code, and with the target last among them, in one pass."""
    size = max(1, min(512, BLOCK_BYTES // (4 * max(asked.num_titles, 1))))
    answers = ask(
        model, asked, (10,), without_seen=protocol.exclude_seen, batch_size=size, advance=lambda amount: None,
        session=session,
    )  # fmt: skip
    return answers.rank_B, answers.last_B


def _read(model: str, seed: int, folder: Path) -> Cell:
    found = read_json(folder / "cell.json")
    ranks = np.load(folder / "ranks.npy").astype(np.int64)
    cut = np.load(folder / "cut.npy").astype(np.int64) if (folder / "cut.npy").is_file() else None
    attention, after = (
        np.load(folder / f"{name}.npy") if (folder / f"{name}.npy").is_file() else None
        for name in ("attention", "after")
    )
    heads = tuple(found["heads"])
    return Cell(model, seed, found["about"], found["facts"], ranks[0], ranks[1], cut, attention, after, heads)


def _key(about: dict[str, Any]) -> str:
    body = json.dumps(about, sort_keys=True, separators=(",", ":"))
    return hashlib.blake2b(body.encode(), digest_size=6).hexdigest()
