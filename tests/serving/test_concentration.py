"""How concentrated answers are, by hand."""

from __future__ import annotations

import numpy as np
import pytest

from foretaste.serving.concentration import Concentration, gini


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
