"""Lists under load, beside plain uvicorn and FastAPI doing the same and ourselves without shared passes, in one run."""

from __future__ import annotations

import json
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from rich.table import Table

from foretaste.jobs.bench_options import BenchOptions
from foretaste.jobs.bench_serve_calls import LIST, Address, population
from foretaste.jobs.bench_serve_config import ServeBenchConfig
from foretaste.jobs.bench_serve_loads import CLOSED, OPEN, Loads, loads
from foretaste.jobs.bench_serve_made import (
    FUSED,
    PLAIN_ALONE,
    PLAIN_PROCESSES,
    PLAIN_SHARED,
    QUICK_SUBJECTS,
    SUBJECTS,
    UVICORN,
    folder_of,
    made,
    serving,
)
from foretaste.jobs.bench_serve_report import Plot, Section, at_least, at_most, write_report
from foretaste.jobs.bench_serve_stages import slowest
from foretaste.jobs.settings import Settings
from foretaste.ops.telemetry import console, say

MOONSHOT_PER_SECOND, MOONSHOT_P90_MS = 1_000.0, 7.0
"""What bol.com's Serenade, in Rust, states for 2 vCPU."""
TIMES = ("p50_ms", "p90_ms", "p99_ms", "p99.9_ms")

Figures = dict[str, Loads]
"""By service."""


def compare(settings: Settings, config: ServeBenchConfig, options: BenchOptions) -> dict[str, Any]:
    """Load every service in turn; figures are medians over the rounds, bars are ratios within the run."""
    made_at = made(settings, config)
    people = population(made_at.tables.prepared, least_events=config.least_events)
    rounds: list[Figures] = []
    rates: Sequence[float] = config.rates or ()
    for turn in range(config.rounds):
        found: Figures = {}
        names = QUICK_SUBJECTS if options.quick else SUBJECTS
        for name in names if turn % 2 == 0 else reversed(names):  # what the machine does meanwhile is shared out
            with serving(made_at, name, replicas=config.replicas) as (own, url):
                decisions = own.tables.serving / "decisions"
                address = Address.of(url, own)
                found[name] = loads(people, config, address, rates=rates, seed=turn, decisions=decisions)
            rates = rates or tuple(found[name][OPEN])  # of the first service: the same for all
            say(f"round {turn + 1}  {name}: " + _short(found[name]))
        rounds.append(found)
    figures = medians(rounds)
    show(figures)
    measured = bars_of(figures)
    folder = folder_of(settings) / "reports"
    report = write_report(made_at, config, folder, "compare", measured, sections(figures))
    return {
        "figures": figures,
        "bars": {} if options.quick else measured,
        "measured": measured,
        "beside_processes": beside_processes(figures),
        "moonshot": moonshot(figures),
        "report": report,
    }


def load_of(settings: Settings, config: ServeBenchConfig, options: BenchOptions) -> dict[str, Any]:
    """Load the running service of `options.url`, with members of the workspace; there is nothing to compare it with.

    Raises ValueError where no URL is given, or another thing than one.
    """
    if options.url is None:
        raise ValueError("bench serve --part load: --url of the running service is missing")
    people = population(settings.tables.prepared, least_events=config.least_events)
    address = Address.of(options.url, settings)
    figures: Figures = {options.url: loads(people, config, address, rates=config.rates or (), seed=0)}
    show(figures)
    folder = folder_of(settings) / "reports"
    return {
        "figures": figures,
        "bars": {},
        "report": write_report(settings, config, folder, "load", {}, sections(figures)),
    }


def bars_of(figures: Figures) -> dict[str, Any]:
    """What has to hold between services that were loaded by as many clients."""
    ours = FUSED if FUSED in figures else UVICORN

    def ratio(other: str, number: float, name: str, kind: str) -> float:
        mine, theirs = figures[ours][CLOSED][number][kind][name], figures[other][CLOSED][number][kind][name]
        return float(mine / theirs) if theirs else float("nan")

    bars: dict[str, Any] = {}
    for number in (n for n in figures[ours][CLOSED] if n > 1):
        of = f"{number} clients"
        bars[f"throughput of {ours} over {PLAIN_ALONE}, {of}"] = at_least(
            ratio(PLAIN_ALONE, number, "per_second", "all"), 1.5
        )
        bars[f"p99 of {ours} over {PLAIN_ALONE}, {of}"] = at_most(ratio(PLAIN_ALONE, number, "p99_ms", LIST), 0.7)
        bars[f"throughput of {ours} over {PLAIN_SHARED}, {of}"] = at_least(
            ratio(PLAIN_SHARED, number, "per_second", "all"), 0.85
        )
    bars[f"p50 of {ours} over {PLAIN_ALONE}, 1 client"] = at_most(ratio(PLAIN_ALONE, 1, "p50_ms", LIST), 1.3)
    return bars


def beside_processes(figures: Figures) -> dict[str, float]:
    """Ours over plain in as many processes, which is no bar: what the replicas give, and what the rest does."""
    if FUSED not in figures:
        return {}
    ours, theirs = figures[FUSED][CLOSED], figures[PLAIN_PROCESSES][CLOSED]
    found = {}
    for number in ours:
        found[f"throughput, {number:g} clients"] = (
            ours[number]["all"]["per_second"] / theirs[number]["all"]["per_second"]
        )
        found[f"p99, {number:g} clients"] = ours[number][LIST]["p99_ms"] / theirs[number][LIST]["p99_ms"]
    return found


