"""Examples that do not fit in memory are learned from part by part, as well as if they did."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest

from foretaste.contracts.catalogue import catalogue
from foretaste.contracts.events import PLAY_LIKE
from foretaste.models.intent import IntentModelConfig
from foretaste.testing.builders import interactions_table, prepared_folder, random_interactions, titles_table
from foretaste.training.config import TrackingConfig, TrainingConfig
from foretaste.training.examples import Examples, census, parts, read_part
from foretaste.training.intent import TrainResult, train_intent
from foretaste.training.streaming import Count, Parts, in_steps

TITLES = titles_table(10)
KNOWN = catalogue(TITLES)
TARGETS = frozenset(map(str, PLAY_LIKE))


class Counting(Sequence[Examples]):
    """Parts that count how often they are opened."""

    def __init__(self, of: list[Examples]) -> None:
        self.of, self.opened = of, 0

    def __len__(self) -> int:
        return len(self.of)

    def __getitem__(self, index: int) -> Examples:  # type: ignore[override]
        self.opened += 1
        return self.of[index]


@pytest.fixture(scope="module")
def some(tmp_path_factory: pytest.TempPathFactory) -> list[Examples]:
    table = random_interactions(TITLES, actors=40, per_actor=15)
    folder = prepared_folder(tmp_path_factory.mktemp("prepared"), table, TITLES)
    return [read_part(p, KNOWN, split="last", refit=False, target_actions=TARGETS) for p in parts(folder, 12)]


def resident(of: Sequence[Examples], limit: int) -> Parts:
    return Parts(of, [Count.of(census(part, KNOWN)) for part in of], limit=limit)


def learned(examples: Examples) -> list[int]:
    at_T: list[int] = examples.histories.at_T[examples.train_T].tolist()
    return at_T


def test_what_fits_is_opened_once_and_stays_in_its_order(some: list[Examples]) -> None:
    shard = Counting(some)
    held = Parts(shard, [Count.of(census(part, KNOWN)) for part in some], limit=10**6)
    epochs = [[learned(examples) for examples, _ in held.groups(np.random.default_rng(n))] for n in range(3)]
    assert shard.opened == len(some)
    assert epochs[0] == epochs[1] == epochs[2]
    assert len(epochs[0]) == 1


@pytest.mark.parametrize("limit", [1, 200, 400])
def test_what_does_not_fit_is_seen_whole_every_epoch_in_another_order_within_the_limit(
    some: list[Examples], limit: int
) -> None:
    held = resident(some, limit)
    largest = max(count.interactions for count in held.counts)
    orders = []
    for epoch in range(2):
        groups = list(held.groups(np.random.default_rng(epoch)))
        assert all(len(examples.train_T) <= max(largest, limit // 2) for examples, _ in groups)
        assert all(int(examples.train_T.sum()) == train for examples, train in groups)
        orders.append([at for examples, _ in groups for at in learned(examples)])
    assert orders[0] != orders[1]
    assert sorted(orders[0]) == sorted(orders[1]) == sorted(at for part in some for at in learned(part))


def test_cases_to_validate_with_are_the_same_whether_or_not_they_fit(some: list[Examples]) -> None:
    chosen = np.array([0, 3, 4, 17, 27])
    whole, streamed = (resident(some, limit).cases(chosen) for limit in (10**6, 200))
    assert (whole[0].at_T == streamed[0].at_T).all()
    assert (whole[0].offsets_B1 == streamed[0].offsets_B1).all()
    assert (whole[1] == streamed[1]).all()
    assert (whole[2] == streamed[2]).all()
    none = resident(some, 200).cases(np.zeros(0, dtype=np.int64))
    assert len(none[0]) == len(none[1]) == 0


@pytest.mark.parametrize("num_steps", [1, 2, 7, 50])
@pytest.mark.parametrize("trains", [[5, 5, 5], [1, 90, 0, 1], [0, 0], [3], [0, 4, 0], []])
def test_groups_share_exactly_the_steps_asked_for_and_none_is_lost(
    some: list[Examples], trains: list[int], num_steps: int
) -> None:
    groups = iter([(some[0], train) for train in trains])
    made = iter(range(100))

    def divide(examples: Examples, share: int):  # type: ignore[no-untyped-def]
        group = next(made)
        return (iter([(group, step)]) for step in range(share))

    found = [list(step) for step in in_steps(groups, divide, total=sum(trains), num_steps=num_steps)]
    assert len(found) == num_steps
    assert len({group for step in found for group, _ in step}) == sum(train > 0 for train in trains)


def ring() -> list[tuple[str, float, str]]:
    dice = np.random.default_rng(0)
    firsts = [int(dice.integers(10)) for _ in range(80)]
    return [(f"m{a:03d}", a * 0.1 + n * 0.5, f"t{(f + n) % 10:04d}") for a, f in enumerate(firsts) for n in range(14)]


def run(root: Path, prepared: Path, **changes: object) -> TrainResult:
    base = TrainingConfig(executor="plain", epochs=10, batch_size=128, learning_rate=0.01, split="last", patience=99)
    return train_intent(
        prepared, root / "registry", model=IntentModelConfig(width=16, feedforward=32, max_length=16, dropout=0.0),
        training=base.model_copy(update=changes), storage=root / "runs", tracking=TrackingConfig(enabled=False),
        now=datetime(2026, 2, 1, tzinfo=UTC), on_progress=lambda _: None,
    )  # fmt: skip


def test_training_on_parts_learns_what_training_on_the_whole_does(tmp_path: Path) -> None:
    prepared = prepared_folder(tmp_path / "prepared", interactions_table(ring()), TITLES)
    whole = run(tmp_path / "a", prepared)
    streamed = run(tmp_path / "b", prepared, resident_interactions=400)
    assert whole.metrics["ndcg"] > 0.95
    assert streamed.metrics["ndcg"] == pytest.approx(whole.metrics["ndcg"], abs=0.05)
    assert {e["predictions"] for e in streamed.epochs} == {e["predictions"] for e in whole.epochs}
    again = run(tmp_path / "c", prepared, resident_interactions=400)
    assert again.bundle.fingerprint == streamed.bundle.fingerprint


@pytest.mark.slow
@pytest.mark.cluster
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_two_ray_workers_stream_their_parts(local_ray: None, tmp_path: Path) -> None:
    prepared = prepared_folder(tmp_path / "prepared", interactions_table(ring()), TITLES)
    on_ray = {"executor": "ray", "num_workers": 2, "cpus_per_worker": 0.5, "epochs": 4}
    whole = run(tmp_path / "a", prepared, **on_ray)
    streamed = run(tmp_path / "b", prepared, resident_interactions=200, **on_ray)
    again = run(tmp_path / "c", prepared, resident_interactions=200, **on_ray)
    assert {e["predictions"] for e in streamed.epochs} == {e["predictions"] for e in whole.epochs}
    assert streamed.epochs[-1]["loss"] == pytest.approx(whole.epochs[-1]["loss"], rel=0.2)
    assert again.bundle.fingerprint == streamed.bundle.fingerprint  # bit for bit, on two workers
