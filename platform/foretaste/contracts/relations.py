"""What a title is to a member at an instant: one rule for labels of the past and for candidates of a request.

Shapes: B histories, T interactions of all of them together, X any shape of titles asked about.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from foretaste.contracts.catalogue import UNKNOWN_TIME
from foretaste.contracts.events import ACTION_CODES, Action
from foretaste.contracts.histories import Histories
from foretaste.contracts.intents import RELATIONS, LabelConfig

DAY_US = 86_400_000_000
NEVER = UNKNOWN_TIME
DISCOVER, FROM_LIST, CONTINUE_SERIES, RESUME_UNFINISHED, REWATCH, RETURN_AFTER_GAP = range(len(RELATIONS))


@dataclass(frozen=True, slots=True)
class Standing:
    """What happened between a member and a title before an instant; all arrays of one shape X."""

    touched_at_X: NDArray[np.int64]  # the newest interaction of any kind; NEVER without
    chosen_at_X: NDArray[np.int64]  # the newest choice; NEVER without
    finished_X: NDArray[np.bool_]
    listed_X: NDArray[np.bool_]  # put on the list

    def rows(self, index_X: NDArray[np.int64]) -> Standing:
        """Pick some of them."""
        return Standing(
            self.touched_at_X[index_X], self.chosen_at_X[index_X], self.finished_X[index_X], self.listed_X[index_X]
        )


def chosen(histories: Histories, config: LabelConfig) -> NDArray[np.bool_]:
    """Say of each interaction whether its title was chosen: by the action, or since some of it was played; bool[T]."""
    chooses = np.zeros(len(ACTION_CODES), dtype=np.bool_)
    chooses[[ACTION_CODES[action] for action in config.chosen_actions]] = True
    return chooses[histories.action_T] | ~np.isnan(histories.fraction_T)


def relations(
    standing: Standing, series_X: NDArray[np.bool_], at_X: NDArray[np.int64], config: LabelConfig
) -> NDArray[np.int32]:
    """Code in contracts.intents.RELATIONS of choosing a title at `at_X` (microseconds) after what happened before."""
    never_X = standing.chosen_at_X == NEVER
    since_X = at_X - np.where(never_X, at_X, standing.chosen_at_X)
    within_X = np.where(series_X, days(config.continue_within_days), days(config.return_after_days))
    again_X = np.where(since_X <= within_X, np.where(series_X, CONTINUE_SERIES, RESUME_UNFINISHED), RETURN_AFTER_GAP)
    again_X = np.where(standing.finished_X & ~series_X, REWATCH, again_X)
    return np.where(never_X, np.where(standing.listed_X, FROM_LIST, DISCOVER), again_X).astype(np.int32)


def recency_classes(age_X: NDArray[np.int64], known_X: NDArray[np.bool_], config: LabelConfig) -> NDArray[np.int32]:
    """Code in `LabelConfig.recency_classes` of ages in microseconds, -1 where unknown; bounds are inclusive.

    A title seen before its release date counts as just released.
    """
    bounds = np.array(list(config.recency_days.values())) * DAY_US
    return np.where(known_X, np.searchsorted(bounds, age_X, side="left"), -1).astype(np.int32)


def days(number: float) -> int:
    """Days as microseconds."""
    return round(number * DAY_US)


class Past:
    """What histories say of every title in them, asked at their end or before each interaction."""

    def __init__(self, histories: Histories, config: LabelConfig) -> None:
        self._width = int(histories.title_T.max(initial=0)) + 1
        key_T = np.repeat(np.arange(len(histories)), histories.lengths_B) * self._width + histories.title_T
        self._order_T = np.argsort(key_T, kind="stable")  # of one title the newest comes last
        self._key_T = key_T[self._order_T]
        self._opens_T = np.diff(self._key_T, prepend=-1) != 0
        self._at_T = histories.at_T[self._order_T]
        chosen_T = chosen(histories, config)
        finished_T = (histories.fraction_T >= np.float32(config.finished_from)) | (
            histories.action_T == ACTION_CODES[Action.COMPLETE]
        )
        listed_T = histories.action_T == ACTION_CODES[Action.ADD_TO_LIST]
        self._chosen_T, self._finished_T, self._listed_T = (
            self._newest(flag_T[self._order_T]) for flag_T in (chosen_T, finished_T, listed_T)
        )

    def _newest(self, flag_T: NDArray[np.bool_]) -> NDArray[np.int64]:
        """Place in the order of the newest interaction with the same title, up to each, that is marked; -1 without."""
        place_T = np.arange(len(flag_T))
        found_T = np.maximum.accumulate(np.where(flag_T, place_T, -1)) if len(flag_T) else place_T
        begin_T = np.maximum.accumulate(np.where(self._opens_T, place_T, 0)) if len(flag_T) else place_T
        return np.where(found_T >= begin_T, found_T, -1)

    def before_each(self) -> Standing:
        """Tell, for each interaction, what stands before it in its own history of its title; X = T."""
        place_T = np.where(self._opens_T, -1, np.arange(len(self._order_T)) - 1)
        back_T = np.empty_like(self._order_T)
        back_T[self._order_T] = place_T
        return self._at(back_T)

    def after_each(self) -> tuple[Standing, NDArray[np.int64]]:
        """Tell, for each interaction, what stands after it in its own history of its title, and until which one.

        The second is the index of the next interaction with the same title in the same history, T without one.
        """
        size = len(self._order_T)
        back_T, next_T = np.empty_like(self._order_T), np.full(size, size, dtype=np.int64)
        back_T[self._order_T] = np.arange(size)
        goes_on = ~self._opens_T[1:]
        next_T[self._order_T[:-1][goes_on]] = self._order_T[1:][goes_on]
        return self._at(back_T), next_T

    def of(self, row_X: NDArray[np.int64], code_X: NDArray[np.int32]) -> tuple[Standing, NDArray[np.int64]]:
        """Tell of titles (codes) what the whole history `row_X` says, and which interaction is the newest (-1 none)."""
        wanted_X = np.where(code_X < self._width, row_X * self._width + code_X, -1)
        place_X = np.searchsorted(self._key_T, wanted_X, side="right") - 1
        found_X = (place_X >= 0) & (self._value(self._key_T, place_X, -2) == wanted_X)
        place_X = np.where(found_X, place_X, -1)
        return self._at(place_X), self._value(self._order_T, place_X, -1)

    def _at(self, place_X: NDArray[np.int64]) -> Standing:
        chosen_X, finished_X, listed_X = (
            self._value(newest_T, place_X, -1) for newest_T in (self._chosen_T, self._finished_T, self._listed_T)
        )
        touched_at_X, chosen_at_X = (self._value(self._at_T, at_X, NEVER) for at_X in (place_X, chosen_X))
        return Standing(touched_at_X, chosen_at_X, finished_X >= 0, listed_X >= 0)

    @staticmethod
    def _value(values_T: NDArray[np.int64], place_X: NDArray[np.int64], none: int) -> NDArray[np.int64]:
        if not len(values_T):
            return np.full(np.shape(place_X), none, dtype=np.int64)
        return np.where(place_X >= 0, values_T[place_X], none)
