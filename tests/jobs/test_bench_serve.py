"""What the benchmark of serving makes of its measurements."""

from __future__ import annotations

from typing import Any

import pytest

from foretaste.jobs.bench_serve import FUSED, PLAIN_ALONE, PLAIN_SHARED, _bars, _means


def figures(per_second: float, p50: float, p99: float) -> dict[str, Any]:
    asked = {"per_second": per_second, "p50_ms": p50, "p99_ms": p99, "statuses": {"200": 100}}
    return {"all": asked, "recommend": asked}


def test_bars_are_ratios_of_the_same_number_of_clients() -> None:
    found = _bars(
        {
            FUSED: {1: figures(50, 13, 20), 8: figures(300, 20, 35)},
            PLAIN_ALONE: {1: figures(60, 10, 15), 8: figures(150, 40, 50)},
            PLAIN_SHARED: {1: figures(60, 10, 15), 8: figures(400, 40, 50)},
        }
    )
    value = {what: (one["value"], one["holds"]) for what, one in found.items()}
    assert value == {
        f"throughput of {FUSED} over {PLAIN_ALONE}, 8 clients": (2.0, True),
        f"p99 of {FUSED} over {PLAIN_ALONE}, 8 clients": (0.7, True),
        f"throughput of {FUSED} over {PLAIN_SHARED}, 8 clients": (0.75, False),
        f"p50 of {FUSED} over {PLAIN_ALONE}, 1 client": (1.3, True),
    }


def test_rounds_give_medians_and_add_their_statuses_up() -> None:
    rounds = [{FUSED: {1: figures(rate, 1.0, 2.0)}} for rate in (10.0, 30.0, 20.0)]
    found = _means(rounds)[FUSED][1]["all"]
    assert found["per_second"] == pytest.approx(20.0)
    assert found["statuses"] == {"200": 300}
