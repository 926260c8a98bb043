"""The reward report as one HTML page: nothing is loaded from elsewhere, no script runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape

from foretaste.evaluation.page import STYLE
from foretaste.evaluation.reward_estimates import Estimate
from foretaste.evaluation.reward_report import LOGGING, RewardReport

_COLUMNS = {
    "value": "long-term value",
    "true": "true value",
    "satisfaction": "satisfaction",
    "return_online": "returns within 7 days",
    "visits": "visits a week",
    "retained": "retained",
    "clicks_online": "clicks a slate",
}
_BESIDE = {
    "own_offline": "own reward, offline",
    "own_online": "own reward, lived",
    "value_offline": "long-term value, offline",
    "value": "long-term value, lived",
    "return_weighted": "returns, offline by weights",
    "return_online": "returns, lived",
}


def headline(report: RewardReport) -> str:
    """Say in one sentence which reward stands for the long term and what click-through costs."""
    best, gap = report.rows[0], report.over_clicks
    sure = "more than chance" if gap.low > 0 else "this may be chance"
    agrees = "is" if report.agreement == 1.0 else f"is not (Kendall's tau {report.agreement:+.2f})"
    return (
        f"By the log alone {best.program} is first in the long run, {gap.value:+.4f} ({gap.low:+.4f} to "
        f"{gap.high:+.4f}, {sure}) above click-through; the order {agrees} that of the true values."
    )


def page(report: RewardReport) -> str:
    """Put headline, what the log says beside what was lived, gaps and facts on one page."""
    rows = [
        [f"<td>{escape(row.program)}</td>", *(_cell(getattr(row, name)) for name in _COLUMNS)] for row in report.rows
    ]
    rows.append(
        [f"<td>{LOGGING}</td>"]
        + [_cell(report.logging[name]) if name in report.logging else "<td></td>" for name in _COLUMNS]
    )
    beside = [
        [
            f"<td>{escape(row.program)}</td>",
            *(_cell(getattr(row, name)) for name in _BESIDE),
            _cell(row.own_online.minus(row.own_offline), signed=True),
            _cell(row.value.minus(row.value_offline), signed=True),
            f"<td>{row.return_weighted.num:.0f}</td>",
        ]
        for row in report.rows
    ]
    facts = [
        [f"<td>{escape(str(name))}</td>", f"<td>{escape(str(value))}</td>"] for name, value in report.facts.items()
    ]
    also = ("own reward, lived - offline", "long-term value, lived - offline", "ESS of the weights")
    parts = [
        "<h1>Rewards and the long term</h1>",
        f'<p class="lead">{escape(headline(report))}</p>',
        "<h2>What the log says, beside what was lived</h2>",
        _table(["program", *_BESIDE.values(), *also], beside),
        _note(
            "In the order of the long-term value, offline: what slates make members choose, on them and beside them, "
            "and what that does to the rate of return. By weights: self-normalised inverse propensities, own rewards "
            "place by place, returns by the first place."
        ),
        "<h2>What the policy of each program did</h2>",
        _table(["program", *_COLUMNS.values()], rows),
        _note("Long-term value: probability that a member is back within a week of a visit, by the law of the world."),
        "<h2>From each to the next</h2>",
        _gaps("long-term value, by the log alone", report.gaps),
        _gaps("long-term value, lived", report.lived_gaps),
        _gaps("true value", report.true_gaps),
        "<h2>Protocol</h2>",
        '<table class="facts">' + "".join(f"<tr>{''.join(row)}</tr>" for row in facts) + "</table>",
    ]
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>Rewards and the long term</title><style>{STYLE}</style></head><body>\n"
        + "\n".join(parts)
        + "\n</body></html>\n"
    )


def _cell(one: Estimate, *, signed: bool = False) -> str:
    sign = "+" if signed else ""
    return f"<td>{one.value:{sign}.4f}<small>{one.low:{sign}.4f} to {one.high:{sign}.4f}</small></td>"


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    top = "".join(f"<th>{escape(name)}</th>" for name in head)
    body = "".join(f"<tr>{''.join(row)}</tr>\n" for row in rows)
    return f'<div class="scroll"><table><thead><tr>{top}</tr></thead><tbody>\n{body}</tbody></table></div>'


def _note(text: str) -> str:
    return f'<p class="small">{escape(text)}</p>'


def _gaps(what: str, gaps: Mapping[str, Estimate]) -> str:
    rows = [[f"<td>{escape(name)}</td>", _cell(one, signed=True)] for name, one in gaps.items()]
    return _table([what, "difference"], rows)
