"""Parts of `foretaste bench serve` on a small service, on real processes."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from foretaste.jobs.bench_options import BenchOptions
from foretaste.jobs.bench_serve import serve_bench
from foretaste.jobs.bench_serve_config import ServeBenchConfig
from foretaste.jobs.bench_serve_replay import bars_of, decided_and_made_again
from foretaste.jobs.processes import ServiceProcess
from foretaste.jobs.settings import Settings
from foretaste.ops.bundles import versions
from foretaste.ops.redis_server import free_port
from foretaste.ops.releases import file_release, promote_release
from foretaste.ops.tables import read_titles
from foretaste.testing.bundles import file_intent, file_ranker


def two_releases(registry: Path, titles: Any) -> None:
    at = datetime(2026, 1, 2, tzinfo=UTC)
    intent = file_intent(registry, titles, at=at, seed=1)
    file_ranker(registry, intent=intent.fingerprint, at=at, seed=1, by_dice=True)
    pairs = zip(versions(registry, "intent"), versions(registry, "ranker"), strict=True)
    for number, (one, other) in enumerate(pairs):
        made = file_release(registry, {"intent": one, "ranker": other}, at=at + timedelta(days=number), about={})
        if number == 0:
            promote_release(registry, made.name, at=at)


@pytest.mark.slow
def test_decisions_of_every_kind_are_made_again_after_a_restart(make: Callable[..., Any], tmp_path: Path) -> None:
    made = make(tmp_path, audit_share=0.1, session_log={"durable": False})
    tables = made.settings.tables
    two_releases(tables.registry, read_titles(tables.prepared))
    figures = decided_and_made_again(made.settings, ServeBenchConfig(decisions=300, over_http=10))
    assert {what: one for what, one in bars_of(figures).items() if not one["holds"]} == {}, figures
    assert figures["by_library"]["identical"] == figures["decisions"] >= 250
    assert {"ranker_failed", "intent_failed", "features_failed"} <= figures["fallbacks"].keys()


@pytest.mark.slow
def test_a_running_service_is_loaded_and_told_of(make: Callable[..., Any], tmp_path: Path) -> None:
    made = make(tmp_path, session_log={"durable": False})
    bench = ServeBenchConfig(clients=(1, 2), rates=(20.0,), seconds=1.0, least_events=5)
    settings = made.settings.model_copy(update={"bench_serve": bench})
    with ServiceProcess(made.service, port=free_port(), log=tmp_path / "log.txt") as process:
        found = serve_bench(settings, BenchOptions(name="serve", url=process.url))
    assert (found["part"], found["bars"]) == ("load", {})
    loads = found["figures"][process.url]
    assert loads["closed"].keys() == {1, 2}
    one = loads["open"][20.0]
    assert one["all"]["statuses"].keys() == {"200"}
    assert one["recommend"]["p50_ms"] <= one["recommend"]["p99.9_ms"]
    text = Path(found["report"]).read_text()
    assert "## Open loop" in text
    assert process.url in text
    assert len(list(Path(found["report"]).parent.glob("load-*.png"))) == 3


def test_a_part_that_there_is_not_and_a_load_of_nothing_are_refused(tmp_path: Path) -> None:
    settings = Settings(workspace=tmp_path)
    with pytest.raises(ValueError, match="compare, load, freshness"):
        serve_bench(settings, BenchOptions(name="serve", part="ladder"))
    with pytest.raises(ValueError, match="--url"):
        serve_bench(settings, BenchOptions(name="serve", part="load"))
