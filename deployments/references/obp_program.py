"""Ask sb-obp's estimators about rounds or slates: `python obp_program.py FOLDER`.

It runs in an environment of its own (oracles.txt beside it) and knows nothing of the platform. It reads
FOLDER/settings.json, `{"kind": "rounds" | "slates", "estimators": [{"name", "tuning"?}], "repeats"?, "per_round"?}`,
and FOLDER/input.npz, and writes FOLDER/result.json: the value of each estimator, the processor's seconds of its
fastest call, and the versions of the packages; with `per_round` FOLDER/output.npz, too: what each round or place adds.

Shapes: R rounds, A actions, P positions, S slates.
  rounds: action_R, reward_R, propensity_R, target_RAP, and where known position_R, predicted_RAP
  slates: action_SP, reward_SP, and target_SP, propensity_SP (of the slate), marginal_SP, target_marginal_SP,
          cascade_SP, target_cascade_SP (down to the place), predicted_SPA, target_SPA (given those above)
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import json
import sys
import time
import types
from pathlib import Path
from typing import Any

import numpy as np

PACKAGES = ("sb-obp", "numpy", "scikit-learn", "scipy", "pandas")


def open_obp() -> None:
    """Make obp's modules importable one by one: its __init__ imports torch and plots, which estimators do not need."""
    spec = importlib.util.find_spec("obp")
    assert spec is not None
    assert spec.submodule_search_locations is not None
    folder = Path(spec.submodule_search_locations[0])
    for name, path in (("obp", folder), ("obp.ope", folder / "ope"), ("obp.dataset", folder / "dataset")):
        package = types.ModuleType(name)
        package.__path__ = [str(path)]
        sys.modules[name] = package
    torch = types.ModuleType("torch")
    torch.Tensor = torch.tensor = object  # named by obp.utils in checks that estimators do not call
    sys.modules.setdefault("torch", torch)


def rounds_estimator(name: str, tuning: float | None) -> Any:
    """The estimator of rounds that we call `name`."""
    from obp.ope import estimators as e

    made = {
        "replay": e.ReplayMethod,
        "ips": e.InverseProbabilityWeighting,
        "clipped_ips": e.InverseProbabilityWeighting,
        "snips": e.SelfNormalizedInverseProbabilityWeighting,
        "dm": e.DirectMethod,
        "dr": e.DoublyRobust,
        "sndr": e.SelfNormalizedDoublyRobust,
        "switch_dr": e.SwitchDoublyRobust,
        "dros": e.DoublyRobustWithShrinkage,
        "harmonic_ips": e.SubGaussianInverseProbabilityWeighting,
        "harmonic_dr": e.SubGaussianDoublyRobust,
    }[name]
    return made() if tuning is None else made(lambda_=float(tuning))


def rounds_inputs(arrays: dict[str, Any]) -> dict[str, Any]:
    """What all estimators of rounds take."""
    inputs = {
        "reward": arrays["reward_R"],
        "action": arrays["action_R"],
        "pscore": arrays["propensity_R"],
        "action_dist": arrays["target_RAP"],
        "position": arrays.get("position_R"),
    }
    if inputs["position"] is None:  # some of them do not fill it in themselves
        inputs["position"] = np.zeros(len(inputs["reward"]), dtype=int)
    if "predicted_RAP" in arrays:
        inputs["estimated_rewards_by_reg_model"] = arrays["predicted_RAP"]
    return inputs


def slates_estimator(name: str, arrays: dict[str, Any]) -> Any:
    """The estimator of slates that we call `name`."""
    from obp.ope import estimators_slate as e

    places = arrays["reward_SP"].shape[1]
    if name == "cascade_dr":
        return e.SlateCascadeDoublyRobust(len_list=places, n_unique_action=arrays["target_SPA"].shape[2])
    made = {
        "slate_ips": e.SlateStandardIPS,
        "slate_snips": e.SelfNormalizedSlateStandardIPS,
        "independent_ips": e.SlateIndependentIPS,
        "reward_interaction_ips": e.SlateRewardInteractionIPS,
    }[name]
    return made(len_list=places)


def slates_inputs(arrays: dict[str, Any]) -> dict[str, Any]:
    """What all estimators of slates take: one row a place, slate by slate."""
    slates, places = arrays["reward_SP"].shape
    return {
        "slate_id": np.repeat(np.arange(slates), places),
        "position": np.tile(np.arange(places), slates),
        "action": arrays["action_SP"].ravel(),
        "reward": arrays["reward_SP"].ravel(),
        "pscore": arrays["propensity_SP"].ravel(),
        "evaluation_policy_pscore": arrays["target_SP"].ravel(),
        "pscore_item_position": arrays["marginal_SP"].ravel(),
        "evaluation_policy_pscore_item_position": arrays["target_marginal_SP"].ravel(),
        "pscore_cascade": arrays["cascade_SP"].ravel(),
        "evaluation_policy_pscore_cascade": arrays["target_cascade_SP"].ravel(),
        "evaluation_policy_action_dist": arrays["target_SPA"].ravel(),
        "q_hat": arrays["predicted_SPA"].ravel(),
    }


def taken(function: Any, inputs: dict[str, Any]) -> dict[str, Any]:
    """Of the inputs, those that a function names."""
    names = function.__code__.co_varnames[: function.__code__.co_argcount]
    return {name: value for name, value in inputs.items() if name in names}


def per_round(estimator: Any, inputs: dict[str, Any]) -> Any:
    """What each round adds, as the library has it before it takes the mean."""
    return estimator._estimate_round_rewards(**taken(estimator._estimate_round_rewards, inputs))


def main(folder: Path) -> None:
    """Answer what FOLDER asks."""
    settings = json.loads((folder / "settings.json").read_text())
    with np.load(folder / "input.npz") as stored:
        arrays = {name: stored[name] for name in stored.files}
    open_obp()
    of_rounds = settings["kind"] == "rounds"
    inputs = rounds_inputs(arrays) if of_rounds else slates_inputs(arrays)
    values, seconds, added = {}, {}, {}
    for asked in settings["estimators"]:
        name = asked["name"]
        made = rounds_estimator(name, asked.get("tuning")) if of_rounds else slates_estimator(name, arrays)
        takes = taken(made.estimate_policy_value, inputs)
        spans = []
        for _ in range(settings.get("repeats", 1)):
            began = time.process_time()
            value = made.estimate_policy_value(**takes)
            spans.append(time.process_time() - began)
        values[name], seconds[name] = float(value), min(spans)
        if settings.get("per_round"):
            added[name] = per_round(made, inputs)
    if added:
        np.savez(folder / "output.npz", **added)
    versions = {name: importlib.metadata.version(name) for name in PACKAGES}
    found = {"values": values, "seconds": seconds, "packages": versions}
    (folder / "result.json").write_text(json.dumps(found))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
