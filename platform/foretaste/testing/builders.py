"""Small tables made by hand or by dice, in the shapes that the stages exchange.

A test says only what it is about; everything else gets a plain default. Dice are seeded.
"""

from __future__ import annotations

import itertools
import zlib
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from foretaste.contracts.columns import EVENTS, IMPRESSIONS, INTERACTIONS, TITLES, conform
from foretaste.contracts.events import ENGAGEMENT, PLAY_LIKE, Action, actor_id
from foretaste.contracts.sessions import SessionRule
from foretaste.ops.files import write_json, write_parquet

START = datetime(2026, 1, 1, tzinfo=UTC)
"""The first day of every log that is made here."""

KINDS = ("movie", "show", "game")
GENRES = ("action", "comedy", "drama", "horror", "mystery", "romance")


def moment(at: datetime | str | float) -> datetime:
    """Read a time: aware, ISO text (UTC where it names no zone), or days since `START`."""
    if isinstance(at, int | float):
        return START + timedelta(days=at)
    when = datetime.fromisoformat(at) if isinstance(at, str) else at
    return when if when.tzinfo else when.replace(tzinfo=UTC)


def titles_table(titles: int | Sequence[Mapping[str, Any]] = 12, *, seed: int = 0) -> pa.Table:
    """Make a TITLES table: of the rows given (only title_id is needed), or so many by dice.

    Titles by dice are t0000, t0001, ... with one or two of `GENRES`, of `KINDS`, released in the two years
    before `START` (one in eight without a release date).
    """
    if not isinstance(titles, int):
        plain = {"kind": "movie", "genres": [], "artworks": []}
        rows = [{name: (plain | dict(row)).get(name) for name in TITLES.names} for row in titles]
        for row in rows:
            row["released_at"] = None if row["released_at"] is None else moment(row["released_at"])
        return conform(pa.Table.from_pylist(rows, schema=TITLES), TITLES, what="titles")
    dice = np.random.default_rng(seed)
    return titles_table(
        [
            {
                "title_id": f"t{number:04d}",
                "name": f"Title {number}",
                "kind": KINDS[int(dice.integers(len(KINDS)))],
                "genres": [str(g) for g in dice.choice(GENRES, size=int(dice.integers(1, 3)), replace=False)],
                "released_at": START - timedelta(days=float(dice.uniform(0, 730))) if number % 8 else None,
            }
            for number in range(titles)
        ]
    )


def interactions_table(
    rows: Sequence[tuple[str, datetime | str | float, str] | tuple[str, datetime | str | float, str, str]],
    *,
    rule: SessionRule | None = None,
) -> pa.Table:
    """Make an INTERACTIONS table of (actor, at, title[, action]) rows, in any order; the action is play if not said.

    Sessions follow the gap of `rule`, `split_last` is leave-one-out, `split_time` cuts all rows at 80% and 90%.
    """
    gap = timedelta(minutes=(rule or SessionRule()).gap_minutes)
    order = sorted(rows, key=lambda row: (row[0], moment(row[1])))
    times = sorted(moment(row[1]) for row in order)
    cuts = [times[int(len(times) * share)] for share in (0.8, 0.9)] if times else []
    records: list[dict[str, Any]] = []
    for actor, group in itertools.groupby(order, key=lambda row: row[0]):
        own = list(group)
        session, before = -1, None
        for position, row in enumerate(own):
            at = moment(row[1])
            session += before is None or at - before > gap
            before = at
            action = row[3] if len(row) == 4 else Action.PLAY.value
            left = len(own) - position
            records.append(
                {
                    "actor_id": actor,
                    "session_id": f"{actor}/{session}",
                    "session_index": session,
                    "position": position,
                    "at": at,
                    "title_id": row[2],
                    "action": action,
                    "dwell_seconds": 0.0,
                    "played_fraction": 1.0 if action == Action.COMPLETE else None,
                    "num_events": 1,
                    "entry": "browse",
                    "query": None,
                    "split_time": ("train", "validation", "test")[sum(at >= cut for cut in cuts)],
                    "split_last": {1: "test", 2: "validation"}.get(left, "train"),
                }
            )
    return conform(pa.Table.from_pylist(records, schema=INTERACTIONS), INTERACTIONS, what="interactions")


