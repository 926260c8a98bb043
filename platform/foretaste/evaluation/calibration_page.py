"""Reliability of every head as a table and as one HTML page."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape

from foretaste.evaluation.calibration import Reliability
from foretaste.evaluation.plots import diagonals


def reliability_page(heads: Mapping[str, Reliability | None], *, what: str) -> str:
    """One page: a diagram of each head that is on, and a table; nothing is loaded from elsewhere."""
    on = {name: found for name, found in heads.items() if found is not None}
    rows = "".join(
        f"<tr><td>{escape(name)}</td>{''.join(f'<td>{cell}</td>' for cell in cells(heads[name]))}</tr>"
        for name in heads
    )
    head = "".join(f"<th>{name}</th>" for name in ("head", *CELLS))
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>Do the probabilities hold?</title>'
        "<style>body{font:15px/1.5 system-ui,sans-serif;max-width:62rem;margin:2.5rem auto;padding:0 1.25rem}"
        "td,th{padding:.3rem .7rem;text-align:right}td:first-child,th:first-child{text-align:left}</style></head><body>"
        f"<h1>Do the probabilities hold?</h1><p>{escape(what)}</p>{diagonals(on)}<table><tr>{head}</tr>{rows}</table>"
        "<p>A point is a tenth of the predictions: told, and what came. On the diagonal both are the same.</p>"
        "</body></html>\n"
    )


CELLS = ("predictions", "told", "came", "ECE", "log loss", "of the mean")


def cells(found: Reliability | None) -> list[str]:
    """A line of the table: texts in order of CELLS, N/A for a head that is off."""
    if found is None:
        return ["N/A"] * len(CELLS)
    bounds = "" if found.ece.low is None else f" [{found.ece.low:.4f}, {found.ece.high:.4f}]"
    return [
        f"{found.count:,}",
        f"{found.told:.4f}",
        f"{found.share:.4f}",
        f"{found.ece.value:.4f}{bounds}",
        f"{found.log_loss:.4f}",
        f"{found.log_loss_of_share:.4f}",
    ]
