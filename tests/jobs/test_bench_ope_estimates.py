"""The quick forms of the measurements of coverage and of large catalogues: figures, bars, the same ones again."""

from __future__ import annotations

from foretaste.evaluation.offpolicy.synthetic_logs import FAULTS
from foretaste.jobs.bench_ope_actions import COMPARATORS, OURS, actions
from foretaste.jobs.bench_ope_coverage import QUICK_LOGS, coverage
from foretaste.jobs.bench_options import BenchOptions
from foretaste.jobs.settings import Settings

QUICK = BenchOptions(name="ope", quick=True)


def test_the_coverage_part_counts_answers_and_refusals() -> None:
    found = coverage(Settings(), QUICK)
    figures, bars = found["figures"], found["bars"]
    assert figures["logs answered"] == QUICK_LOGS <= figures["logs asked"]
    held = figures["recommended estimator"]["coverage"]
    assert held["interval"][0] <= 0.95 <= held["interval"][1]
    assert bars["refused, no_support"]["holds"]
    assert len(bars) == 1 + len(FAULTS)
    errors = {name: row["root mean squared error"] for name, row in figures["estimators"].items()}
    assert figures["the best in hindsight"]["root mean squared error"] <= min(errors.values())


def test_the_actions_part_holds_ours_against_every_setting_of_the_others() -> None:
    found = actions(Settings(), QUICK)
    for figures in found["figures"].values():
        rows = figures["estimators"]
        compared = [name for names in COMPARATORS.values() for name in names]
        assert {OURS, *compared} <= set(rows)
        best = min(compared, key=lambda name: rows[name]["squared error"])
        assert figures["over the best"]["best"] == best
        ratio = rows[OURS]["squared error"] / rows[best]["squared error"]
        assert abs(figures["over the best"]["value"] - ratio) < 0.01
    assert len(found["bars"]) == 1
    assert actions(Settings(), QUICK) == found
