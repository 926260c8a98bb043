"""Who asks a service under load, and what: sessions side by side, of drawn lengths, with events between lists."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from foretaste.contracts.events import GUEST
from foretaste.jobs.bench_serve_config import ServeBenchConfig
from foretaste.jobs.keys import own_key
from foretaste.jobs.load import Call, call
from foretaste.jobs.settings import Settings
from foretaste.ops.tables import read_prepared, read_titles

LIST, EVENTS = "recommend", "events"
MOST_CALLS = 20_000
"""Requests that a load is made of; a longer one sends the lists of it again."""


@dataclass(frozen=True, slots=True)
class Population:
    """Whom the load is about."""

    members: Sequence[str]
    titles: Sequence[str]


@dataclass(frozen=True, slots=True)
class Address:
    """Where a service is, and what it wants to be shown."""

    host: str
    port: int
    key: str | None

    @classmethod
    def of(cls, url: str, settings: Settings) -> Address:
        """Of `http://host:port`, with the key of the workspace. Raises ValueError for another URL."""
        host, colon, port = url.removeprefix("http://").rstrip("/").partition(":")
        if not url.startswith("http://") or not colon or not port.isdigit():
            raise ValueError(f"--url {url}: wanted http://HOST:PORT")
        return cls(host, int(port), own_key(settings.tables))

    def call(self, kind: str, path: str, body: Any) -> Call:
        """A POST to it."""
        headers = [] if self.key is None else [("X-API-Key", self.key)]
        return call(kind, "POST", path, json.dumps(body).encode(), host=f"{self.host}:{self.port}", headers=headers)


def population(prepared: Path, *, least_events: int) -> Population:
    """Members with at least so many interactions, or all where nobody has, and all titles."""
    rows = read_prepared(prepared, "interactions", columns=["actor_id"])["actor_id"].value_counts()
    counted = {row["values"]: row["counts"] for row in rows.to_pylist() if not row["values"].startswith(GUEST)}
    members = sorted(name for name, count in counted.items() if count >= least_events) or sorted(counted)
    return Population(members, read_titles(prepared)["title_id"].to_pylist())


def requests(
    people: Population,
    config: ServeBenchConfig,
    address: Address,
    *,
    name: str,
    number: int = MOST_CALLS,
    seed: int = 0,
    events_share: float | None = None,
) -> list[Call]:
    """Requests in the order in which they are sent; no event id is that of a load with another name."""
    rng, at = np.random.default_rng(seed), datetime.now(UTC).isoformat()
    share = config.events_share if events_share is None else events_share
    begun, left = 0, np.zeros(config.sessions, dtype=np.int64)
    who: list[dict[str, Any]] = [{}] * config.sessions
    found = []
    for turn in range(number):
        slot = int(rng.integers(config.sessions))
        if left[slot] == 0:
            begun, left[slot] = begun + 1, rng.geometric(1.0 / config.session_requests)
            who[slot] = {
                "member_id": people.members[int(rng.integers(len(people.members)))],
                "session_id": f"{name}-{begun}",
            }
        left[slot] -= 1
        if rng.random() >= share:
            found.append(address.call(LIST, "/v1/recommend", who[slot] | {"k": config.k}))
            continue
        title = people.titles[int(rng.integers(len(people.titles)))]
        event = {"event_id": f"{name}-{turn}", "at": at, "action": "detail", "title_id": title}
        found.append(address.call(EVENTS, "/v1/events", {"events": [event | who[slot]]}))
    return found
