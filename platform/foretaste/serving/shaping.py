"""What shapes a list beside the models: filter, exclusions, sources, boosts, taste, diversity, stability.

All of it comes before the policy, from what the decision row holds, so that a list is made again from its row and
propensities stay exact. Requests and replays call the same functions.

Shapes: N titles (column j is catalogue code j + 1), N1 rows by catalogue code, C candidates of the pool, S titles of
the session.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from foretaste.contracts.controls import Controls, Kind
from foretaste.contracts.histories import Histories
from foretaste.contracts.wire import RecommendRequest
from foretaste.models.intent import IntentPrediction
from foretaste.policies.arrange import diversify, hold, kept_places
from foretaste.serving.models import Models
from foretaste.serving.title_index import UNSCORED
from foretaste.signals.views import MemberView
from foretaste.surfaces.prequery import PREQUERY, Surface, blocked, pool
from foretaste.surfaces.sources import Brought, bring

SURFACES: dict[str, Surface] = {PREQUERY.name: PREQUERY}
MIN_TASTE = 0.25
"""Of the mean share of a genre: below it a long-term taste makes no title less likely."""


@dataclass(frozen=True, slots=True)
class Asked:
    """A request with all that shapes its list; what a decision row says of it."""

    request: RecommendRequest
    kind: Kind
    controls: Controls
    previous_id: str | None = None  # decision whose list this one goes on with, or is held against

    @property
    def pool_size(self) -> int:
        """Candidates that are ranked."""
        if self.controls.candidates is not None:
            return len(self.controls.candidates)
        return SURFACES[self.request.surface].pool_size

    @property
    def offset(self) -> int:
        """Places above the first of this list."""
        return len(self.controls.above)


@dataclass(frozen=True, slots=True)
class Shaped:
    """What may be on a list, who brought it, and what its scores are multiplied by."""

    blocked_N1: NDArray[np.bool_]
    brought: Brought
    factor_N1: NDArray[np.float64] | None  # above 0; None: all 1

    def pool(self, scores_N: NDArray[np.floating[Any]], *, size: int, log: bool) -> NDArray[np.int32]:
        """Fill the pool by scores; `log` says that these are logarithms. Codes, best first; int32[C].

        What an index did not score is in no pool.
        """
        out_N1 = self.blocked_N1.copy()
        out_N1[1:] |= scores_N == UNSCORED
        if self.factor_N1 is not None:
            scores_N = lifted(scores_N.astype(np.float64), self.factor_N1[1:], log=log)
        return pool(scores_N, out_N1, size=size, brought=self.brought.all)

    def scored(self, models: Models, prediction: IntentPrediction, *, size: int) -> IntentPrediction:
        """The same prediction, with scores for the pool where the intent model gave none. Raises ValueError."""
        if models.index is None or prediction.query is None:
            return prediction
        scores_N = models.index.scores(
            prediction.query,
            blocked_N1=self.blocked_N1,
            brought=self.brought.all,
            size=size,
            boosted=self.factor_N1 is not None,
        )
        if not np.isfinite(scores_N).all():
            raise ValueError("scores of titles are not finite")
        return replace(prediction, scores_BN=scores_N[None])

    def lifted(self, scores_C: NDArray[np.float64], codes_C: NDArray[np.int32], *, log: bool) -> NDArray[np.float64]:
        """Scores of candidates by their factors."""
        return scores_C if self.factor_N1 is None else lifted(scores_C, self.factor_N1[codes_C], log=log)


def lifted(scores: NDArray[np.float64], factor: NDArray[np.float64], *, log: bool) -> NDArray[np.float64]:
    """Multiply what scores stand for: a value of 0 or more itself, of a logarithm what it is the logarithm of.

    So a factor above 1 never puts a title lower, one below 1 never higher, and one factor for all changes no order.
    """
    return scores + np.log(factor) if log else scores * factor


def may_not(models: Models, history: Histories, asked: Asked, *, asof: int) -> NDArray[np.bool_]:
    """Say of each title whether it may not be on the list; bool[N1]."""
    request, controls = asked.request, asked.controls
    codes = models.catalogue.codes
    blocked_N1 = blocked(
        history,
        asof=asof,
        catalogue=models.catalogue,
        windows=models.windows,
        exclude=codes([*request.exclude_ids, *controls.above]).tolist(),
        repeats=models.repeats,
        rule=models.rule,
    )
    if request.filter is not None:
        blocked_N1 |= ~models.columns.that(request.filter, asof=asof)
    if controls.candidates is not None:
        others_N1 = np.ones(len(blocked_N1), dtype=np.bool_)
        others_N1[codes(list(controls.candidates))] = False
        blocked_N1 |= others_N1
    return blocked_N1


def shape(
    models: Models,
    history: Histories,
    signals: Mapping[str, NDArray[Any]],
    members: MemberView,
    plays_7d_N1: NDArray[np.int64],
    asked: Asked,
    *,
    asof: int,
    blocked_N1: NDArray[np.bool_],
    similar: bool,
) -> Shaped:
    """Ask the sources and multiply the factors; `members` is one, `signals` those of the session ([W] each, or none).

    `similar`: whether the intent model may be asked what is like the session.
    """
    last_S = np.asarray(signals.get("session_last_titles", np.zeros(0)), dtype=np.int32)
    brought = bring(
        asked.controls.config,
        blocked_N1=blocked_N1,
        asof=asof,
        catalogue=models.catalogue,
        history=history,
        plays_7d_N1=plays_7d_N1,
        session_S=last_S,
        likeness=models.likeness if similar else None,
        shown=models.catalogue.codes(list(asked.controls.before)) if asked.controls.config.steady else _none(),
    )
    depth = int(signals["session_depth"][0]) if "session_depth" in signals else 0
    return Shaped(blocked_N1, brought, factors(models, members, asked, asof=asof, depth=depth))


def factors(models: Models, members: MemberView, asked: Asked, *, asof: int, depth: int) -> NDArray[np.float64] | None:
    """What each title's score is multiplied by: its boosts, and the member's taste; float64[N1], None: all 1.

    The taste of a title is the mean of the member's long-term shares of its genres over an even share, at least
    `MIN_TASTE`, to the power `long_term` * 2^(-depth / long_term_half): the deeper the session, the less it counts.
    """
    config, boosts = asked.controls.config, asked.request.boost
    weight = config.long_term * 2.0 ** (-depth / config.long_term_half)
    share_G = members.genre_affinity_BG[0].astype(np.float64)
    told = weight > 0.0 and bool(share_G.any()) and bool(np.isfinite(share_G).all())
    if not boosts and not told:
        return None
    factor_N1 = np.ones(len(models.catalogue) + 1)
    for boost in boosts:
        factor_N1[models.columns.that(boost.where, asof=asof)] *= boost.factor
    if told:
        has_N1G = models.catalogue.genres_N1G.astype(np.float64)
        taste_N1 = (has_N1G * share_G).sum(axis=1) / np.maximum(has_N1G.sum(axis=1), 1.0) * len(share_G)
        factor_N1 *= np.maximum(taste_N1, MIN_TASTE) ** weight
    return factor_N1


def arrange(
    models: Models, codes_C: NDArray[np.int32], asked: Asked, *, num_new: int
) -> tuple[NDArray[np.int64], tuple[int, ...]]:
    """Order candidates, best first, for a list: index[C], and the places that nothing may be explored at.

    `num_new` is how many events were new since the list before.
    """
    config, k = asked.controls.config, asked.request.k
    order_C = np.arange(len(codes_C))
    if config.diversity > 0.0:
        order_C = diversify(properties(models, codes_C), weight=config.diversity, num=k)
    before = [code for code in models.catalogue.codes(list(asked.controls.before)).tolist() if code]
    if not config.steady or not before:
        return order_C, ()
    codes = codes_C[order_C].tolist()
    most = None if config.max_move is None else config.max_move * num_new
    held = hold(codes, before, protected=config.protected, max_move=most, num=k)
    index_of = dict(zip(codes, order_C.tolist(), strict=True))
    return np.array([index_of[code] for code in held], dtype=np.int64), kept_places(
        held, before, protected=config.protected
    )


def properties(models: Models, codes_C: NDArray[np.int32]) -> NDArray[np.bool_]:
    """Genres and kind of titles; bool[C, G + K]."""
    catalogue = models.catalogue
    kinds_CK = catalogue.kind_N1[codes_C][:, None] == np.arange(len(catalogue.kinds))
    return np.concatenate([catalogue.genres_N1G[codes_C] > 0, kinds_CK], axis=1)


def _none() -> NDArray[np.int32]:
    return np.zeros(0, dtype=np.int32)
