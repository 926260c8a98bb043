"""What a policy would have done with a logged decision, place by place, by the functions that choose and replay.

Shapes: C candidates of a pool, K places of the logged list.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from foretaste.contracts.decisions import Level
from foretaste.contracts.wire import PolicyName
from foretaste.policies import epsilon_greedy
from foretaste.policies.arrange import dealt
from foretaste.policies.by_place import ByPlace
from foretaste.policies.epsilon_greedy import EpsilonGreedy
from foretaste.policies.register import CONTEXTUAL, policy_of
from foretaste.serving.exploring import COLD_PLAYS, Acting, Explorer, Handed, cold_of, read_as
from foretaste.serving.logged import LeftOutError, Logged
from foretaste.serving.recompute import Arranged

NOBODY = -1
"""Number of a title that the pool does not have."""
ALIKE = 1e-6
"""What a logged propensity may differ by from that of its policy, as a share."""


@dataclass(frozen=True, slots=True)
class Pool:
    """A pool as policies are handed it, and whose surface it is."""

    titles: tuple[str, ...]
    handed: Handed
    surface: str


@dataclass(frozen=True, slots=True)
class Chances:
    """What was chosen and with which probability, given those above; by who logged it and by who is judged."""

    chosen_K: NDArray[np.int64]  # number in the logged pool
    at_K: NDArray[np.int64]  # number in the judged policy's pool; `NOBODY`: it does not have it
    propensity_K: NDArray[np.float64]
    target_K: NDArray[np.float64]  # 0 behind a title that the judged policy's pool does not have
    target_KC: NDArray[np.float64]  # the judged policy's whole distribution, over its pool
    logging_KC: NDArray[np.float64] | None  # the whole distribution of who logged; None: it does not follow from here
    outside_K: NDArray[np.float64] | None  # mass of the judged policy on what is never chosen when logged


def pool_of_row(row: Mapping[str, Any]) -> Pool:
    """The pool that a DECISIONS row has. What the row does not tell is refused by LeftOutError when it is asked for."""
    params = json.loads(row["policy_params"])

    def cold(cold_plays: int) -> tuple[int, ...]:
        if params.get(COLD_PLAYS) != cold_plays:
            raise LeftOutError("the decision does not say which titles were cold")
        return tuple(params.get("cold", ()))

    def features(learned: object) -> None:
        if learned is not None:
            raise LeftOutError("the decision does not say what titles are described by")

    log = bool(row["items"]) and row["items"][0]["source"] == Level.INTENT
    scores_C = np.array(row["candidate_scores"], dtype=np.float64)
    handed = Handed(scores_C, log, tuple(params.get("protected", ())), cold, features)
    return Pool(tuple(row["candidates"]), handed, row["surface"])


def pool_made_again(one: Logged, pool: Arranged) -> Pool:
    """The pool that a replay arranged, of which all is known."""
    handed = Handed(
        pool.scores_C,
        pool.log,
        pool.protected,
        lambda cold_plays: cold_of(pool.titles, pool.codes_C, cold_plays=cold_plays),
        lambda learned: pool.features(None if learned is None else learned.described, one.models),
    )
    ids = one.models.catalogue.ids
    return Pool(tuple(ids[code - 1] for code in pool.codes_C.tolist()), handed, one.request.surface)


def who_logged(row: Mapping[str, Any], pool: Pool, one: Logged | None) -> Acting | None:
    """The policy that made the list, on its own pool; None where that reads what neither row nor replay `one` tells.

    Raises ValueError for a policy or a version that there is not.
    """
    name, version, params = row["policy"], row["policy_version"], json.loads(row["policy_params"])
    handed = pool.handed
    dealt_C = dealt(handed.scores_C)
    if name in ("greedy", "epsilon_greedy") and version in epsilon_greedy.REPLAYED:
        return Acting(EpsilonGreedy(params["epsilon"], tuple(params.get("protected", ()))), dealt_C)
    learned = None if one is None else one.learned
    if name in CONTEXTUAL and learned is None:
        return None
    published = None if learned is None else learned.published
    policy = policy_of(name, version, params, posterior=published)
    features_CD = handed.features(learned)
    if learned is not None and features_CD is None:
        return None
    kind = None if published is None else published.kind
    return Acting(policy, read_as(name, dealt_C, log=handed.log, kind=kind), features_CD)


def distributions(acting: Acting, order_K: Sequence[int]) -> NDArray[np.float64]:
    """Probability of every candidate at each place, given those that stand above; float64[K, C].

    All 0 behind a place whose title is `NOBODY`.
    """
    policy, scores_C = acting.policy, acting.scores_C
    places = policy.places(scores_C, features_CD=acting.features_CD) if isinstance(policy, ByPlace) else None
    chance_KC = np.zeros((len(order_K), len(scores_C)))
    for place in range(len(order_K)):
        above = tuple(order_K[:place])
        if NOBODY in above:
            break
        chance_KC[place] = policy.distribution(scores_C, above) if places is None else places.next(above).probability_C
    return chance_KC


def judged(
    row: Mapping[str, Any], explorer: Explorer, policy: PolicyName, *, pool: Pool, own: Pool, one: Logged | None
) -> Chances:
    """What `policy` would have done with the decision of a DECISIONS row.

    `pool` is what it is handed, `own` what the decision's policy was, `one` the decision as its own models made it
    again where that was done. Raises LeftOutError or ValueError saying why nothing can be said of it.
    """
    titles = [item["title_id"] for item in row["items"]]
    propensity_K = np.array([item["propensity"] for item in row["items"]], dtype=np.float64)
    at_K, chosen_K = _places(titles, pool), _places(titles, own)
    if NOBODY in chosen_K:
        raise LeftOutError("the list has a title that its pool does not have")
    target_KC = distributions(explorer.acts(policy, pool.surface, pool.handed), at_K)
    target_K = np.array([0.0 if at == NOBODY else target_KC[k, at] for k, at in enumerate(at_K)], dtype=np.float64)
    logging_KC = outside_K = None
    if (logging := who_logged(row, own, one)) is not None:
        logging_KC = distributions(logging, chosen_K)
        told_K = logging_KC[np.arange(len(titles)), chosen_K]
        if not np.allclose(told_K, propensity_K, rtol=ALIKE, atol=0.0):
            raise LeftOutError("the logged propensities are not those that its policy gives")
        outside_K = _outside(pool, target_KC, own, logging_KC)
    chosen, at = np.array(chosen_K, dtype=np.int64), np.array(at_K, dtype=np.int64)
    return Chances(chosen, at, propensity_K, target_K, target_KC, logging_KC, outside_K)


def _outside(
    pool: Pool, target_KC: NDArray[np.float64], own: Pool, logging_KC: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Mass at each place on titles whose logged probability there is 0."""
    if pool.titles != own.titles:
        at = {title: number for number, title in enumerate(own.titles)}
        numbers = np.array([at.get(title, len(own.titles)) for title in pool.titles], dtype=np.int64)
        logging_KC = np.concatenate([logging_KC, np.zeros((len(logging_KC), 1))], axis=1)[:, numbers]
    return np.asarray(np.where(logging_KC > 0, 0.0, target_KC).sum(axis=1), dtype=np.float64)


def _places(titles: Sequence[str], pool: Pool) -> list[int]:
    at = {title: number for number, title in enumerate(pool.titles)}
    return [at.get(title, NOBODY) for title in titles]
