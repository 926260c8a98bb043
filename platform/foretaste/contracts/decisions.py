"""Why an answer was not the full one, and what it was instead: closed lists."""

from __future__ import annotations

from enum import StrEnum


class Fallback(StrEnum):
    """Why a stage was left out of an answer."""

    NO_MODEL = "no_model"
    INTENT_FAILED = "intent_failed"
    INTENT_LATE = "intent_late"
    RANKER_FAILED = "ranker_failed"
    RANKER_LATE = "ranker_late"
    FEATURES_FAILED = "features_failed"  # the session log or the slow views
    FEATURES_LATE = "features_late"
    FEATURES_RESTING = "features_resting"  # not asked: failed too often just now


class Level(StrEnum):
    """What an answer is made of, the best first: its scores are those of the first one that had any."""

    RANKER = "ranker"  # the full path
    INTENT = "intent"  # the intent model's own scores
    SESSION_KNN = "session_knn"  # what was chosen in the sessions most like this one
    POPULAR_IN_GENRES = "popular_in_genres"  # of the intent, else of the session so far, else of the member
    POPULAR = "popular"
