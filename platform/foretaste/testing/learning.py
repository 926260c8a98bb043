"""A small workspace whose ranker can learn from decisions, and a log of them in which it is known what pays."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from foretaste.contracts.catalogue import Catalogue, catalogue
from foretaste.contracts.columns import DECISIONS, REWARDS
from foretaste.models.bodies import HierarchyConfig
from foretaste.models.intent import IntentModelConfig
from foretaste.models.ranker import RankerConfig
from foretaste.signals.views import MemberView, TitleView
from foretaste.testing.builders import START, prepared_folder, random_interactions, titles_table
from foretaste.testing.decisions import decision
from foretaste.training.config import RankerTrainingConfig, TrackingConfig, TrainingConfig
from foretaste.training.intent import train_intent
from foretaste.training.ranker import train_ranker

TITLES = titles_table(20)
KNOWN = catalogue(TITLES)
NOW = datetime(2026, 2, 1, tzinfo=UTC)
ACTORS, POOL, PLACES = 80, 8, 3
DAY_US = 86_400_000_000


class NothingKnown:
    """Slow views before anything was computed."""

    def contract(self, service: str) -> dict[str, Any]:
        """What a model depends on."""
        return {"service": service, "views": {}, "fingerprint": "of a test"}

    def historical_members(self, ids: Sequence[str | None], at_B: NDArray[np.int64]) -> MemberView:
        """Nothing of anybody."""
        return MemberView.absent(len(ids), num_genres=len(KNOWN.genres), num_kinds=len(KNOWN.kinds))

    def historical_titles_of(
        self, known: Catalogue, at_B: NDArray[np.int64]
    ) -> tuple[list[TitleView], NDArray[np.int64]]:
        """Nothing of any title."""
        day_D, view_B = np.unique(at_B // DAY_US, return_inverse=True)
        return [TitleView.absent(known) for _ in day_D], view_B.astype(np.int64)


def trained_workspace(root: Path) -> Path:
    """Write prepared tables and a registry with an intent model and its ranker, hardly trained; gives `root`."""
    table = random_interactions(TITLES, actors=ACTORS, per_actor=20)
    prepared = prepared_folder(root / "prepared", table, TITLES)
    training = TrainingConfig(executor="plain", epochs=1, batch_size=256, learning_rate=0.01)
    body = IntentModelConfig(width=16, feedforward=32, body=HierarchyConfig(item_blocks=1), max_length=16)
    same: dict[str, Any] = {
        "storage": root / "runs", "tracking": TrackingConfig(enabled=False), "now": NOW, "on_progress": lambda _: None,
    }  # fmt: skip
    train_intent(prepared, root / "registry", model=body, training=training, **same)
    train_ranker(
        prepared, root / "registry", NothingKnown(), model=RankerConfig(num_candidates=10, folds=2),
        training=RankerTrainingConfig(executor="plain", epochs=1, batch_size=32), **same,
    )  # fmt: skip
    return root


def even_decisions(number: int, *, seed: int = 0) -> tuple[pa.Table, pa.Table]:
    """DECISIONS of even dice and their REWARDS: what came out more than a year ago is rewarded, whoever is asked."""
    rng = np.random.default_rng(seed)
    released = dict(zip(TITLES["title_id"].to_pylist(), TITLES["released_at"].to_pylist(), strict=True))
    old = {t: at is not None and at < START - timedelta(days=365) for t, at in released.items()}
    decisions, rewards = [], []
    for n in range(number):
        pool = rng.choice(list(released), size=POOL, replace=False).tolist()
        actor, at = f"m{n % ACTORS:03d}", START + timedelta(days=20 + 10 * n / number)
        items = [
            {"title_id": t, "score": 0.5, "position": k, "propensity": 1 / (POOL - k), "source": "s", "explored": True}
            for k, t in enumerate(rng.permutation(pool)[:PLACES].tolist())
        ]
        decisions.append(decision(f"d{n}", member_id=actor, at=at, candidates=pool, items=items))
        rewards += [
            {
                "decision_id": f"d{n}", "actor_id": actor, "at": at, "title_id": item["title_id"], "position": k,
                "propensity": item["propensity"],
                "reward": float(rng.random() < (0.8 if old[item["title_id"]] else 0.1)),
                "reward_state": "final", "program": "old", "program_version": 1, "program_fingerprint": "f",
                "model_version": None, "as_of": NOW,
            }
            for k, item in enumerate(items)
        ]  # fmt: skip
    return pa.Table.from_pylist(decisions, schema=DECISIONS), pa.Table.from_pylist(rewards, schema=REWARDS)
