"""A search proposes within its space, keeps what it learned on disk, and gives up what falls behind."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import ValidationError

from foretaste.training.search import Board, Choice, Number, TuneConfig, best_of

SPACE = {
    "intent.width": Choice(values=(16, 32)),
    "training.learning_rate": Number(low=1e-3, high=1e-1, log=True),
    "intent.item_blocks": Number(kind="whole", low=1, high=3),
}
CONFIG = TuneConfig(space=SPACE, trials=12, parallel=1, full_trials=3)


def play(board: Board, *, stop_after: int | None = None) -> int:
    """Trials score the better the nearer the learning rate is to 0.1, from the first epoch on."""
    ended = 0
    while ended != stop_after and (asked := board.ask()) is not None:
        number, values = asked
        score = float(values["training.learning_rate"])
        state = "done"
        for epoch in range(1, 5):
            if board.report(number, epoch, score * epoch / 4):
                state = "pruned"
                break
        board.end(number, state, score)  # type: ignore[arg-type]
        ended += 1
    return ended


def test_values_stay_within_the_space_and_the_best_trial_is_found(tmp_path: Path) -> None:
    board = Board(tmp_path / "journal", CONFIG)
    assert play(board) == 12
    table = board.table()
    for row in table:
        assert row["values"]["intent.width"] in (16, 32)
        assert 1e-3 <= row["values"]["training.learning_rate"] <= 1e-1
        assert row["values"]["intent.item_blocks"] in (1, 2, 3)
    best = best_of(table)
    assert best["ndcg"] == max(row["ndcg"] for row in table if row["state"] == "complete") > 0.03


def test_trials_that_fall_behind_are_given_up_early_and_none_without_pruning(tmp_path: Path) -> None:
    pruned = Board(tmp_path / "a", CONFIG)
    play(pruned)
    given_up = [row for row in pruned.table() if row["state"] == "pruned"]
    assert given_up
    assert all(row["epochs"] < 4 for row in given_up)
    whole = Board(tmp_path / "b", CONFIG.model_copy(update={"prune": False}))
    play(whole)
    assert {row["state"] for row in whole.table()} == {"complete"}


def test_a_search_that_was_cut_off_goes_on_and_tries_again_what_was_under_way(tmp_path: Path) -> None:
    first = Board(tmp_path / "journal", CONFIG)
    play(first, stop_after=5)
    asked = first.ask()
    assert asked is not None
    again = Board(tmp_path / "journal", CONFIG)
    repeated = again.ask()
    assert repeated is not None
    assert repeated[0] != asked[0]
    assert repeated[1] == asked[1]
    again.end(repeated[0], "failed", None, "no luck")
    assert play(again) == 12 - 6
    states = [row["state"] for row in again.table()]
    assert (states.count("cut off"), states.count("fail"), len(states)) == (1, 1, 13)
    assert Board(tmp_path / "journal", CONFIG).ask() is None


def test_the_same_seed_tries_the_same(tmp_path: Path) -> None:
    boards = [Board(tmp_path / name, CONFIG) for name in "ab"]
    for board in boards:
        play(board)
    assert boards[0].table() == boards[1].table()


def test_without_a_finished_trial_there_is_no_best(tmp_path: Path) -> None:
    board = Board(tmp_path / "journal", CONFIG)
    asked = board.ask()
    assert asked is not None
    board.end(asked[0], "failed", None, "width 10 must be even")
    with pytest.raises(ValueError, match="width 10 must be even"):
        best_of(board.table())


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"low": 2, "high": 1}, "low <= high"),
        ({"low": 0, "high": 1, "log": True}, "low > 0"),
        ({"kind": "whole", "low": 1.5, "high": 3}, "whole bounds"),
    ],
)
def test_a_dimension_without_room_is_refused(given: dict[str, object], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        Number.model_validate(given)
