"""Why an answer was not the full one: the closed list of reasons."""

from __future__ import annotations

from enum import StrEnum


class Fallback(StrEnum):
    """Why a stage was left out of an answer."""

    NO_MODEL = "no_model"
    INTENT_FAILED = "intent_failed"
    INTENT_LATE = "intent_late"
    RANKER_FAILED = "ranker_failed"
    RANKER_LATE = "ranker_late"
    FEATURES_FAILED = "features_failed"
