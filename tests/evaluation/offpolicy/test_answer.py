"""One estimate with its interval, or why there is none."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from foretaste.evaluation.offpolicy.answer import CONSISTENT, AnswerConfig, answer
from foretaste.evaluation.offpolicy.diagnostics import DiagnosticsConfig, Reason
from foretaste.evaluation.offpolicy.synthetic_logs import Fault, LogConfig, known_log


def test_a_log_that_can_answer_does_so_with_one_of_the_consistent_estimators() -> None:
    log = known_log(LogConfig(), np.random.default_rng(0))
    found = answer(log.rounds, AnswerConfig())
    assert found.refusals == ()
    assert found.recommended in {estimator.name for estimator in CONSISTENT}
    assert found.interval is not None
    assert found.interval.holds(log.truth)
    assert found.interval == found.estimates[found.recommended or ""]
    surest = min(found.estimates[estimator.name].standard_error for estimator in CONSISTENT)
    assert surest <= found.interval.standard_error <= surest / 0.95
    assert set(found.tuned) == {"clipped_ips", "switch_dr", "dros"}
    assert found.least_error in found.estimates


FAR = {"distance": 8.0, "sharpness": 4.0}


@pytest.mark.parametrize(
    ("fault", "changed", "reason"),
    [
        ("no_support", {}, Reason.NO_SUPPORT),
        ("hidden_support", {}, Reason.WEIGHTS_DO_NOT_AVERAGE_ONE),
        ("far", FAR, Reason.FEW_EFFECTIVE_ROUNDS),
        ("hidden_far", FAR, Reason.ONE_ROUND_DECIDES),
        ("wrong_propensities", {}, Reason.PROPENSITIES_ARE_NOT_FREQUENCIES),
        ("short", {"num_rounds": 50}, Reason.TOO_SHORT),
    ],
)
def test_a_log_that_cannot_answer_is_refused_with_a_reason_that_names_the_fault(
    fault: Fault, changed: dict[str, float], reason: Reason
) -> None:
    config = LogConfig.model_validate({"fault": fault, **changed})
    found = answer(known_log(config, np.random.default_rng(1)).rounds, AnswerConfig())
    assert reason in found.refusals
    assert found.recommended is None
    assert found.interval is None
    assert found.reasons
    assert found.estimates  # to look at


def test_without_a_model_only_what_needs_none_is_estimated() -> None:
    rounds = known_log(LogConfig(), np.random.default_rng(2)).rounds
    bare = replace(rounds, predicted_R=None, expected_R=None, predicted_RA=None)
    found = answer(bare, AnswerConfig())
    assert set(found.estimates) == {"ips", "snips", "clipped_ips"}
    assert found.recommended in ("ips", "snips")


def test_rounds_of_few_actors_are_less_sure_than_as_many_independent_ones() -> None:
    rounds = known_log(LogConfig(num_rounds=1_000), np.random.default_rng(3)).rounds
    alone = answer(rounds, AnswerConfig())
    rows = np.repeat(np.arange(1_000), 3)
    tripled = replace(rounds.take(rows), actor_R=rows)
    half_width = alone.estimates["sndr"].half_width
    assert answer(tripled, AnswerConfig()).estimates["sndr"].half_width == pytest.approx(half_width, rel=0.01)
    drawn = answer(tripled, AnswerConfig(interval="bootstrap")).estimates["sndr"]
    assert drawn.method == "bootstrap"
    assert drawn.half_width == pytest.approx(half_width, rel=0.15)


def test_a_target_that_could_have_chosen_nothing_of_the_log_gets_no_estimate() -> None:
    rounds = known_log(LogConfig(num_rounds=500), np.random.default_rng(4)).rounds
    nothing = replace(rounds, target_R=np.zeros(500), target_RA=None, logging_RA=None)
    found = answer(nothing, AnswerConfig())
    assert found.recommended is None
    assert found.estimates == {}
    assert found.refusals


def test_the_thresholds_are_those_of_the_configuration() -> None:
    rounds = known_log(LogConfig(num_rounds=2_000), np.random.default_rng(0)).rounds
    strict = AnswerConfig(diagnostics=DiagnosticsConfig(min_effective_rounds=1e6))
    assert answer(rounds, strict).refusals == (Reason.FEW_EFFECTIVE_ROUNDS,)


def test_the_record_is_json() -> None:
    found = answer(known_log(LogConfig(num_rounds=500), np.random.default_rng(5)).rounds, AnswerConfig())
    record = json.loads(json.dumps(found.record()))
    assert record["recommended"] == found.recommended
    assert set(record["checks"]) == {reason.value for reason in Reason}
