"""`foretaste bench models --part session`: the same model with and without what was done in the current session.

Shapes: S seeds, B cases.
"""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import numpy as np
from numpy.typing import NDArray

from foretaste.evaluation.seeds import over_both, over_seeds, paired_ratio
from foretaste.jobs.bench_models_cells import Cell, Comparison
from foretaste.jobs.bench_models_figures import MAIN, bar, cells_of, interval, values
from foretaste.jobs.bench_models_ladder import described
from foretaste.jobs.bench_models_names import model_names
from foretaste.jobs.bench_models_table import table
from foretaste.jobs.bench_options import BenchOptions
from foretaste.jobs.reference_models import RECIPES
from foretaste.jobs.settings import Settings
from foretaste.models.baselines import BASELINES
from foretaste.ops.files import whole_file, write_json
from foretaste.ops.telemetry import console, say

MODELS = ("vstan", "v3", "foretaste", "intent")
OURS = ("foretaste", "v3", "intent")
"""The full model: the first of these that was run."""

COMPARED = "vstan"
LIFT = 0.06
"""What in-session signals are worth at Netflix, as it says."""

IN_SESSION, ALL = "cases with something done in their session before", "all cases"


def session(settings: Settings, options: BenchOptions) -> dict[str, Any]:
    """Cut the current session off the history at question time, and see what each model loses.

    What is excluded from the ranking stays what it is with the session. Raises ValueError for models of reference
    libraries, and where no case has anything before it in its session.
    """
    if options.ties == "shuffled":
        raise ValueError("bench models --part session: ties are stable there, so that all runs have the same cases")
    names = model_names(options.models, MODELS)
    if theirs := [name for name in names if name in RECIPES]:
        raise ValueError(f"bench models --part session: {', '.join(theirs)} cannot be asked without the session")
    comparison = Comparison(settings, options, options.data or "world", options.splits[0])
    cells = cells_of(comparison, names, session=True)
    inside_B = comparison.cases().depth_B > 0
    if not inside_B.any():
        raise ValueError(f"bench models: no case of {comparison.name} has anything before it in its session")
    rows = {ALL: np.ones_like(inside_B), IN_SESSION: inside_B}
    found = {
        what: {name: _lift(comparison, own, kept_B) for name, own in cells.items()} for what, kept_B in rows.items()
    }
    counts = {what: int(kept_B.sum()) for what, kept_B in rows.items()}
    ours = next((name for name in OURS if name in names), None)
    bars = _bars(comparison.name, found, ours)
    about = described(comparison, ours or names[0], {}) | {"lift": found, "counts": counts}
    _write(comparison, about, bars)
    skipped = {} if ours else {"in-session lift": f"none of {', '.join(OURS)} was run"}
    return {"data": comparison.name, "figures": about, "bars": {} if options.quick else bars, "skipped": skipped}


def _lift(comparison: Comparison, own: list[Cell], kept_B: NDArray[np.bool_]) -> dict[str, Any]:
    whole_SB, cut_SB = (np.stack([values(_rank(cell, cut), MAIN)[kept_B] for cell in own]) for cut in (False, True))
    once = own[0].model in BASELINES
    whole_S, cut_S = whole_SB.mean(axis=1), cut_SB.mean(axis=1)
    if once:
        whole_S, cut_S, whole_SB, cut_SB = whole_S[:1], cut_S[:1], whole_SB[:1], cut_SB[:1]
    found = {"whole": asdict(over_seeds(whole_S)), "cut": asdict(over_seeds(cut_S))}
    if (cut_S > 0).all():
        found["lift"] = asdict(paired_ratio(whole_S, cut_S))
    actor_B = comparison.cases().actor_B[kept_B]
    return found | {"gap": asdict(over_both(whole_SB - cut_SB, actor_B))}


def _rank(cell: Cell, cut: bool) -> NDArray[np.int64]:
    if not cut:
        return cell.rank_B
    assert cell.cut_B is not None
    return cell.cut_B


def _bars(name: str, found: dict[str, Any], ours: str | None) -> dict[str, Any]:
    bars: dict[str, Any] = {}
    for what, models in found.items() if ours else ():
        assert ours is not None
        lift = models[ours].get("lift", {}).get("value", float("inf"))
        bars[f"{MAIN} of {ours} over itself without the session, {name}, {what}"] = bar(
            lift, f">= +{LIFT:.0%}", lift >= LIFT
        )
        if COMPARED in models:
            gap = models[ours]["whole"]["value"] - models[COMPARED]["whole"]["value"]
            bars[f"{MAIN} of {ours} - {COMPARED}, {name}, {what}"] = bar(gap, ">= 0", gap >= 0)
    return bars


def _write(comparison: Comparison, about: dict[str, Any], bars: dict[str, Any]) -> None:
    parts = [f"# {about['data']}, the current session cut off: {about['rules']}"]
    if about["caution"]:
        parts.append(f"**Caution**: {about['caution']}.")
    for what, models in about["lift"].items():
        cells = [
            [
                name, interval(row["whole"]), interval(row["cut"]),
                f"{row['lift']['value']:+.1%}" if "lift" in row else "", interval(row["gap"], sign=True),
            ]
            for name, row in sorted(models.items(), key=lambda one: -one[1]["whole"]["value"])
        ]  # fmt: skip
        head = ("model", f"{MAIN} with the session", "without it", "lift", "difference, seeds and actors")
        parts += [f"{what}: {about['counts'][what]:,}", table(head, cells)]
    parts.append(
        table(("bar", "value", "wanted", "holds"), [
            [what, str(one["value"]), one["want"], "yes" if one["holds"] else "NO"] for what, one in bars.items()
        ])
    )  # fmt: skip
    text = "\n\n".join(parts) + "\n"
    folder = comparison.folder / "tables" / f"session-{comparison.protocol().fingerprint()}"
    write_json(about | {"bars": bars}, folder / "figures.json")
    with whole_file(folder / "table.md") as partial:
        partial.write_text(text, encoding="utf-8")
    console.print(text, markup=False, soft_wrap=True)
    say(f"table: {folder / 'table.md'}")
