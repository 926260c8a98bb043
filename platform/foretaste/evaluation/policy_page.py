"""The report on a policy as one HTML page: nothing is loaded from elsewhere, no script runs."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from foretaste.evaluation.offpolicy.diagnostics import DiagnosticsConfig
from foretaste.evaluation.offpolicy.intervals import Interval
from foretaste.evaluation.page import STYLE
from foretaste.evaluation.plots import depths, forest
from foretaste.evaluation.policy_report import PolicyReport

LOGGED = "logged"


def policy_page(report: PolicyReport, config: DiagnosticsConfig) -> str:
    """Put headline, verdict, checks, estimates, depths and protocol on one page."""
    verdict = report.judgement.verdict.value.replace("_", " ")
    parts = [
        "<h1>What a policy would have earned</h1>",
        f'<p class="lead">{escape(report.headline())}</p>',
        f"<p><b>{escape(verdict)}</b>: {escape('; '.join(report.judgement.reasons))}</p>",
    ]
    if report.answer is not None:
        parts += ["<h2>What was checked before the number</h2>", _checks(report)]
    if report.answer is not None and report.answer.estimates:
        shown: dict[str, Interval] = dict(report.answer.estimates)
        if report.answer.logged is not None:
            shown = {LOGGED: report.answer.logged} | shown
        refused = "; the log is refused, so none of them is to be acted on" if report.refusals else ""
        parts += [
            "<h2>Estimates</h2>",
            _note(f"Reward a place, places 1 to {report.places}; marked is what is recommended{refused}."),
            _image(forest(shown, best=report.answer.recommended), "Estimates with their intervals"),
            _estimates(report, shown),
        ]
    rows = report.depths(config)
    parts += [
        "<h2>How deep the log reaches</h2>",
        _image(depths(rows, least=config.min_effective_rounds), "Lists of equal weight by depth"),
        _depths(rows),
        _note("The depth is chosen by these figures alone; no reward is read for it."),
        "<h2>What was judged</h2>",
        _facts(report.target),
        "<h2>Protocol</h2>",
        _facts(report.protocol),
    ]
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>What a policy would have earned</title><style>{STYLE}</style></head><body>\n"
        + "\n".join(parts)
        + "\n</body></html>\n"
    )


def _checks(report: PolicyReport) -> str:
    assert report.answer is not None
    rows = [
        [check.reason.value.replace("_", " "), "yes" if check.holds else "no", check.said]
        for check in report.answer.checks
    ]
    return _table(["reason to refuse", "in order", "found"], rows)


def _estimates(report: PolicyReport, shown: Mapping[str, Interval]) -> str:
    assert report.answer is not None
    rows = [
        [
            name + (" (recommended)" if name == report.answer.recommended else ""),
            *(f"{value:.5g}" for value in (one.value, one.low, one.high, one.standard_error)),
            one.method,
            f"{report.whole_log[name]:.5g}" if name in report.whole_log else "",
        ]
        for name, one in shown.items()
    ]
    return _table(["estimator", "value", "low", "high", "standard error", "interval", "of the whole log"], rows)


def _depths(rows: Sequence[Mapping[str, Any]]) -> str:
    cells = [
        [
            str(row["places"]),
            f"{row['lists']:,}",
            f"{row['effective_lists']:,.1f}",
            f"{row['mean_weight']:.4g}",
            f"{row['largest_share']:.2%}",
            "not known" if row["unsupported_share"] is None else f"{row['unsupported_share']:.2%}",
            "yes" if row["holds"] else "no",
        ]
        for row in rows
    ]
    head = ["places", "lists", "worth of equal weight", "mean weight", "largest weight", "never logged", "answers"]
    return _table(head, cells)


def _facts(facts: Mapping[str, Any]) -> str:
    rows = [
        f"<tr><td>{escape(str(name).replace('_', ' '))}</td><td>{escape(str(value))}</td></tr>"
        for name, value in facts.items()
    ]
    return f'<table class="facts">{"".join(rows)}</table>'


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    top = "".join(f"<th>{escape(name)}</th>" for name in head)
    body = "".join("<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>\n" for row in rows)
    return f'<div class="scroll"><table><thead><tr>{top}</tr></thead><tbody>\n{body}</tbody></table></div>'


def _note(text: str) -> str:
    return f'<p class="small">{escape(text)}</p>'


def _image(svg: str, alternative: str) -> str:
    data = base64.b64encode(svg.encode()).decode()
    return f'<img alt="{escape(alternative)}" src="data:image/svg+xml;base64,{data}">'
