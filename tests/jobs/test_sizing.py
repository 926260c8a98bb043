"""The queueing model keeps a law that is known and comes near what was measured; clusters grow as they must."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from foretaste.cli import main
from foretaste.jobs.sizing import POPULATIONS, against, limits, size, traffic
from foretaste.jobs.sizing_config import SizingConfig
from foretaste.jobs.sizing_queue import Replica, Routing, calibrated, rate_within, simulate
from foretaste.serving.shedding import SheddingConfig

MANY = SheddingConfig(in_flight=5_000)
MEASURED = json.loads((Path(__file__).parent / "load_curve.json").read_text())
CONFIG = SizingConfig()
RATE = 40.0


@pytest.mark.parametrize("share", [0.3, 0.7])
@pytest.mark.parametrize("spread", [0.0, 1.0])
def test_without_shared_passes_the_mean_is_that_of_processor_sharing_whatever_the_work(
    share: float, spread: float
) -> None:
    """M/G/1-PS: mean work over 1 - load, and nothing else of the distribution counts."""
    replica = Replica(((1.0, 0.02),), spread=spread, shedding=MANY)
    seen = simulate(replica, 1, seconds=800.0, per_second=share / 0.02, seed=1)
    mean = sum(seen.took_ms) / len(seen.took_ms)
    assert mean == pytest.approx(20.0 / (1 - share), rel=0.1)
    assert seen.shed == 0


def test_a_closed_loop_is_answered_as_fast_as_it_was_measured() -> None:
    closed = {1: 50.0, 8: 120.0, 32: 160.0}
    replica = calibrated(closed, 2)
    for clients, per_second in closed.items():
        assert simulate(replica, 2, seconds=40.0, clients=clients).per_second == pytest.approx(per_second, rel=0.07)
    assert replica.seconds(8) == pytest.approx(8 / 80.0)


def test_beyond_what_replicas_can_do_the_rest_is_shed_and_who_is_let_in_does_not_wait_for_ever() -> None:
    replica = calibrated({1: 50.0, 32: 160.0}, 2)
    seen = simulate(replica, 2, seconds=30.0, per_second=480.0)
    assert seen.per_second == pytest.approx(160.0, rel=0.05)
    assert seen.shed_share == pytest.approx(2 / 3, abs=0.03)
    shed = SheddingConfig()
    assert seen.ms(99) < 2 * (1e3 * replica.seconds(8) + shed.burst_ms)


def test_fewest_first_is_faster_than_by_chance_and_the_same_seed_gives_the_same() -> None:
    replica = Replica(((1.0, 0.02),))
    told = {routing: simulate(replica, 4, seconds=60, per_second=140, routing=routing) for routing in Routing}
    assert told[Routing.LEAST].ms(99) < told[Routing.RANDOM].ms(99)
    assert simulate(replica, 4, seconds=60, per_second=140).took_ms == told[Routing.LEAST].took_ms


def test_the_rate_of_a_replica_grows_with_the_time_that_it_is_given_and_is_0_where_there_is_none() -> None:
    replica = calibrated({1: 50.0, 8: 110.0, 32: 160.0}, 2)
    rates = [rate_within(replica, p99_ms, answers=2_000) for p99_ms in (5.0, 60.0, 120.0, 1_000.0)]
    assert rates[0] == 0.0
    assert rates == sorted(rates)
    assert rates[-1] <= replica.most_per_second


def test_what_cannot_have_been_measured_is_refused() -> None:
    with pytest.raises(ValueError, match="who is alone"):
        calibrated({8: 100.0}, 2)
    with pytest.raises(ValueError, match="less time than fewer"):
        calibrated({1: 10.0, 8: 1_000.0}, 2)
    with pytest.raises(ValueError, match="one of both"):
        simulate(Replica(((1.0, 0.02),)), 1, seconds=1.0)


@pytest.mark.parametrize("run", ["first", "second"])
def test_the_model_foretells_closed_loops_and_open_ones_within_the_error_that_sizes_allow_for(run: str) -> None:
    """Of two runs of record; times come of closed loops' answers a second, percentiles and open loops are foretold."""
    found = against(MEASURED[run], replicas=2, shedding=SheddingConfig(), spread=CONFIG.costs.answer_spread)
    assert [row["loop"] for row in found["rows"]] == ["closed"] * 3 + ["open"]
    for row in found["rows"]:
        told, seen = row["measured"], row["model"]
        assert seen["per_second"] == pytest.approx(told["per_second"], rel=0.1), row
        most = 1.5 if row["loop"] == "closed" else CONFIG.costs.model_error
        assert all(0.65 < told[name] / seen[name] < most for name in ("p50_ms", "p90_ms", "p99_ms")), row


def test_more_members_need_more_of_everything_and_a_million_of_nothing_that_stops() -> None:
    found = [size(members, CONFIG, rate=RATE) for members in POPULATIONS]
    for part, name in (("serving", "replicas"), ("session_log", "gib"), ("disk", "workspace_gib")):
        values = [one[part][name] for one in found]
        assert values == sorted(values)
        assert values[2] == pytest.approx(20 * values[1], rel=0.15)  # but for what is spare
    passed = [{limit["name"] for limit in one["limits"] if limit["passed"]} for one in found]
    assert passed[0] <= passed[1] <= passed[2]
    assert not any("replicas" in name or "volume" in name for name in passed[0])
    assert any("replicas of one Serve" in name for name in passed[2])


def test_a_cluster_by_hand() -> None:
    load = traffic(604_800, CONFIG.population)  # a session takes 1 / 1.25 s of the week
    assert load["lists_per_second"] == pytest.approx(1.25 * 8)
    found = size(604_800, CONFIG, rate=RATE)
    asked = 30.0 + 1.25 * 17 * 3 * CONFIG.costs.event_cpu_ms / CONFIG.costs.answer_cpu_ms
    assert found["serving"]["replicas"] == -(-asked // (RATE * CONFIG.targets.headroom)) + 2  # a worker to lose
    for limit in limits(found, CONFIG.costs):
        assert limit.passed is (limit.value > limit.holds_to)


def test_a_wish_that_no_replica_keeps_is_said_to_be_one() -> None:
    with pytest.raises(ValueError, match="no replica answers within 10 ms"):
        size(1_000, SizingConfig.model_validate({"targets": {"p99_ms": 10.0}}))


def test_the_verb_says_clusters_and_the_model_beside_a_bench_and_names_a_file_that_is_none(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "compare.json"
    told: dict[str, Any] = {"figures": {"ray serve, fused": MEASURED["second"]}}
    file.write_text("a line before\n" + json.dumps(told) + "\n")
    assert main(["size", "--members", "1000000", "--against", str(file), "--json"]) == 0
    found = json.loads(capsys.readouterr().out.strip().splitlines()[-1])
    assert [one["members"] for one in found["clusters"]] == [1_000_000]
    assert len(found["model"]["rows"]) == 4
    file.write_text("{}")
    assert main(["size", "--members", "1000", "--against", str(file)]) == 2
    assert "bench serve --part compare" in capsys.readouterr().err
