"""Closed-loop experiments as one HTML page: nothing is loaded from elsewhere, no script runs."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from html import escape

from foretaste.evaluation.intervals import Figure
from foretaste.evaluation.loop_figures import METRICS, WEEKLY
from foretaste.evaluation.loop_report import LoopReport
from foretaste.evaluation.page import STYLE
from foretaste.evaluation.plots import courses
from foretaste.evaluation.seeds import OverSeeds


def headline(report: LoopReport) -> str:
    """Say in one sentence which arm earned most, and what became of the exposure."""
    best = max(report.arms, key=lambda arm: report.figures[arm]["worth"].value)
    worth, even = report.figures[best]["worth"], min(report.arms, key=lambda arm: report.figures[arm]["gini"].value)
    said = f"{best} earned most, {worth.value:.4f} a visit"
    if best != report.against:
        gap = report.differences[best]["worth"]
        said += f", {gap.value:+.4f}{_span(gap, signed=True)} to {report.against}"
    widest = report.figures[even]["gini"].value
    return (
        f"{said}; the Gini of exposure is {report.figures[report.against]['gini'].value:.2f} under {report.against}, "
        f"least under {even} with {widest:.2f}."
    )


def page(reports: Mapping[str, LoopReport]) -> str:
    """Put experiments one below the other, each with its figures and courses."""
    parts = ["<h1>Policies in a closed loop</h1>"]
    for name, report in reports.items():
        parts += [f"<h2>{escape(name)}</h2>", f'<p class="lead">{escape(headline(report))}</p>', _figures(report)]
        parts += [
            _note(
                "Means over worlds with 95% intervals (Student's t over worlds). Sample-ratio tests of the arms: p = "
                + ", ".join(f"{p:.3f}" for p in report.ratio_p)
            ),
            f"<h2>Less {escape(report.against)}, paired by world</h2>",
            _gaps(report),
            "<h2>Regret against the best possible slates, by day</h2>",
            _image(
                courses({"regret of a visit, summed over days": _lines(report.regret)}, unit="day"), "Regret by day"
            ),
            _note("The best possible slate knows what the visit is for, which no policy does: no arm can reach 0."),
            "<h2>Week by week</h2>",
        ]
        for pair in (WEEKLY[:2], WEEKLY[2:4], WEEKLY[4:]):
            panels = {METRICS[metric]: _lines(report.weekly[metric]) for metric in pair}
            parts += [_image(courses(panels, unit="week"), ", ".join(panels))]
        parts += ["<h2>Protocol</h2>", _facts(report)]
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>Policies in a closed loop</title><style>{STYLE}</style></head><body>\n"
        + "\n".join(parts)
        + "\n</body></html>\n"
    )


def _lines(found: Mapping[str, Sequence[OverSeeds]]) -> dict[str, list[Figure]]:
    return {name: [Figure(one.value, one.low, one.high) for one in course] for name, course in found.items()}


def _figures(report: LoopReport) -> str:
    rows = [
        f"<td>{escape(arm)}</td>" + "".join(_cell(report.figures[arm][metric]) for metric in METRICS)
        for arm in report.arms
    ]
    return _table(["arm", *METRICS.values()], rows)


def _gaps(report: LoopReport) -> str:
    rows = [
        f"<td>{escape(arm)}</td>" + "".join(_cell(found[metric], signed=True) for metric in METRICS)
        for arm, found in report.differences.items()
    ]
    return _table(["arm", *METRICS.values()], rows)


def _cell(one: OverSeeds, *, signed: bool = False) -> str:
    sign = "+" if signed else ""
    return f"<td>{one.value:{sign}.4f}<small>{_span(one, signed=signed).strip(' ()')}</small></td>"


def _span(one: OverSeeds, *, signed: bool) -> str:
    sign = "+" if signed else ""
    return "" if one.low is None or one.high is None else f" ({one.low:{sign}.4f} to {one.high:{sign}.4f})"


def _table(head: Sequence[str], rows: Sequence[str]) -> str:
    top = "".join(f"<th>{escape(name)}</th>" for name in head)
    body = "".join(f"<tr>{row}</tr>\n" for row in rows)
    return f'<div class="scroll"><table><thead><tr>{top}</tr></thead><tbody>\n{body}</tbody></table></div>'


def _facts(report: LoopReport) -> str:
    rows = "".join(
        f"<tr><td>{escape(str(name))}</td><td>{escape(str(value))}</td></tr>" for name, value in report.facts.items()
    )
    return f'<table class="facts">{rows}</table>'


def _note(text: str) -> str:
    return f'<p class="small">{escape(text)}</p>'


def _image(svg: str, alternative: str) -> str:
    data = base64.b64encode(svg.encode()).decode()
    return f'<img alt="{escape(alternative)}" src="data:image/svg+xml;base64,{data}">'
