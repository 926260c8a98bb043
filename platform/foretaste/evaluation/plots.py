"""The drawings of a report, as SVG text; no display and no global state of matplotlib is used.

matplotlib is imported here at the top, so import this module only where something is drawn.
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import matplotlib
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure as Drawing
from matplotlib.ticker import MaxNLocator

from foretaste.evaluation.calibration import Reliability
from foretaste.evaluation.intervals import Figure
from foretaste.evaluation.offpolicy.intervals import Interval
from foretaste.evaluation.report import Report, Slice

COLOURS = ("#1f5fa8", "#d9822b", "#3a8f5c", "#9b4d96", "#8a6d3b", "#c0392b", "#4a7a8c", "#5f5f5f")
INK, GRID = "#333333", "#e3e3e3"
CHOSEN = "what was chosen"


def bars(report: Report, metrics: Sequence[str]) -> str:
    """Draw one panel a metric, one bar a model with its interval, best at the top."""
    drawing, panels = _canvas(len(metrics), height=0.42 * len(report.models) + 1.0)
    for panel, metric in zip(panels, metrics, strict=True):
        for place, model in enumerate(report.models):
            one = report.figures[model][metric]
            panel.barh(place, one.value, color=_colour(report, model), height=0.62)
            panel.errorbar(one.value, place, xerr=_error(one), color=INK, capsize=3, linewidth=1.1)
        panel.set_yticks(range(len(report.models)), report.models if panel is panels[0] else [])
        panel.invert_yaxis()
        panel.xaxis.set_major_locator(MaxNLocator(4))
        panel.set_title(metric.upper().replace("COVERAGE", "Coverage"), fontsize=10, loc="left")
        _plain(panel, grid="x")
    return _svg(drawing)


def by_k(report: Report, metrics: Sequence[str] = ("hr", "ndcg")) -> str:
    """Draw each metric over k, one line a model."""
    ks = [int(k) for k in report.protocol["k"]]
    drawing, panels = _canvas(len(metrics), height=3.1)
    for panel, metric in zip(panels, metrics, strict=True):
        for model in report.models:
            points = [report.figures[model][f"{metric}@{k}"] for k in ks]
            _line(panel, ks, points, label=model, colour=_colour(report, model))
        panel.set_xticks(ks)
        panel.set_xlabel("k")
        panel.set_title(f"{metric.upper()}@k", fontsize=10, loc="left")
        panel.set_ylim(bottom=0)
        _plain(panel, grid="y")
    panels[-1].legend(frameon=False, fontsize=8, loc="upper left", bbox_to_anchor=(1.0, 1.0))
    return _svg(drawing)


def by_slice(report: Report, slices: Sequence[Slice], *, what: str) -> str:
    """Draw the main metric over slices of the cases, one line a model, with the number of cases below."""
    drawing, (panel,) = _canvas(1, height=3.1)
    places = list(range(len(slices)))
    for number, model in enumerate(report.models):
        shift = (number - (len(report.models) - 1) / 2) * 0.06
        points = [part.figures[model] for part in slices]
        _line(panel, [p + shift for p in places], points, label=model, colour=_colour(report, model))
    panel.set_xticks(places, [f"{part.label}\n{part.cases:,} cases" for part in slices])
    panel.set_xlabel(what)
    panel.set_title(report.main.upper(), fontsize=10, loc="left")
    panel.set_ylim(bottom=0)
    _plain(panel, grid="y")
    panel.legend(frameon=False, fontsize=8, loc="upper left", bbox_to_anchor=(1.0, 1.0))
    return _svg(drawing)


def exposure(report: Report) -> str:
    """Draw the share of recommended places over titles in order of popularity, beside that of what was chosen."""
    drawing, (panel,) = _canvas(1, height=3.4)
    for name, line in report.exposure.items():
        steps = [100 * step / (len(line) - 1) for step in range(len(line))]
        chosen = name == CHOSEN
        panel.plot(
            steps, [100 * share for share in line], label=name,
            color=INK if chosen else _colour(report, name), linestyle="--" if chosen else "-", linewidth=1.6,
        )  # fmt: skip
    panel.set_xlabel("titles, most popular first (% of the catalogue)")
    panel.set_ylabel("% of recommended places")
    panel.set_xlim(0, 100)
    panel.set_ylim(0, 102)
    _plain(panel, grid="both")
    panel.legend(frameon=False, fontsize=8, loc="upper left", bbox_to_anchor=(1.0, 1.0))
    return _svg(drawing)


def diagonals(heads: Mapping[str, Reliability]) -> str:
    """Draw one panel a head: what was told against what came, a point a bin; right predictions lie on the diagonal."""
    drawing, panels = _canvas(max(1, len(heads)), height=2.9)
    for panel, (name, found) in zip(panels, heads.items(), strict=False):
        told, came = [one.told for one in found.bins], [one.came for one in found.bins]
        most = 1.05 * max([*told, *came, 1e-6])
        panel.plot([0, most], [0, most], color=GRID, linewidth=1.2)
        panel.plot(told, came, color=COLOURS[0], marker="o", markersize=3.5, linewidth=1.5)
        panel.set_xlabel("told")
        panel.set_title(f"{name}: ECE {found.ece.value:.4f}", fontsize=10, loc="left")
        _plain(panel, grid="both")
    return _svg(drawing)


def forest(estimates: Mapping[str, Interval], *, best: str | None) -> str:
    """Draw each estimate with its interval, one line an estimator, the first at the top."""
    drawing, (panel,) = _canvas(1, height=0.36 * len(estimates) + 0.9)
    for place, (name, one) in enumerate(estimates.items()):
        colour = COLOURS[1] if name == best else COLOURS[0]
        reach = [[max(one.value - one.low, 0.0)], [max(one.high - one.value, 0.0)]]
        panel.errorbar(one.value, place, xerr=reach, color=colour, marker="o", markersize=4.5, capsize=3, linewidth=1.3)
    panel.set_yticks(range(len(estimates)), list(estimates))
    panel.invert_yaxis()
    panel.set_xlabel("reward a place")
    _plain(panel, grid="x")
    return _svg(drawing)


def depths(rows: Sequence[Mapping[str, Any]], *, least: float) -> str:
    """Draw how many lists of equal weight a log is worth down to each place, and how many are wanted."""
    drawing, (panel,) = _canvas(1, height=2.7)
    places = [int(row["places"]) for row in rows]
    panel.plot(places, [max(row["effective_lists"], 0.1) for row in rows], color=COLOURS[0], marker="o", markersize=4)
    panel.axhline(least, color=COLOURS[5], linestyle="--", linewidth=1.2)
    panel.set_yscale("log")
    panel.set_xticks(places)
    panel.set_xlabel("places that are judged")
    panel.set_ylabel("lists of equal weight")
    _plain(panel, grid="y")
    return _svg(drawing)


def courses(panels: Mapping[str, Mapping[str, Sequence[Figure]]], *, unit: str) -> str:
    """Draw one panel a figure, one line a name over 1, 2, ... of a unit of time, in the order of the names."""
    drawing, axes = _canvas(max(1, len(panels)), height=3.1)
    for panel, (title, lines) in zip(axes, panels.items(), strict=False):
        for number, (name, points) in enumerate(lines.items()):
            colour, places = COLOURS[number % len(COLOURS)], list(range(1, len(points) + 1))
            panel.plot(places, [one.value for one in points], label=name, color=colour, linewidth=1.5)
            known = [
                (place, one.low, one.high)
                for place, one in zip(places, points, strict=True)
                if one.low is not None and one.high is not None
            ]
            panel.fill_between(
                [place for place, _, _ in known], [low for _, low, _ in known], [high for _, _, high in known],
                color=colour, alpha=0.12, linewidth=0,
            )  # fmt: skip
        panel.set_xlabel(unit)
        panel.set_title(title, fontsize=9, loc="left")
        panel.xaxis.set_major_locator(MaxNLocator(integer=True))
        _plain(panel, grid="y")
    axes[-1].legend(frameon=False, fontsize=8, loc="upper left", bbox_to_anchor=(1.0, 1.0))
    return _svg(drawing)


def _canvas(num_panels: int, *, height: float) -> tuple[Drawing, list[Axes]]:
    drawing = Drawing(figsize=(9.2, height), layout="constrained")
    FigureCanvasAgg(drawing)
    return drawing, list(drawing.subplots(1, num_panels, squeeze=False)[0])


def _line(panel: Axes, places: Sequence[float], points: Sequence[Figure], *, label: str, colour: str) -> None:
    errors = [_error(point) for point in points]
    both = [[e[side][0] if e else 0.0 for e in errors] for side in (0, 1)]
    values = [point.value for point in points]
    panel.errorbar(
        places, values, yerr=both, label=label, color=colour, marker="o", markersize=3.5, linewidth=1.5,
        elinewidth=0.9, capsize=2,
    )  # fmt: skip


def _error(one: Figure) -> list[list[float]] | None:
    if one.low is None or one.high is None:
        return None
    return [[max(one.value - one.low, 0.0)], [max(one.high - one.value, 0.0)]]


def _colour(report: Report, model: str) -> str:
    return COLOURS[sorted(report.figures).index(model) % len(COLOURS)]


def _plain(panel: Axes, *, grid: Literal["x", "y", "both"]) -> None:
    panel.spines[["top", "right"]].set_visible(False)
    panel.tick_params(labelsize=8, colors=INK)
    panel.grid(axis=grid, color=GRID, linewidth=0.8)
    panel.set_axisbelow(True)


def _svg(drawing: Drawing) -> str:
    """Write the drawing as SVG that is the same for the same report."""
    out = io.StringIO()
    with matplotlib.rc_context({"svg.hashsalt": "foretaste", "svg.fonttype": "path"}):
        drawing.savefig(out, format="svg", metadata={"Date": None})
    return out.getvalue()
