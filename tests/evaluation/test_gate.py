"""What may go in the place of what answers."""

from __future__ import annotations

from typing import Any

import pytest

from foretaste.evaluation.gate import GateConfig, Judgement, Ranking, Verdict, judge
from foretaste.evaluation.offpolicy.answer import Answer
from foretaste.evaluation.offpolicy.diagnostics import Check, Reason
from foretaste.evaluation.offpolicy.intervals import Interval


def said(low: float, high: float, *, logged: float = 1.0) -> Answer:
    """An answer whose difference to the logged value lies between two bounds."""
    middle = (low + high) / 2
    gap = Interval(middle, low, high, (high - low) / 4, "student")
    before = Interval(logged, logged, logged, 0.0, "student")
    value = Interval(logged + middle, 0.0, 2.0, 0.1, "student")
    return Answer((), (), "snips", value, {"snips": value}, {}, "snips", before, gap)


REFUSED = Answer(
    (Check(Reason.NO_SUPPORT, 0.4, 0.01, False, "40% of the choices are never made"),),
    (Reason.NO_SUPPORT,), None, None, {}, {}, None,
)  # fmt: skip


def ranks(difference: float, low: float | None, high: float | None) -> Ranking:
    return Ranking("ndcg@10", "vstan", 0.2, difference, low, high)


@pytest.mark.parametrize(
    ("answer", "config", "verdict"),
    [
        (said(0.01, 0.05), {}, Verdict.PROMOTE),
        (said(-0.019, 0.05), {}, Verdict.PROMOTE),  # within the margin
        (said(-0.019, -0.001), {}, Verdict.PROMOTE),  # surely worse, but by less than the margin
        (said(-0.03, 0.05), {}, Verdict.COLLECT),
        (said(-0.06, -0.03), {}, Verdict.REFUSE),
        (said(-0.019, 0.05), {"superior": True}, Verdict.COLLECT),
        (said(-0.019, -0.001), {"superior": True}, Verdict.REFUSE),
        (said(0.0, 0.0), {"margin": 0.0}, Verdict.PROMOTE),  # the same policy again
        (said(-0.019, 0.0, logged=-1.0), {}, Verdict.PROMOTE),  # a margin of costs is one as well
        (REFUSED, {}, Verdict.COLLECT),
        (None, {}, Verdict.COLLECT),
        (None, {"needs_log": False}, Verdict.PROMOTE),
    ],
)
def test_the_log_decides_by_interval_and_margin(
    answer: Answer | None, config: dict[str, Any], verdict: Verdict
) -> None:
    found = judge(answer, GateConfig.model_validate(config), num_lists=1_000)
    assert found.verdict is verdict
    assert found.reasons


@pytest.mark.parametrize(
    ("ranking", "verdict"),
    [
        (ranks(0.05, 0.04, 0.06), Verdict.PROMOTE),
        (ranks(-0.005, -0.009, 0.0), Verdict.PROMOTE),
        (ranks(-0.005, -0.02, 0.01), Verdict.COLLECT),
        (ranks(-0.05, -0.06, -0.04), Verdict.REFUSE),
        (ranks(-0.05, None, None), Verdict.REFUSE),
    ],
)
def test_what_ranks_worse_is_refused_whatever_the_log_says(ranking: Ranking, verdict: Verdict) -> None:
    assert judge(said(0.01, 0.05), GateConfig(), ranking=ranking).verdict is verdict
    assert judge(None, GateConfig(), ranking=ranking, replaces=False).verdict is verdict


def test_reasons_are_those_of_the_verdict_and_say_why_a_log_is_silent() -> None:
    found = judge(REFUSED, GateConfig(), ranking=ranks(0.05, 0.04, 0.06))
    assert found == Judgement(
        Verdict.COLLECT, ("the log cannot say what it would earn: 40% of the choices are never made",)
    )
    both = judge(REFUSED, GateConfig(), ranking=ranks(-0.05, -0.06, -0.04))
    assert both.verdict is Verdict.REFUSE
    assert [reason for reason in both.reasons if "log" in reason] == []
    none = judge(None, GateConfig(), why_none="there is no decision log")
    assert none.reasons == ("the log cannot say what it would earn: there is no decision log",)
    assert judge(None, GateConfig(), replaces=False).verdict is Verdict.COLLECT


def test_it_is_said_how_many_lists_would_do() -> None:
    found = judge(said(-0.04, 0.04), GateConfig(), num_lists=1_000)
    assert found.lists_wanted == 4_000  # the half-width of 0.04 has to come down to the margin of 0.02
    assert judge(said(-0.10, 0.04), GateConfig(), num_lists=1_000).lists_wanted is None
    assert found.record()["verdict"] == "collect_more_data"
