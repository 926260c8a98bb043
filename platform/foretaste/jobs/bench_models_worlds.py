"""`foretaste bench models --part worlds`: what the hierarchy is worth where intents were planted, and where none were.

Shapes: B cases, I heads that are on, S sessions.
"""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.dataset as ds
from numpy.typing import NDArray

from foretaste.evaluation.seeds import paired_ratio
from foretaste.jobs.bench_models_cells import Cell, Comparison
from foretaste.jobs.bench_models_data import WORLDS
from foretaste.jobs.bench_models_figures import MAIN, Cells, Row, bar, cells_of, figures, values
from foretaste.jobs.bench_models_ladder import described, reference
from foretaste.jobs.bench_models_names import model_names
from foretaste.jobs.bench_models_table import write
from foretaste.jobs.bench_options import BenchOptions
from foretaste.jobs.settings import Settings
from foretaste.ops.telemetry import say

VARIANTS = ("v0", "v1", "v2", "v3", "transact", "foretaste")
ORDERED = ("v0", "v1", "v2", "v3", "transact")
"""Models whose order must be the same in both worlds with intents."""

RATIOS = (("v2", "v1", 1.045), ("v3", "v1", 1.083), ("v3", "transact", 1.074))
"""IntentRec's own ablation (arXiv 2408.05353), as ratios of NDCG@10."""

CONTROL = 0.01
NAMED = 0.8
PLANTED, OTHER, WITHOUT = WORLDS


def worlds(settings: Settings, options: BenchOptions) -> dict[str, Any]:
    """Compare the variants in a world, in one where intents drive choice otherwise, and in one without intents."""
    names = model_names(options.models, VARIANTS)
    found: dict[str, Any] = {}
    named: dict[str, Any] = {}
    for world in WORLDS:
        comparison = Comparison(settings, options, world, options.splits[0])
        against = reference(options, names)
        cells = cells_of(comparison, names)
        rows = figures(comparison, cells, against)
        attended = {name: _attended(comparison, own) for name, own in cells.items()} if world != WITHOUT else {}
        named[world] = {name: one for name, one in attended.items() if one}
        found[world] = described(comparison, against, rows) | {"attention": named[world], "ratios": _ratios(cells)}
        write(found[world], comparison.folder / "tables" / f"worlds-{comparison.protocol().fingerprint()}")
    bars, skipped = _bars({world: part["models"] for world, part in found.items()}, named)
    for what, one in bars.items():
        say(f"{'holds' if one['holds'] else 'FAILS'}  {what}: {one['value']} (wanted {one['want']})")
    return {"figures": found, "bars": {} if options.quick else bars, "skipped": skipped, "measured": bars}


def _ratios(cells: Cells) -> dict[str, Any]:
    """Mean over seeds of each ratio that there is a bar for, less 1, with its interval over seeds."""
    mean = {name: [float(values(cell.rank_B, MAIN).mean()) for cell in own] for name, own in cells.items()}
    pairs = (*((one, other) for one, other, _ in RATIOS), ("v3", "v0"))
    return {
        f"{one} over {other}": asdict(paired_ratio(mean[one], mean[other]))
        for one, other in pairs
        if one in mean and other in mean
    }


