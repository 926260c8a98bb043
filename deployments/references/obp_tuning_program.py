"""Ask sb-obp how far it would shrink weights: `python obp_tuning_program.py FOLDER`.

It runs in an environment of its own (oracles.txt beside it). It reads FOLDER/settings.json,
`{"grids": {estimator: [strength, ...]}, "delta": number}`, and the rounds of FOLDER/input.npz as obp_program.py has
them, and writes FOLDER/result.json: for each estimator the strength that SLOPE takes, and the estimated squared error
of each strength with the bound of the bias and with the bias itself.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
from obp_program import open_obp, rounds_inputs, taken


def main(folder: Path) -> None:
    """Answer what FOLDER asks."""
    settings = json.loads((folder / "settings.json").read_text())
    with np.load(folder / "input.npz") as stored:
        inputs = rounds_inputs({name: stored[name] for name in stored.files})
    open_obp()
    from obp.ope import estimators_tuning as tuning

    made = {
        "clipped_ips": tuning.InverseProbabilityWeightingTuning,
        "switch_dr": tuning.SwitchDoublyRobustTuning,
        "dros": tuning.DoublyRobustWithShrinkageTuning,
    }
    values: dict[str, Any] = {}
    for name, grid in settings["grids"].items():
        found: dict[str, Any] = {}
        for key, method, bound in (("slope", "slope", True), ("bound", "mse", True), ("bias", "mse", False)):
            options = {"tuning_method": method, "use_bias_upper_bound": bound, "delta": settings["delta"]}
            estimator = made[name](lambdas=[float(one) for one in grid], **options)
            estimator.estimate_policy_value_with_tuning(**taken(estimator.estimate_policy_value_with_tuning, inputs))
            scores = getattr(estimator, "estimated_mse_score_dict", {})
            found[key] = [scores[one] for one in grid] if method == "mse" else estimator.best_hyperparam
        values[name] = found
    (folder / "result.json").write_text(json.dumps({"values": values}))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
