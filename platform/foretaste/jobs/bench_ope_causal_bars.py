"""How the parts of the causal benchmark say what they found."""

from __future__ import annotations

from typing import Any

from foretaste.evaluation.intervals import Figure
from foretaste.evaluation.seeds import over_seeds

Found = tuple[dict[str, Any], dict[str, Any], dict[str, str]]
"""Figures, bars, and what was skipped."""


def over(values: list[float]) -> dict[str, Any]:
    """A mean over seeds with its 95% interval."""
    one = over_seeds(values)
    return {"value": one.value, "low": one.low, "high": one.high}


def listed(one: Figure) -> list[float | None]:
    """A value with its interval."""
    return [one.value, one.low, one.high]


def at_most(value: float, limit: float) -> dict[str, Any]:
    """A bar that is not to be passed."""
    return {"value": value, "want": f"<= {limit:g}", "holds": bool(value <= limit)}


def at_least(value: float, limit: float) -> dict[str, Any]:
    """A bar that is to be reached."""
    return {"value": value, "want": f">= {limit:g}", "holds": bool(value >= limit)}
