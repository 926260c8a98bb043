"""The tables that tests are built on obey the contracts themselves."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from foretaste.contracts.catalogue import catalogue
from foretaste.contracts.columns import EVENTS, INTERACTIONS, TITLES
from foretaste.ops.files import read_json, read_parquet
from foretaste.signals.histories import pack
from foretaste.testing.builders import (
    events_table,
    interactions_table,
    prepared_folder,
    random_events,
    random_interactions,
    titles_table,
)


def test_interactions_by_hand_get_sessions_positions_and_leave_one_out() -> None:
    table = interactions_table([("b", 1.0, "t2"), ("a", 0.0, "t1"), ("a", 0.01, "t2", "detail"), ("a", 2.0, "t1")])
    assert table["actor_id"].to_pylist() == ["a", "a", "a", "b"]
    assert table["session_index"].to_pylist() == [0, 0, 1, 0]
    assert table["position"].to_pylist() == [0, 1, 2, 0]
    assert table["action"].to_pylist() == ["play", "detail", "play", "play"]
    assert table["split_last"].to_pylist() == ["train", "validation", "test", "test"]
    assert table.schema == INTERACTIONS


@pytest.mark.parametrize("seed", range(3))
def test_random_logs_are_the_same_for_one_seed_and_fit_the_contracts(seed: int) -> None:
    titles = titles_table(10, seed=seed)
    assert titles.schema == TITLES
    events = random_events(titles, seed=seed)
    assert events.schema == EVENTS
    assert events.equals(random_events(titles, seed=seed))
    interactions = random_interactions(titles, seed=seed)
    assert interactions.equals(random_interactions(titles, seed=seed))
    histories, _ = pack(interactions, catalogue(titles))
    assert (histories.title_T > 0).all()
    same_T = np.repeat(np.arange(len(histories)), histories.lengths_B)
    assert (np.diff(histories.at_T)[np.diff(same_T) == 0] >= 0).all()


def test_a_prepared_folder_holds_every_row_and_says_what_a_choice_is(tmp_path: Path) -> None:
    titles = titles_table(8)
    interactions = random_interactions(titles, actors=9)
    prepared_folder(tmp_path, interactions, titles, num_buckets=3)
    back = read_parquet(tmp_path / "interactions").sort_by([("actor_id", "ascending"), ("position", "ascending")])
    assert back.equals(interactions)
    assert "play" in read_json(tmp_path / "manifest.json")["target_actions"]
    assert read_parquet(tmp_path / "impressions").num_rows == 0


def test_events_by_hand_are_numbered_in_the_order_given() -> None:
    table = events_table([{"at": 0.5, "member_id": "m", "title_id": "t"}, {"at": "2026-01-02", "session_id": "s"}])
    assert table["event_id"].to_pylist() == ["e000000", "e000001"]
    assert table["surface"].to_pylist() == ["home", "home"]
