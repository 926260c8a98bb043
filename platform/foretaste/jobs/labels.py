"""The label report of prepared tables: part of `foretaste prepare`."""

from __future__ import annotations

from typing import Any

from rich.table import Table

from foretaste.jobs.settings import Settings
from foretaste.jobs.workspace import needed
from foretaste.ops.files import write_json
from foretaste.ops.tables import read_manifest
from foretaste.ops.telemetry import console
from foretaste.sessions.labels_report import prepared_labels
from foretaste.sessions.spread import Spread, here
from foretaste.signals.histories import pack

LABELS = "labels.json"
FEW = 14
"""Classes that the table has room for; of more (genres) the commonest."""


def report(settings: Settings, *, spread: Spread = here) -> dict[str, Any]:
    """Count the labels of the prepared tables, write labels.json beside them, print it, and return it."""
    prepared = needed(settings.tables.prepared, made_by="prepare")
    manifest = read_manifest(prepared)
    targets = manifest["target_actions"]
    labels = settings.labels.following(targets, manifest.get("engagement_by_action"))
    said = prepared_labels(prepared, labels, target_actions=targets, pack=pack, spread=spread)
    write_json(said, prepared / LABELS)
    console.print(table(said))
    return said


def table(said: dict[str, Any]) -> Table:
    """Lay a label report out for a terminal."""
    shown = Table(
        "intent", "class", "interactions", "share", "choices", "next", "rest", "why not",
        title=f"intents of {said['interactions']:,} interactions",
        caption="choices: share among the choices to learn from; next: of the next interaction; rest: share of "
        "positions after which it still comes in the session",
    )  # fmt: skip
    for name, intent in said["intents"].items():
        coverage = f"{intent['coverage']:.1%} labelled"
        shown.add_row(name, coverage, f"{intent['labelled']:,}", "", "", "", "", "" if intent["on"] else _off(intent))
        classes = sorted(intent["classes"].items(), key=lambda item: -item[1]["count"])
        for one, row in classes[:FEW]:
            shares = (f"{row[share]:.1%}" for share in ("share", "choices", "next", "rest"))
            shown.add_row("", one, f"{row['count']:,}", *shares, "")
        if len(classes) > FEW:
            shown.add_row("", f"{len(classes) - FEW} more", "", "", "", "", "", "")
        for one, why in intent["absent"].items() if intent["labelled"] else ():
            shown.add_row("", one, "0", "", "", "", "", why)
        shown.add_section()
    return shown


def _off(intent: dict[str, Any]) -> str:
    return f"head off: {intent['why_off']}"
