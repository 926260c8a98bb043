"""Packed histories: slices and their bounds."""

from __future__ import annotations

import numpy as np
import pytest

from foretaste.contracts.histories import Histories, concatenate


def _histories(*lengths: int) -> Histories:
    total = sum(lengths)
    return Histories(
        np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64),
        np.arange(1, total + 1, dtype=np.int32),
        np.zeros(total, dtype=np.int32),
        np.arange(total, dtype=np.int64),
        np.zeros(total, dtype=np.int32),
        np.zeros(total, dtype=np.float32),
        np.full(total, np.nan, dtype=np.float32),
    )


def test_spans_may_overlap_be_empty_and_repeat() -> None:
    taken = _histories(3, 2).take(np.array([0, 1, 4, 4]), np.array([2, 4, 4, 5]))
    assert taken.lengths_B.tolist() == [2, 3, 0, 1]
    assert taken.title_T.tolist() == [1, 2, 2, 3, 4, 5]


def test_the_last_of_each_history_are_kept_in_order() -> None:
    assert _histories(3, 0, 1).last(2).title_T.tolist() == [2, 3, 4]


def test_rows_can_be_picked_in_any_order() -> None:
    assert _histories(1, 2, 1).rows(np.array([2, 1])).title_T.tolist() == [4, 2, 3]


def test_concatenation_equals_the_whole() -> None:
    whole = _histories(2, 0, 3)
    joined = concatenate([whole.rows(np.array([0])), whole.rows(np.array([1, 2]))])
    assert joined.offsets_B1.tolist() == whole.offsets_B1.tolist()
    assert joined.title_T.tolist() == whole.title_T.tolist()


def test_arrays_of_unequal_length_are_refused() -> None:
    good = _histories(2)
    with pytest.raises(ValueError, match="lengths"):
        Histories(
            good.offsets_B1, good.title_T[:1], good.action_T, good.at_T, good.session_T, good.dwell_T, good.fraction_T
        )
