"""sb-obp as an oracle: the same rounds, the same numbers.

`python tests/evaluation/offpolicy/test_against_obp.py` asks it again about the rounds made here by arithmetic and
writes obp_golden.json beside this file, so that equality is tested where sb-obp is not installed, too.
"""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from foretaste.evaluation.offpolicy.coverage import every_slate, marginals
from foretaste.evaluation.offpolicy.estimators import EVERY, Estimator
from foretaste.evaluation.offpolicy.rounds import Floats, Rounds
from foretaste.evaluation.offpolicy.slates import EVERY_SLATE, Slates
from foretaste.evaluation.offpolicy.stream import estimate, summarise
from foretaste.jobs.oracles import OracleConfig, ask

ROOT = Path(__file__).parents[3]
ORACLES = OracleConfig(python=ROOT / ".venv-oracles/bin/python", programs=ROOT / "deployments/references")
GOLDEN = Path(__file__).with_name("obp_golden.json")
WITHIN = 1e-9

Arrays = dict[str, NDArray[Any]]

needs_obp = pytest.mark.skipif(not ORACLES.python.is_file(), reason="sb-obp is not installed: `make oracles`")
TUNINGS = {"clipped_ips": 3.0, "harmonic_ips": 0.1, "switch_dr": 2.0, "dros": 5.0, "harmonic_dr": 0.2}
SHARED = tuple(e if e.tuning is None else e.tuned(TUNINGS[e.name]) for e in EVERY)
SHARED_SLATES = tuple(e for e in EVERY_SLATE if e.name != "pseudo_inverse")


def arithmetic(*shape: int, step: int) -> Floats:
    """Numbers in (0, 1) that are the same with every version of every generator."""
    values: Floats = ((np.arange(np.prod(shape)) * step) % 1009 + 0.5) / 1009
    return values.reshape(shape)


def rounds_of(unit: Any, num_rounds: int, num_actions: int, num_positions: int | None) -> Arrays:
    """Rounds as sb-obp takes them; a third of the target's distributions are sure of one action."""
    places = num_positions or 1
    target_RAP = unit(num_rounds, num_actions, places, step=7919)
    sure_R = np.arange(0, num_rounds, 3)
    target_RAP[sure_R] = target_RAP[sure_R] == target_RAP[sure_R].max(axis=1, keepdims=True)
    target_RAP /= target_RAP.sum(axis=1, keepdims=True)
    action_R = (unit(num_rounds, step=523) * num_actions).astype(np.int64)
    action_R[:9:3] = target_RAP[:9:3, :, 0].argmax(axis=1)  # so that some match
    arrays: Arrays = {
        "action_R": action_R,
        "reward_R": unit(num_rounds, step=613) * 2 - 0.5,
        "propensity_R": unit(num_rounds, step=389) * 0.9 + 0.01,
        "target_RAP": target_RAP,
        "predicted_RAP": unit(num_rounds, num_actions, places, step=887),
    }
    if num_positions:
        arrays["position_R"] = (unit(num_rounds, step=271) * num_positions).astype(np.int64)
        arrays["position_R"][:9:3] = 0
    return arrays


def ours(arrays: Arrays) -> Rounds:
    """The same rounds, as we take them."""
    return Rounds.of(
        action=arrays["action_R"],
        reward=arrays["reward_R"],
        propensity=arrays["propensity_R"],
        target=arrays["target_RAP"],
        position=arrays.get("position_R"),
        predicted=arrays["predicted_RAP"],
    )


def luce(scores_A: Floats, above: tuple[int, ...]) -> Floats:
    """Plackett-Luce: the distribution of the next action after those above."""
    left_A = np.exp(scores_A)
    left_A[list(above)] = 0.0
    shares_A: Floats = left_A / left_A.sum()
    return shares_A


