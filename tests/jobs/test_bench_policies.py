"""The benchmark of policies finds dice that do not fall as they are logged, and plays real tests where they are."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from foretaste.cli import POLICIES, POLICY_PARTS
from foretaste.contracts.wire import PolicyName
from foretaste.jobs.bench_options import BenchOptions
from foretaste.jobs.bench_policies import PARTS, policies_bench
from foretaste.jobs.bench_policies_dice import drawn_p_values, p_value
from foretaste.jobs.bench_policies_upworthy import FILE, chosen_settings, interval, played, read
from foretaste.policies.plackett_luce import PlackettLuce

WIDE = np.zeros((6, 1))


def test_every_part_and_every_policy_can_be_named_on_the_command_line() -> None:
    assert set(POLICY_PARTS) == set(PARTS)
    assert set(POLICIES) == {name.value for name in PolicyName}
    with pytest.raises(ValueError, match="no part 'mood'; there are propensities, cost, upworthy"):
        policies_bench(BenchOptions(name="policies", part="mood"))


def test_a_short_run_holds_its_bars_over_every_policy_and_place() -> None:
    done = policies_bench(BenchOptions(name="policies", part="propensities", size=600))
    assert done["figures"]["propensities"]["tests"] == 12 * 4 * 4
    assert all(bar["holds"] for bar in done["bars"].values())


def test_a_policy_with_other_dice_than_it_enumerates_is_found() -> None:
    class Hot(PlackettLuce):
        places = replace(PlackettLuce(), temperature=3.0).places

        distribution = replace(PlackettLuce(), temperature=1.0).distribution

    found, differing = drawn_p_values(Hot(), np.array([2.0, 1.0, 0.0, 0.0, -1.0, 0.5]), WIDE, draws=2_000, seed=0)
    assert min(found) < 1e-6
    assert differing > 0
    assert p_value({(0,): 5, (9,): 1}, {(0,): 1.0}, 6) == 0.0


def upworthy(folder: Path) -> Path:
    """Forty made-up tests of three arms, one of them better."""
    rng = np.random.default_rng(0)
    rate = np.exp(rng.normal(-4.0, 0.4, size=(40, 1)) + np.array([0.0, 0.0, 0.8])).ravel()
    table = pa.table(
        {
            "clickability_test_id": np.repeat([f"test {n}" for n in range(40)], 3),
            "impressions": np.full(120, 4_000),
            "clicks": rng.binomial(4_000, np.minimum(rate, 0.5)),
        }
    )
    pq.write_table(table, folder / FILE)
    return folder


def test_thompson_sampling_loses_less_than_even_dice(tmp_path: Path) -> None:
    tests, prior = read(upworthy(tmp_path) / FILE)
    assert len(tests) == 40
    assert prior.mean == pytest.approx(-3.7, abs=0.3)
    assert prior.between_arms == pytest.approx(0.46, abs=0.15)
    chosen, settings = chosen_settings(tests[:1], prior)
    assert settings.keys() == chosen.keys() - {"even", "Thompson, as it is"}
    lost = {name: played(chosen[name], tests[20:24], prior) for name in ("Thompson, as it is", "even")}
    assert lost["Thompson, as it is"].mean() < 0.5 * lost["even"].mean()
    low, high = interval(lost["even"])
    assert low < lost["even"].mean() < high


def test_without_the_tests_that_part_is_skipped_with_its_reason(tmp_path: Path) -> None:
    done = policies_bench(BenchOptions(name="policies", part="upworthy", source=tmp_path))
    assert (done["bars"], list(done["skipped"])) == ({}, ["upworthy"])
    assert str(tmp_path) in done["skipped"]["upworthy"]
