"""A shadow changes no answer, costs no request, drops under pressure, and says how its lists differ."""

from __future__ import annotations

import threading
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from foretaste.contracts.columns import SHADOWS
from foretaste.contracts.wire_models import PromoteRequest
from foretaste.serving import shadow as shadow_module
from foretaste.serving.shadow import rank_correlation
from foretaste.testing.shop import Shop

EAGER = {"busy": 1.0}


def items(answer: Any) -> list[Any]:
    return [(item.title_id, item.score, item.propensity) for item in answer.items]


def shadow_of(service: Any) -> Any:
    return service._production._shadow


def test_a_shadow_changes_no_answer_and_files_how_it_differs(tmp_path: Path) -> None:
    shop = Shop(tmp_path, shadow=EAGER)
    old, new = shop.release(1), shop.release(2)
    shop.promote(old)
    with closing(shop.open()) as service:
        before = [items(shop.ask(service, f"m{number}")) for number in range(6)]
        assert shadow_of(service).plain() == {}
        told = service.promote(new, PromoteRequest(shadow=True))
        assert told is not None
        assert (told.current, told.shadow, told.arms) == (old, new, [])
        assert {one.release: one.roles for one in told.releases} == {old: ["main"], new: ["shadow"]}
        assert [items(shop.ask(service, f"m{number}")) for number in range(6)] == before
        shop.ask(service, dry_run=True)
        shadow_of(service).wait()
        found = service.models().shadowed
        assert (found["scored"], found["dropped"], found["failed"]) == (6, 0, 0)
        assert 0.0 <= found["overlap"] <= 1.0
        assert 'foretaste_shadow{what="overlap"}' in service.metrics.text().decode()
        own = shop.list(service, "m1")
        decision = shop.ask(service, "m1").decision_id
        shadow_of(service).wait()
        service.promote(new, PromoteRequest())
        theirs = shop.list(service, "m1")
        assert service.models().shadow is None
    table = pq.read_table(tmp_path / "serving" / "shadows")
    assert table.schema.names == SHADOWS.names
    (row,) = [one for one in table.to_pylist() if one["decision_id"] == decision]
    assert row["overlap"] == len(set(own) & set(theirs)) / 8, "it is what the release answers once it is promoted"
    assert (row["release"], row["shadow_release"], row["level"], row["shadow_level"]) == (old, new, "ranker", "ranker")
    assert row["num_common"] == 40
    assert not {"member_id", "session_id"} & set(table.schema.names)


def test_a_release_in_its_own_shadow_differs_in_nothing(tmp_path: Path) -> None:
    shop = Shop(tmp_path, shadow=EAGER)
    old = shop.release(1)
    shop.promote(old)
    with closing(shop.open()) as service:
        lineup = service._recommender.lineup
        twin = service._recommender.load(lineup.main.loaded.models, lineup.main.loaded.views, release="twin")
        service._recommender.lineup = type(lineup)(lineup.main, shadow=twin)
        for number in range(4):
            for title_id in ("t01", "t04", "t08"):
                shop.act(service, title_id, f"m{number}")
            shop.ask(service, f"m{number}", policy="epsilon_greedy")
        shadow_of(service).wait()
        found = shadow_of(service).plain()
        assert (found["overlap"], found["rank_correlation"], found["mean_score_difference"]) == (1.0, 1.0, 0.0)


def test_under_pressure_a_shadow_drops_and_no_answer_waits_for_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shop = Shop(tmp_path, shadow=EAGER | {"queue": 2})
    old, new = shop.release(1), shop.release(2)
    shop.promote(old)
    hold, scored_by = threading.Event(), shadow_module.scored_by

    def slow(*values: Any, **named: Any) -> Any:
        assert hold.wait(60)
        return scored_by(*values, **named)

    monkeypatch.setattr(shadow_module, "scored_by", slow)
    with closing(shop.open()) as service:
        before = items(shop.ask(service))
        service.promote(new, PromoteRequest(shadow=True))
        for _ in range(20):
            assert items(shop.ask(service)) == before  # while the shadow stands still
        found = shadow_of(service).plain()
        assert found["dropped"] >= 17
        hold.set()
        shadow_of(service).wait()
        found = shadow_of(service).plain()
        assert found["scored"] + found["dropped"] == 20


def test_a_shadow_that_fails_is_counted_and_nobody_notices(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shop = Shop(tmp_path, shadow=EAGER)
    old, new = shop.release(1), shop.release(2)
    shop.promote(old)

    def broken(*_: Any, **__: Any) -> Any:
        raise RuntimeError("broken")

    monkeypatch.setattr(shadow_module, "scored_by", broken)
    with closing(shop.open()) as service:
        service.promote(new, PromoteRequest(shadow=True))
        for _ in range(3):
            assert shop.ask(service).fallback.reason == "features_failed"  # there is no store of features
        shadow_of(service).wait()
        assert shadow_of(service).plain()["failed"] == 3


def test_rank_correlation_is_spearmans() -> None:
    stats = pytest.importorskip("scipy.stats")
    dice = np.random.default_rng(3)
    for _ in range(20):
        x_C, y_C = (dice.integers(0, 6, 12).astype(np.float64) for _ in range(2))
        assert rank_correlation(x_C, y_C) == pytest.approx(stats.spearmanr(x_C, y_C).statistic, abs=1e-12)
    assert rank_correlation(np.ones(3), np.arange(3.0)) is None
    assert rank_correlation(np.zeros(0), np.zeros(0)) is None
