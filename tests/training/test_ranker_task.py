"""What the ranker learns, on cases made by hand: its figures, its epochs, its weights and its dice."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from foretaste.models.ranker import RankerConfig
from foretaste.models.ranker_heads import Head
from foretaste.models.ranker_inputs import RankerInputs
from foretaste.signals.candidates import CANDIDATE_COLUMNS
from foretaste.signals.requests import NUM_ABOUT, REQUEST_COLUMNS
from foretaste.training.config import RankerTrainingConfig
from foretaste.training.loop import train
from foretaste.training.plain import PlainContext
from foretaste.training.ranker import _networks, _standard
from foretaste.training.ranker_cases import REPORT, RankerCases, folds_of, join
from foretaste.training.ranker_losses import importance
from foretaste.training.ranker_report import calibrate, chosen_epoch, lift, mean_by_actor, taught
from foretaste.training.ranker_task import Folded, RankerTask, named, ndcg, places
from foretaste.training.runs import Run

WIDTH, TITLES, CONTEXT, FOLDS = 4, 30, 3, 2
VECTORS = np.random.default_rng(1).normal(size=(TITLES, WIDTH)).astype(np.float32)
CONFIG = RankerConfig(hidden=(8,), attention_width=4, cross_rank=4, folds=FOLDS)
TRAINING = RankerTrainingConfig(executor="plain", epochs=4, patience=4, batch_size=32, learning_rate=0.02)


def planted(num: int = 240, seed: int = 0, *, teaches: bool = True) -> RankerCases:
    """Cases whose choice is the candidate with the largest last feature; the intent model does not know."""
    rng = np.random.default_rng(seed)
    told = rng.normal(size=(num, 8, len(CANDIDATE_COLUMNS))).astype(np.float32)
    told[..., 0] = np.sort(told[..., 0], axis=1)[:, ::-1]  # as the intent model names them
    chosen = np.zeros((num, 8), dtype=np.float32)
    best = told[..., -1].argmax(axis=1) if teaches else rng.integers(0, 2, size=num)
    chosen[np.arange(num), best] = 1.0
    chosen[::10] = 0.0  # one in ten chose something that is no candidate
    inputs = RankerInputs(
        told,
        rng.normal(size=(num, len(REQUEST_COLUMNS))).astype(np.float32),
        rng.normal(size=(num, CONTEXT)).astype(np.float32),
        rng.integers(1, TITLES, size=(num, 8)).astype(np.int32),
        np.zeros((num, 0), dtype=np.int32),
        np.zeros((num, 0), dtype=np.int32),
        np.zeros((num, 0, NUM_ABOUT), dtype=np.float32),
        np.zeros((num, 0), dtype=np.bool_),
    )
    unknown = np.full((num, 8), np.nan, dtype=np.float32)
    liked = np.where(chosen > 0, (rng.random((num, 8)) < 0.4).astype(np.float32), np.nan).astype(np.float32)
    return RankerCases(
        inputs, chosen, unknown, liked, unknown, np.full((num, 8), -1, dtype=np.int16),
        np.ones((num, 8), dtype=np.float32), np.arange(num) // 2,
        (np.arange(num) // 2 % (FOLDS + 1) - 1).astype(np.int8),
    )  # fmt: skip


def networks(cases: RankerCases, config: RankerConfig = CONFIG) -> Folded:
    return _networks(config, _standard(cases), VECTORS, 0)


def trained(cases: RankerCases, folder: Path, **training: Any) -> tuple[dict[str, Any], Any]:
    make = partial(networks, cases)
    config = TRAINING.model_copy(update=training)
    task = RankerTask(make(), cases, cases, None, config, rank=0, has_selection=True)
    return train(task, config, PlainContext(lambda _: None, Run(folder, "run"))), make


def test_a_planted_preference_is_learned_and_its_lift_is_told_of_actors_left_out(tmp_path: Path) -> None:
    cases = planted()
    state, make = trained(cases, tmp_path)
    learned, epoch = chosen_epoch(make, state, cases)
    figures = lift(learned, cases)
    held = cases.fold_B == REPORT
    assert epoch >= 1
    assert figures["cases"] == held.sum() == 80
    assert figures["lift_low"] > 0.1
    by_hand = [1 / np.log2(row.argmax() + 2) if row.any() else 0.0 for row in cases.chosen_BC[held]]
    assert figures["intent_ndcg"] == pytest.approx(np.mean(by_hand))
    assert figures["reached"] == pytest.approx(cases.chosen_BC[held].any(axis=1).mean())
    assert ndcg(np.array([-1, 0, 9, 10])).tolist() == [0.0, 1.0, 1 / np.log2(11), 0.0]


def test_where_nothing_is_to_be_learned_the_order_of_the_intent_model_stays(tmp_path: Path) -> None:
    cases = planted(teaches=False)
    state, make = trained(cases, tmp_path, epochs=2, learning_rate=0.1)
    kept, epoch = chosen_epoch(make, state, cases)
    assert epoch == 0
    assert lift(kept, cases)["lift"] == 0.0
    with torch.inference_mode():
        logits_BC = kept.kept.eval()(cases.inputs.tensors())[..., 0].numpy()
    assert (places(logits_BC, cases) == named(cases)).all()


def test_no_network_learns_from_its_fold_and_none_from_the_actors_of_the_report() -> None:
    cases = planted()
    task = RankerTask(networks(cases), cases, cases, None, TRAINING, rank=0, has_selection=True)
    assert task.num_predictions == 160
    for rows in (task.choices.fold_B == fold for fold in range(FOLDS)):
        task.network.zero_grad()
        (batch,) = next(iter(task.steps(1, 1)))
        loss, _ = task.loss(
            replace(batch, rows_B=np.flatnonzero(rows), cut_B=np.zeros(int(rows.sum()), dtype=np.bool_))
        )
        loss.backward()  # type: ignore[no-untyped-call]
        fold = int(task.choices.fold_B[rows][0])
        for number, network in task.network.folds:
            assert (network.out.weight.grad is None) == (number == fold)
        assert task.network.kept.out.weight.grad is not None


def test_the_configured_share_of_cases_is_trained_without_its_session_and_drawn_anew_every_epoch() -> None:
    cases = planted(3_000)
    shares: dict[float, float] = {}
    drawn: list[set[int]] = []
    for share in (0.0, 0.3, 1.0):
        config = CONFIG.model_copy(update={"session_dropout": share})
        task = RankerTask(networks(cases, config), cases, cases, None, TRAINING, rank=0, has_selection=True)
        batches = [batch for epoch in (1, 2) for step in task.steps(epoch, 7) for batch in step]
        assert sum(len(batch.rows_B) for batch in batches) == 2 * task.num_predictions
        shares[share] = float(np.concatenate([batch.cut_B for batch in batches]).mean())
        drawn = [{*b.rows_B[b.cut_B].tolist()} for b in batches] if share == 0.3 else drawn
    assert (shares[0.0], shares[1.0]) == (0, 1)
    assert shares[0.3] == pytest.approx(0.3, abs=0.03)
    assert set().union(*drawn[:7]) != set().union(*drawn[7:])


def test_a_case_without_its_session_is_learned_from_as_it_was_then() -> None:
    whole, cut = planted(seed=0), planted(seed=1)
    losses = {}
    for share in (0.0, 1.0):
        config = CONFIG.model_copy(update={"session_dropout": share, "dropout": 0.0})
        task = RankerTask(networks(whole, config), whole, cut, None, TRAINING, rank=0, has_selection=True)
        losses[share] = loss_of(task)
    other = RankerTask(networks(whole, config), cut, cut, None, TRAINING, rank=0, has_selection=True)
    assert losses[1.0] == pytest.approx(loss_of(other))
    assert losses[0.0] != pytest.approx(losses[1.0])


def loss_of(task: RankerTask) -> float:
    (batch,) = next(iter(task.steps(1, 1)))
    return float(task.loss(batch)[0].detach())


def test_inverse_propensities_make_the_mean_over_what_was_shown_that_over_all_titles() -> None:
    rng = np.random.default_rng(0)
    value = rng.random(50)
    shown_often = np.sort(rng.dirichlet(np.full(50, 0.5)) * 0.9 + 0.1 / 50)[np.argsort(np.argsort(value))]
    drawn = rng.choice(50, size=(4_000, 6), p=shown_often)
    weight = torch.from_numpy(1.0 / shown_often[drawn])
    real = torch.ones(weight.shape, dtype=torch.bool)
    weighted = importance(weight, real, clip=1e9)
    assert float(weighted.mean()) == pytest.approx(1.0)
    plain = value[drawn].mean()
    assert plain > value.mean() + 0.1
    assert float((weighted * torch.from_numpy(value[drawn])).mean()) == pytest.approx(value.mean(), abs=0.02)
    clipped = importance(weight, real, clip=3.0)
    assert value.mean() < float((clipped * torch.from_numpy(value[drawn])).mean()) < plain
    assert float(clipped.mean()) == pytest.approx(1.0)


def test_padding_weighs_nothing() -> None:
    weight, real = torch.tensor([[2.0, 4.0, 99.0]]), torch.tensor([[True, True, False]])
    assert importance(weight, real, clip=10.0).tolist() == [[pytest.approx(2 / 3), pytest.approx(4 / 3), 0.0]]


def test_a_run_that_is_resumed_ends_as_one_that_was_not_cut_off(tmp_path: Path) -> None:
    cases = planted()
    whole, make = trained(cases, tmp_path / "whole")
    config = TRAINING

    class StopError(Exception):
        pass

    def stop(epoch: Any) -> None:
        if epoch.number == 2:
            raise StopError

    task = RankerTask(make(), cases, cases, None, config, rank=0, has_selection=True)
    run = Run(tmp_path, "cut")
    with pytest.raises(StopError):
        train(task, config, PlainContext(stop, run))
    again = RankerTask(make(), cases, cases, None, config, rank=0, has_selection=True)
    found = run.newest()
    assert found is not None
    state = train(again, config, PlainContext(lambda _: None, run, found.checkpoint))
    assert [e["loss"] for e in state["epochs"]] == [e["loss"] for e in whole["epochs"]]
    assert all(torch.equal(state["best"][name], tensor) for name, tensor in whole["best"].items())


def test_heads_without_labels_are_off_and_the_others_hold_after_calibration(tmp_path: Path) -> None:
    cases = planted()
    assert set(taught(cases)) == {Head.PLAY, Head.THUMB}
    few = replace(
        cases,
        thumb_BC=np.where(np.cumsum(cases.thumb_BC == 1).reshape(cases.thumb_BC.shape) > 5, np.nan, cases.thumb_BC),
    )
    assert set(taught(few)) == {Head.PLAY}
    state, make = trained(cases, tmp_path)
    kept, _ = chosen_epoch(make, state, cases)
    lines = calibrate(kept, cases, taught(cases))
    kept.kept.calibrate(lines)
    assert set(lines) == {Head.PLAY, Head.THUMB}
    with torch.inference_mode():
        told = torch.sigmoid(kept.kept.calibrated(kept.kept.eval()(cases.inputs.tensors())))[..., 0].numpy()
    held = cases.fold_B == REPORT
    assert told[held].mean() == pytest.approx(cases.chosen_BC[held].mean(), abs=0.03)


def test_cases_of_other_sizes_are_joined_with_padding() -> None:
    one, other = planted(10), planted(6, seed=2)
    names = ("chosen_BC", "fraction_BC", "thumb_BC", "listed_BC", "place_BC", "weight_BC")
    fewer = {name: getattr(other, name)[:, :3] for name in names}
    short = replace(other, inputs=other.inputs.candidates(np.tile(np.arange(3), (6, 1))), **fewer)
    both = join([one, short])
    assert both.chosen_BC.shape == (16, 8)
    assert not both.real_BC[10:, 3:].any()
    assert np.isnan(both.thumb_BC[10:, 3:]).all()
    assert (both.place_BC[10:, 3:] == -1).all()


def test_an_actor_is_in_one_fold_for_good_and_errors_are_by_actor() -> None:
    names = [f"m{number}" for number in range(3_000)]
    folds = folds_of(names, 4)
    assert (folds_of(names[::-1], 4) == folds[::-1]).all()
    assert set(folds.tolist()) == {REPORT, 0, 1, 2, 3}
    assert np.bincount(folds + 1).min() > 500
    value = np.repeat(np.array([0.0, 1.0, 2.0]), 4)
    _, apart = mean_by_actor(value, np.arange(12))
    mean, together = mean_by_actor(value, np.arange(12) // 4)
    assert mean == 1.0
    assert together > 1.9 * apart
