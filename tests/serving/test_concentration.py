"""How concentrated answers are and how much lists keep, by hand."""

from __future__ import annotations

import numpy as np
import pytest

from foretaste.contracts.concentration import gini
from foretaste.serving.concentration import Concentration
from foretaste.serving.steadied import Steadied


@pytest.mark.parametrize(
    ("counts", "wanted"), [([0, 0, 0], 0.0), ([2, 2, 2], 0.0), ([0, 0, 0, 8], 0.75), ([1, 3], 0.25), ([], 0.0)]
)
def test_gini_is_none_where_all_are_alike_and_large_where_one_has_everything(counts: list[int], wanted: float) -> None:
    assert gini(np.array(counts, dtype=np.int64)) == pytest.approx(wanted)


def test_only_the_newest_answers_count() -> None:
    found = Concentration(4, window=2)
    assert found.plain() == {"answers": 0.0, "coverage": 0.0, "gini": 0.0}
    for codes in ([1, 2], [1, 3], [1, 2]):
        found.add(np.array(codes, dtype=np.int32))
    assert found.plain() == {"answers": 2.0, "coverage": 0.75, "gini": pytest.approx(gini(np.array([2, 1, 1, 0])))}


def test_what_stays_from_list_to_list_is_counted() -> None:
    found = Steadied(window=2)
    assert found.plain() == {"lists": 0.0, "kept_share": 0.0, "largest_move": 0.0, "farthest": 0.0}
    for kept, largest_move in ((0, 9), (10, 1), (5, 4)):
        found.add(kept=kept, of=10, largest_move=largest_move)
    assert found.plain() == {"lists": 2.0, "kept_share": 0.75, "largest_move": 2.5, "farthest": 4.0}
