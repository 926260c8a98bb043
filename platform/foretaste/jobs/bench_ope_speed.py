"""`foretaste bench ope --part speed`: the same rounds to sb-obp's estimators and to ours, in turns.

Both have one thread and arrays in memory; each checks its inputs. Theirs are asked one by one, as their library has it,
ours all at once, as ours has it. Seconds are of the processor, so that others on the machine count little.

Shapes: R rounds, A actions, P positions.
"""

from __future__ import annotations

import time
from typing import Any

import numpy as np
from numpy.typing import NDArray

from foretaste.evaluation.offpolicy.estimators import EVERY
from foretaste.evaluation.offpolicy.stream import laid_out, summarise
from foretaste.jobs.bench_options import BenchOptions
from foretaste.jobs.oracles import ask
from foretaste.jobs.settings import Settings
from foretaste.ops.telemetry import say

NUM_ROUNDS, QUICK_ROUNDS = 1_000_000, 20_000
TURNS = 3
LAYOUTS = {"one_position": (10, 1), "three_positions": (10, 3)}
"""Actions and positions."""

FASTER = 20.0
WITHIN = 1e-9


def speed(settings: Settings, options: BenchOptions) -> dict[str, Any]:
    """Times and answers of both on random rounds; raises FileNotFoundError where sb-obp is not installed."""
    settings.oracles.needed("obp_program.py")
    num_rounds = options.size or (QUICK_ROUNDS if options.quick else NUM_ROUNDS)
    figures: dict[str, Any] = {"rounds": num_rounds, "estimators": len(EVERY), "turns": TURNS}
    bars: dict[str, Any] = {}
    for name, (num_actions, num_positions) in LAYOUTS.items():
        arrays = random_rounds(num_rounds, num_actions, num_positions, seed=0)
        found = _compare(settings, arrays, turns=1 if options.quick else TURNS)
        figures[name] = {"actions": num_actions, "positions": num_positions, **found}
        ratio, apart = found["times_faster"], found["largest_relative_difference"]
        say(f"bench ope: {name}: {ratio:.1f} times faster, values differ by {apart:.1e} at most")
        bars[f"same_values_{name}"] = {"value": apart, "want": f"<= {WITHIN:g}", "holds": apart <= WITHIN}
        if not options.quick:  # a quick run is too short to time
            bars[f"times_faster_{name}"] = {"value": ratio, "want": f">= {FASTER:g}", "holds": ratio >= FASTER}
    skipped = {"times_faster": "a quick run is too short to time"} if options.quick else {}
    return {"figures": figures, "bars": bars, "skipped": skipped}


def random_rounds(num_rounds: int, num_actions: int, num_positions: int, *, seed: int) -> dict[str, Any]:
    """Rounds whose target policy is sure of an action in every third."""
    rng = np.random.default_rng(seed)
    target_RAP = rng.random((num_rounds, num_actions, num_positions))
    target_RAP[::3] = target_RAP[::3] == target_RAP[::3].max(axis=1, keepdims=True)
    target_RAP /= target_RAP.sum(axis=1, keepdims=True)
    arrays: dict[str, Any] = {
        "action_R": rng.integers(0, num_actions, num_rounds),
        "reward_R": rng.random(num_rounds),
        "propensity_R": 0.05 + 0.9 * rng.random(num_rounds),
        "target_RAP": target_RAP,
        "predicted_RAP": rng.random((num_rounds, num_actions, num_positions)),
    }
    if num_positions > 1:
        arrays["position_R"] = rng.integers(0, num_positions, num_rounds)
    return arrays


def _compare(settings: Settings, arrays: dict[str, Any], *, turns: int) -> dict[str, Any]:
    asked = {"kind": "rounds", "estimators": [{"name": e.name, "tuning": e.tuning} for e in EVERY]}
    theirs, ours, apart = [], [], 0.0
    for _ in range(turns):
        answer = ask(settings.oracles, "obp_program.py", asked, arrays).result
        theirs.append(answer["seconds"])
        seconds, values = _ours(arrays)
        ours.append(seconds)
        apart = max(apart, *(abs(values[name] / value - 1.0) for name, value in answer["values"].items()))
    total = min(sum(seconds.values()) for seconds in theirs)
    return {
        "obp_seconds": total,
        "our_seconds": min(ours),
        "times_faster": total / min(ours),
        "obp_seconds_each": {e.name: min(seconds[e.name] for seconds in theirs) for e in EVERY},
        "largest_relative_difference": apart,
        "packages": answer["packages"],
    }


def _ours(arrays: dict[str, NDArray[Any]]) -> tuple[float, dict[str, float]]:
    began = time.process_time()
    blocks = laid_out(
        action=arrays["action_R"],
        reward=arrays["reward_R"],
        propensity=arrays["propensity_R"],
        target=arrays["target_RAP"],
        position=arrays.get("position_R"),
        predicted=arrays["predicted_RAP"],
    )
    values = summarise(blocks, EVERY).values
    return time.process_time() - began, values
