"""A workspace with releases of small, untrained models, whose services open, close and follow what is rolled out."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa

from foretaste.contracts.wire import EventsRequest, RecommendAnswer, RecommendRequest
from foretaste.feedback.session_log import SessionLogConfig
from foretaste.ops.bundles import fetch_bundle
from foretaste.ops.releases import file_release, promote_release
from foretaste.serving.config import ServiceConfig, ServingConfig
from foretaste.serving.service import Service, open_service
from foretaste.testing.bundles import file_intent, file_ranker
from foretaste.testing.fakes import NOW, FakeClock, two_genre_titles


class Shop:
    """One workspace; nothing in it is late, however busy the machine is."""

    def __init__(self, folder: Path, **serving: Any) -> None:
        self.folder, self.clock = folder, FakeClock()
        self.registry = folder / "registry"
        self._num_events = 0
        known: dict[str, Any] = {"audit_share": 0.0, "budget_ms": 60_000.0, "epsilon": 0.3}
        log = SessionLogConfig(durable=False)
        self.serving = ServingConfig.model_validate(known | {"session_log": log.model_dump()} | serving)

    def release(self, seed: int, *, titles: pa.Table | None = None) -> str:
        """File a release of models that are like no others; it is not rolled out."""
        at = NOW + timedelta(minutes=seed)
        intent = file_intent(self.registry, two_genre_titles() if titles is None else titles, at=at, seed=seed)
        file_ranker(self.registry, intent=intent.fingerprint, at=at, seed=seed, by_dice=True)
        models = {name: fetch_bundle(self.registry, name).version for name in ("intent", "ranker")}
        return file_release(self.registry, models, at=at, about={}).name

    def promote(self, name: str) -> None:
        """Roll a release out, as another process does."""
        promote_release(self.registry, name, at=self.clock())

    def open(self, **serving: Any) -> Service:
        """Open a service, as a replica does."""
        config = self.serving.model_copy(update=serving)
        workspace = ServiceConfig(workspace=self.folder, features_repo=Path("features"), serving=config)
        return open_service(workspace, clock=self.clock)

    def ask(self, service: Service, member_id: str = "m1", **request: Any) -> RecommendAnswer:
        """Ask for a list, by default without dice."""
        body = {"session_id": "s1", "member_id": member_id, "k": 8, "policy": "greedy"} | request
        return service.recommend(RecommendRequest.model_validate(body))

    def act(self, service: Service, title_id: str, member_id: str = "m1") -> None:
        """Have a member play a title; time passes."""
        self._num_events += 1
        event = {"event_id": f"e{self._num_events}", "at": self.clock.now.isoformat(), "action": "play"}
        event |= {"member_id": member_id, "session_id": "s1", "title_id": title_id}
        service.accept(EventsRequest.model_validate({"events": [event]}))
        self.clock.move(seconds=1)

    def list(self, service: Service, member_id: str = "m1") -> tuple[str, ...]:
        """The titles of a list that nobody sees."""
        return tuple(item.title_id for item in self.ask(service, member_id, dry_run=True).items)

    def spoil(self, name: str) -> None:
        """Change a byte of the intent model's weights in a release."""
        found = self.registry / "releases" / f"{name}.json"
        version = found.read_text().split('"intent": "')[1].split('"')[0]
        weights = self.registry / "intent" / version / "weights.safetensors"
        body = bytearray(weights.read_bytes())
        body[-1] ^= 1
        weights.write_bytes(bytes(body))
