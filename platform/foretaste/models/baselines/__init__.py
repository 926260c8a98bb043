"""Simple recommenders that a trained model must beat, fitted by counting."""

from foretaste.models.baselines.markov import Markov
from foretaste.models.baselines.popularity import Popularity, RecentPopularity
from foretaste.models.baselines.session_knn import SessionKNN, SessionKNNConfig

BASELINES: tuple[str, ...] = (Popularity.name, RecentPopularity.name, Markov.name, SessionKNN.name)
"""Names of all of them."""

__all__ = ["BASELINES", "Markov", "Popularity", "RecentPopularity", "SessionKNN", "SessionKNNConfig"]
