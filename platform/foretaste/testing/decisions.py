"""Rows of the decision log, made by hand."""

from __future__ import annotations

from typing import Any

NOW_US = 1_767_323_045_000_000
"""2026-01-02T03:04:05Z."""


def decision(decision_id: str, **other: Any) -> dict[str, Any]:
    """Make a DECISIONS row with plain values; name those that matter."""
    item = {"title_id": "t1", "score": 0.1 + 0.2, "position": 0, "propensity": 0.95 + 1 / 30, "source": "ranker"}
    row = {
        "decision_id": decision_id,
        "member_id": "m1",
        "session_id": "s1",
        "surface": "prequery",
        "at": NOW_US,
        "request": '{"k":1}',
        "candidates": ["t1", "t2"],
        "candidate_scores": [0.1 + 0.2, -1e-300],
        "items": [item | {"explored": False}],
        "slate_propensity": 0.95 + 1 / 30,
        "policy": "epsilon_greedy",
        "policy_version": "1",
        "policy_params": '{"epsilon":0.1}',
        "explored": False,
        "seed": 2**63 - 1,
        "intent_model": "abc",
        "ranker_model": None,
        "features": [{"name": "members_asof_ms", "value": "1"}],
        "served": None,
        "sequence_mark": 3,
        "newest_event_at": NOW_US - 1,
        "num_events_visible": 3,
        "timings": [{"stage": "intent", "ms": 0.25}],
        "fallback": None,
        "experiment_arm": None,
        "kind": None,
        "previous_id": None,
        "controls": None,
        "release": None,
    }
    return row | other
