"""Logged slates: what was shown, joined with what followed, described as it was known then."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from foretaste.contracts.catalogue import catalogue
from foretaste.contracts.columns import IMPRESSIONS
from foretaste.ops.files import read_json, write_json
from foretaste.testing.builders import events_table, interactions_table, moment, prepared_folder, titles_table
from foretaste.training.impressions import slates

TITLES = titles_table(6)
KNOWN = catalogue(TITLES)
MINUTE = 1 / 1440


def impression(at: float, title: int, place: int, decision: str | None, chance: float | None = None) -> dict[str, Any]:
    return {
        "actor_id": "m", "session_id": "s", "at": moment(at), "title_id": f"t{title:04d}", "surface": "home",
        "position": place, "decision_id": decision, "propensity": chance,
    }  # fmt: skip


def folder(root: Path, shown: list[dict[str, Any]], *, decided: bool = True) -> Path:
    """Someone is shown titles in the validation window, plays one of them from there and another from elsewhere."""
    log = interactions_table([("m", 1.0, "t0005"), ("m", 10.0 + MINUTE, "t0001"), ("m", 10.0 + 2 * MINUTE, "t0002"),
                              ("m", 10.0 + 3 * MINUTE, "t0003", "add_to_list")])  # fmt: skip
    log = log.set_column(log.column_names.index("session_id"), "session_id", pa.array(["s0", "s", "s", "s"]))
    fraction = pa.array([None, 0.7, None, None], pa.float64())
    log = log.set_column(log.column_names.index("played_fraction"), "played_fraction", fraction)
    acts = events_table(
        [
            {"member_id": "m", "session_id": "s", "at": 10.0 + MINUTE, "title_id": "t0001"}
            | ({"decision_id": "d"} if decided else {}),
            {"member_id": "m", "session_id": "s", "at": 10.0 + 2 * MINUTE, "title_id": "t0002"},
        ]
    )
    prepared = prepared_folder(root, log, TITLES, impressions=pa.Table.from_pylist(shown, IMPRESSIONS), acts=acts)
    cuts = {"validation_from": moment(9.0).isoformat(), "test_from": moment(11.0).isoformat()}
    write_json(read_json(prepared / "manifest.json") | {"cuts": cuts}, prepared / "manifest.json")
    return prepared


SHOWN = [impression(10.0, t, place, "d", c) for place, (t, c) in enumerate([(2, 0.5), (1, 0.1), (3, None), (4, 0.2)])]


def test_each_title_is_joined_with_what_followed(tmp_path: Path) -> None:
    prepared = folder(tmp_path, SHOWN)
    found = slates(prepared, KNOWN, read_json(prepared / "manifest.json"), limit=9, seed=0)
    assert found is not None
    assert found.actors == ["m"]
    assert found.code_BP.tolist() == [[3, 2, 4, 5]]
    assert found.played_BP.tolist() == [[0, 1, 0, 0]]  # t0002 was played, too, but not from here
    assert found.fraction_BP[0, 1] == pytest.approx(0.7)
    assert np.isnan(found.fraction_BP[0, [0, 2, 3]]).all()
    assert found.listed_BP.tolist() == [[0, 0, 1, 0]]
    assert found.weight_BP[0] == pytest.approx([2.0, 10.0, 1.0, 5.0])
    assert found.at_B.tolist() == [int(moment(10.0).timestamp() * 1e6)]


def test_where_choices_name_no_decision_what_the_session_chose_afterwards_counts(tmp_path: Path) -> None:
    prepared = folder(tmp_path, SHOWN, decided=False)
    found = slates(prepared, KNOWN, read_json(prepared / "manifest.json"), limit=9, seed=0)
    assert found is not None
    assert found.played_BP.tolist() == [[1, 1, 0, 0]]


def test_slates_outside_the_window_and_after_the_choice_tell_nothing_of_it(tmp_path: Path) -> None:
    late = [
        impression(10.0 + 1.5 * MINUTE, 1, 0, "later"),
        impression(11.5, 2, 0, "test"),
        impression(2.0, 5, 0, "old"),
    ]
    prepared = folder(tmp_path, late)
    found = slates(prepared, KNOWN, read_json(prepared / "manifest.json"), limit=9, seed=0)
    assert found is not None
    assert (len(found), found.played_BP.tolist()) == (1, [[0]])
    assert slates(folder(tmp_path / "none", []), KNOWN, {"cuts": None, "counts": {}}, limit=9, seed=0) is None
