"""`foretaste bench serve --part replay` on a small service: real processes, forced fallbacks, a swap and a restart."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from foretaste.jobs.bench_serve_config import ServeBenchConfig
from foretaste.jobs.bench_serve_replay import bars_of, decided_and_made_again
from foretaste.ops.bundles import versions
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
