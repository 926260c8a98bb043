"""What the benchmark of serving makes of its measurements."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from foretaste.feedback.decision_log import DecisionLog
from foretaste.jobs.bench_serve_calls import EVENTS, LIST, Address, Population, requests
from foretaste.jobs.bench_serve_compare import Figures, bars_of, medians, moonshot
from foretaste.jobs.bench_serve_config import ServeBenchConfig, sized
from foretaste.jobs.bench_serve_loads import CLOSED, OPEN, Loads
from foretaste.jobs.bench_serve_made import FUSED, PLAIN_ALONE, PLAIN_SHARED
from foretaste.jobs.bench_serve_overload import memory, overload_bars
from foretaste.jobs.bench_serve_report import Plot, Section, at_most, none_of, write_report
from foretaste.jobs.bench_serve_stages import after_the_row, counted, histograms, stage_times
from foretaste.jobs.load import Sent
from foretaste.jobs.settings import Settings
from foretaste.testing.decisions import decision


def figures(per_second: float, p50: float, p90: float, p99: float) -> dict[str, Any]:
    asked = {"per_second": per_second, "p50_ms": p50, "p90_ms": p90, "p99_ms": p99, "statuses": {"200": 100}}
    return {"all": asked, "recommend": asked}


def test_bars_are_ratios_of_the_same_number_of_clients() -> None:
    found = bars_of(
        {
            FUSED: {CLOSED: {1: figures(50, 13, 18, 20), 8: figures(300, 20, 30, 35)}, OPEN: {}},
            PLAIN_ALONE: {CLOSED: {1: figures(60, 10, 12, 15), 8: figures(150, 40, 45, 50)}, OPEN: {}},
            PLAIN_SHARED: {CLOSED: {1: figures(60, 10, 12, 15), 8: figures(400, 40, 45, 50)}, OPEN: {}},
        }
    )
    value = {what: (one["value"], one["holds"]) for what, one in found.items()}
    assert value == {
        f"throughput of {FUSED} over {PLAIN_ALONE}, 8 clients": (2.0, True),
        f"p99 of {FUSED} over {PLAIN_ALONE}, 8 clients": (0.7, True),
        f"throughput of {FUSED} over {PLAIN_SHARED}, 8 clients": (0.75, False),
        f"p50 of {FUSED} over {PLAIN_ALONE}, 1 client": (1.3, True),
    }


def test_a_comparator_that_answered_nothing_holds_no_bar() -> None:
    nothing, some = figures(0.0, float("nan"), float("nan"), float("nan")), figures(50, 13, 18, 20)
    found = bars_of({name: {CLOSED: {1: one, 8: one}, OPEN: {}} for name, one in (
        (FUSED, some), (PLAIN_ALONE, nothing), (PLAIN_SHARED, nothing))})  # fmt: skip
    assert not any(one["holds"] for one in found.values())


def test_rounds_give_medians_and_add_their_statuses_up() -> None:
    rounds: list[Figures] = [{FUSED: {CLOSED: {1: figures(rate, 1.0, 1.5, 2.0)}}} for rate in (10.0, 30.0, 20.0)]
    found = medians(rounds)[FUSED][CLOSED][1]["all"]
    assert found["per_second"] == pytest.approx(20.0)
    assert found["statuses"] == {"200": 300}


def test_the_moonshot_counts_only_loads_with_the_wanted_p90() -> None:
    loads: Loads = {
        CLOSED: {1: figures(100, 5, 6.9, 9), 8: figures(1_200, 6, 7.1, 9)},
        OPEN: {400.0: figures(400, 5, 7.0, 9)},
    }
    found = moonshot({FUSED: loads})[FUSED]
    assert (found["per_second"], found["holds"]) == (400, False)
    assert (found["largest_per_second"], found["p90_ms_there"]) == (1_200, 7.1)


def sent(statuses: Sequence[int], *, took: float = 0.01, hinted: bool = True, seconds: float = 1.0) -> Sent:
    num = len(statuses)
    status_R = np.array(statuses)
    return Sent(
        (LIST,), np.zeros(num, np.int64), np.linspace(0, seconds, num, endpoint=False), np.full(num, took),
        status_R, (status_R == 429) & hinted, seconds,
    )  # fmt: skip


def test_beyond_capacity_only_lists_and_429_with_retry_after_are_answers() -> None:
    unloaded = sent([200] * 10)
    good = overload_bars(unloaded, 100.0, sent([200] * 95 + [429] * 200, took=0.02))
    assert all(one["holds"] for one in good.values()), good
    bad = overload_bars(unloaded, 100.0, sent([200] * 80 + [429] * 200 + [500, 0], took=0.021, hinted=False))
    assert [one["holds"] for one in bad.values()] == [False] * 4
    assert bad["answers that are neither a list nor a 429"]["value"] == 2


def test_memory_is_compared_by_thirds_and_drawn_as_a_line() -> None:
    found = memory([(10.0 * number, 100.0 + number) for number in range(9)])
    assert found["last_over_first"] == pytest.approx(107 / 101)
    assert found["slope_mib_per_minute"] == pytest.approx(6.0)
    with pytest.raises(ValueError, match="too short"):
        memory([(0.0, 1.0)])


SCRAPE = """# TYPE foretaste_stage_seconds histogram
foretaste_stage_seconds_bucket{{le="0.001",stage="answer",process="a"}} {one}
foretaste_stage_seconds_bucket{{le="0.002",stage="answer",process="a"}} {two}
foretaste_stage_seconds_bucket{{le="+Inf",stage="answer",process="a"}} {two}
foretaste_stage_seconds_sum{{stage="answer",process="a"}} {seconds}
foretaste_stage_seconds_count{{stage="answer",process="a"}} {two}
foretaste_stage_seconds_bucket{{le="0.001",stage="answer",process="b"}} 0
foretaste_stage_seconds_bucket{{le="0.002",stage="answer",process="b"}} 0
foretaste_stage_seconds_bucket{{le="+Inf",stage="answer",process="b"}} 0
foretaste_stage_seconds_sum{{stage="answer",process="b"}} 0
foretaste_stage_seconds_count{{stage="answer",process="b"}} 0
# TYPE foretaste_answers counter
foretaste_answers_total{{level="ranker",process="a"}} 3
foretaste_answers_total{{level="intent",process="a"}} 1
foretaste_answers_total{{level="intent",process="b"}} 0
"""


def test_percentiles_of_what_no_decision_tells_lie_within_their_bucket() -> None:
    before, after = SCRAPE.format(one=10, two=10, seconds=0.005), SCRAPE.format(one=10, two=110, seconds=0.155)
    assert histograms(after, "foretaste_stage_seconds", "stage")["answer"].count_E == (10, 110, 110)
    found = after_the_row(before, after)["answer"]
    assert found["mean_ms"] == pytest.approx(1.5)
    assert found["p50_ms"] == pytest.approx(1.5)
    assert 1.0 < found["p90_ms"] < found["p99.9_ms"] <= 2.0
    assert after_the_row(after, after) == {}
    assert counted(after, "foretaste_answers_total", "process") == {"a": 4, "b": 0}


def test_stages_are_those_of_the_decisions_of_each_load(tmp_path: Path) -> None:
    log = DecisionLog(tmp_path, clock=lambda: datetime(2026, 1, 1, tzinfo=UTC))
    for number in range(10):
        timings = [{"stage": "intent", "ms": float(number)}, {"stage": "pool", "ms": 1.0}]
        log.append(decision(f"d{number}", at=1_000 * number, timings=timings))
    first, second, none = stage_times(tmp_path, [(0, 4_000), (4_000, 10_000), (20_000, 30_000)])
    log.close()
    assert (first["intent"]["mean_ms"], second["intent"]["mean_ms"], none) == (1.5, 6.5, {})
    assert first["intent"]["p50_ms"] == 1.5
    assert second["pool"]["p99.9_ms"] == 1.0


def test_a_load_is_sessions_side_by_side_whose_events_are_nobody_elses() -> None:
    people = Population([f"m{number}" for number in range(50)], ["t1", "t2"])
    config = ServeBenchConfig(sessions=4, session_requests=5.0, events_share=0.25)
    address = Address("test", 1, "k")
    loads = {name: requests(people, config, address, name=name, number=2_000) for name in ("a", "b")}
    kinds = [call.kind for call in loads["a"]]
    assert 0.2 < kinds.count(EVENTS) / len(kinds) < 0.3
    assert set(kinds) == {EVENTS, LIST}
    ids = {name: {call.body for call in calls if call.kind == EVENTS} for name, calls in loads.items()}
    assert not ids["a"] & ids["b"]
    sessions = {call.body.split(b'"session_id": "')[1].split(b'"')[0] for call in loads["a"]}
    assert 300 < len(sessions) < 500
    assert all(b"X-API-Key: k" in call.head for call in loads["a"])
    assert requests(people, config, address, name="a", number=5, events_share=0.0)[3].kind == LIST


def test_only_an_address_is_a_url() -> None:
    assert Address.of("http://127.0.0.1:8000/", Settings()).port == 8000
    with pytest.raises(ValueError, match="HOST:PORT"):
        Address.of("https://example.org", Settings())


def test_flags_shorten_a_run_and_settings_are_checked() -> None:
    found = sized(ServeBenchConfig(), quick=True, size=7, seconds=3.0)
    assert (found.checks, found.decisions, found.soak_seconds, found.rounds) == (7, 7, 3.0, 1)
    assert sized(ServeBenchConfig(clients=(2,)), quick=False, size=None, seconds=None).clients == (2,)
    with pytest.raises(ValueError, match="seconds"):
        sized(ServeBenchConfig(), quick=False, size=None, seconds=-1.0)


def test_a_report_tells_its_bars_tables_and_drawings(tmp_path: Path) -> None:
    plot = Plot("times", "s", "ms", {"one": ([1.0, 2.0], [3.0, 4.0]), "two": ([1.0], [2.0])}, [("fault", 1.0, 1.5)])
    section = Section("What came", "In ms.", ("a", "b"), [(1.23456, "x|y")], [plot])
    bars = {"late": at_most(60.0, 50.0), "empty": none_of(0)}
    path = write_report(Settings(), ServeBenchConfig(), tmp_path, "part", bars, [section])
    text = path.read_text()
    assert "| late | 60.0 | <= 50 | **does not hold** |" in text
    assert "| empty | 0 | == 0 |  |" in text
    assert "| 1.235 | x/y |" in text
    assert (tmp_path / "part-times.png").read_bytes().startswith(b"\x89PNG")