def slates_of(num_slates: int, num_places: int, num_actions: int) -> Arrays:
    """Slates of a Plackett-Luce policy judged for another, as sb-obp takes them."""
    scores = {"logged": arithmetic(num_actions, step=7919), "target": 2 * arithmetic(num_actions, step=523)}
    lists, chance, marginal = {}, {}, {}
    for name, scores_A in scores.items():
        lists[name], chance[name] = every_slate(num_places, num_actions, partial(luce, scores_A))
        marginal[name] = marginals(lists[name], chance[name], num_actions)
    picked_S = (np.arange(num_slates) * 7) % len(lists["logged"])
    action_SP = lists["logged"][picked_S]
    given = {
        name: np.array([[luce(s, tuple(slate[:p])) for p in range(num_places)] for slate in action_SP])
        for name, s in scores.items()
    }
    taken = {name: np.take_along_axis(one, action_SP[:, :, None], axis=2)[:, :, 0] for name, one in given.items()}
    places = np.arange(num_places)
    return {
        "action_SP": action_SP,
        "reward_SP": arithmetic(num_slates, num_places, step=613),
        "propensity_SP": np.repeat(chance["logged"][picked_S], num_places).reshape(-1, num_places),
        "target_SP": np.repeat(chance["target"][picked_S], num_places).reshape(-1, num_places),
        "marginal_SP": marginal["logged"][places, action_SP],
        "target_marginal_SP": marginal["target"][places, action_SP],
        "cascade_SP": np.cumprod(taken["logged"], axis=1),
        "target_cascade_SP": np.cumprod(taken["target"], axis=1),
        "target_SPA": given["target"],
        "predicted_SPA": arithmetic(num_slates, num_places, num_actions, step=887),
        "given_SP": taken["logged"],
        "target_given_SP": taken["target"],
    }


def our_slates(arrays: Arrays) -> Slates:
    """The same slates, as we take them."""
    predicted_SPA = arrays["predicted_SPA"]
    return Slates.of(
        action=arrays["action_SP"],
        reward=arrays["reward_SP"],
        propensity=arrays["given_SP"],
        target=arrays["target_given_SP"],
        marginal=arrays["marginal_SP"],
        target_marginal=arrays["target_marginal_SP"],
        predicted=np.take_along_axis(predicted_SPA, arrays["action_SP"][:, :, None], axis=2)[:, :, 0],
        expected=(predicted_SPA * arrays["target_SPA"]).sum(axis=2),
    )


def asked(estimators: tuple[Estimator, ...], kind: str = "rounds") -> dict[str, Any]:
    """What the program is asked."""
    return {"kind": kind, "estimators": [{"name": e.name, "tuning": e.tuning} for e in estimators], "per_round": True}


def golden_cases() -> dict[str, tuple[dict[str, Any], Arrays]]:
    """The rounds and slates whose answers are kept."""
    return {
        "rounds": (asked(SHARED), rounds_of(arithmetic, 60, 5, None)),
        "positions": (asked(SHARED), rounds_of(arithmetic, 90, 4, 3)),
        "slates": ({"kind": "slates", "estimators": [{"name": e.name} for e in SHARED_SLATES]}, slates_of(40, 3, 5)),
    }


@pytest.mark.parametrize("case", ["rounds", "positions"])
def test_every_estimate_is_the_one_that_sb_obp_was_seen_to_make(case: str) -> None:
    golden = json.loads(GOLDEN.read_text())["values"][case]
    found = estimate(ours(golden_cases()[case][1]), SHARED).values
    assert found == pytest.approx(golden, rel=WITHIN, abs=0)
    assert len({round(value, 6) for value in golden.values()}) == len(SHARED)


def test_every_estimate_of_slates_is_the_one_that_sb_obp_was_seen_to_make() -> None:
    golden = json.loads(GOLDEN.read_text())["values"]["slates"]
    found = summarise([our_slates(golden_cases()["slates"][1])], SHARED_SLATES).values
    assert found == pytest.approx(golden, rel=WITHIN, abs=0)


@needs_obp
@pytest.mark.parametrize("num_positions", [None, 3])
@pytest.mark.parametrize("seed", [0])
def test_random_rounds_give_what_sb_obp_gives_round_by_round(num_positions: int | None, seed: int) -> None:
    rng = np.random.default_rng(seed)
    arrays = rounds_of(lambda *shape, step: rng.random(shape), 2_000, 20, num_positions)
    theirs = ask(ORACLES, "obp_program.py", asked(SHARED), arrays)
    rounds = ours(arrays)
    assert estimate(rounds, SHARED).values == pytest.approx(theirs.result["values"], rel=WITHIN, abs=0)
    for estimator in SHARED:
        np.testing.assert_allclose(
            estimator(rounds).per_round_R,
            theirs.arrays[estimator.name],
            rtol=WITHIN,
            atol=1e-13,
            err_msg=estimator.name,
        )


def write_golden() -> None:
    """Ask sb-obp about the golden cases and keep what it says."""
    answers = {name: ask(ORACLES, "obp_program.py", *case).result for name, case in golden_cases().items()}
    kept = {
        "made_by": "python tests/evaluation/offpolicy/test_against_obp.py",
        "packages": next(iter(answers.values()))["packages"],
        "values": {name: answer["values"] for name, answer in answers.items()},
    }
    GOLDEN.write_text(json.dumps(kept, indent=1) + "\n")


if __name__ == "__main__":
    write_golden()
