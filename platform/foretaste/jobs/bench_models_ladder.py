"""`foretaste bench models`: any list of models on one log, under one set of rules, over several seeds."""

from __future__ import annotations

from typing import Any

from foretaste.evaluation.cases import Split
from foretaste.evaluation.protocols import BESIDE, SPLITS
from foretaste.jobs.bench_models_cells import Comparison
from foretaste.jobs.bench_models_figures import MAIN, Row, bar, cells_of, figures
from foretaste.jobs.bench_models_names import model_names
from foretaste.jobs.bench_models_table import write
from foretaste.jobs.bench_options import BenchOptions
from foretaste.jobs.settings import Settings
from foretaste.models.baselines import BASELINES

QUICK = ("popularity", "markov", "v0", "v3")
REFERENCES = ("v0", "sasrec", "intent")
"""What the others are paired with where nothing is said: the first of these that was run, else the first named."""

INTENDED = ("movielens-1m", "movietweetings", "deskdrop")
PUBLISHED = {"blind": (0.186, 0.321), "aware": (0.188, 0.323)}
"""Best published NDCG@10 and HR@10 by track, MovieLens-1M, leave-one-out, whole catalogue: SASRec+; HSTU on CPUs."""


def ladder(settings: Settings, options: BenchOptions) -> dict[str, Any]:
    """Train and ask every model on every seed, write the table and the drawing; returns the figures and bars by split.

    Raises ValueError for a model that there is not or that the rules forbid.
    """
    name = options.data or "world"
    names = model_names(options.models or (QUICK if options.quick else None))
    found = {split: _one(settings, options, name, split, names) for split in options.splits}
    merged = {
        key: {f"{what}, {SPLITS[split]}": one for split, part in found.items() for what, one in part[key].items()}
        for key in ("bars", "skipped")
    }
    return {"data": name, "figures": found, **merged}


def _one(settings: Settings, options: BenchOptions, name: str, split: Split, names: tuple[str, ...]) -> dict[str, Any]:
    comparison = Comparison(settings, options, name, split)
    against = reference(options, names)
    rows = figures(comparison, cells_of(comparison, names), against)
    found = described(comparison, against, rows)
    found |= _bars(comparison, rows, against) if not options.quick else {"bars": {}, "skipped": {}}
    folder = comparison.folder / "tables" / f"{split}-{comparison.protocol().fingerprint()}"
    write(found, folder)
    return found | {"folder": str(folder)}


def reference(options: BenchOptions, names: tuple[str, ...]) -> str:
    """The model that the others are paired with. Raises ValueError where it is not among them."""
    usual = next((one for one in (*REFERENCES, *names) if one in names and one != BESIDE), BESIDE)
    found = options.against or usual
    if found not in names:
        raise ValueError(f"--against {found}: it is not among the models {', '.join(names)}")
    return found


def described(comparison: Comparison, against: str, rows: dict[str, Row]) -> dict[str, Any]:
    """A comparison as plain values: its rules, its log, its figures."""
    asked, given, protocol = comparison.cases(), comparison.log(), comparison.protocol()
    return {
        "data": comparison.name,
        "caution": given.caution,
        "rules": protocol.text,
        "protocol": protocol.model_dump(mode="json"),
        "split_text": SPLITS[comparison.split],
        "track": protocol.track,
        "cases": len(asked),
        "actors": asked.num_actors,
        "titles": asked.num_titles,
        "never_chosen": asked.share_never_chosen,
        "seeds": comparison.options.num_seeds,
        "against": against,
        "models": rows,
    }


def _bars(comparison: Comparison, rows: dict[str, Row], against: str) -> dict[str, Any]:
    bars: dict[str, Any] = {}
    skipped: dict[str, str] = {}
    name, split, options = comparison.name, comparison.split, comparison.options
    if name in INTENDED and split == "time":
        what = f"{MAIN} of v3 over v0 on {name}, low end of the interval over seeds and actors"
        gap = rows.get("v3", {}).get(f"{MAIN} difference", {})
        if against == "v0" and "over_both" in gap and gap["over_both"]["n"] > 1:
            low = gap["over_both"]["low"]
            bars[what] = bar(low, "> 0", low > 0)
        else:
            skipped[what] = "needs v3 and v0, paired with v0, stable ties and two seeds or more"
    ours = [one for one in rows if one not in BASELINES and one != "intent"]
    if name == "movielens-1m" and split == "last" and ours:
        best = max(ours, key=lambda one: rows[one][MAIN]["value"])
        for metric, wanted in zip((MAIN, "hr@10"), PUBLISHED[options.track], strict=True):
            value = rows[best][metric]["value"]
            bars[f"{metric} of {best} on {name}, {options.track} track"] = bar(value, f">= {wanted}", value >= wanted)
    return {"bars": bars, "skipped": skipped}
