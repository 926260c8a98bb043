"""The report of a part of `bench serve`: Markdown with its bars, tables and drawings, in a folder of reports."""

from __future__ import annotations

import json
import math
import os
import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from foretaste import __version__
from foretaste.jobs.bench_serve_config import ServeBenchConfig
from foretaste.jobs.settings import Settings
from foretaste.ops.files import whole_file
from foretaste.ops.telemetry import say

COLOURS = ("#1f5fa8", "#d9822b", "#3a8f5c", "#9b4d96", "#8a6d3b", "#c0392b")
INK, GRID = "#333333", "#e3e3e3"

Line = tuple[Sequence[float], Sequence[float]]
"""x and y of its points."""


@dataclass(frozen=True, slots=True)
class Plot:
    """Lines over one axis; spans are shaded, with their names above."""

    name: str  # of the file
    x: str
    y: str
    lines: Mapping[str, Line]
    spans: Sequence[tuple[str, float, float]] = ()
    points: bool = True  # mark each point


@dataclass(frozen=True, slots=True)
class Section:
    """A part of a report."""

    title: str
    text: str = ""
    columns: Sequence[str] = ()
    rows: Sequence[Sequence[object]] = ()
    plots: Sequence[Plot] = field(default_factory=tuple)


def bar(value: float | None, want: str, holds: bool) -> dict[str, Any]:
    """A bar as the command line counts it; None where there is no such value, or not any more a finite one."""
    known = None if value is None or not math.isfinite(value) else value
    rounded = known if known is None or isinstance(known, int) else round(float(known), 3)
    return {"value": rounded, "want": want, "holds": bool(holds)}


def at_most(value: float, most: float) -> dict[str, Any]:
    """A bar that is held from below."""
    return bar(value, f"<= {most:g}", value <= most)


def at_least(value: float, least: float) -> dict[str, Any]:
    """A bar that is held from above."""
    return bar(value, f">= {least:g}", value >= least)


def none_of(value: int) -> dict[str, Any]:
    """A bar of what must not be."""
    return bar(value, "== 0", value == 0)


def write_report(
    settings: Settings,
    config: ServeBenchConfig,
    folder: Path,
    part: str,
    bars: Mapping[str, Mapping[str, Any]],
    sections: Sequence[Section],
) -> Path:
    """Write the report of a part with its drawings beside it; returns its path."""
    folder.mkdir(parents=True, exist_ok=True)
    lines = [f"# foretaste bench serve, {part}", "", _about(), ""]
    lines += _table(
        ("bar", "value", "wanted", ""),
        [(what, one["value"], one["want"], "" if one["holds"] else "**does not hold**") for what, one in bars.items()],
    )
    for section in sections:
        lines += ["", f"## {section.title}", ""]
        lines += [section.text, ""] if section.text else []
        lines += _table(section.columns, section.rows) if section.rows else []
        for plot in section.plots:
            file = f"{part}-{plot.name}.png"
            draw(plot, folder / file)
            lines += ["", f"![{plot.y} over {plot.x}]({file})"]
    lines += ["", "## Settings", "", "```json", json.dumps({"bench_serve": config.model_dump(mode="json")}), "```", ""]
    lines += ["```json", json.dumps({"serving": settings.serving.model_dump(mode="json")}), "```", ""]
    path = folder / f"{part}.md"
    with whole_file(path, durable=False) as partial:
        partial.write_text("\n".join(lines))
    say(f"report: {path}")
    return path


def draw(plot: Plot, path: Path) -> None:
    """Draw it as PNG; no display and no global state of matplotlib is used."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    drawing = Figure(figsize=(9.2, 3.4), layout="constrained")
    FigureCanvasAgg(drawing)
    panel = drawing.subplots()
    for (label, (x, y)), colour in zip(plot.lines.items(), COLOURS * len(plot.lines), strict=False):
        panel.plot(x, y, label=label, color=colour, linewidth=1.4, marker="o" if plot.points else "", markersize=3.5)
    for name, begin, end in plot.spans:
        panel.axvspan(begin, end, color="#d9822b", alpha=0.15)
        panel.annotate(name, (begin, 1.0), xycoords=("data", "axes fraction"), fontsize=7, va="bottom")
    panel.set_xlabel(plot.x)
    panel.set_ylabel(plot.y)
    panel.set_ylim(bottom=0)
    panel.spines[["top", "right"]].set_visible(False)
    panel.tick_params(labelsize=8, colors=INK)
    panel.grid(color=GRID, linewidth=0.8)
    panel.set_axisbelow(True)
    if len(plot.lines) > 1:
        panel.legend(frameon=False, fontsize=8, loc="upper left", bbox_to_anchor=(1.0, 1.0))
    drawing.savefig(path, dpi=110)


def _about() -> str:
    now = datetime.now(UTC)
    machine = f"{os.cpu_count()} processors, {platform.machine()}, Python {platform.python_version()}"
    return f"{now:%Y-%m-%d %H:%M} UTC, foretaste {__version__}, {machine}. The load generator shares the processors."


def _table(columns: Sequence[str], rows: Sequence[Sequence[object]]) -> list[str]:
    head = ["| " + " | ".join(columns) + " |", "|" + "---|" * len(columns)]
    return head + ["| " + " | ".join(_cell(value) for value in row) + " |" for row in rows]


def _cell(value: object) -> str:
    if isinstance(value, float):
        return f"{value:,.1f}" if abs(value) >= 10 else f"{value:.3f}"
    return str(value).replace("|", "/")
