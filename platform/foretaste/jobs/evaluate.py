"""`foretaste evaluate`: the intent model beside what else could have been answered."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from rich.table import Table
from safetensors.torch import load_file

from foretaste.contracts.catalogue import Catalogue, catalogue
from foretaste.contracts.intents import specifications
from foretaste.datasets import caution, ties_seed
from foretaste.evaluation.baselines import fit_baselines
from foretaste.evaluation.cases import Cases, Split, Targets, cases
from foretaste.evaluation.chain import CaseRecommender
from foretaste.evaluation.config import EvaluationConfig
from foretaste.evaluation.intents import intent_figures
from foretaste.evaluation.protocols import Protocol
from foretaste.evaluation.ranking import check_blind
from foretaste.evaluation.ranking import evaluate as compare
from foretaste.evaluation.report import Report, write_report
from foretaste.jobs.ranked import chain_of, write_ranker
from foretaste.jobs.settings import Settings
from foretaste.jobs.workspace import needed
from foretaste.models.contract import Recommender
from foretaste.models.intent import IntentRecommender, build_intent
from foretaste.ops.bundles import Bundle, fetch_bundle
from foretaste.ops.files import read_json, read_parquet, write_json
from foretaste.ops.tables import read_manifest, read_prepared, read_titles
from foretaste.ops.telemetry import console, progress, say
from foretaste.sessions.label import intent_labels, queries_of


def evaluate(
    settings: Settings, *, split: Split = "time", targets: Targets | None = None, limit: int | None = None
) -> dict[str, Any]:
    """Compare the current intent model with the baselines on the test rows; write report.json and report.html.

    Raises ValueError when the model was trained under another split or catalogue: its figures would be of rows
    that it has seen.
    """
    tables = settings.tables
    prepared = needed(tables.prepared, made_by="prepare")
    manifest = read_manifest(prepared)
    bundle = fetch_bundle(needed(tables.registry, made_by="train"), "intent")
    about = bundle.manifest["about"]
    titles = catalogue(read_titles(prepared))
    interactions = read_prepared(prepared, "interactions")
    model = load_intent(bundle, titles)
    protocol = Protocol.of(
        split,
        targets,
        ties_seed=ties_seed(tables.raw),
        track="aware" if model.time_aware else "blind",
        refit=about["refit"],
        exclude_seen=not manifest["repeats"],
    )
    protocol.check_training("the current intent model", split=about["split"], refit=about["refit"])
    baselines = fit_baselines(interactions, titles, protocol=protocol, target_actions=manifest["target_actions"])
    config = settings.evaluation
    questions = cases(
        interactions,
        titles,
        split=split,
        target_actions=manifest["target_actions"],
        targets=protocol.targets,
        limit=limit or config.limit,
        seed=config.seed,
    )
    if protocol.track == "blind":
        check_blind(model, questions)
    chain = chain_of(settings, bundle, model, titles, questions) if protocol.track == "aware" else None
    models: list[Recommender | CaseRecommender] = [model, *([] if chain is None else [chain]), *baselines]
    with progress("evaluate", total=len(questions) * len(models), unit="answers") as advance:
        report = compare(
            models,
            questions,
            protocol=protocol,
            seed=config.seed,
            advance=advance,
            resamples=config.resamples,
            facts={
                "intent_model": bundle.version,
                "fitted_on": list(protocol.fit_on),
                "caution": caution(tables.raw),
            },
        )
    write_report(report, tables.evaluation)
    report.to_terminal()
    heads = _intents(model, questions, interactions, titles, manifest["target_actions"], config)
    write_json(heads, tables.evaluation / "intents.json")
    console.print(_intents_table(heads))
    ranked = {} if chain is None else {"ranker": write_ranker(chain, tables.evaluation, config)}
    say(f"report: {tables.evaluation / 'report.html'}")
    return summary(report) | {"intents": _gains(heads)} | ranked


def _intents(
    model: IntentRecommender,
    questions: Cases,
    interactions: pa.Table,
    titles: Catalogue,
    target_actions: list[str],
    config: EvaluationConfig,
) -> dict[str, Any]:
    """Measure the heads of the model on the next choice and on the rest of its session."""
    marks = interactions["split_time" if questions.split == "time" else "split_last"]
    learned = pc.and_(pc.equal(marks, "train"), pc.is_in(interactions["action"], value_set=pa.array(target_actions)))
    return intent_figures(
        model,
        questions,
        intent_labels(questions.timeline, titles, model.labels, queries_of(interactions)),
        {spec.name.value: spec.classes for spec in specifications(model.labels, titles)},
        np.asarray(learned.combine_chunks(), dtype=np.bool_),
        resamples=config.resamples,
        seed=config.seed,
    )


def _intents_table(heads: dict[str, Any]) -> Table:
    shown = Table("intent", "of", "cases", "likeliest is right", "of the prior", "log loss", "of the prior", "gain")
    for head, horizons in heads.items():
        for horizon, row in horizons.items():
            if not row["cases"]:
                shown.add_row(head, horizon, "0")
                continue
            gain = row["gain"]
            bounds = "" if gain["low"] is None else f" [{gain['low']:+.3f}, {gain['high']:+.3f}]"
            numbers = (f"{row[name]:.3f}" for name in ("hit", "hit_prior", "log_loss", "log_loss_prior"))
            shown.add_row(head, horizon, f"{row['cases']:,}", *numbers, f"{gain['value']:+.3f}{bounds}")
    return shown


def _gains(heads: dict[str, Any]) -> dict[str, dict[str, float]]:
    return {
        head: {horizon: round(row["gain"]["value"], 4) for horizon, row in horizons.items() if row["cases"]}
        for head, horizons in heads.items()
    }


def load_intent(bundle: Bundle, titles: Catalogue) -> IntentRecommender:
    """Build the intent model of a bundle. Raises ValueError when it knows other titles than `titles`."""
    own = catalogue(read_parquet(bundle.path / "titles.parquet"))
    if own.fingerprint != titles.fingerprint:
        raise ValueError(f"intent model {bundle.version} was trained with other titles: train again")
    return build_intent(read_json(bundle.path / "config.json"), own, load_file(bundle.path / "weights.safetensors"))


def summary(report: Report) -> dict[str, Any]:
    """The figures that a terminal line has room for: by metric and model."""
    return {
        "protocol": report.protocol,
        "best_baseline": report.best_baseline,
        **{
            metric: {name: round(row[metric].value, 4) for name, row in report.figures.items()}
            for metric in ("hr@10", "ndcg@10", "mrr@10")
        },
    }
