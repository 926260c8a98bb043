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
from foretaste.models.baselines import BASELINES
from foretaste.ops.telemetry import say

PUBLISHED = ("v0", "v1", "v2", "v3")
OWN = ("foretaste-v0", "foretaste-v1", "foretaste-v2", "foretaste")
"""Without intents, with flat heads, with the hierarchy, with views too: as published, and ours."""

OTHER_BODY = "transact"
VARIANTS = (*PUBLISHED, *OWN, OTHER_BODY)
CONTROLLED = ("v0", "v3", "foretaste-v0", "foretaste")
"""What is trained where no intents were planted."""

HIERARCHY, VIEWS, OVER_OTHER = 1.045, 1.083, 1.074
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
        there = tuple(name for name in names if world != WITHOUT or name in (*CONTROLLED, *BASELINES))
        known = options.against if options.against in there else None
        against = reference(options.model_copy(update={"against": known}), there)
        cells = cells_of(comparison, there, after=world != WITHOUT)
        rows = figures(comparison, cells, against)
        attended = {name: _attended(comparison, own) for name, own in cells.items()} if world != WITHOUT else {}
        named[world] = {name: one for name, one in attended.items() if one}
        found[world] = described(comparison, against, rows) | {"attention": named[world], "ratios": _ratios(cells)}
        write(found[world], comparison.folder / "tables" / f"worlds-{comparison.protocol().fingerprint()}")
    bars, skipped = _bars({world: part["models"] for world, part in found.items()}, named)
    for what, one in bars.items():
        say(f"{'holds' if one['holds'] else 'FAILS'}  {what}: {one['value']} (wanted {one['want']})")
    return {"figures": found, "bars": {} if options.quick else bars, "skipped": skipped, "measured": bars}


def _wanted() -> list[tuple[str, str, float]]:
    """Ratios that there is a bar for, of both ladders."""
    found = []
    for _, flat, hierarchy, views in (PUBLISHED, OWN):
        found += [(hierarchy, flat, HIERARCHY), (views, flat, VIEWS), (views, OTHER_BODY, OVER_OTHER)]
    return found


def _ratios(cells: Cells) -> dict[str, Any]:
    """Mean over seeds of each ratio that there is a bar for, less 1, with its interval over seeds."""
    mean = {name: [float(values(cell.rank_B, MAIN).mean()) for cell in own] for name, own in cells.items()}
    pairs = [(one, other) for one, other, _ in _wanted()] + [(ladder[-1], ladder[0]) for ladder in (PUBLISHED, OWN)]
    return {
        f"{one} over {other}": asdict(paired_ratio(mean[one], mean[other]))
        for one, other in pairs
        if one in mean and other in mean
    }


def _bars(rows: dict[str, dict[str, Row]], named: dict[str, dict[str, Any]]) -> tuple[dict[str, Any], dict[str, str]]:
    bars: dict[str, Any] = {}
    skipped: dict[str, str] = {}
    value = {world: {name: row[MAIN]["value"] for name, row in part.items()} for world, part in rows.items()}
    for one, other, wanted in _wanted():
        what = f"{MAIN} of {one} over {other}, {PLANTED}"
        if one in value[PLANTED] and other in value[PLANTED]:
            ratio = value[PLANTED][one] / value[PLANTED][other]
            bars[what] = bar(ratio, f">= {wanted}", ratio >= wanted)
        else:
            skipped[what] = "was not run"
    for ladder in (PUBLISHED, OWN):
        first, last = ladder[0], ladder[-1]
        what = f"{MAIN} of {last} from {first}, {WITHOUT}"
        if {first, last} <= set(value[WITHOUT]):
            off = value[WITHOUT][last] / value[WITHOUT][first] - 1.0
            bars[what] = bar(off, f"within {CONTROL:.0%}", abs(off) <= CONTROL)
        else:
            skipped[what] = "was not run"
        what = f"order of {first} to {last} and {OTHER_BODY}, {PLANTED} and {OTHER}"
        there = [name for name in (*ladder, OTHER_BODY) if name in value[PLANTED]]
        if len(there) > 1:
            orders = [sorted(there, key=lambda name, of=value[world]: -of[name]) for world in (PLANTED, OTHER)]  # type: ignore[misc]
            same = sum(a == b for a, b in zip(*orders, strict=True)) / len(there)
            bars[what] = bar(same, f"the same: {' > '.join(orders[0])} and {' > '.join(orders[1])}", same == 1.0)
        else:
            skipped[what] = "fewer than two of the models were run"
        what = f"sessions, seen whole, whose largest attention of {last} names the primary intent, {PLANTED}"
        if last in named[PLANTED]:
            share = named[PLANTED][last]["named"]
            bars[what] = bar(share, f">= {NAMED}", share >= NAMED)
        else:
            skipped[what] = f"{last} was not run, has no heads, or the world's truth names no primary intent"
    return bars, skipped


def _attended(comparison: Comparison, own: list[Cell]) -> dict[str, Any] | None:
    """In which share of sessions the head that weighs most is the planted primary intent; None where none can be.

    `named` is of weights when the session has been seen whole, `named_before` of their means over the requests before
    each of its choices. `commonest` is the share of a model that always named the commonest primary intent;
    `by_primary` the share, seen whole, among the sessions of each.
    """
    if own[0].attention_BI is None or np.ptp(own[0].attention_BI, axis=1).max() == 0:  # flat heads: by nothing
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
        "named_before": float(np.mean([one["named_before"] for one in found])),
        "commonest": found[0]["commonest"],
        "by_primary": {name: float(np.mean([one["by_primary"][name] for one in found])) for name in intents},
    }


def _of_seed(comparison: Comparison, cell: Cell, primary: dict[str, str]) -> dict[str, Any]:
    assert cell.attention_BI is not None
    assert cell.after_BI is not None
    asked, given = comparison.cases(cell.seed), comparison.log(cell.seed)
    session_B = given.interactions["session_id"].take(pa.array(asked.stop_B)).to_pylist()
    known_B = np.array([one in primary for one in session_B])
    ids, place_B = np.unique(np.array(session_B)[known_B], return_inverse=True)
    planted_S = np.array([primary[one] for one in ids])
    right = {}
    for what, weight_BI in (("named", np.nan_to_num(cell.after_BI)), ("named_before", cell.attention_BI)):
        weight_SI = np.zeros((len(ids), len(cell.heads)))
        np.add.at(weight_SI, place_B, weight_BI[known_B])
        said_S: NDArray[np.str_] = np.array(cell.heads)[weight_SI.argmax(axis=1)]
        right[what] = said_S == planted_S
    names, counts = np.unique(planted_S, return_counts=True)
    return {
        "sessions": len(ids),
        "named": float(right["named"].mean()),
        "named_before": float(right["named_before"].mean()),
        "commonest": float(counts.max() / counts.sum()),
        "by_primary": {str(name): float(right["named"][planted_S == name].mean()) for name in names},
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
