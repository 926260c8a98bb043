"""Policies by the name under which decisions log them: a logged list is made again by the policy that made it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from foretaste.policies import epsilon_greedy
from foretaste.policies.by_place import ByPlace
from foretaste.policies.contextual import (
    Contextual,
    LinearThompson,
    LinUCB,
    LogisticThompson,
    NeuralThompson,
    Published,
)
from foretaste.policies.epsilon_greedy import BoundedEpsilonGreedy
from foretaste.policies.exploration import Exploration
from foretaste.policies.plackett_luce import PlackettLuce
from foretaste.policies.slate import Slate, dice
from foretaste.policies.worth import Scale

CONTEXTUAL: dict[str, type[Contextual]] = {
    kind.name: kind for kind in (LinUCB, LinearThompson, LogisticThompson, NeuralThompson)
}
"""Policies that read features and a posterior, by name."""


def policy_of(name: str, version: str, params: Mapping[str, Any], *, posterior: Published | None = None) -> ByPlace:
    """Make a policy of what was logged of it (all but epsilon-greedy without bounds: see `replay`).

    Raises ValueError for a policy or a version that there is not, or where its posterior is not the given one.
    """
    kinds: dict[str, type[ByPlace]] = {kind.name: kind for kind in (BoundedEpsilonGreedy, PlackettLuce)}
    kind = (kinds | CONTEXTUAL).get(name)
    if kind is None:
        raise ValueError(f"there is no policy {name!r}")
    if version != kind.version:
        raise ValueError(f"{name}: slate was chosen by version {version}, this is version {kind.version}")
    own = {one.name for one in fields(kind)}
    known = {key: value for key, value in params.items() if key in own}
    told: dict[str, Any] = known | {
        "exploration": Exploration(**{key: value for key, value in params.items() if key in Exploration.model_fields}),
        "scale": Scale(params["scale"]),
        "protected": tuple(params.get("protected", ())),
        "cold": tuple(params.get("cold", ())),
    }
    if name in CONTEXTUAL:
        if posterior is None or posterior.fingerprint != params["posterior"]:
            found = None if posterior is None else posterior.fingerprint
            raise ValueError(f"{name}: slate was chosen by posterior {params['posterior']}, given is {found}")
        told["posterior"] = posterior
    return kind(**told)


def replay(
    scores_C: NDArray[np.float64],
    *,
    name: str,
    version: str,
    params: Mapping[str, Any],
    seed: int,
    k: int,
    protected: Sequence[int] = (),
    posterior: Published | None = None,
    features_CD: NDArray[np.float64] | None = None,
) -> Slate:
    """Make a logged slate again from its scores, parameters and seed, bit for bit; raises as `policy_of`."""
    params = {**params, "protected": protected}
    if name in ("greedy", "epsilon_greedy") and version in epsilon_greedy.REPLAYED:
        return epsilon_greedy.replay(scores_C, k=k, params=params, seed=seed, version=version)
    if name == "greedy":
        raise ValueError(f"greedy: slate was chosen by version {version}, this is version {epsilon_greedy.VERSION}")
    policy = policy_of(name, version, params, posterior=posterior)
    return policy.choose(scores_C, k=k, rng=dice(seed), features_CD=features_CD)
