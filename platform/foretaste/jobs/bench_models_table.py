"""The table and the drawing of a comparison, for the terminal, as table.md, figures.json and table.svg."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from foretaste.contracts.intents import Intent
from foretaste.evaluation.protocols import BESIDE
from foretaste.jobs.bench_models_figures import LAST, MAIN, METRICS, Row, interval
from foretaste.ops.files import whole_file, write_json
from foretaste.ops.telemetry import console, say

HEADS = tuple(intent.value for intent in Intent)


def write(found: dict[str, Any], folder: Path) -> None:
    """Write figures.json, table.md and table.svg of a comparison, each whole, and show the table."""
    write_json(found, folder / "figures.json")
    text = markdown(found)
    with whole_file(folder / "table.md") as partial:
        partial.write_text(text, encoding="utf-8")
    with whole_file(folder / "table.svg") as partial:
        partial.write_text(drawing(found), encoding="utf-8")
    console.print(text, markup=False, soft_wrap=True)
    say(f"table: {folder / 'table.md'}")


def markdown(found: Mapping[str, Any]) -> str:
    """The rules, the caution, a table of ranking and cost, and one of the heads; best model first."""
    rows: dict[str, Row] = found["models"]
    order = sorted(rows, key=lambda name: -rows[name][MAIN]["value"])
    against = found["against"]
    size = (
        f"{found['cases']:,} cases of {found['actors']:,} actors, {found['titles']:,} titles; "
        f"{found['never_chosen']:.1%} of the targets are never chosen in the training rows; {found['seeds']} seeds."
    )
    parts = [f"# {found['data']}: {found['rules']}", size]
    if found.get("caution"):
        parts.append(f"**Caution**: {found['caution']}.")
    head = (
        "model", "seeds", *METRICS, f"{MAIN} - {against}", "by share", "seeds and actors", "epochs to best",
        "CPU s / epoch", "CPU s to best", "parameters",
    )  # fmt: skip
    parts.append(table(head, [_ranking(name, rows[name], found["track"]) for name in order]))
    parts.append(
        "Means over seeds with their 95% t-interval: what training again would change. «seeds and actors»: the paired "
        "difference with the interval of both kinds of chance (bootstrap of actors added as variances are). A model "
        "that draws nothing has one run and no such interval. CPU seconds are of training alone, without the "
        "validation after each epoch; ours by one thread."
    )
    lent = {name: row[MAIN]["value"] - row[LAST] for name, row in rows.items()}
    most = max(lent, key=lambda name: lent[name])
    parts.append(
        f"With the target last among titles of equal score no model loses more than {lent[most]:.4f} ({most})."
    )
    networks = [name for name in order if rows[name].get("parameters")]
    if networks:
        cells = [[name, *(_head(rows[name]["intents"].get(one)) for one in HEADS)] for name in networks]
        parts.append(table(["likeliest class right / log loss, next choice", *HEADS], cells))
        parts.append(f"Of the shares of the training rows: {_prior(rows, networks)}. N/A: the head is off.")
    if found.get("ratios"):
        ratios = [[what, interval(one, sign=True)] for what, one in found["ratios"].items()]
        parts.append(table((f"{MAIN}, by share, over seeds", "mean and interval"), ratios))
    if found.get("attention"):
        attention = [
            [name, f"{one['named']:.3f}", f"{one['commonest']:.3f}", _shares(one["by_primary"]), f"{one['sessions']:,}"]
            for name, one in found["attention"].items()
        ]
        what = "largest attention names the primary intent"
        parts.append(table((what, "share", "always the commonest", "by primary intent", "sessions"), attention))
    if found.get("bars"):
        bars = [
            [name, str(one["value"]), one["want"], "yes" if one["holds"] else "NO"]
            for name, one in found["bars"].items()
        ]
        parts.append(table(["bar", "value", "wanted", "holds"], bars))
    if found.get("skipped"):
        parts.append("Not measured: " + "; ".join(f"{name} ({why})" for name, why in found["skipped"].items()) + ".")
    return "\n\n".join(parts) + "\n"


def _ranking(name: str, row: Row, track: str) -> list[str]:
    gap = row.get(f"{MAIN} difference", {})
    cells = [f"{name} (beside: it knows the time)" if name == BESIDE and track == "blind" else name, str(row["seeds"])]
    cells += [interval(row[metric]) for metric in METRICS]
    cells.append(interval(gap["over_seeds"], sign=True) if gap else "")
    cells.append(f"{gap['share']['value']:+.1%}" if "share" in gap else "")
    cells.append(interval(gap["over_both"], sign=True) if "over_both" in gap else "")
    if not row.get("parameters"):
        return [*cells, "", "", "", ""]
    costs = (f"{row[key]:.1f}" for key in ("best_epoch", "cpu_seconds_per_epoch", "cpu_seconds_to_best"))
    return [*cells, *costs, f"{row['parameters']:,.0f}"]


def _shares(shares: Mapping[str, float]) -> str:
    return ", ".join(f"{name} {share:.2f}" for name, share in shares.items())


def _prior(rows: Mapping[str, Row], networks: Sequence[str]) -> str:
    """Hit and log loss of the shares of the training rows, which are the same for all models with the head."""
    found = {
        head: f"{head} {one['hit_prior']:.3f} / {one['log_loss_prior']:.3f}"
        for name in networks
        for head in HEADS
        if (one := rows[name]["intents"].get(head)) is not None
    }
    return "; ".join(found.values()) or "no head is on"


def _head(one: Mapping[str, float] | None) -> str:
    return "N/A" if one is None else f"{one['hit']:.3f} / {one['log_loss']:.3f}"


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table in Markdown."""
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    return "\n".join([*lines, *("| " + " | ".join(row) + " |" for row in rows)])


def drawing(found: Mapping[str, Any]) -> str:
    """NDCG@10 of every model with its interval over seeds, as SVG."""
    import matplotlib
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    rows: dict[str, Row] = found["models"]
    order = sorted(rows, key=lambda name: rows[name][MAIN]["value"])
    whole = Figure(figsize=(7.0, 0.6 + 0.32 * len(order)), layout="constrained")
    FigureCanvasAgg(whole)
    panel = whole.subplots()
    for place, name in enumerate(order):
        one = rows[name][MAIN]
        colour = "#1f5fa8" if rows[name].get("parameters") else "#8a8a8a"
        panel.plot([one["value"]], [place], "o", color=colour)
        if one["low"] is not None:
            panel.plot([one["low"], one["high"]], [place, place], "-", color=colour, linewidth=2)
    panel.set_yticks(range(len(order)), order)
    panel.set_xlabel(f"{MAIN}, mean and 95% interval over seeds")
    panel.set_title(f"{found['data']}, {found['split_text']}", fontsize=10)
    panel.spines[["top", "right"]].set_visible(False)
    panel.grid(axis="x", color="#e6e6e6")
    panel.set_axisbelow(True)
    out = io.StringIO()
    with matplotlib.rc_context({"svg.hashsalt": "foretaste", "svg.fonttype": "path"}):
        whole.savefig(out, format="svg", metadata={"Date": None})
    return out.getvalue()
