"""The benchmark of signals compares them with their twin while it times them."""

from __future__ import annotations

from foretaste.jobs.bench_signals import signal_figures


def test_no_value_of_the_benchmark_differs_from_the_twin() -> None:
    done = signal_figures(quick=True)
    figures = done["figures"]["signals"]
    assert figures["values"] > 50_000
    assert [bar["holds"] for bar in done["bars"].values()] == [True]
    assert min(figures[name] for name in ("batch_us", "history_ms", "signals_ms", "twin_ms")) > 0
