"""What the signals of a request cost: one at a time, in batches from the event log, and beside their readable twin."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa

from foretaste.contracts.catalogue import Catalogue, catalogue
from foretaste.contracts.columns import LOGGED_EVENTS, TITLES
from foretaste.contracts.sessions import SessionRule
from foretaste.feedback.session_log import SessionLogConfig
from foretaste.jobs.over_log import QUESTIONS, OverLog
from foretaste.signals.acts import acts_of_one
from foretaste.signals.signals import signals_of_one
from foretaste.signals.twin import twin_signals

BEGIN = 1_767_225_600_000_000
GENRES = tuple(f"genre {number}" for number in range(18))
ACTIONS = ("browse", "search", "detail", "play", "stop", "complete", "thumb_up", "add_to_list", "remove")
MEMBERS, EVENTS_A_MEMBER, TITLES_N = 200, 300, 2_000
RULE, LOG = SessionRule(), SessionLogConfig(read_events=200)


def signal_figures(*, quick: bool) -> dict[str, Any]:
    """Time the signals of requests and compare every value with the twin's; returns figures, bars and what was skipped.

    Medians of one request, in turn: `history_ms` (events to a history), `signals_ms` (beside it), `twin_ms`. Of many,
    with what was visible found in the event log: `batch_us` a request, histories included.
    """
    dice = np.random.default_rng(0)
    titles = _titles(dice)
    logged = _log(dice)
    asked = dice.integers(0, logged.num_rows, 300 if quick else 2_000)
    many = dice.integers(0, logged.num_rows, 4_000 if quick else 40_000)
    work = OverLog(lambda actors: logged, LOG, titles, RULE)
    begun = time.perf_counter()
    work(_questions(logged, many))
    batch_us = (time.perf_counter() - begun) / len(many) * 1e6
    one = _one_by_one(work, _questions(logged, asked), logged, titles)
    figures = {
        "requests": len(many),
        "read_events": LOG.read_events,
        "batch_us": round(batch_us, 1),
        **one,
        "twin_ratio": round(one["twin_ms"] / (one["history_ms"] + one["signals_ms"]), 1),
        "batch_ratio": round((one["history_ms"] + one["signals_ms"]) * 1e3 / batch_us, 1),
    }
    differ = figures["values_that_differ"]
    bars = {"values of signals that differ from the twin's": {"value": differ, "want": "0", "holds": differ == 0}}
    return {"figures": {"signals": figures}, "bars": bars, "skipped": {}}


def _one_by_one(work: OverLog, questions: pa.Table, logged: pa.Table, titles: Catalogue) -> dict[str, Any]:
    """Time requests one at a time, and count values that differ between the three ways."""
    batch = work(questions)
    names = [name for name in LOGGED_EVENTS.names if name != "received_at"]
    plain = logged.select(names).set_column(names.index("at"), "at", logged["at"].cast(pa.int64())).to_pylist()
    of: dict[str, list[dict[str, Any]]] = {}
    for row in plain:
        of.setdefault(row["actor_id"], []).append({key: value for key, value in row.items() if value is not None})
    taken: dict[str, list[float]] = {"history_ms": [], "signals_ms": [], "twin_ms": []}
    asof_B = questions["asof"].cast(pa.int64()).to_pylist()
    num, visible, differ = 0, 0, 0
    for place, (actor, asof) in enumerate(zip(questions["actor_id"].to_pylist(), asof_B, strict=True)):
        rows = [row for row in of[actor][-LOG.read_events :] if row["at"] < asof]
        known, ms = _timed(partial(acts_of_one, rows, asof=asof, catalogue=titles, rule=RULE))
        taken["history_ms"].append(ms + _timed(known.histories)[1])
        fast, ms = _timed(partial(signals_of_one, known, titles, RULE))
        taken["signals_ms"].append(ms)
        slow, ms = _timed(partial(twin_signals, rows, asof=asof, catalogue=titles, rule=RULE))
        taken["twin_ms"].append(ms)
        for name, values in slow.items():
            many = batch[name][place].values.to_numpy(zero_copy_only=False)
            num += 2 * values.size
            differ += int((values != fast[name]).sum()) + int((values != many).sum())
        visible += len(rows)
    medians = {name: round(statistics.median(ms), 4) for name, ms in taken.items()}
    return medians | {"visible": round(visible / len(asof_B), 1), "values": num, "values_that_differ": differ}


def _timed(work: Callable[[], Any]) -> tuple[Any, float]:
    begun = time.perf_counter()
    done = work()
    return done, (time.perf_counter() - begun) * 1e3


def _questions(logged: pa.Table, rows: np.ndarray[Any, Any]) -> pa.Table:
    """Ask as of some events, all that is in the log being known."""
    picked = logged.take(rows)
    marks = pa.array(np.full(len(rows), 2**53))
    return pa.table([picked["actor_id"], picked["at"], marks], names=QUESTIONS.names)


def _titles(dice: np.random.Generator) -> Catalogue:
    rows = [
        {
            "title_id": f"t{number:05d}",
            "kind": ("movie", "show")[number % 2],
            "genres": [str(one) for one in dice.choice(GENRES, int(dice.integers(1, 4)), replace=False)],
            "artworks": [],
        }
        for number in range(TITLES_N)
    ]
    return catalogue(pa.Table.from_pylist(rows, schema=TITLES))


def _log(dice: np.random.Generator) -> pa.Table:
    """Members who come back for sessions of some fifteen events; sorted by member and time."""
    num = MEMBERS * EVENTS_A_MEMBER
    pause = np.where(dice.uniform(size=num) < 1 / 15, dice.integers(1, 72, num) * 3_600, dice.integers(1, 600, num))
    at = BEGIN + np.cumsum(pause.reshape(MEMBERS, -1), axis=1).ravel() * 1_000_000
    action = dice.choice(ACTIONS, num)
    seen = np.isin(action, ("stop", "complete"))
    titled = ~np.isin(action, ("browse", "search"))
    columns: dict[str, Any] = {
        "actor_id": [f"m{number // EVENTS_A_MEMBER:04d}" for number in range(num)],
        "sequence": np.arange(1, num + 1),
        "received_at": at,
        "event_id": [f"e{number:07d}" for number in range(num)],
        "at": at,
        "action": action.tolist(),
        "title_id": [f"t{n % TITLES_N:05d}" if t else None for n, t in zip(dice.zipf(1.3, num), titled, strict=True)],
        "dwell_seconds": pa.array(dice.uniform(1, 5_000, num), mask=~seen),
        "played_fraction": pa.array(dice.uniform(0, 1, num), mask=~seen),
        "query": ["dark comedy" if one == "search" else None for one in action.tolist()],
    }
    full = [columns.get(name, pa.nulls(num, LOGGED_EVENTS.field(name).type)) for name in LOGGED_EVENTS.names]
    return pa.table(full, names=LOGGED_EVENTS.names).cast(LOGGED_EVENTS)
