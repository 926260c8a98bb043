"""The signals of a session are the same in a request, as a view computed on demand, and in a Ray task: to the byte."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from foretaste.contracts.catalogue import catalogue
from foretaste.contracts.columns import LOGGED_EVENTS
from foretaste.contracts.sessions import SessionRule
from foretaste.feedback.session_log import SessionLogConfig, visible
from foretaste.feedback.sqlite_session_log import SqliteSessionLog
from foretaste.jobs.over_log import QUESTIONS, OverLog
from foretaste.sessions.spread import _quiet
from foretaste.signals.blob import MAGIC, PROBE, answer, columns, decode, encode, know
from foretaste.signals.declared import SESSION_SIGNALS, SIGNALS_VERSION
from foretaste.signals.signals import session_signals
from foretaste.signals.snapshots import SnapshotConfig, build_snapshots
from foretaste.signals.store import FeatureStore
from foretaste.signals.twin import twin_signals
from foretaste.testing.acts import BEGIN, MINUTE, actor_events
from foretaste.testing.builders import prepared_folder, random_interactions, titles_table

REPO = Path(__file__).parents[2] / "features"
TITLES = titles_table(12)
KNOWN = catalogue(TITLES)
RULE = SessionRule(gap_minutes=25)
LIMIT = 20
NOW = datetime(2027, 1, 1, tzinfo=UTC)
LONG = actor_events(KNOWN, num=3 * LIMIT, seed=3)
CASES: dict[str, tuple[list[dict[str, Any]], int]] = {
    "a cold member": ([], BEGIN),
    "an empty session": (LONG[:9], LONG[8]["at"] + 26 * MINUTE),
    "one event": (LONG[:1], LONG[0]["at"] + 1),
    "more than are read": (LONG[-LIMIT:], LONG[-1]["at"] + MINUTE),
    "nothing that counts": ([LONG[0] | {"title_id": "unheard of"}], BEGIN + MINUTE),
}


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FeatureStore]:
    folder = tmp_path_factory.mktemp("view")
    prepared_folder(folder / "prepared", random_interactions(TITLES, actors=4), TITLES)
    build_snapshots(folder / "prepared", folder / "features", SnapshotConfig())
    made = FeatureStore(REPO, folder / "features")
    made.apply()
    yield made
    made.close()


def test_the_registered_view_gives_what_the_request_path_gives(store: FeatureStore) -> None:
    know(KNOWN)
    blobs = [encode(events, asof=asof, catalogue=KNOWN, rule=RULE) for events, asof in CASES.values()]
    feast = store._source.feast
    registered = feast.get_on_demand_feature_view("session_signals")
    assert registered.tags["signals_version"] == SIGNALS_VERSION
    named = [f"session_signals:{one.name}" for one in SESSION_SIGNALS]
    asked = feast.get_online_features(features=named, entity_rows=[{"session_blob": blob} for blob in blobs])
    online, direct = asked.to_dict(), registered.transform_dict({"session_blob": blobs})
    for row, (events, asof) in enumerate(CASES.values()):
        wanted = session_signals(events, asof=asof, catalogue=KNOWN, rule=RULE)
        for one in SESSION_SIGNALS:
            for found in (online[one.name][row], direct[one.name][row]):
                values = np.array(found, dtype=one.dtype).reshape(-1)
                assert values.tolist() == np.array(found).reshape(-1).tolist()
                assert values.tobytes() == wanted[one.name].tobytes(), one.name


def in_store(log: SqliteSessionLog, name: str, events: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Write a case as the events of one member, shuffled and in part twice; answers the rows of the event log."""
    mine = [event | {"member_id": name, "event_id": f"{name} {event['event_id']}"} for event in events]
    order = np.random.default_rng(len(mine)).permutation(len(mine)).tolist()
    for number in [*order, *order[::3]]:
        log.append([mine[number]], received_at=NOW)
    return mine


def logged(log: SqliteSessionLog) -> pa.Table:
    rows = [
        {"actor_id": one.actor_id, "sequence": one.sequence, "received_at": one.received_at} | one.event
        for one in log.pending(10_000)
    ]
    full = [{name: row.get(name) for name in LOGGED_EVENTS.names} for row in rows]
    return pa.Table.from_pylist(full, schema=LOGGED_EVENTS)


@pytest.fixture
def asked(tmp_path: Path) -> Iterator[tuple[SqliteSessionLog, pa.Table, OverLog]]:
    """A session log with all cases and more, questions about them, and what answers from the event log."""
    config = SessionLogConfig(read_events=LIMIT, window_days=None, durable=False)
    log = SqliteSessionLog(tmp_path / "sessions.db", config)
    questions = []
    for name, (events, asof) in CASES.items():
        mine = in_store(log, name, LONG if name == "more than are read" else events)
        instants = [asof, BEGIN, *(event["at"] + 1 for event in mine)]
        marks = [log.read(name, limit=1)[1], *(row["sequence"] for row in log.read(name, limit=1_000)[0])]
        questions += [(name, at, mark) for at, mark in itertools.product(instants[:6], marks[:9])]
    table = pa.table([pa.array(values) for values in zip(*questions, strict=True)], names=QUESTIONS.names)
    events = logged(log)
    yield log, table.cast(QUESTIONS), OverLog(lambda actors: events, config, KNOWN, RULE)
    log.close()


