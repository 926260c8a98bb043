"""A small service with slow views and models, to be asked by processes."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from foretaste.contracts.catalogue import catalogue
from foretaste.feedback.tombstones import TOMBSTONES_FILE, Tombstones
from foretaste.jobs.settings import Settings
from foretaste.jobs.traffic import World
from foretaste.serving.config import ServiceConfig
from foretaste.signals.snapshots import build_snapshots
from foretaste.signals.store import FeatureStore
from foretaste.testing.builders import START, prepared_folder, random_interactions, titles_table
from foretaste.testing.bundles import file_intent, file_ranker

REPO = Path(__file__).parents[2] / "features"
TITLES = titles_table(60, seed=5)
DAYS = 30
MEMBERS = 40


@dataclass
class Small:
    """A workspace whose models are weighted by dice: parity holds for any weights."""

    settings: Settings
    world: World
    published: int = 0
    late: list[pa.Table] = field(default_factory=list)

    @property
    def service(self) -> ServiceConfig:
        return ServiceConfig(
            workspace=self.settings.tables.root,
            features_repo=self.settings.features_repo,
            features_url=self.settings.features_url,
            serving=self.settings.serving,
        )

    def publish(self, *, late: bool = False) -> None:
        """Publish and load the slow views of another day; `late`: with interactions that nobody knew of before."""
        tables = self.settings.tables
        if late:
            self.late.append(interactions(seed=self.published, per_actor=4))
            shutil.rmtree(tables.prepared)
            prepared_folder(tables.prepared, merged(self.late), TITLES)
        until = START + timedelta(days=DAYS - 6 + self.published, hours=3)
        deleted = Tombstones(tables.serving / TOMBSTONES_FILE).read()
        build_snapshots(tables.prepared, tables.features, self.settings.snapshots, now=until, deleted=deleted)
        store = FeatureStore(self.settings.features_repo, tables.features, self.settings.features_url)
        store.apply()
        store.materialize(until)
        store.close()
        self.published += 1


def interactions(*, seed: int, per_actor: int) -> pa.Table:
    return random_interactions(TITLES, actors=MEMBERS, days=DAYS, per_actor=per_actor, seed=seed)


def merged(parts: Sequence[pa.Table]) -> pa.Table:
    return pa.concat_tables(parts).sort_by([("actor_id", "ascending"), ("at", "ascending")])


def make_small(folder: Path, **serving: Any) -> Small:
    settings = Settings.model_validate(
        {
            "workspace": folder / "workspace",
            "features_repo": REPO,
            "features_url": serving.pop("features_url", None),
            "serving": {"audit_share": 1.0, "epsilon": 0.3, "api_keys": False, "budget_ms": 10_000} | serving,
        }
    )
    tables = settings.tables
    table = interactions(seed=5, per_actor=20)
    made = Small(settings, World(members_of(table), catalogue(TITLES).ids), late=[table])
    prepared_folder(tables.prepared, table, TITLES)
    at = datetime(2026, 1, 1, tzinfo=UTC)
    intent = file_intent(tables.registry, TITLES, at=at)
    file_ranker(tables.registry, intent=intent.fingerprint, at=at, by_dice=True)
    made.publish()
    return made


@pytest.fixture(scope="session")
def make() -> Callable[..., Small]:
    """Make a small service in a folder, with settings of serving by name."""
    return make_small


def members_of(table: pa.Table) -> list[str]:
    return [*sorted(name for name in set(table["actor_id"].to_pylist()) if not name.startswith("guest:")), "a new one"]
