"""What a log says of a policy, as a value, as JSON, for the terminal and as one HTML page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from foretaste.evaluation.gate import Judgement
from foretaste.evaluation.offpolicy.answer import Answer
from foretaste.evaluation.offpolicy.diagnostics import DiagnosticsConfig, Measures, checks
from foretaste.ops.files import whole_file, write_json
from foretaste.ops.telemetry import console

FORMAT = "foretaste policy evaluation 1"


@dataclass(frozen=True)
class PolicyReport:
    """The answer of a log, what was checked before, and what is to be done."""

    target: Mapping[str, Any]  # what is judged
    protocol: Mapping[str, Any]  # the program, the time, how much was read and left out
    places: int  # down to which lists are judged
    measures: Sequence[Measures]  # of lists, by depth
    answer: Answer | None  # None: there was nothing to ask
    refusals: tuple[str, ...]  # why the log cannot answer, in words
    judgement: Judgement
    whole_log: Mapping[str, float]  # estimates of all rounds, where the intervals are of some actors

    def depths(self, config: DiagnosticsConfig) -> list[dict[str, Any]]:
        """What lists are worth down to each place."""
        return [
            {
                "places": depth,
                "lists": one.num_rounds,
                "effective_lists": one.effective_rounds,
                "mean_weight": one.mean_weight,
                "largest_share": one.largest_share,
                "unsupported_share": None if one.unsupported is None else one.unsupported_share,
                "holds": all(check.holds for check in checks(one, config)),
            }
            for depth, one in enumerate(self.measures, 1)
        ]

    def record(self, config: DiagnosticsConfig) -> dict[str, Any]:
        """All of it as JSON."""
        return {
            "format": FORMAT,
            "answers": self.answer is not None and self.answer.recommended is not None and not self.refusals,
            "target": dict(self.target),
            "protocol": dict(self.protocol),
            "places": self.places,
            "refusals": list(self.refusals),
            "answer": None if self.answer is None else self.answer.record(),
            "depths": self.depths(config),
            "whole_log": dict(self.whole_log),
            "gate": self.judgement.record(),
        }

    def headline(self) -> str:
        """Say in a sentence what the log says."""
        found = self.answer
        if self.refusals or found is None or found.interval is None or found.difference is None:
            return "The log cannot say what this policy would have earned: " + "; ".join(self.refusals or ("nothing",))
        gap = found.difference
        sure = "more than chance" if gap.low > 0 or gap.high < 0 else "this may be chance"
        assert found.logged is not None
        return (
            f"Down to place {self.places} it would have earned {found.interval.value:.4g} a place "
            f"({found.interval.low:.4g} to {found.interval.high:.4g}, {found.recommended}), {gap.value:+.4g} "
            f"({gap.low:+.4g} to {gap.high:+.4g}, {sure}) to the {found.logged.value:.4g} that was logged."
        )

    def to_terminal(self, config: DiagnosticsConfig, to: Console = console) -> None:
        """Print checks, estimates, depths and what is to be done."""
        if self.answer is not None:
            table = Table("check", "holds", "found")
            for check in self.answer.checks:
                table.add_row(check.reason.value, "yes" if check.holds else "no", check.said)
            to.print(table)
            table = Table("estimator", "value", "low", "high", "standard error")
            for name, one in self.answer.estimates.items():
                mark = f"{name} *" if name == self.answer.recommended else name
                table.add_row(mark, *(f"{v:.5g}" for v in (one.value, one.low, one.high, one.standard_error)))
            to.print(table)
        table = Table("places", "lists", "worth", "mean weight", "largest", "holds")
        for row in self.depths(config):
            cells = [f"{row['effective_lists']:,.1f}", f"{row['mean_weight']:.4g}", f"{row['largest_share']:.2%}"]
            table.add_row(str(row["places"]), f"{row['lists']:,}", *cells, "yes" if row["holds"] else "no")
        to.print(table)
        to.print(self.headline(), markup=False, soft_wrap=True)
        judgement = f"{self.judgement.verdict.value}: {'; '.join(self.judgement.reasons)}"
        to.print(judgement, markup=False, soft_wrap=True)


def write_policy_report(report: PolicyReport, folder: Path, config: DiagnosticsConfig) -> None:
    """Write report.json and report.html into `folder`, each whole."""
    from foretaste.evaluation.policy_page import policy_page  # here, because drawing loads matplotlib

    write_json(report.record(config), folder / "report.json")
    with whole_file(folder / "report.html") as partial:
        partial.write_text(policy_page(report, config), encoding="utf-8")
