"""`foretaste recommend`: ask a running service once."""

from __future__ import annotations

from typing import Any

from rich.table import Table

from foretaste.client.calls import Calls
from foretaste.ops.telemetry import console, say


def recommend(
    url: str, *, member_id: str | None, session_id: str, k: int, policy: str | None, key: str | None = None
) -> dict[str, Any]:
    """Ask once and show the answer as a table."""
    request = {"session_id": session_id, "k": k, "explain": "items"}
    request |= {name: value for name, value in (("member_id", member_id), ("policy", policy)) if value is not None}
    with Calls(url, key=key) as client:
        answer = client.recommend(**request)
    table = Table("", "title", "score", "propensity", "why", title=f"decision {answer['decision_id']}")
    for item in answer["items"]:
        why = ", ".join(item["reasons"])
        row = (item["position"] + 1, item["name"], f"{item['score']:.3f}", f"{item['propensity']:.3f}", why)
        table.add_row(*map(str, row))
    console.print(table)
    layout = answer["layout"]
    hint = "" if layout is None else f"; lay the page out to {layout['hint']} ({layout['probability']:.0%})"
    say(f"{answer['top_intent'] or 'no intent is predicted'}{hint}")
    return answer
