"""Simple recommenders that a trained model must beat, fitted by counting."""

from foretaste.models.baselines.markov import Markov, MarkovConfig
from foretaste.models.baselines.popularity import (
    Popularity,
    PopularityConfig,
    RecentPopularity,
    RecentPopularityConfig,
)
from foretaste.models.baselines.registry import BASELINES, BaselineConfig, baseline, fit_baseline
from foretaste.models.baselines.session_knn import SessionKNN, SessionKNNConfig
from foretaste.models.baselines.vstan import VSTAN, VSTANConfig

__all__ = [
    "BASELINES",
    "VSTAN",
    "BaselineConfig",
    "Markov",
    "MarkovConfig",
    "Popularity",
    "PopularityConfig",
    "RecentPopularity",
    "RecentPopularityConfig",
    "SessionKNN",
    "SessionKNNConfig",
    "VSTANConfig",
    "baseline",
    "fit_baseline",
]
