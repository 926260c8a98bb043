"""The segments as one HTML page: nothing is loaded from elsewhere, no script runs.

matplotlib is imported here at the top, so import this module only where a page is made.

Shapes: B members drawn, K segments.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

import matplotlib
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure as Drawing
from numpy.typing import NDArray

from foretaste.evaluation.page import STYLE

INK, GRID = "#333333", "#e3e3e3"
MOST_FINDINGS = 6
COLUMNS = 2


def page(said: Mapping[str, Any], plane_B2: NDArray[np.float64], segment_B: NDArray[np.int32]) -> str:
    """Put segments, what they do more than others, their stability and how they were made on one page.

    `said` is segments.json, `plane_B2` members drawn on the first two principal components.
    """
    config, between = said["config"], said["explained"]
    parts = [
        "<h1>Segments of members by intent</h1>",
        _note(
            f"{said['members']:,} members as of {said['as_of']}, intent model {said['model_version']}; K-means++ on "
            f"the intent embedding, fitted to {said['fitted_to']:,} of them."
        ),
        "<h2>Segments</h2>",
        _segments(said["segments"]),
        "<h2>On the first two principal components</h2>",
        _image(_scatter(plane_B2, segment_B, said["variance"]), "Members on two principal components"),
        f"<h2>What each does more than all, {config['profile_days']:g} days before</h2>",
        _image(_bars(said["segments"]), "Lifts of the surest findings by segment"),
        _findings(said["segments"], config),
        _note(
            f"Lift: share in the segment over share in all; 95% intervals, members are independent, what one does is "
            f"not. At most {config['level']:.0%} of the findings are expected to be chance (Benjamini-Hochberg). "
            f"Segments are made of the days before, so lifts there describe them; the {config['next_days']:g} days "
            "after, where there are any, no segment has seen."
        ),
        "<h2>Do the same segments come out again?</h2>",
        _stability(said["stability"]),
        _note(
            f"{between['segments']:.0%} of the variance lies between segments, {between['shuffled']:.0%} where every "
            "column was shuffled for itself. Of many members K-means divides even a cloud without groups the same way "
            "again: read stability beside what shuffled columns give."
        ),
        *_truth(said.get("truth")),
    ]
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>Segments of members by intent</title><style>{STYLE}</style></head><body>\n"
        + "\n".join(parts)
        + "\n</body></html>\n"
    )


def _segments(segments: Sequence[Mapping[str, Any]]) -> str:
    heads = list(segments[0]["expected"])
    rows = []
    for one in segments:
        cells = [f"<td>{one['number']}: {escape(one['label'])}</td>", f"<td>{one['members']:,}</td>"]
        cells.append(f"<td>{one['share']:.1%}</td>")
        for head in heads:
            best = one["expected"][head][0]
            cells.append(
                f"<td>{escape(best['name'])} {best['probability']:.0%}<small>all {best['all']:.0%}; weight "
                f"{one['attention'][head]:.0%}</small></td>"
            )
        rows.append(cells)
    return _table(["segment", "members", "share", *(f"expected {head}" for head in heads)], rows)


def _findings(segments: Sequence[Mapping[str, Any]], config: Mapping[str, Any]) -> str:
    rows = [
        [
            f"<td>{segment['number']}: {escape(_thing(one))}</td>",
            f"<td>{one['share']:.1%}</td><td>{one['share_all']:.1%}</td>",
            _lift(one),
            f"<td>{one['count']:,}</td><td>{one['members']:,}</td>",
            "<td></td>" if one["after"] is None else _lift(one["after"]),
        ]
        for segment in segments
        for one in segment["over_represented"][:MOST_FINDINGS]
    ]
    head = [
        "segment and behaviour",
        "share",
        "of all",
        "lift",
        "times",
        "members",
        f"lift, next {config['next_days']:g} days",
    ]
    return _table(head, rows) if rows else _note("No behaviour stands out in any segment.")


def _lift(one: Mapping[str, Any]) -> str:
    return f"<td>{one['lift']:.2f}<small>{one['low']:.2f} to {one['high']:.2f}</small></td>"


def _stability(found: Mapping[str, Mapping[str, float]]) -> str:
    words = {
        "seeds": "other first centres",
        "halves": "centres of either half of the members",
        "halves_shuffled": "the same where every column was shuffled: nothing to find",
    }
    rows = [
        [f"<td>{escape(words[name])}</td>", f"<td>{one['mean']:.3f}</td>", f"<td>{one['least']:.3f}</td>"]
        for name, one in found.items()
    ]
    return _table(["adjusted Rand index (1: the same, 0: chance)", "mean", "least"], rows)


def _truth(found: Mapping[str, Any] | None) -> list[str]:
    if found is None:
        return []
    mutual = found["adjusted_mutual_information"].items()
    rows = [[f"<td>{escape(name.replace('_', ' '))}</td>", f"<td>{value:.3f}</td>"] for name, value in mutual]
    return [
        "<h2>Beside what was planted</h2>",
        _table(["planted", "adjusted mutual information"], rows),
        _note(f"A synthetic world knows: {found['of']}; {found['members']:,} members. Nothing is chosen by it."),
    ]


def _scatter(plane_B2: NDArray[np.float64], segment_B: NDArray[np.int32], variance: Sequence[float]) -> str:
    drawing = Drawing(figsize=(7.2, 4.6), layout="constrained")
    FigureCanvasAgg(drawing)
    panel = drawing.subplots()
    colours = matplotlib.colormaps["tab10" if segment_B.max(initial=0) < 10 else "tab20"]
    for number in range(int(segment_B.max(initial=0)) + 1):
        own = segment_B == number
        colour = colours(number % colours.N)
        panel.scatter(plane_B2[own, 0], plane_B2[own, 1], s=6, color=colour, label=str(number), linewidths=0, alpha=0.7)
    panel.set_xlabel(f"{variance[0]:.0%} of the variance")
    panel.set_ylabel(f"{variance[-1]:.0%} of the variance")
    panel.legend(frameon=False, fontsize=8, loc="upper left", bbox_to_anchor=(1.0, 1.0), markerscale=2)
    return _svg(drawing)


def _bars(segments: Sequence[Mapping[str, Any]]) -> str:
    rows = -(-len(segments) // COLUMNS)
    drawing = Drawing(figsize=(9.2, 1.7 * rows + 0.4), layout="constrained")
    FigureCanvasAgg(drawing)
    panels = drawing.subplots(rows, COLUMNS, squeeze=False, sharex=True).ravel()
    for panel in panels[len(segments) :]:
        panel.set_visible(False)
    for panel, segment in zip(panels, segments, strict=False):
        found = segment["over_represented"][:MOST_FINDINGS]
        for place, one in enumerate(found):
            panel.barh(place, one["lift"] - 1.0, left=1.0, color="#1f5fa8", height=0.6)
            panel.plot([one["low"], one["high"]], [place, place], color=INK, linewidth=1.1)
        panel.set_yticks(range(len(found)), [_thing(one) for one in found], fontsize=8)
        panel.set_ylim(MOST_FINDINGS - 0.5, -0.5)
        panel.axvline(1.0, color=INK, linewidth=0.8)
        panel.set_title(f"{segment['number']} ({segment['members']:,} members)", fontsize=9, loc="left")
        panel.tick_params(axis="x", labelsize=8)
        panel.grid(axis="x", color=GRID, linewidth=0.8)
        panel.set_axisbelow(True)
        panel.spines[["top", "right"]].set_visible(False)
    return _svg(drawing)


def _thing(one: Mapping[str, Any]) -> str:
    return f"{one['what']}: {one['name'].replace('_', ' ')}"


def _svg(drawing: Drawing) -> str:
    out = io.StringIO()
    with matplotlib.rc_context({"svg.hashsalt": "foretaste", "svg.fonttype": "path"}):
        drawing.savefig(out, format="svg", metadata={"Date": None})
    return out.getvalue()


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    top = "".join(f"<th>{escape(name)}</th>" for name in head)
    body = "".join(f"<tr>{''.join(row)}</tr>\n" for row in rows)
    return f'<div class="scroll"><table><thead><tr>{top}</tr></thead><tbody>\n{body}</tbody></table></div>'


def _note(text: str) -> str:
    return f'<p class="small">{escape(text)}</p>'


def _image(svg: str, alternative: str) -> str:
    data = base64.b64encode(svg.encode()).decode()
    return f'<img alt="{escape(alternative)}" src="data:image/svg+xml;base64,{data}">'
