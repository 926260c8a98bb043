"""Slow views in the request: read again when due, never failing, never of another catalogue."""

from __future__ import annotations

from typing import Any

import pytest

from foretaste.feedback.session_log import microseconds
from foretaste.serving.slow import SlowViews
from foretaste.testing.fakes import FakeViews


def test_titles_are_read_again_when_due(bench: Any) -> None:
    views = bench.views()
    bench.source.asof_ms += 1
    bench.clock.move(seconds=299)
    views.refresh_if_due()
    asof = microseconds(bench.clock.now)
    assert views.read("m1", asof=asof).titles.newest_ms == bench.source.asof_ms - 1
    bench.clock.move(seconds=1)
    views.refresh_if_due()
    assert views.read("m1", asof=asof).titles.newest_ms == bench.source.asof_ms


def test_when_titles_cannot_be_read_again_those_of_before_stay_and_are_called_stale(bench: Any) -> None:
    views, asof = bench.views(), microseconds(bench.clock.now)
    bench.source.failure = OSError("store down")
    views.refresh()
    found = views.read("m1", asof=asof)
    assert found.titles.newest_ms == bench.source.asof_ms
    assert "title_features" in found.stale
    bench.source.failure = None
    views.refresh()
    assert views.read("m1", asof=asof).stale == ()


def test_views_of_another_catalogue_refuse_the_start(bench: Any) -> None:
    source = FakeViews(bench.catalogue)
    source.mismatch = "views have other genres"
    with pytest.raises(ValueError, match="other genres"):
        bench.views(source)


def test_views_that_become_those_of_another_catalogue_are_not_read(bench: Any) -> None:
    views, asof = bench.views(), microseconds(bench.clock.now)
    bench.source.mismatch = "views have other genres"
    views.refresh()
    found = views.read("m1", asof=asof)
    assert found.failed
    assert found.members.asof_ms_B.tolist() == [-1]
    assert found.stale == ("member_features", "title_features")


def test_without_a_source_everything_is_absent(bench: Any) -> None:
    views = SlowViews(None, bench.catalogue, stale_hours=1.0, refresh_seconds=1.0, clock=bench.clock)
    bench.clock.move(seconds=2)
    views.refresh_if_due()
    found = views.read(None, asof=microseconds(bench.clock.now))
    assert found.failed
    assert found.stale == ("member_features", "title_features")