def moonshot(figures: Figures) -> dict[str, Any]:
    """The most answers a second, of lists, that each service gave with the wanted p90; reported, and no bar."""
    found: dict[str, Any] = {"want": f">= {MOONSHOT_PER_SECOND:.0f} answers/s at p90 <= {MOONSHOT_P90_MS:g} ms"}
    for name, by_loop in figures.items():
        lists = [one[LIST] for by_load in by_loop.values() for one in by_load.values()]
        fast = [one["per_second"] for one in lists if one["p90_ms"] <= MOONSHOT_P90_MS]
        best = max(lists, key=lambda one: float(one["per_second"]))
        found[name] = {
            "per_second": max(fast, default=0.0),
            "largest_per_second": best["per_second"],
            "p90_ms_there": best["p90_ms"],
            "holds": max(fast, default=0.0) >= MOONSHOT_PER_SECOND,
        }
    return found


def medians(rounds: Sequence[Figures]) -> Figures:
    """Medians over the rounds of every figure that is a number; statuses, which are whole, are added up."""

    def merged(parts: Sequence[Any]) -> Any:
        if isinstance(parts[0], dict):
            keys = dict.fromkeys(key for part in parts for key in part)
            return {key: merged([part[key] for part in parts if key in part]) for key in keys}
        return sum(parts) if isinstance(parts[0], int) else statistics.median(parts)

    found: Figures = merged(rounds)
    return found


def sections(figures: Figures) -> list[Section]:
    """Tables and drawings of all services."""
    columns = ("service", "clients", "answers/s", *TIMES, "events p99_ms", "memory MiB", "statuses")
    found = []
    for loop, what in ((CLOSED, "clients"), (OPEN, "requests/s")):
        rows = [_row(name, load, one) for name, by_loop in figures.items() for load, one in by_loop[loop].items()]
        lines = {
            name: (list(by_loop[loop]), [one[LIST]["p99_ms"] for one in by_loop[loop].values()])
            for name, by_loop in figures.items()
        }
        plots = [Plot(f"{loop}-p99", what, "p99 of a list, ms", lines)]
        if loop == CLOSED:
            through = {
                name: (list(by_loop[loop]), [one["all"]["per_second"] for one in by_loop[loop].values()])
                for name, by_loop in figures.items()
            }
            plots.append(Plot("closed-throughput", what, "answers a second", through))
        text = "Latencies are of lists, from the moment at which each was due." if loop == OPEN else ""
        found.append(Section(f"{loop.capitalize()} loop", text, (columns[0], what, *columns[2:]), rows, plots))
    return [*found, *_stages(figures), _moonshot(figures)]


def _stages(figures: Figures) -> list[Section]:
    rows = [
        (name, number, stage, *(one["stages"][stage][time] for time in (*TIMES, "mean_ms")))
        for name, by_loop in figures.items()
        for number, one in by_loop[CLOSED].items()
        for stage in slowest(one.get("stages", {}))
    ]
    text = (
        "In milliseconds, of the closed loops: from the decision log, exactly; `decision_log` and `answer` from the "
        "histograms of /metrics, no finer than their buckets."
    )
    return [Section("Stages", text, ("service", "clients", "stage", *TIMES, "mean_ms"), rows)] if rows else []


def _moonshot(figures: Figures) -> Section:
    found = moonshot(figures)
    rows = [
        (name, one["per_second"], one["largest_per_second"], one["p90_ms_there"])
        for name, one in found.items()
        if name != "want"
    ]
    columns = ("service", f"most lists/s at p90 <= {MOONSHOT_P90_MS:g} ms", "most lists/s", "p90 ms there")
    return Section("Moonshot", f"Wanted: {found['want']}. It is no bar.", columns, rows)


def _row(name: str, load: float, one: Mapping[str, Any]) -> tuple[object, ...]:
    events = one.get("events", {}).get("p99_ms", float("nan"))
    statuses = json.dumps(one["all"]["statuses"])
    times = (one[LIST][time] for time in TIMES)
    return (name, load, one["all"]["per_second"], *times, events, one.get("tree_mib", float("nan")), statuses)


def show(figures: Figures) -> None:
    """Print every load."""
    table = Table("service", "loop", "load", "answers/s", "p50 ms", "p90", "p99", "p99.9", "MiB", "statuses")
    for name, by_loop in figures.items():
        for loop, by_load in by_loop.items():
            for load, one in by_load.items():
                times = (f"{one[LIST][time]:.1f}" for time in TIMES)
                statuses = json.dumps(one["all"]["statuses"])
                cells = (f"{load:g}", f"{one['all']['per_second']:.0f}", *times, f"{one['tree_mib']:.0f}", statuses)
                table.add_row(name, loop, *cells)
    console.print(table)


def _short(found: Loads) -> str:
    return ", ".join(
        f"{number:g}: {one['all']['per_second']:.0f}/s p99 {one[LIST]['p99_ms']:.1f} ms"
        for number, one in found[CLOSED].items()
    )
