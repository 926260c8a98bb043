"""Training of the ranker: honest cases, honest figures, a bundle that belongs to its intent model."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from safetensors.torch import load_file

from foretaste.contracts.catalogue import Catalogue, catalogue
from foretaste.models.bodies import HierarchyConfig
from foretaste.models.intent import IntentModelConfig
from foretaste.models.ranker import RankerConfig
from foretaste.models.ranker_scorer import build_ranker
from foretaste.ops.bundles import fetch_bundle
from foretaste.ops.files import read_json
from foretaste.signals.candidates import CANDIDATE_COLUMNS
from foretaste.signals.histories import pack
from foretaste.signals.ranked_past import best_unseen
from foretaste.signals.requests import REQUEST_COLUMNS
from foretaste.signals.views import MemberView, TitleView
from foretaste.testing.builders import interactions_table, prepared_folder, random_interactions, titles_table
from foretaste.training.config import RankerTrainingConfig, TrackingConfig, TrainingConfig
from foretaste.training.intent import train_intent
from foretaste.training.loop import Epoch
from foretaste.training.ranker import train_ranker

TITLES = titles_table(20)
KNOWN = catalogue(TITLES)
NOW = datetime(2026, 2, 1, tzinfo=UTC)
OFF = TrackingConfig(enabled=False)
INTENT = IntentModelConfig(width=16, feedforward=32, body=HierarchyConfig(item_blocks=1), max_length=16)
TRAINING = TrainingConfig(executor="plain", epochs=3, batch_size=256, learning_rate=0.01)
RANKER = RankerConfig(num_candidates=10, folds=2)
RANKER_TRAINING = RankerTrainingConfig(executor="plain", epochs=4, batch_size=32)


class NothingKnown:
    """Slow views before anything was computed; remembers what it was asked."""

    def __init__(self) -> None:
        self.ids: list[str | None] = []

    def contract(self, service: str) -> dict[str, Any]:
        return {"service": service, "views": {}, "fingerprint": "of a test"}

    def historical_members(self, ids: Sequence[str | None], at_B: NDArray[np.int64]) -> MemberView:
        self.ids += list(ids)
        return MemberView.absent(len(ids), num_genres=len(KNOWN.genres), num_kinds=len(KNOWN.kinds))

    def historical_titles_of(
        self, known: Catalogue, at_B: NDArray[np.int64]
    ) -> tuple[list[TitleView], NDArray[np.int64]]:
        day_D, view_B = np.unique(at_B // 86_400_000_000, return_inverse=True)
        return [TitleView.absent(known) for _ in day_D], view_B.astype(np.int64)


def with_intent(root: Path, *, training: TrainingConfig = TRAINING, guests: bool = False) -> Path:
    """A prepared folder and a registry with an intent model."""
    table = random_interactions(TITLES, actors=80, per_actor=30)
    if guests:
        rows = zip(*(table[name].to_pylist() for name in ("actor_id", "at", "title_id", "action")), strict=True)
        named = [("guest:" + a if int(a[1:]) % 2 else a, at, title, action) for a, at, title, action in rows]
        table = interactions_table(named)
    prepared = prepared_folder(root / "prepared", table, TITLES)
    train_intent(
        prepared, root / "registry", model=INTENT, training=training, storage=root / "runs", tracking=OFF, now=NOW,
        on_progress=lambda _: None,
    )  # fmt: skip
    return prepared


def test_the_ranker_is_filed_with_its_columns_its_figures_and_its_intent_model(tmp_path: Path) -> None:
    prepared = with_intent(tmp_path, guests=True)
    seen: list[Epoch] = []
    views = NothingKnown()
    result = train_ranker(
        prepared, tmp_path / "registry", views, model=RANKER, training=RANKER_TRAINING, storage=tmp_path / "runs",
        tracking=OFF, now=NOW, on_progress=seen.append,
    )  # fmt: skip
    assert None in views.ids
    assert not any(one is not None and one.startswith("guest:") for one in views.ids)
    about = result.bundle.manifest["about"]
    assert about["intent_fingerprint"] == fetch_bundle(tmp_path / "registry", "intent").fingerprint
    assert about["metrics"]["lift"] == pytest.approx(about["metrics"]["ndcg"] - about["metrics"]["intent_ndcg"])
    assert about["metrics"]["lift_low"] <= about["metrics"]["lift"] <= about["metrics"]["lift_high"]
    assert about["metrics"]["cases"] + about["metrics"]["cases_out_of_fold"] == about["cases"]
    assert about["metrics"]["lift_out_of_fold"] >= 0  # else it would be the untrained one
    assert about["heads"]["play"]["labels"] > 0
    assert set(about["heads"]) == {"play", "fraction", "thumb", "list"}
    folder = result.bundle.path
    assert read_json(folder / "columns.json") == list(CANDIDATE_COLUMNS)
    vectors = np.zeros((len(KNOWN) + 1, INTENT.width), dtype=np.float32)
    scorer = build_ranker(read_json(folder / "config.json"), load_file(folder / "weights.safetensors"), vectors)
    scorer.check_columns(CANDIDATE_COLUMNS, REQUEST_COLUMNS)
    assert seen[-1].loss < seen[0].loss


def test_the_same_seed_gives_the_same_ranker(tmp_path: Path) -> None:
    prepared = with_intent(tmp_path)
    prints = [
        train_ranker(
            prepared, tmp_path / "registry", NothingKnown(), model=RANKER, training=RANKER_TRAINING,
            storage=tmp_path / run, tracking=OFF, now=NOW, on_progress=lambda _: None,
        ).bundle.fingerprint
        for run in ("a", "b")
    ]  # fmt: skip
    assert prints[0] == prints[1]


@pytest.mark.parametrize(
    ("change", "message"),
    [({"split": "last"}, "trained under split 'last'"), ({"refit": True}, "refit on validation rows")],
)
def test_an_intent_model_that_has_seen_the_window_is_refused(
    tmp_path: Path, change: dict[str, object], message: str
) -> None:
    prepared = with_intent(tmp_path, training=TRAINING.model_copy(update=change))
    with pytest.raises(ValueError, match=message):
        train_ranker(
            prepared, tmp_path / "registry", NothingKnown(), model=RANKER, training=RANKER_TRAINING,
            storage=tmp_path / "runs", tracking=OFF, now=NOW, on_progress=lambda _: None,
        )  # fmt: skip


def test_candidates_are_the_best_unseen_titles_and_padding_where_there_are_too_few() -> None:
    scores = np.array([[0.1, 0.5, 0.4, 0.3], [0.4, 0.3, 0.2, 0.1]], dtype=np.float32)
    histories, _ = pack(
        interactions_table([("a", 0.0, "t0001"), ("b", 0.0, "t0000"), ("b", 1.0, "t0001"), ("b", 2.0, "no title")]),
        catalogue(TITLES.slice(0, 4)),
    )
    assert best_unseen(scores, histories, 3, repeats=False).tolist() == [[3, 4, 1], [3, 4, 0]]
    assert best_unseen(scores, histories, 3, repeats=True).tolist() == [[2, 3, 4], [1, 2, 3]]
