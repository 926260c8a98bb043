"""Every classic model by name, and how it is fitted from its configuration."""

from __future__ import annotations

from collections.abc import Collection
from typing import Annotated

from pydantic import Field

from foretaste.contracts.catalogue import Catalogue
from foretaste.contracts.histories import Histories
from foretaste.models.baselines.markov import Markov, MarkovConfig
from foretaste.models.baselines.popularity import (
    Popularity,
    PopularityConfig,
    RecentPopularity,
    RecentPopularityConfig,
)
from foretaste.models.baselines.session_knn import SessionKNN, SessionKNNConfig
from foretaste.models.baselines.vstan import VSTAN, VSTANConfig
from foretaste.models.contract import Recommender

BaselineConfig = Annotated[
    PopularityConfig | RecentPopularityConfig | MarkovConfig | SessionKNNConfig | VSTANConfig,
    Field(discriminator="kind"),
]
"""Any classic model."""

_DEFAULTS: tuple[BaselineConfig, ...] = (
    PopularityConfig(),
    RecentPopularityConfig(),
    MarkovConfig(),
    SessionKNNConfig(),
    VSTANConfig(),
)

BASELINES: tuple[str, ...] = tuple(config.kind for config in _DEFAULTS)
"""Names of all of them."""


def baseline(name: str, *, time_aware: bool = True) -> BaselineConfig:
    """Give the default configuration of a classic model, without `time_aware` one that reads no time of the question.

    Raises ValueError for a name that none has, and where a model is nothing without the time.
    """
    by_name: dict[str, BaselineConfig] = {config.kind: config for config in _DEFAULTS}
    found = by_name.get(name)
    if found is None:
        raise ValueError(f"there is no classic model {name!r}; there are {', '.join(BASELINES)}")
    if time_aware:
        return found
    if isinstance(found, RecentPopularityConfig):
        raise ValueError("recent_popularity counts the days before the question: there is none without its time")
    return found.model_copy(update={"age_days": None}) if isinstance(found, VSTANConfig) else found


def fit_baseline(
    config: BaselineConfig,
    *,
    log: Histories,
    timeline: Histories,
    catalogue: Catalogue,
    actions: Collection[str] | None = None,
) -> Recommender:
    """Fit a classic model to `log`, what may be learned from; recent popularity reads `timeline`, all rows there are.

    Choices are interactions by `actions`, any when None.
    """
    match config:
        case PopularityConfig():
            return Popularity.fit(log, catalogue, config=config, actions=actions)
        case RecentPopularityConfig():
            return RecentPopularity.fit(timeline, catalogue, config=config, actions=actions)
        case MarkovConfig():
            return Markov.fit(log, catalogue, config=config, actions=actions)
        case SessionKNNConfig():
            return SessionKNN.fit(log, catalogue, config=config, actions=actions)
        case VSTANConfig():
            return VSTAN.fit(log, catalogue, config=config, actions=actions)