def random_interactions(
    titles: pa.Table, *, actors: int = 20, days: float = 30.0, per_actor: float = 12.0, seed: int = 0
) -> pa.Table:
    """Make interactions of m000, m001, ... by dice: sessions of a few titles, taste that lasts, some ties in time."""
    dice = np.random.default_rng(seed)
    ids = list(titles["title_id"].to_pylist())
    actions = sorted(PLAY_LIKE | {Action.DETAIL.value, Action.THUMB_DOWN.value})
    rows: list[tuple[str, float, str, str]] = []
    for actor in range(actors):
        taste = dice.dirichlet(np.full(len(ids), 0.3))
        left = int(dice.poisson(per_actor))
        while left > 0:
            at = float(dice.uniform(0, days))
            for title in dice.choice(len(ids), size=min(left, int(dice.integers(1, 6))), p=taste):
                rows.append((f"m{actor:03d}", at, ids[title], actions[int(dice.integers(len(actions)))]))
                at += float(dice.choice([0.0, dice.uniform(0, 20) / 1440]))
                left -= 1
    return interactions_table([row for row in rows if row[1] < days])


def events_table(rows: Sequence[Mapping[str, Any]]) -> pa.Table:
    """Make an EVENTS table: event_id is the row's number, the action play and the surface home where not said."""
    plain = {"action": Action.PLAY.value, "surface": "home"}
    full = [
        {"event_id": f"e{number:06d}"} | plain | dict(row) | {"at": moment(row["at"])}
        for number, row in enumerate(rows)
    ]
    named = [{name: row.get(name) for name in EVENTS.names} for row in full]
    return conform(pa.Table.from_pylist(named, schema=EVENTS), EVENTS, what="events")


def random_events(
    titles: pa.Table, *, members: int = 10, days: float = 7.0, per_member: float = 40.0, guests: int = 3, seed: int = 0
) -> pa.Table:
    """Make a raw log by dice: impressions, browsing, engagement in several events, guests with a session_id."""
    dice = np.random.default_rng(seed)
    ids = titles["title_id"].to_pylist()
    actions = [a for a in Action if a not in {Action.MESSAGE_OPEN, Action.FOLLOW, Action.COMMENT, Action.RATE}]
    rows: list[dict[str, Any]] = []
    for actor in range(members + guests):
        who = {"member_id": f"m{actor:03d}"} if actor < members else {"session_id": f"s{actor:03d}"}
        left = 1 + int(dice.poisson(per_member))
        while left > 0:
            at = float(dice.uniform(0, days))
            for _ in range(min(left, int(dice.integers(1, 12)))):
                action = actions[int(dice.integers(len(actions)))]
                fraction = float(dice.uniform()) if action in {Action.STOP, Action.PLAY} else None
                dwell = float(dice.integers(0, 3600)) if action in ENGAGEMENT else None
                title = None if action == Action.SEARCH else ids[int(dice.zipf(1.5)) % len(ids)]
                said = {"at": at, "action": action.value, "title_id": title}
                rows.append(who | said | {"played_fraction": fraction, "dwell_seconds": dwell})
                at += float(dice.choice([0.0, dice.uniform(0, 15) / 1440]))
                left -= 1
    return events_table(rows).sort_by("at")


def prepared_folder(
    folder: Path,
    interactions: pa.Table,
    titles: pa.Table,
    *,
    impressions: pa.Table | None = None,
    acts: pa.Table | None = None,
    num_buckets: int = 2,
) -> Path:
    """Write what preparation leaves behind: interactions, impressions and acts by bucket, titles, the manifest."""
    shown = IMPRESSIONS.empty_table() if impressions is None else impressions
    done = EVENTS.empty_table() if acts is None else acts
    tables: dict[str, dict[str, list[dict[str, Any]]]] = {}
    for name, table in (("interactions", interactions), ("impressions", shown), ("acts", done)):
        tables[name] = {}
        actors = [actor_id(r["member_id"], r["session_id"]) for r in done.to_pylist()] if name == "acts" else None
        actors = table["actor_id"].to_pylist() if actors is None else actors
        bucket = np.array([zlib.crc32(a.encode()) % num_buckets for a in actors], dtype=np.int64)
        for number in range(num_buckets):
            part = table.filter(pa.array(bucket == number))
            file = f"{name}/bucket={number:04d}/part.parquet"
            write_parquet(part, folder / file)
            tables[name][f"bucket={number:04d}"] = [{"file": file, "run": 1}]
    write_parquet(titles, folder / "titles.parquet")
    actions = set(interactions["action"].to_pylist())
    targets = PLAY_LIKE if actions & PLAY_LIKE else ENGAGEMENT - {Action.THUMB_DOWN.value}
    again = interactions.num_rows - len(
        set(zip(interactions["actor_id"].to_pylist(), interactions["title_id"].to_pylist(), strict=True))
    )
    manifest = {
        "tables": tables,
        "target_actions": sorted(str(action) for action in targets),
        "repeats": again > 0.01 * interactions.num_rows,
        "counts": {"interactions": interactions.num_rows, "impressions": shown.num_rows, "titles": titles.num_rows},
    }
    write_json(manifest, folder / "manifest.json")
    return folder
