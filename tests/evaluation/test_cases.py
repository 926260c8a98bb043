"""Which questions are asked, and that no question shows its answer."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from foretaste.contracts.catalogue import catalogue
from foretaste.contracts.events import PLAY_LIKE
from foretaste.evaluation.cases import Cases, Split, Targets, cases
from foretaste.testing.builders import interactions_table, random_interactions, titles_table

TITLES = titles_table(12)
CATALOGUE = catalogue(TITLES)
ONE, TWO, THREE = CATALOGUE.ids[:3]


def titles_of(found: Cases, b: int) -> list[str]:
    """Title ids that case b sees."""
    return [CATALOGUE.ids[code - 1] for code in found.batch(b, b + 1).title_T]


def test_leave_one_out_asks_for_the_last_choice_of_each_actor_with_all_before_it() -> None:
    table = interactions_table([("a", 0, ONE), ("a", 1, TWO), ("a", 2, THREE), ("b", 0, TWO), ("b", 3, ONE)])
    found = cases(table, CATALOGUE, split="last", target_actions=PLAY_LIKE)
    assert found.actors == ["a", "b"]
    assert found.target_B.tolist() == CATALOGUE.codes([THREE, ONE]).tolist()
    assert [titles_of(found, b) for b in range(2)] == [[ONE, TWO], [TWO]]
    assert found.asof_B.tolist() == [int(table["at"][2].value), int(table["at"][4].value)]


def test_validation_asks_for_the_choice_before_and_does_not_show_the_test_choice() -> None:
    table = interactions_table([("a", 0, ONE), ("a", 1, TWO), ("a", 2, THREE)])
    found = cases(table, CATALOGUE, split="last", target_actions=PLAY_LIKE, which="validation")
    assert titles_of(found, 0) == [ONE]
    assert found.target_B.tolist() == CATALOGUE.codes([TWO]).tolist()


def test_under_the_time_split_a_history_grows_through_the_test_part() -> None:
    rows = [("a", day, CATALOGUE.ids[day % 12]) for day in range(20)]
    found = cases(interactions_table(rows), CATALOGUE, split="time", target_actions=PLAY_LIKE)
    assert found.lengths_B.tolist() == [18, 19]
    first = cases(interactions_table(rows), CATALOGUE, split="time", target_actions=PLAY_LIKE, targets="first")
    assert first.lengths_B.tolist() == [18]


def test_only_choices_are_asked_for_but_every_interaction_is_seen() -> None:
    table = interactions_table([("a", 0, ONE, "detail"), ("a", 1, TWO), ("b", 0, ONE), ("b", 1, TWO, "detail")])
    found = cases(table, CATALOGUE, split="last", target_actions=PLAY_LIKE)
    assert found.actors == ["a"]
    assert titles_of(found, 0) == [ONE]


def test_targets_with_unknown_titles_are_left_out_and_counted() -> None:
    table = interactions_table([("a", 0, ONE), ("a", 1, "gone"), ("b", 0, "gone"), ("b", 1, TWO)])
    found = cases(table, CATALOGUE, split="last", target_actions=PLAY_LIKE)
    assert (found.actors, found.num_unknown) == (["b"], 1)
    assert found.batch(0, 1).title_T.tolist() == [0]


def test_depth_counts_what_went_before_in_the_session_of_the_target() -> None:
    minute = 1 / 1440
    table = interactions_table([("a", 0, ONE), ("a", 1, TWO), ("a", 1 + minute, THREE), ("a", 1 + 2 * minute, ONE)])
    assert cases(table, CATALOGUE, split="last", target_actions=PLAY_LIKE).depth_B.tolist() == [2]
    validation = cases(table, CATALOGUE, split="last", target_actions=PLAY_LIKE, which="validation")
    assert validation.depth_B.tolist() == [1]


def test_popularity_counts_the_training_part_only() -> None:
    table = interactions_table([("a", 0, ONE), ("a", 1, ONE), ("a", 2, TWO), ("a", 3, THREE)])
    found = cases(table, CATALOGUE, split="last", target_actions=PLAY_LIKE)
    assert found.popularity_N[:3].tolist() == [2, 0, 0]


def test_a_limit_draws_whole_actors_by_seed() -> None:
    table = random_interactions(TITLES, actors=30, seed=1)

    def drawn(seed: int) -> Cases:
        return cases(table, CATALOGUE, split="time", target_actions=PLAY_LIKE, limit=5, seed=seed)

    everyone = cases(table, CATALOGUE, split="time", target_actions=PLAY_LIKE)
    some = drawn(0)
    assert some.num_actors == 5
    assert len(some) == sum(actor in set(some.actors) for actor in everyone.actors)
    assert some.actors == drawn(0).actors
    assert any(drawn(seed).actors != some.actors for seed in range(1, 5))


def test_unsorted_rows_are_refused() -> None:
    table = interactions_table([("a", 0, ONE), ("a", 1, TWO), ("b", 0, TWO), ("b", 1, ONE)])
    with pytest.raises(ValueError, match="positions of an actor must rise"):
        cases(table.take([1, 0, 2, 3]), CATALOGUE, split="last", target_actions=PLAY_LIKE)
    with pytest.raises(ValueError, match="do not stand together"):
        cases(table.take([0, 2, 1, 3]), CATALOGUE, split="last", target_actions=PLAY_LIKE)


def test_a_split_without_targets_says_what_was_looked_for() -> None:
    table = interactions_table([("a", 0, ONE), ("a", 1, "gone")])
    with pytest.raises(ValueError, match=r"'test'.*'last'.*1 such rows"):
        cases(table, CATALOGUE, split="last", target_actions=PLAY_LIKE)


@settings(deadline=None, max_examples=40)
@given(
    seed=st.integers(0, 10_000),
    split=st.sampled_from(["time", "last"]),
    targets=st.sampled_from(["all", "first"]),
    limit=st.sampled_from([None, 3]),
)
def test_a_history_is_exactly_the_actors_rows_of_lower_position(
    seed: int, split: Split, targets: Targets, limit: int | None
) -> None:
    table = random_interactions(TITLES, actors=8, seed=seed)
    mark = "split_time" if split == "time" else "split_last"
    rows = table.to_pylist()
    wanted = [row for row in rows if row[mark] == "test" and row["action"] in PLAY_LIKE]
    if not wanted:
        return
    found = cases(table, CATALOGUE, split=split, target_actions=PLAY_LIKE, targets=targets, limit=limit)
    asked = {(actor, asof, code) for actor, asof, code in zip(found.actors, found.asof_B, found.target_B, strict=True)}
    assert asked <= {
        (row["actor_id"], round(row["at"].timestamp() * 1e6), CATALOGUE.code_of[row["title_id"]]) for row in wanted
    }
    if targets == "all" and limit is None:
        assert len(found) == len(wanted)
    if targets == "first":
        assert len(set(found.actors)) == len(found)
    for b, actor in enumerate(found.actors):
        history = found.batch(b, b + 1)
        own = [row for row in rows if row["actor_id"] == actor]
        before = own[: len(history.title_T)]
        target = own[len(before)]
        assert history.title_T.tolist() == [CATALOGUE.code_of[row["title_id"]] for row in before]
        assert all(row["position"] < target["position"] for row in before)
        assert CATALOGUE.code_of[target["title_id"]] == found.target_B[b]
        assert (history.at_T <= found.asof_B[b]).all()
        assert found.depth_B[b] == sum(row["session_index"] == target["session_index"] for row in before)
    np.testing.assert_array_equal(found.histories.lengths_B, found.lengths_B)
