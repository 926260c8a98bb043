"""Packed histories hold the interactions table row by row."""

from __future__ import annotations

import numpy as np
import pytest

from foretaste.contracts.catalogue import catalogue
from foretaste.contracts.columns import INTERACTIONS
from foretaste.contracts.events import ACTION_CODES
from foretaste.signals.histories import pack
from foretaste.testing.builders import START, interactions_table, titles_table

TITLES = catalogue(titles_table([{"title_id": "a"}, {"title_id": "b"}, {"title_id": "a1", "series_id": "a"}]))


def test_rows_become_interactions_in_their_order() -> None:
    table = interactions_table([("m1", 1.0, "b", "complete"), ("m1", 3.0, "?", "detail"), ("m2", 2.0, "a1")])
    histories, actors = pack(table, TITLES)
    assert actors == ["m1", "m2"]
    assert histories.offsets_B1.tolist() == [0, 2, 3]
    assert histories.title_T.tolist() == [2, 0, 1]  # not in the catalogue: 0; an episode: its series
    assert histories.action_T.tolist() == [ACTION_CODES[a] for a in ("complete", "detail", "play")]
    assert histories.at_T[0] == int(START.timestamp() + 86400) * 1_000_000
    assert histories.session_T.tolist() == [0, 1, 0]
    assert histories.fraction_T[0] == 1.0
    assert np.isnan(histories.fraction_T[1])


def test_no_rows_are_no_histories() -> None:
    histories, actors = pack(INTERACTIONS.empty_table(), TITLES)
    assert (len(histories), actors) == (0, [])


def test_rows_of_an_actor_that_do_not_stand_together_are_refused() -> None:
    table = interactions_table([("m1", 1.0, "a"), ("m1", 2.0, "a"), ("m2", 1.0, "a")])
    with pytest.raises(ValueError, match="stand together"):
        pack(table.take([0, 2, 1]), TITLES)
