"""The loop in one process: it learns, it is repeatable, and it goes on exactly where it stopped."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from safetensors.torch import load_file

from foretaste.contracts.catalogue import catalogue
from foretaste.contracts.histories import Histories
from foretaste.contracts.intents import ACTION_CLASSES, Intent
from foretaste.models.bodies import HierarchyConfig
from foretaste.models.intent import IntentModelConfig, IntentRecommender, build_intent
from foretaste.ops.files import read_json, read_parquet
from foretaste.sessions.label import intent_labels
from foretaste.signals.histories import pack
from foretaste.testing.builders import interactions_table, prepared_folder, random_interactions, titles_table
from foretaste.training.config import TrackingConfig, TrainingConfig
from foretaste.training.intent import TrainResult, train_intent
from foretaste.training.loop import Epoch

TITLES = titles_table(10)
MODEL = IntentModelConfig(width=16, feedforward=32, body=HierarchyConfig(item_blocks=1), max_length=16, dropout=0.1)
TRAINING = TrainingConfig(executor="plain", epochs=3, batch_size=256, learning_rate=0.01, split="last", patience=9)
NOW = datetime(2026, 2, 1, tzinfo=UTC)


def ring(actors: int = 60, length: int = 14, seed: int = 0) -> pa.Table:
    """Everybody goes round the titles, one after the other, from anywhere: the next title is certain."""
    dice = np.random.default_rng(seed)
    rows = []
    for actor in range(actors):
        first = int(dice.integers(10))
        rows += [(f"m{actor:03d}", actor * 0.1 + n * 0.5, f"t{(first + n) % 10:04d}") for n in range(length)]
    return interactions_table(rows)


def run(
    root: Path, table: pa.Table, *, model: IntentModelConfig = MODEL, training: TrainingConfig = TRAINING
) -> tuple[TrainResult, list[Epoch]]:
    prepared = root / "prepared"
    if not prepared.exists():
        prepared_folder(prepared, table, TITLES)
    seen: list[Epoch] = []
    result = train_intent(
        prepared, root / "registry", model=model, training=training, storage=root / "runs",
        tracking=TrackingConfig(enabled=False), now=NOW, on_progress=seen.append,
    )  # fmt: skip
    return result, seen


def load(result: TrainResult) -> IntentRecommender:
    folder = result.bundle.path
    return build_intent(
        read_json(folder / "config.json"),
        catalogue(read_parquet(folder / "titles.parquet")),
        load_file(folder / "weights.safetensors"),
    )


def test_a_planted_order_is_learned_and_the_bundle_knows_it(tmp_path: Path) -> None:
    result, epochs = run(tmp_path, ring(), training=TRAINING.model_copy(update={"epochs": 12}))
    assert epochs[-1].metrics["hit_rate"] > 0.99
    assert epochs[-1].loss < 0.5 * epochs[0].loss
    model = load(result)
    histories, _ = pack(interactions_table([("a", 0.0, "t0003"), ("a", 0.5, "t0004")]), catalogue(TITLES))
    best = model.scores(histories, histories.at_T[-1:] + 12 * 3_600_000_000).argmax(axis=1)
    assert best.tolist() == [5]


def test_the_same_seed_gives_the_same_weights_and_another_seed_others(tmp_path: Path) -> None:
    table = random_interactions(TITLES, actors=30)
    first, _ = run(tmp_path / "a", table)
    again, _ = run(tmp_path / "b", table)
    other, _ = run(tmp_path / "c", table, training=TRAINING.model_copy(update={"seed": 1}))
    assert first.bundle.fingerprint == again.bundle.fingerprint
    assert first.bundle.fingerprint != other.bundle.fingerprint


def test_training_leaves_the_dice_of_others_alone(tmp_path: Path) -> None:
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    run(tmp_path, random_interactions(TITLES, actors=10))
    assert torch.equal(torch.rand(3), expected)


def test_a_run_that_is_cut_off_goes_on_exactly_where_it_stopped(tmp_path: Path) -> None:
    table = random_interactions(TITLES, actors=30)
    whole, _ = run(tmp_path / "a", table)

    class CutOffError(RuntimeError):
        pass

    def cut_off(epoch: Epoch) -> None:
        if epoch.number == 2:
            raise CutOffError

    root = tmp_path / "b"
    prepared_folder(root / "prepared", table, TITLES)
    arguments: dict[str, Any] = {
        "model": MODEL, "training": TRAINING, "storage": root / "runs", "tracking": TrackingConfig(enabled=False),
        "now": NOW,
    }  # fmt: skip
    with pytest.raises(CutOffError):
        train_intent(root / "prepared", root / "registry", on_progress=cut_off, **arguments)
    seen: list[Epoch] = []
    resumed = train_intent(root / "prepared", root / "registry", on_progress=seen.append, **arguments)
    assert [epoch.number for epoch in seen] == [3]
    assert resumed.bundle.fingerprint == whole.bundle.fingerprint


def test_the_size_of_a_micro_batch_changes_nothing_but_rounding(tmp_path: Path) -> None:
    table = random_interactions(TITLES, actors=30)
    still = MODEL.model_copy(update={"dropout": 0.0})
    losses = []
    for tokens in (16, 4096):
        training = TRAINING.model_copy(update={"micro_batch_tokens": tokens})
        _, epochs = run(tmp_path / str(tokens), table, model=still, training=training)
        losses.append([epoch.loss for epoch in epochs])
    assert losses[0] == pytest.approx(losses[1], rel=1e-3)


def test_training_ends_when_validation_no_longer_gets_better(tmp_path: Path) -> None:
    training = TRAINING.model_copy(update={"epochs": 40, "patience": 2})
    result, epochs = run(tmp_path, random_interactions(TITLES, actors=20), training=training)
    assert len(epochs) < 40
    assert len(epochs) == result.best_epoch + 2
    assert [epoch.number for epoch in epochs if epoch.best][-1] == result.best_epoch
    assert result.metrics["ndcg"] == max(epoch.metrics["ndcg"] for epoch in epochs)


def test_a_refit_learns_from_the_validation_rows_too_for_the_best_number_of_epochs(tmp_path: Path) -> None:
    table = random_interactions(TITLES, actors=30)
    plain, _ = run(tmp_path / "a", table)
    refit, epochs = run(tmp_path / "b", table, training=TRAINING.model_copy(update={"refit": True}))
    again = epochs[len(refit.epochs) :]
    assert len(again) == refit.best_epoch
    assert all(not epoch.metrics for epoch in again)
    assert refit.bundle.manifest["about"]["choices"] > plain.bundle.manifest["about"]["choices"]
    assert refit.bundle.fingerprint != plain.bundle.fingerprint


def test_heads_without_classes_in_the_data_are_off(tmp_path: Path) -> None:
    one_kind = titles_table([{"title_id": f"t{n:04d}", "genres": ["a", "b"][n % 2 :][:1]} for n in range(10)])
    prepared = prepared_folder(tmp_path / "prepared", ring(length=8), one_kind)
    result = train_intent(
        prepared, tmp_path / "registry", model=MODEL, training=TRAINING.model_copy(update={"epochs": 1}),
        storage=tmp_path / "runs", tracking=TrackingConfig(enabled=False), now=NOW, on_progress=lambda _: None,
    )  # fmt: skip
    assert load(result).heads == ("genre",)  # nobody comes back, one kind, no release dates


def test_intents_are_learned_beside_the_titles(tmp_path: Path) -> None:
    result, _ = run(tmp_path, ring(), training=TRAINING.model_copy(update={"epochs": 20, "select_by": "loss"}))
    model = load(result)
    known = catalogue(TITLES)
    histories, _ = pack(ring(seed=9), known)
    starts, stops = histories.offsets_B1[:-1], histories.offsets_B1[1:] - 1
    answer = model.predict(histories.take(starts, stops), histories.at_T[stops])
    kind = answer.intents[Intent.KIND].argmax(axis=1)
    assert (kind == known.kind_N1[histories.title_T[stops]]).mean() > 0.9


def test_a_head_has_the_classes_that_occur_and_learns_each_under_its_own_name(tmp_path: Path) -> None:
    known = catalogue(TITLES)
    faithful = interactions_table([(f"m{n:03d}", n * 0.1 + k, f"t{n % 10:04d}") for n in range(60) for k in range(6)])
    result, _ = run(tmp_path, faithful, training=TRAINING.model_copy(update={"epochs": 20, "select_by": "loss"}))
    histories, _ = pack(faithful, known)
    starts, stops = histories.offsets_B1[:-1], histories.offsets_B1[1:] - 1
    answer = load(result).predict(histories.take(starts, stops), histories.at_T[stops])
    names = answer.classes[Intent.ACTION]
    assert names == ("discover", "continue_series", "resume_unfinished")
    wanted = np.array(ACTION_CLASSES)[intent_labels(histories, known)["action"][stops]]
    assert (np.array(names)[answer.intents[Intent.ACTION].argmax(axis=1)] == wanted).mean() > 0.85


def test_a_large_catalogue_is_trained_with_shared_negatives(tmp_path: Path) -> None:
    sampled = MODEL.model_copy(update={"full_softmax_titles": 5, "num_negatives": 8})
    _, epochs = run(tmp_path, ring(), model=sampled, training=TRAINING.model_copy(update={"epochs": 12}))
    assert epochs[-1].metrics["ndcg"] > 0.9


def test_a_member_without_history_gets_what_first_choices_look_like(tmp_path: Path) -> None:
    rows = [
        (f"m{n:03d}", n * 0.1 + k * 0.1, f"t{first:04d}" if k == 0 else f"t{5 + (n + k) % 5:04d}")
        for n in range(80)
        for first in [n % 2]
        for k in range(6)
    ]
    result, _ = run(
        tmp_path, interactions_table(rows), training=TRAINING.model_copy(update={"epochs": 30, "select_by": "loss"})
    )
    nobody = Histories(
        np.zeros(2, dtype=np.int64), *(np.zeros(0, dtype=t) for t in ("i4", "i4", "i8", "i4", "f4", "f4"))
    )
    scores = load(result).scores(nobody, np.array([0], dtype=np.int64))
    assert np.exp(scores[0, :2]).sum() > 0.8


def test_no_training_rows_is_said(tmp_path: Path) -> None:
    table = interactions_table([("a", 0.0, "nobody knows this"), ("b", 1.0, "nor this")])
    with pytest.raises(ValueError, match="no training rows"):
        run(tmp_path, table)


def test_bfloat16_trains_as_float32_does_but_for_rounding(tmp_path: Path) -> None:
    still = MODEL.model_copy(update={"dropout": 0.0})
    curves = []
    for precision in ("float32", "bfloat16"):
        training = TRAINING.model_copy(update={"precision": precision, "epochs": 6})
        result, epochs = run(tmp_path / precision, ring(), model=still, training=training)
        curves.append([epoch.loss for epoch in epochs])
        assert load_file(result.bundle.path / "weights.safetensors")["titles.own.weight"].dtype == torch.float32
    assert curves[0] != curves[1]
    assert curves[1] == pytest.approx(curves[0], rel=0.05)
    assert curves[1][-1] < 0.7 * curves[1][0]


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("sampled", [False, True])
def test_a_gpu_gives_the_loss_that_the_cpu_gives(tmp_path: Path, sampled: bool) -> None:
    change = {"full_softmax_titles": 5, "num_negatives": 8} if sampled else {}
    still = MODEL.model_copy(update={"dropout": 0.0} | change)
    curves = []
    for use_gpu in (False, True):
        training = TRAINING.model_copy(update={"use_gpu": use_gpu})
        _, epochs = run(tmp_path / str(use_gpu), ring(), model=still, training=training)
        curves.append([epoch.loss for epoch in epochs])
    assert curves[1] == pytest.approx(curves[0], rel=1e-3)


def test_a_network_that_says_no_numbers_is_never_the_best() -> None:
    from foretaste.training.intent_task import above

    score_RN = np.array([[0.1, 0.5, 0.5], [np.nan, np.nan, np.nan]], dtype=np.float32)
    assert above(score_RN, np.array([[1], [1]])).tolist() == [1, 2]  # a tie stands above, and so does what is no number
