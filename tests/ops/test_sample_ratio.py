"""Counts of arms are held against their shares as scipy does it, and arms that make no sense are refused."""

from __future__ import annotations

import pytest
from scipy import stats

from foretaste.ops.sample_ratio import sample_ratio_p


def test_counts_are_tested_as_by_scipy_and_a_wrong_ratio_is_seen() -> None:
    counts, shares = [480, 330, 190], [0.5, 0.3, 0.2]
    wanted = stats.chisquare(counts, [share * 1_000 for share in shares]).pvalue
    assert sample_ratio_p(counts, shares) == pytest.approx(wanted, rel=1e-12)
    assert sample_ratio_p([50, 50], [0.5, 0.5]) == 1.0 == sample_ratio_p([0, 0], [0.5, 0.5])
    assert sample_ratio_p([5_200, 4_800], [0.5, 0.5]) < 0.0005


@pytest.mark.parametrize(
    ("counts", "shares", "why"),
    [([1, 1], [0.5, 0.6], "1 in all"), ([1, 1], [0.0, 1.0], "a positive share"), ([1], [1.0], "two arms or more")],
)
def test_shares_that_are_none_are_refused(counts: list[int], shares: list[float], why: str) -> None:
    with pytest.raises(ValueError, match=why):
        sample_ratio_p(counts, shares)