def same_as_requests(found: pa.Table, log: SqliteSessionLog) -> None:
    """Every row holds what a request would read of the session log at its instant and mark."""
    asof_B = found["asof"].cast(pa.int64()).to_pylist()
    for row, (actor, asof, mark) in enumerate(
        zip(found["actor_id"].to_pylist(), asof_B, found["mark"].to_pylist(), strict=True)
    ):
        rows, _ = log.read(actor, limit=LIMIT, before_us=asof, mark=mark)
        wanted = session_signals(rows, asof=asof, catalogue=KNOWN, rule=RULE)
        for one in SESSION_SIGNALS:
            values = found[one.name][row].values.to_numpy(zero_copy_only=False)
            assert (values.dtype, values.tobytes()) == (np.dtype(one.dtype), wanted[one.name].tobytes()), one.name


def test_the_event_log_gives_what_the_session_log_gave(asked: tuple[SqliteSessionLog, pa.Table, OverLog]) -> None:
    log, questions, work = asked
    found = work(questions)
    assert found.select(QUESTIONS.names).equals(questions)
    assert found.num_rows > 100
    same_as_requests(found, log)
    assert work(questions.slice(0, 0)).column_names == found.column_names


@settings(deadline=None, max_examples=40)
@given(st.data(), st.integers(0, 2**31), st.sampled_from([LIMIT - 1, LIMIT, LIMIT + 1]))
def test_the_newest_that_count_are_cut_before_time_and_after_the_mark(data: Any, seed: int, num: int) -> None:
    active = [event for event in actor_events(KNOWN, num=3 * num, seed=seed) if event["action"] != "impression"]
    events = [*active[:num], *(event | {"action": "impression"} for event in active[num:])]
    table = pa.Table.from_pylist(
        [
            {name: (event | {"actor_id": "m", "received_at": NOW}).get(name) for name in LOGGED_EVENTS.names}
            for event in events
        ],
        schema=LOGGED_EVENTS,
    )
    asof = data.draw(st.sampled_from([event["at"] for event in events])) + data.draw(st.sampled_from([0, 1]))
    mark, days = data.draw(st.integers(0, 3 * num)), data.draw(st.sampled_from([None, 0.5, 3.0]))
    log = SessionLogConfig(read_events=LIMIT, window_days=days)
    asked = pa.table([["m"], pa.array([asof]), [mark]], names=QUESTIONS.names).cast(QUESTIONS)
    found = OverLog(lambda actors: table, log, KNOWN, RULE)(asked)
    seen = visible(events, limit=LIMIT, mark=mark, before_us=asof, window_us=log.window_us("m"))
    wanted = twin_signals(seen, asof=asof, catalogue=KNOWN, rule=RULE)
    for name, values in wanted.items():
        assert found[name][0].values.to_numpy(zero_copy_only=False).tobytes() == values.tobytes(), name


@pytest.mark.cluster
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # Ray Data trips over its own on making a context
def test_a_ray_task_gives_what_the_request_path_gives(
    asked: tuple[SqliteSessionLog, pa.Table, OverLog], local_ray: None
) -> None:
    import ray.data

    _quiet()
    log, questions, work = asked
    blocks = [questions.slice(first, 50) for first in range(0, questions.num_rows, 50)]
    spread = ray.data.from_arrow(blocks).map_batches(work, batch_format="pyarrow", batch_size=None)
    found = pa.concat_tables(ray.get(spread.to_arrow_refs()))
    keys = [(name, "ascending") for name in QUESTIONS.names]
    assert found.select(QUESTIONS.names).sort_by(keys).equals(questions.sort_by(keys))
    same_as_requests(found, log)


@given(st.integers(0, 2**31), st.integers(0, 30))
@settings(deadline=None, max_examples=30)
def test_a_blob_holds_all_that_signals_read(seed: int, num: int) -> None:
    know(KNOWN)
    events = actor_events(KNOWN, num=num, seed=seed)
    blob = encode(events, asof=BEGIN + 99 * MINUTE, catalogue=KNOWN, rule=RULE)
    wanted = session_signals(events, asof=BEGIN + 99 * MINUTE, catalogue=KNOWN, rule=RULE)
    assert {name: values.tobytes() for name, values in answer(blob).items()} == {
        name: values.tobytes() for name, values in wanted.items()
    }
    assert b"sequence" not in blob


OTHER = encode([], asof=BEGIN, catalogue=catalogue(titles_table(3)), rule=RULE)
GOOD = encode([], asof=BEGIN, catalogue=KNOWN, rule=RULE)


@pytest.mark.parametrize(
    ("blob", "message"),
    [
        (b"", "begins with b''"),
        (PROBE, "begins with b'hello world'"),
        (MAGIC + b"{", "cannot be read"),
        (MAGIC + b"[]", "cannot be read"),
        (MAGIC + b"{}", "cannot be read: 'signals'"),
        (GOOD.replace(SIGNALS_VERSION.encode(), b"123456789abc"), f"signals 123456789abc, here are {SIGNALS_VERSION}"),
        (GOOD.replace(b"gap_minutes", b"gap_seconds"), "gap_seconds"),
        (GOOD.replace(b'"events":[]', b'"events":7'), "events"),
        (GOOD.replace(b'"events":[]', b'"events":[{"event_id":"e","at":1.5,"action":"play"}]'), "events.0.at"),
        (GOOD.replace(b'"asof":', b'"as_of":'), "asof"),
        (OTHER, "known are"),
    ],
)
def test_a_blob_that_cannot_be_answered_says_why(blob: bytes, message: str) -> None:
    know(KNOWN)
    with pytest.raises(ValueError, match=re.escape(message)):
        answer(blob)


def test_a_probe_shows_the_types() -> None:
    shown = columns([PROBE])
    assert list(shown) == [one.name for one in SESSION_SIGNALS]
    assert decode(GOOD).asof == BEGIN
