"""`foretaste evaluate`: the intent model beside what else could have been answered."""

from __future__ import annotations

from typing import Any

from safetensors.torch import load_file

from foretaste.contracts.catalogue import Catalogue, catalogue
from foretaste.evaluation.baselines import fit_baselines
from foretaste.evaluation.cases import Split, Targets, cases
from foretaste.evaluation.ranking import evaluate as compare
from foretaste.evaluation.report import Report, write_report
from foretaste.jobs.settings import Settings
from foretaste.jobs.workspace import needed
from foretaste.models.intent import IntentRecommender, build_intent
from foretaste.ops.bundles import Bundle, fetch_bundle
from foretaste.ops.files import read_json, read_parquet
from foretaste.ops.tables import read_prepared, read_titles
from foretaste.ops.telemetry import progress, say


def evaluate(
    settings: Settings, *, split: Split = "time", targets: Targets = "all", limit: int | None = None
) -> dict[str, Any]:
    """Compare the current intent model with the baselines on the test rows; write report.json and report.html.

    Raises ValueError when the model was trained under another split or catalogue: its figures would be of rows
    that it has seen.
    """
    tables = settings.tables
    prepared = needed(tables.prepared, made_by="prepare")
    manifest = read_json(prepared / "manifest.json")
    bundle = fetch_bundle(needed(tables.registry, made_by="train"), "intent")
    about = bundle.manifest["about"]
    if about["split"] != split:
        raise ValueError(f"the current intent model was trained with split {about['split']!r}, not {split!r}")
    titles = catalogue(read_titles(prepared))
    interactions = read_prepared(prepared, "interactions")
    model = load_intent(bundle, titles)
    fitted_on = ("train", "validation") if about["refit"] else ("train",)
    baselines = fit_baselines(
        interactions, titles, split=split, target_actions=manifest["target_actions"], fit_on=fitted_on
    )
    config = settings.evaluation
    questions = cases(
        interactions,
        titles,
        split=split,
        target_actions=manifest["target_actions"],
        targets=targets,
        limit=limit or config.limit,
        seed=config.seed,
    )
    with progress("evaluate", total=len(questions) * (len(baselines) + 1), unit="answers") as advance:
        report = compare(
            [model, *baselines],
            questions,
            exclude_seen=not manifest["repeats"],
            seed=config.seed,
            advance=advance,
            resamples=config.resamples,
            facts={"intent_model": bundle.version, "fitted_on": list(fitted_on)},
        )
    write_report(report, tables.evaluation)
    report.to_terminal()
    say(f"report: {tables.evaluation / 'report.html'}")
    return summary(report)


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
