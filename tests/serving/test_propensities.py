"""Propensities are held against the policy that says them: honest dice lie within chance, others do not."""

from __future__ import annotations

import shutil
import subprocess
from collections import Counter, defaultdict
from math import sqrt
from typing import Any

import numpy as np
import pytest
from prometheus_client.parser import text_string_to_metric_families

from foretaste.policies.epsilon_greedy import EpsilonGreedy
from foretaste.policies.slate import dice
from foretaste.serving.propensities import draw

SCORES_C = np.linspace(1.0, 0.0, 40)


def deviations(*, said: float, rolled: float, num: int = 3_000) -> dict[str, float]:
    """By bin, how far draws with one epsilon are from what a policy with another one says."""
    saying, rolling = EpsilonGreedy(said), EpsilonGreedy(rolled)
    said_C = saying.distribution(SCORES_C, ())
    drawn: Counter[str] = Counter()
    expected: dict[str, float] = defaultdict(float)
    variance: dict[str, float] = defaultdict(float)
    for seed in range(num):
        chosen = int(rolling.choose(SCORES_C, k=1, rng=dice(seed)).order_K[0])
        one = draw(said_C, chosen=chosen, propensity=float(said_C[chosen]))
        assert not one.differs
        drawn[one.below] += 1
        for name, share, spread in one.bins:
            expected[name] += share
            variance[name] += spread
    return {name: (drawn[name] - expected[name]) / sqrt(value) for name, value in variance.items() if value > 9}


def test_honest_dice_are_within_chance_and_others_far_outside() -> None:
    honest = deviations(said=0.2, rolled=0.2)
    assert set(honest) == {"0.01", "1"}
    assert all(abs(value) < 4 for value in honest.values())
    assert all(abs(value) > 5 for value in deviations(said=0.2, rolled=0.3).values())


def test_a_propensity_that_is_not_the_policys_differs() -> None:
    said_C = EpsilonGreedy(0.2).distribution(SCORES_C, ())
    assert draw(said_C, chosen=3, propensity=0.2 / 40).differs is False
    assert draw(said_C, chosen=3, propensity=0.3 / 40).differs is True


def test_lists_are_counted_by_what_filled_their_places_and_audited_ones_held_against_their_policy(bench: Any) -> None:
    bench.config = bench.config.model_copy(update={"audit_share": 1.0, "epsilon": 0.5})
    on = bench.recommender()
    for number in range(40):
        bench.ask(on=on, member_id=f"m{number}", policy="epsilon_greedy", k=5)
        bench.ask(on=on, member_id=f"m{number}", policy="greedy", k=5)
    samples = [
        (one.name.removeprefix("foretaste_"), one.labels, one.value)
        for family in text_string_to_metric_families(on.metrics.text().decode())
        for one in family.samples
    ]

    def total(name: str, **labels: str) -> float:
        return sum(value for told, of, value in samples if told == name and labels.items() <= of.items())

    assert total("places_total", policy="greedy", by="dice") == 0
    assert total("places_total", policy="greedy", by="scores") == 200
    assert total("places_total", policy="epsilon_greedy") == 200
    assert 60 < total("places_total", policy="epsilon_greedy", by="dice") < 140
    for policy in ("greedy", "epsilon_greedy"):
        assert total("propensity_drawn_total", policy=policy) == pytest.approx(40)
        assert total("propensity_expected_total", policy=policy) == pytest.approx(40)
        assert total("propensity_differs_total", policy=policy) == 0
    assert total("propensity_variance_total", policy="greedy") == 0 < total("propensity_variance_total")


@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool is not installed; `make servers` installs it")
def test_what_is_told_is_as_prometheus_wants_it(bench: Any) -> None:
    service = bench.service()
    text = service.metrics.text()
    done = subprocess.run(["promtool", "check", "metrics"], input=text, capture_output=True, timeout=60)
    assert done.returncode == 0, done.stdout.decode() + done.stderr.decode()
