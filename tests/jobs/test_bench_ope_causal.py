"""The causal benchmark measures what it says, at the size of a test."""

from __future__ import annotations

from pathlib import Path

import pytest

from foretaste.jobs.bench_ope_causal import PYTHON, oracle_part
from foretaste.jobs.bench_ope_confounder import confounder_part
from foretaste.jobs.bench_ope_hillstrom import HILLSTROM, hillstrom_part


def test_the_instrument_finds_the_effect_where_comparators_do_not() -> None:
    figures, bars, _ = confounder_part(2, quick=True)
    off = figures["relative_error"]
    assert abs(off["instrument"]["value"]) < 0.15
    for way in ("least_squares", "ips", "snips", "doubly_robust"):
        assert off[way]["value"] > 0.3
        assert abs(figures["relative_error_without_confounder"][way]["value"]) < 0.1
    assert [bars[name]["holds"] for name in bars if "least relative" in name] == [True, True]


@pytest.mark.slow
@pytest.mark.skipif(not PYTHON.is_file(), reason="the oracle libraries are not installed: `make oracles`")
def test_oracles_agree() -> None:
    _, bars, skipped = oracle_part(quick=True)
    assert all(bar["holds"] for bar in bars.values())
    assert not skipped


@pytest.mark.slow
@pytest.mark.skipif(not HILLSTROM.is_dir(), reason="Hillstrom's test is not here: ../shared/data/hillstrom")
def test_hillstrom_s_lifts_hold_and_every_learner_has_an_interval() -> None:
    figures, bars, _ = hillstrom_part(HILLSTROM, quick=True)
    assert all(bar["holds"] for bar in bars.values())
    for arm in ("Mens E-Mail", "Womens E-Mail"):
        for one in figures[arm]["learners"].values():
            value, low, high = one["qini"]
            assert low < value < high


def test_what_is_not_there_is_said_to_be_skipped(tmp_path: Path) -> None:
    assert hillstrom_part(tmp_path / "none", quick=True) == ({}, {}, {"hillstrom": "the data are not here: none"})
