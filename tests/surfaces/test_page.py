"""The layout hint follows from the action head alone."""

from __future__ import annotations

import numpy as np
import pytest

from foretaste.contracts.intents import ACTION_CLASSES, CONTINUING, DISCOVERING
from foretaste.surfaces.page import continuing, layout, sides


def test_every_action_is_on_one_side_at_most_and_only_those_that_choose_nothing_on_none() -> None:
    found = sides(ACTION_CLASSES)
    assert found is not None
    discovers_C, continues_C = found
    assert not (discovers_C & continues_C).any()
    neither = [name for name, one, other in zip(ACTION_CLASSES, *found, strict=True) if not one and not other]
    assert neither == ["look", "save_for_later", "rate", "dislike"]
    assert {*CONTINUING, *DISCOVERING} < set(ACTION_CLASSES)


def test_probabilities_of_both_sides_sum_to_one_whatever_chooses_nothing_takes() -> None:
    classes = {"action": ("look", "discover", "rewatch", "sample", "from_list")}
    share_BC = np.array([[0.5, 0.1, 0.1, 0.1, 0.2], [0.9, 0.0, 0.1, 0.0, 0.0], [1.0, 0.0, 0.0, 0.0, 0.0]])
    found_B = continuing({"action": share_BC}, classes)
    assert found_B == pytest.approx([0.6, 1.0, 0.5])
    hint = layout({"action": share_BC}, classes)
    assert hint is not None
    assert hint.hint == "continue"
    assert hint.probability == pytest.approx(0.6)
    other = layout({"action": 1 - share_BC}, classes)
    assert other is not None
    assert other.hint == "discover"
    assert other.probability >= 0.5


@pytest.mark.parametrize("classes", [("discover", "look"), ("rewatch", "from_list"), ()])
def test_a_head_that_knows_one_side_only_gives_no_hint(classes: tuple[str, ...]) -> None:
    share_BC = np.full((1, len(classes)), 0.5)
    assert layout({"action": share_BC}, {"action": classes}) is None
    assert layout({}, {}) is None