def _bars(rows: dict[str, dict[str, Row]], named: dict[str, dict[str, Any]]) -> tuple[dict[str, Any], dict[str, str]]:
    bars: dict[str, Any] = {}
    skipped: dict[str, str] = {}
    value = {world: {name: row[MAIN]["value"] for name, row in part.items()} for world, part in rows.items()}
    for one, other, wanted in RATIOS:
        what = f"{MAIN} of {one} over {other}, {PLANTED}"
        if one in value[PLANTED] and other in value[PLANTED]:
            ratio = value[PLANTED][one] / value[PLANTED][other]
            bars[what] = bar(ratio, f">= {wanted}", ratio >= wanted)
        else:
            skipped[what] = "was not run"
    what = f"{MAIN} of v3 from v0, {WITHOUT}"
    if {"v0", "v3"} <= set(value[WITHOUT]):
        off = value[WITHOUT]["v3"] / value[WITHOUT]["v0"] - 1.0
        bars[what] = bar(off, f"within {CONTROL:.0%}", abs(off) <= CONTROL)
    else:
        skipped[what] = "was not run"
    what = f"order of models, {PLANTED} and {OTHER}"
    there = [name for name in ORDERED if name in value[PLANTED]]
    if len(there) > 1:
        orders = [sorted(there, key=lambda name, of=value[world]: -of[name]) for world in (PLANTED, OTHER)]  # type: ignore[misc]
        same = sum(a == b for a, b in zip(*orders, strict=True)) / len(there)
        bars[what] = bar(same, f"the same: {' > '.join(orders[0])} and {' > '.join(orders[1])}", same == 1.0)
    else:
        skipped[what] = "fewer than two of the models were run"
    what = f"sessions whose largest attention of v3 names the primary intent, {PLANTED}"
    if "v3" in named[PLANTED]:
        share = named[PLANTED]["v3"]["named"]
        bars[what] = bar(share, f">= {NAMED}", share >= NAMED)
    else:
        skipped[what] = "v3 was not run, has no heads, or the world's truth names no primary intent"
    return bars, skipped


def _attended(comparison: Comparison, own: list[Cell]) -> dict[str, Any] | None:
    """In which share of sessions the head that weighs most is the planted primary intent; None where none can be.

    The weights of a session are the means over its cases. `commonest` is the share of a model that always named the
    commonest primary intent; `by_primary` the share among the sessions of each.
    """
    if own[0].attention_BI is None or not own[0].attention_BI.any():  # flat heads are attended to by nothing
        return None
    primary = _primary(comparison)
    if not primary:
        return None
    found = [_of_seed(comparison, cell, primary) for cell in own]
    intents = sorted({name for one in found for name in one["by_primary"]})
    return {
        "sessions": found[0]["sessions"],
        "named": float(np.mean([one["named"] for one in found])),
        "named_by_seed": [one["named"] for one in found],
        "commonest": found[0]["commonest"],
        "by_primary": {name: float(np.mean([one["by_primary"][name] for one in found])) for name in intents},
    }


def _of_seed(comparison: Comparison, cell: Cell, primary: dict[str, str]) -> dict[str, Any]:
    assert cell.attention_BI is not None
    asked, given = comparison.cases(cell.seed), comparison.log(cell.seed)
    session_B = given.interactions["session_id"].take(pa.array(asked.stop_B)).to_pylist()
    known_B = np.array([one in primary for one in session_B])
    ids, place_B = np.unique(np.array(session_B)[known_B], return_inverse=True)
    weight_SI = np.zeros((len(ids), len(cell.heads)))
    np.add.at(weight_SI, place_B, cell.attention_BI[known_B])
    said_S: NDArray[np.str_] = np.array(cell.heads)[weight_SI.argmax(axis=1)]
    planted_S = np.array([primary[one] for one in ids])
    right_S = said_S == planted_S
    names, counts = np.unique(planted_S, return_counts=True)
    return {
        "sessions": len(ids),
        "named": float(right_S.mean()),
        "commonest": float(counts.max() / counts.sum()),
        "by_primary": {str(name): float(right_S[planted_S == name].mean()) for name in names},
    }


def _primary(comparison: Comparison) -> dict[str, str]:
    """Primary intent of each session by its id, of those that have one; nothing where the truth is missing."""
    folder = comparison.log().raw / "truth" / "sessions"
    if not folder.exists():
        return {}
    truth = ds.dataset(folder).to_table()
    if "primary_intent" not in truth.column_names:
        return {}
    pairs = zip(truth["session_id"].to_pylist(), truth["primary_intent"].to_pylist(), strict=True)
    return {session: intent for session, intent in pairs if intent is not None}
