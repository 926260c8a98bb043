"""The report as one HTML page: nothing is loaded from elsewhere, no script runs."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from html import escape

from foretaste.evaluation import plots
from foretaste.evaluation.intervals import Difference, Figure
from foretaste.evaluation.report import Report, protocol_text

STYLE = """
:root { color-scheme: light; }
body { font: 15px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, sans-serif; color: #222; background: #fff;
       max-width: 62rem; margin: 2.5rem auto; padding: 0 1.25rem; }
h1 { font-size: 1.6rem; margin: 0 0 .25rem; } h2 { font-size: 1.1rem; margin: 2.25rem 0 .5rem; }
p.lead { font-size: 1.05rem; } p.small, small { color: #666; font-size: .82rem; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; width: 100%; }
th, td { padding: .35rem .7rem; border-bottom: 1px solid #e6e6e6; text-align: right; white-space: nowrap; }
th { font-weight: 600; border-bottom: 2px solid #ccc; } th:first-child, td:first-child { text-align: left; }
td small { display: block; } td.best { font-weight: 650; }
.facts td { text-align: left; white-space: normal; } .facts { width: auto; }
img { max-width: 100%; height: auto; }
"""


def page(report: Report) -> str:
    """Put headline, tables, drawings and protocol on one page."""
    k = report.main.split("@")[1]
    parts = [
        "<h1>Ranking evaluation</h1>",
        _note(protocol_text(report.protocol) + "."),
        *([_note(f"Caution: {report.protocol['caution']}")] if report.protocol.get("caution") else []),
        f'<p class="lead">{escape(headline(report))}</p>',
        "<h2>Figures</h2>",
        _figures(report),
        _note(
            f"Means over {report.protocol['mean_over']}; below each its interval ({report.protocol['interval']}). "
            "Coverage is the share of the catalogue that stands in anyone's list; it has no interval."
        ),
        _image(plots.bars(report, [f"hr@{k}", f"ndcg@{k}", f"coverage@{k}"]), f"Bars of HR, NDCG and coverage at {k}"),
        *_against(report),
        "<h2>By length of the list</h2>",
        _image(plots.by_k(report), "HR and NDCG over k"),
    ]
    for what, slices in report.slices.items():
        parts += [f"<h2>By {escape(what)}</h2>"]
        parts += [_image(plots.by_slice(report, slices, what=_AXIS.get(what, what)), f"{report.main} by {what}")]
    parts += ["<h2>How popular the recommended titles are</h2>", _image(plots.exposure(report), "Exposure curve")]
    parts += [_note(f"Places 1 to {k} of every list. A line far above «{plots.CHOSEN}» leans on hits.")]
    parts += ["<h2>Protocol</h2>", _facts(report)]
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>Ranking evaluation</title><style>{STYLE}</style></head><body>\n"
        + "\n".join(parts)
        + "\n</body></html>\n"
    )


_AXIS = {
    "history length": "interactions in the history",
    "session depth": "interactions before in the same session",
}


def headline(report: Report) -> str:
    """Say in one sentence which model is first and whether that is more than chance."""
    first, metric = report.models[0], report.main.upper()
    best, value = report.best_baseline, report.figures[report.models[0]][report.main].value
    if best is None:
        return f"{first} is first with {metric} {value:.4f}; no baseline was asked."
    if first == best:
        return f"The baseline {best} is first with {metric} {value:.4f}; no model is above it."
    gap = report.differences[first][report.main]
    base = report.figures[best][report.main].value
    ratio = f" ({gap.value / base:+.1%})" if base > 0 else ""
    if gap.low is None or gap.high is None:
        sure = "with a single actor nothing can be said about chance"
    elif gap.low > 0:
        sure = f"the 95% interval of the difference is {gap.low:+.4f} to {gap.high:+.4f}"
    else:
        sure = f"the 95% interval of the difference, {gap.low:+.4f} to {gap.high:+.4f}, holds 0: this may be chance"
    return f"{first} reaches {metric} {value:.4f}, {gap.value:+.4f}{ratio} to the best baseline, {best}; {sure}."


def _figures(report: Report) -> str:
    metrics = list(report.figures[report.models[0]])
    best = {m: max(report.figures[model][m].value for model in report.models) for m in metrics}
    rows = [
        [f"<td>{escape(model)}</td>"]
        + [_cell(report.figures[model][m], best=report.figures[model][m].value == best[m]) for m in metrics]
        for model in report.models
    ]
    return _table(["model", *metrics], rows)


def _against(report: Report) -> list[str]:
    if report.best_baseline is None or not report.differences:
        return []
    models = [model for model in report.models if model in report.differences]
    metrics = list(report.differences[models[0]])
    rows = [[f"<td>{escape(model)}</td>"] + [_gap(report.differences[model][m]) for m in metrics] for model in models]
    return [
        f"<h2>Against the best baseline, {escape(report.best_baseline)}</h2>",
        _table(["model", *metrics], rows),
        _note("Paired on the same cases. p is the share of resamples in which the difference is 0 or less."),
    ]


def _facts(report: Report) -> str:
    rows = [
        [f"<td>{escape(name.replace('_', ' '))}</td>", f"<td>{escape(str(value))}</td>"]
        for name, value in report.protocol.items()
    ]
    return '<table class="facts">' + "".join(f"<tr>{''.join(row)}</tr>" for row in rows) + "</table>"


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    top = "".join(f"<th>{escape(name)}</th>" for name in head)
    body = "".join(f"<tr>{''.join(row)}</tr>\n" for row in rows)
    return f'<div class="scroll"><table><thead><tr>{top}</tr></thead><tbody>\n{body}</tbody></table></div>'


def _cell(one: Figure, *, best: bool) -> str:
    mark = ' class="best"' if best else ""
    below = "" if one.low is None or one.high is None else f"<small>{one.low:.4f} to {one.high:.4f}</small>"
    return f"<td{mark}>{one.value:.4f}{below}</td>"


def _gap(one: Difference) -> str:
    if one.low is None or one.high is None or one.p_not_better is None:
        return f"<td>{one.value:+.4f}</td>"
    return f"<td>{one.value:+.4f}<small>{one.low:+.4f} to {one.high:+.4f}, p {one.p_not_better:.3f}</small></td>"


def _note(text: str) -> str:
    return f'<p class="small">{escape(text)}</p>'


def _image(svg: str, alternative: str) -> str:
    data = base64.b64encode(svg.encode()).decode()
    return f'<img alt="{escape(alternative)}" src="data:image/svg+xml;base64,{data}">'
