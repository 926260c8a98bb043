"""Boards of Grafana from a short description, and the rules as Prometheus' operator takes them: `make dashboards`."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from pydantic import Field

from foretaste.contracts.config import Frozen
from foretaste.ops.files import whole_file

BOARDS_FILE, RULES_FILE, OPERATOR_FILE = "boards.yaml", "rules.yaml", "prometheus-rule.yaml"
SOURCE = {"type": "prometheus", "uid": "${source}"}
WIDTH, HEIGHT, ACROSS = 8, 7, 3
"""Of a panel in Grafana's grid of 24 columns, and panels beside each other."""


class Panel(Frozen):
    """One panel."""

    title: str
    unit: str = Field(description="Grafana's name of the unit, e.g. s, percentunit, ops")
    about: str
    queries: dict[str, str] = Field(description="expressions of Prometheus by their legend")
    kind: str = "timeseries"
    optional: bool = Field(False, description="whether a healthy service may have nothing to show here")


class Row(Frozen):
    """Panels that belong together."""

    title: str
    panels: tuple[Panel, ...]


class Board(Frozen):
    """One board."""

    title: str
    rows: tuple[Row, ...]


def boards(folder: Path) -> dict[str, Board]:
    """Read the descriptions at a folder. Raises ValueError for an unknown key or one that is missing."""
    found: Mapping[str, Any] = yaml.safe_load((folder / BOARDS_FILE).read_text())
    return {name: Board.model_validate(values) for name, values in found.items()}


def as_grafana(name: str, board: Board) -> dict[str, Any]:
    """A board as Grafana imports it."""
    panels: list[dict[str, Any]] = []
    top = 0
    for row in board.rows:
        place = {"h": 1, "w": 3 * WIDTH, "x": 0, "y": top}
        head: dict[str, Any] = {"type": "row", "title": row.title, "gridPos": place, "collapsed": False, "panels": []}
        panels.append({"id": len(panels) + 1} | head)
        for number, panel in enumerate(row.panels):
            place = {
                "h": HEIGHT,
                "w": WIDTH,
                "x": WIDTH * (number % ACROSS),
                "y": top + 1 + HEIGHT * (number // ACROSS),
            }
            panels.append(_panel(len(panels) + 1, panel, place))
        top += 1 + HEIGHT * -(-len(row.panels) // ACROSS)
    source = {"name": "source", "type": "datasource", "query": "prometheus", "label": "Prometheus", "hide": 0}
    return {
        "uid": f"foretaste-{name}",
        "title": board.title,
        "tags": ["foretaste"],
        "schemaVersion": 39,
        "editable": False,
        "refresh": "30s",
        "time": {"from": "now-6h", "to": "now"},
        "timezone": "utc",
        "templating": {"list": [source]},
        "panels": panels,
    }


def write(folder: Path) -> list[Path]:
    """Write every board of a folder beside its description, and its rules for the operator; returns the files."""
    files = [folder / OPERATOR_FILE]
    with whole_file(files[0], durable=False) as partial:
        partial.write_text(rules_object(folder))
    for name, board in boards(folder).items():
        with whole_file(folder / f"{name}.json", durable=False) as partial:
            partial.write_text(as_json(name, board))
        files.append(folder / f"{name}.json")
    return files


def rules_object(folder: Path) -> str:
    """The rules of a folder as an object of Prometheus' operator; k8s/components/monitoring takes it."""
    groups = yaml.safe_load((folder / RULES_FILE).read_text())["groups"]
    said = {
        "apiVersion": "monitoring.coreos.com/v1",
        "kind": "PrometheusRule",
        "metadata": {"name": "foretaste-service"},
        "spec": {"groups": groups},
    }
    return "# Made of rules.yaml by `make dashboards`.\n" + yaml.safe_dump(said, sort_keys=False, width=4096)


def as_json(name: str, board: Board) -> str:
    """A board as its file has it."""
    return json.dumps(as_grafana(name, board), indent=1) + "\n"


def _panel(number: int, panel: Panel, place: dict[str, int]) -> dict[str, Any]:
    table = panel.kind == "table"
    return {
        "id": number,
        "type": panel.kind,
        "title": panel.title,
        "description": panel.about,
        "datasource": SOURCE,
        "gridPos": place,
        "fieldConfig": {"defaults": {"unit": panel.unit}, "overrides": []},
        "options": {},
        "targets": [
            {
                "refId": chr(ord("A") + letter),
                "datasource": SOURCE,
                "expr": expression,
                "legendFormat": legend,
                "instant": table,
                "range": not table,
            }
            for letter, (legend, expression) in enumerate(panel.queries.items())
        ],
    }


if __name__ == "__main__":
    for file in write(Path(sys.argv[1])):
        print(file)
