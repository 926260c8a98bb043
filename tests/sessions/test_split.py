"""Splits by hand: no instant on both sides, and the last of each actor."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from foretaste.contracts.splits import SPLITS, Cuts, split_last, split_time
from foretaste.sessions.split import Sketch, cuts


def _parts(at: list[int], validation: float = 0.2, test: float = 0.2) -> list[str]:
    at_T = np.array(at, dtype=np.int64)
    cut = cuts([Sketch.of(at_T)], validation_share=validation, test_share=test)
    return [part[:2] for part in SPLITS[split_time(at_T, cut)].tolist()]


def test_shares_are_taken_from_the_end_of_time() -> None:
    assert _parts([10, 20, 30, 40, 50]) == ["tr", "tr", "tr", "va", "te"]
    assert _parts([50, 40, 30, 20, 10]) == ["te", "va", "tr", "tr", "tr"]


def test_rows_of_one_instant_stay_together_before_the_cut() -> None:
    assert _parts([10, 20, 30, 30, 50]) == ["tr", "tr", "tr", "tr", "te"]
    assert _parts([10, 10, 10]) == ["tr", "tr", "tr"]


def test_a_share_of_zero_leaves_its_part_empty() -> None:
    assert set(_parts([1, 2, 3, 4], validation=0.0, test=0.25)) == {"tr", "te"}
    assert set(_parts([1, 2, 3, 4], validation=0.25, test=0.0)) == {"tr", "va"}


def test_nothing_to_divide_is_refused() -> None:
    with pytest.raises(ValueError, match="no interaction"):
        cuts([Sketch.of(np.zeros(0, dtype=np.int64))], validation_share=0.1, test_share=0.1)


@given(st.lists(st.integers(0, 40), min_size=1, max_size=60), st.integers(1, 4))
def test_all_of_train_is_before_all_of_validation_is_before_all_of_test(at: list[int], buckets: int) -> None:
    at_T = np.array(at, dtype=np.int64)
    sketches = [Sketch.of(at_T[b::buckets]) for b in range(buckets)]
    cut = cuts(sketches, validation_share=0.2, test_share=0.2)
    assert cut == cuts([Sketch.of(at_T)], validation_share=0.2, test_share=0.2)
    parts = SPLITS[split_time(at_T, cut)]
    sides = [at_T[parts == name].tolist() for name in ("train", "validation", "test")]
    bounds = [bound for side in sides if side for bound in (min(side), max(side))]
    assert bounds == sorted(bounds)
    assert sum(len(side) for side in sides) == len(at)
    assert sides[0]
    assert len(sides[1]) + len(sides[2]) <= 0.4 * len(at) + 1


def test_a_sketch_of_many_times_finds_the_cuts_of_all_of_them() -> None:
    at_T = np.random.default_rng(0).integers(0, 10**12, 50_000)
    whole = cuts([Sketch.of(at_T)], validation_share=0.1, test_share=0.1)
    rough = cuts(
        [Sketch.of(at_T[:40_000], size=4_000), Sketch.of(at_T[40_000:], size=4_000)],
        validation_share=0.1,
        test_share=0.1,
    )
    for part in ("validation", "test"):
        share = [float((SPLITS[split_time(at_T, cut)] == part).mean()) for cut in (whole, rough)]
        assert share[0] == pytest.approx(0.1, abs=1e-4)
        assert share[1] == pytest.approx(0.1, abs=1e-3)


def test_the_last_is_test_and_the_one_before_it_validation_of_three_or_more() -> None:
    actor = np.array([0, 0, 0, 1, 1, 2, 3, 3, 3, 3])
    found = [part[:2] for part in SPLITS[split_last(actor)].tolist()]
    assert found == ["tr", "va", "te", "tr", "tr", "tr", "tr", "tr", "va", "te"]
    assert split_last(actor[:0]).tolist() == []


def test_cuts_are_half_open() -> None:
    assert split_time(np.array([9, 10, 19, 20]), Cuts(10, 20)).tolist() == [0, 1, 1, 2]
