"""What an evaluation found, as a value, as JSON, for the terminal and as one HTML page."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

from foretaste.evaluation.intervals import Difference, Figure
from foretaste.ops.files import read_json, whole_file, write_json
from foretaste.ops.telemetry import console

FORMAT = 2


@dataclass(frozen=True)
class Slice:
    """The main metric where the cases have something in common."""

    label: str
    cases: int
    figures: dict[str, Figure]  # by model


@dataclass(frozen=True)
class Report:
    """Figures by model and metric; keys such as figures["intent"]["ndcg@10"] are stable."""

    protocol: dict[str, Any]
    main: str  # the metric by which models are ordered, e.g. ndcg@10
    best_baseline: str | None
    figures: dict[str, dict[str, Figure]]
    differences: dict[str, dict[str, Difference]]  # to the best baseline, paired
    slices: dict[str, list[Slice]]  # by what is sliced, of the main metric
    exposure: dict[str, list[float]]  # cumulative share of places, most popular titles first, even steps

    @property
    def models(self) -> list[str]:
        """Names of the models, best first by the main metric."""
        return sorted(self.figures, key=lambda name: -self.figures[name][self.main].value)

    def to_json(self) -> dict[str, Any]:
        """Give the report as plain values."""
        return {"format": FORMAT, **asdict(self)}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Report:
        """Read what `to_json` gave. Raises ValueError on another format."""
        if value.get("format") != FORMAT:
            raise ValueError(f"report: format is {value.get('format')!r}, wanted {FORMAT}")
        return cls(
            protocol=dict(value["protocol"]),
            main=value["main"],
            best_baseline=value["best_baseline"],
            figures=_figures(value["figures"]),
            differences={
                name: {metric: Difference(**one) for metric, one in row.items()}
                for name, row in value["differences"].items()
            },
            slices={
                by: [Slice(s["label"], s["cases"], {n: Figure(**f) for n, f in s["figures"].items()}) for s in part]
                for by, part in value["slices"].items()
            },
            exposure={name: list(line) for name, line in value["exposure"].items()},
        )

    def to_html(self) -> str:
        """Draw the report as one page that needs nothing beside it."""
        from foretaste.evaluation.page import page  # here, because drawing loads matplotlib

        return page(self)

    def to_terminal(self, to: Console = console) -> None:
        """Print the protocol and one row a model, best first."""
        k = self.main.split("@")[1]
        columns = [f"hr@{k}", f"ndcg@{k}", f"mrr@{k}"]
        table = Table(box=box.SIMPLE_HEAD, header_style="bold", pad_edge=False)
        table.add_column("model")
        for name in (*columns, f"coverage@{k}", f"{self.main} - {self.best_baseline or 'baseline'}"):
            table.add_column(name, justify="right")
        for model in self.models:
            row = self.figures[model]
            gap = self.differences.get(model, {}).get(self.main)
            cells = [*(_with_interval(row[name]) for name in columns), f"{row[f'coverage@{k}'].value:.3f}"]
            table.add_row(model, *cells, "" if gap is None else difference_text(gap))
        to.print(protocol_text(self.protocol), markup=False, soft_wrap=True)
        if self.protocol.get("caution"):
            to.print(f"caution: {self.protocol['caution']}", markup=False, soft_wrap=True)
        to.print(table)


def read_report(path: Path) -> Report:
    """Read report.json."""
    return Report.from_json(read_json(path))


def write_report(report: Report, folder: Path) -> None:
    """Write report.json and report.html into `folder`, each whole."""
    write_json(report.to_json(), folder / "report.json")
    with whole_file(folder / "report.html") as partial:
        partial.write_text(report.to_html(), encoding="utf-8")


def protocol_text(protocol: Mapping[str, Any]) -> str:
    """Say in one line how the figures were measured."""
    return (
        f"{protocol['rules']}: {protocol['cases']:,} {protocol['part']} cases of {protocol['actors']:,} actors, "
        f"{protocol['titles']:,} titles"
    )


def difference_text(gap: Difference) -> str:
    """Say how far a model is from the best baseline."""
    if gap.low is None or gap.high is None:
        return f"{gap.value:+.4f}"
    return f"{gap.value:+.4f} [{gap.low:+.4f}, {gap.high:+.4f}]"


def _with_interval(figure: Figure) -> str:
    if figure.low is None or figure.high is None:
        return f"{figure.value:.4f}"
    return f"{figure.value:.4f} [{figure.low:.4f}, {figure.high:.4f}]"


def _figures(value: Mapping[str, Any]) -> dict[str, dict[str, Figure]]:
    return {name: {metric: Figure(**one) for metric, one in row.items()} for name, row in value.items()}
