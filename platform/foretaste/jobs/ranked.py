"""The ranker in an evaluation: the chain that it is the end of, and what is written of it."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.table import Table
from safetensors.torch import load_file

from foretaste.contracts.catalogue import Catalogue
from foretaste.contracts.sessions import SessionRule
from foretaste.evaluation.calibration_page import CELLS, cells, reliability_page
from foretaste.evaluation.cases import Cases
from foretaste.evaluation.chain import Chain
from foretaste.evaluation.config import EvaluationConfig
from foretaste.jobs.features import feature_store
from foretaste.jobs.settings import Settings
from foretaste.models.intent import IntentRecommender
from foretaste.models.ranker_scorer import build_ranker
from foretaste.ops.bundles import CURRENT, Bundle, fetch_bundle
from foretaste.ops.files import read_json, whole_file, write_json
from foretaste.ops.tables import read_manifest, read_prepared
from foretaste.ops.telemetry import console, say
from foretaste.signals.candidates import CANDIDATE_COLUMNS
from foretaste.signals.past_acts import PastActs
from foretaste.signals.ranked_past import Reading
from foretaste.signals.requests import REQUEST_COLUMNS


def chain_of(
    settings: Settings, bundle: Bundle, intent: IntentRecommender, titles: Catalogue, cases: Cases
) -> Chain | None:
    """Put the current ranker behind its intent model; None where there is none that belongs to it."""
    tables = settings.tables
    if cases.split != "time" or not (tables.registry / "ranker" / CURRENT).is_file():
        return None
    ranker = fetch_bundle(tables.registry, "ranker")
    if ranker.manifest["about"].get("intent_fingerprint") != bundle.fingerprint:
        say(f"evaluate: ranker {ranker.version} belongs to another intent model, so it is left out")
        return None
    weights = load_file(ranker.path / "weights.safetensors")
    scorer = build_ranker(read_json(ranker.path / "config.json"), weights, intent.title_N1D)
    scorer.check_columns(CANDIDATE_COLUMNS, REQUEST_COLUMNS)
    manifest = read_manifest(tables.prepared)
    rule = SessionRule(**manifest.get("config", {}).get("rule", {}))
    limit = settings.serving.session_log.read_events
    reading = Reading(
        intent,
        titles,
        feature_store(settings),
        PastActs(read_prepared(tables.prepared, "acts"), titles, rule, limit=limit),
        rule,
        bool(manifest["repeats"]),
        min(scorer.num_candidates, len(titles)),
        scorer.recent,
    )
    return Chain(scorer, reading, cases)


def write_ranker(chain: Chain, folder: Path, config: EvaluationConfig) -> dict[str, Any]:
    """Write ranker.json and ranker.html and show both; returns the lift."""
    found = chain.report(resamples=config.resamples, seed=config.seed)
    lift = found["lift"]["ndcg@10"]
    heads = {head.value: one for head, one in found["heads"].items()}
    written = found | {
        "lift": {name: asdict(one) for name, one in found["lift"].items()},
        "heads": {name: None if one is None else asdict(one) for name, one in heads.items()},
    }
    write_json(written, folder / "ranker.json")
    bounds = "" if lift.low is None else f" [{lift.low:+.4f}, {lift.high:+.4f}]"
    said = f"ranker: NDCG@10 {lift.value:+.4f}{bounds} over the order of the intent model, {found['cases']:,} cases"
    with whole_file(folder / "ranker.html") as path:
        path.write_text(reliability_page(heads, what=said))
    shown = Table("head", *CELLS)
    for name, one in heads.items():
        shown.add_row(name, *cells(one))
    console.print(shown)
    say(said)
    return {"lift": round(lift.value, 4), "low": lift.low, "high": lift.high}
