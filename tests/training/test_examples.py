"""What is read of a prepared folder, and how it is cut into windows and steps."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from foretaste.contracts.catalogue import Catalogue, catalogue
from foretaste.contracts.events import PLAY_LIKE
from foretaste.signals.histories import pack
from foretaste.testing.builders import interactions_table, prepared_folder, random_interactions, titles_table
from foretaste.training.examples import Examples, census, parts, read_part, together
from foretaste.training.windows import Making, cut, steps

TITLES = titles_table(15)
KNOWN = catalogue(TITLES)
TARGETS = frozenset(map(str, PLAY_LIKE))


def read(folder: Path, split: str, *, at_least: int = 1, refit: bool = False, known: Catalogue = KNOWN) -> Examples:
    return together(
        [read_part(part, known, split=split, refit=refit, target_actions=TARGETS) for part in parts(folder, at_least)]
    )


@pytest.mark.parametrize("split", ["time", "last"])
@pytest.mark.parametrize("refit", [False, True])
def test_every_choice_is_learned_validated_or_kept_for_the_test(tmp_path: Path, split: str, refit: bool) -> None:
    table = random_interactions(TITLES, actors=25, per_actor=20)
    examples = read(prepared_folder(tmp_path, table, TITLES), split, refit=refit)
    marks = table["split_time" if split == "time" else "split_last"].to_pylist()
    choices = [m for m, action in zip(marks, table["action"].to_pylist(), strict=True) if action in TARGETS]
    expected = (choices.count("train"), choices.count("validation"))
    if refit:
        expected = (sum(expected), 0)
    assert (int(examples.train_T.sum()), int(examples.validation_T.sum())) == expected
    assert len(examples.histories.title_T) == table.num_rows - marks.count("test")


@pytest.mark.parametrize("at_least", [1, 2, 3, 7, 40])
def test_however_many_parts_no_history_is_cut_or_lost(tmp_path: Path, at_least: int) -> None:
    table = random_interactions(TITLES, actors=25, per_actor=20)
    folder = prepared_folder(tmp_path, table, TITLES)
    assert len(parts(folder, at_least)) >= at_least
    examples = read(folder, "time", at_least=at_least)
    whole, _ = pack(table, KNOWN)
    kept = np.asarray([mark != "test" for mark in table["split_time"].to_pylist()])
    expected = sorted(
        tuple(whole.at_T[a:b][kept[a:b]].tolist()) for a, b in zip(whole.offsets_B1, whole.offsets_B1[1:], strict=False)
    )
    found = examples.histories
    got = sorted(tuple(found.at_T[a:b].tolist()) for a, b in zip(found.offsets_B1, found.offsets_B1[1:], strict=False))
    assert got == [history for history in expected if history]


def test_census_of_parts_adds_up_to_that_of_the_whole(tmp_path: Path) -> None:
    folder = prepared_folder(tmp_path, random_interactions(TITLES, actors=25, per_actor=20), TITLES)
    whole = census(read(folder, "time"), KNOWN)
    some = [
        census(read_part(p, KNOWN, split="time", refit=False, target_actions=TARGETS), KNOWN) for p in parts(folder, 5)
    ]
    total = some[0]
    for other in some[1:]:
        total = total + other
    assert (total.train, total.validation, total.newest_us) == (whole.train, whole.validation, whole.newest_us)
    assert (total.chosen_N1 == whole.chosen_N1).all()
    assert all((total.classes[head] == whole.classes[head]).all() for head in whole.classes)
    assert int(whole.chosen_N1.sum()) == whole.train


@pytest.mark.parametrize("max_length", [1, 3, 10, 100])
def test_windows_cover_every_interaction_once_and_stay_within_the_limit(max_length: int) -> None:
    start_B = np.array([0, 40, 40, 41, 60], dtype=np.int64)
    stop_B = np.array([40, 40, 41, 60, 63], dtype=np.int64)
    windows = cut(start_B, stop_B, max_length, np.random.default_rng(0))
    covered = np.concatenate([np.arange(a, b) for a, b in zip(windows.start_W, windows.stop_W, strict=True)])
    assert sorted(covered.tolist()) == list(range(63))
    assert (windows.stop_W - windows.start_W).max() <= max_length
    assert windows.tokens_W.max() <= max_length + 1
    assert set(windows.start_W[windows.first_W].tolist()) == {0, 40, 41, 60}


@pytest.mark.parametrize("learn_first", [True, False])
def test_each_choice_is_predicted_from_what_stands_just_before_it(tmp_path: Path, learn_first: bool) -> None:
    rows = [(actor, float(day), f"t{day:04d}") for actor in "ab" for day in range(9)]
    table = interactions_table(rows)
    examples = read(prepared_folder(tmp_path, table, TITLES, num_buckets=1), "last")
    histories = examples.histories
    windows = cut(histories.offsets_B1[:-1], histories.offsets_B1[1:], 4, np.random.default_rng(1))
    (batches,) = steps(
        windows, Making(examples, KNOWN, 4, True, learn_first=learn_first), num_steps=1, micro_batch_tokens=10,
        rng=np.random.default_rng(2),
    )  # fmt: skip
    seen = 0
    for batch in batches:
        before = batch.tokens.title_T[batch.token_P]
        assert (before == batch.title_P).all()  # code of the day before = column of this day
        first = batch.tokens.layout.index_T[batch.token_P] == 0
        assert (~first | (batch.title_P == 0)).all()  # from nothing: only the first of a history
        seen += len(batch.title_P)
    assert int(examples.train_T.sum()) == 2 * 7
    assert seen == 2 * (7 if learn_first else 6)


def test_what_is_hidden_is_predicted_in_its_own_place_and_not_read(tmp_path: Path) -> None:
    rows = [(actor, float(day), f"t{day:04d}") for actor in "abcdefgh" for day in range(9)]
    examples = read(prepared_folder(tmp_path, interactions_table(rows), TITLES, num_buckets=1), "last")
    histories = examples.histories
    windows = cut(histories.offsets_B1[:-1], histories.offsets_B1[1:] - 2, 20, np.random.default_rng(1))
    making = Making(examples, KNOWN, 20, True, hide_share=0.3)
    rng = np.random.default_rng(2)
    (batches,) = steps(windows, making, num_steps=1, micro_batch_tokens=1_000, rng=rng)
    (batch,) = batches
    tokens = batch.tokens
    assert 4 <= len(batch.token_P) < 40
    assert (tokens.layout.index_T[batch.token_P] == batch.title_P + 1).all()  # the title of day d is token d + 1
    hidden_T = torch.zeros_like(tokens.masked_T)
    hidden_T[batch.token_P] = True
    assert (tokens.masked_T == hidden_T).all()
    for read_T in (tokens.title_T, tokens.action_T, tokens.gap_T, tokens.numbers_TF.abs().sum(dim=1)):
        assert (read_T[hidden_T] == 0).all()
    assert (tokens.title_T[~hidden_T & (tokens.layout.index_T > 0)] > 0).all()


def test_steps_are_as_many_as_asked_and_of_like_size(tmp_path: Path) -> None:
    folder = prepared_folder(tmp_path, random_interactions(TITLES, actors=60, per_actor=30), TITLES)
    examples = read(folder, "last")
    histories = examples.histories
    windows = cut(histories.offsets_B1[:-1], histories.offsets_B1[1:], 8, np.random.default_rng(1))
    for num_steps in (1, 4, 10, 10_000):
        sizes = [
            sum(len(batch.title_P) for batch in batches)
            for batches in steps(
                windows, Making(examples, KNOWN, 8, True), num_steps=num_steps, micro_batch_tokens=64,
                rng=np.random.default_rng(2),
            )
        ]  # fmt: skip
        assert len(sizes) == num_steps
        assert max(sizes) <= sum(sizes) / num_steps + 8
