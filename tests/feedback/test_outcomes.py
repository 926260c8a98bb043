"""Decisions joined with what followed: the fast join equals a slow one that can be read, whatever the log."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from foretaste.contracts.columns import ACKS, DECISIONS, EVENTS, EXPOSED, IMPRESSIONS, OUTCOMES, REPORTED, TITLES
from foretaste.contracts.events import ENGAGEMENT, PASSIVE
from foretaste.feedback.exposures import exposed_of_both, exposed_of_decisions, exposed_of_impressions
from foretaste.feedback.outcome_config import OutcomeConfig
from foretaste.feedback.outcomes import CENSORED, RETURN_DAYS, WITHIN_WINDOW, no_reports, outcomes
from foretaste.feedback.title_genres import TitleGenres

Row = dict[str, Any]
START = datetime(2026, 3, 1, tzinfo=UTC)
MINUTE, HOUR, DAY = timedelta(minutes=1), timedelta(hours=1), timedelta(days=1)
CONFIG = OutcomeConfig(window_hours=24)
LOGGED = pa.schema([pa.field("actor_id", pa.string()), pa.field("received_at", pa.timestamp("us", "UTC")), *EVENTS])
WATCHES = ("play", "stop", "complete")
CATALOGUE = TitleGenres.of(
    pa.Table.from_pylist(
        [
            {"title_id": "a", "kind": "movie", "genres": ["drama"], "artworks": []},
            {"title_id": "b", "kind": "movie", "genres": ["drama", "crime"], "artworks": []},
            {"title_id": "s", "kind": "show", "genres": ["comedy"], "artworks": []},
            {"title_id": "s1", "kind": "episode", "genres": ["comedy"], "artworks": [], "series_id": "s"},
        ],
        schema=TITLES,
    )
)
GENRES = {"a": {"drama"}, "b": {"drama", "crime"}, "s": {"comedy"}}


def exposed(decision_id: str, title_id: str, at: datetime = START, **values: Any) -> Row:
    row = {"decision_id": decision_id, "title_id": title_id, "at": at, "actor_id": "m", "member_id": "m"}
    return row | {"session_id": "v1", "surface": "home", "position": 0, "propensity": 0.5} | values


def event(number: int, action: str, at: datetime, title_id: str | None = "a", **values: Any) -> Row:
    row = {"event_id": f"e{number}", "action": action, "at": at, "title_id": title_id, "actor_id": "m"}
    return row | {"member_id": "m", "session_id": "v1", "received_at": at + MINUTE} | values


def joined(rows: list[Row], events: list[Row], *, as_of: datetime, reported: list[Row] | None = None) -> list[Row]:
    told = pa.Table.from_pylist(reported, schema=REPORTED) if reported else no_reports()
    found = outcomes(
        pa.Table.from_pylist(rows, schema=EXPOSED),
        pa.Table.from_pylist(events, schema=LOGGED),
        told,
        CATALOGUE,
        as_of=as_of,
        config=CONFIG,
    )
    assert found.schema == OUTCOMES
    result: list[Row] = found.to_pylist()
    return result


def test_what_happened_is_certain_at_once_and_what_did_not_only_when_its_window_has_closed() -> None:
    played = event(1, "play", START + HOUR, decision_id="d")
    (early,) = joined([exposed("d", "a")], [played], as_of=START + 2 * HOUR)
    assert early["played_at"] == START + HOUR
    assert early["matched"] == "decision"
    assert {"play", "click"}.isdisjoint(early["open"])
    assert {"complete", "abandon", "thumb_up", "return_7d"} <= set(early["open"])
    (closed,) = joined([exposed("d", "a")], [played], as_of=START + 25 * HOUR)
    assert closed["open"] == ["return_7d", "return_30d"]
    assert closed["completed_at"] is None


def test_what_arrives_after_the_instant_is_not_known_then() -> None:
    late = event(1, "play", START + HOUR, decision_id="d", received_at=START + 5 * HOUR)
    assert joined([exposed("d", "a")], [late], as_of=START + 4 * HOUR)[0]["played_at"] is None
    assert joined([exposed("d", "a")], [late], as_of=START + 6 * HOUR)[0]["played_at"] is not None


def test_an_event_belongs_to_the_decision_it_names_then_to_the_one_it_follows_then_to_the_newest_that_showed_it() -> (
    None
):
    rows = [
        exposed("d1", "a"),
        exposed("d2", "a", START + HOUR),
        exposed("d3", "a", START + 2 * HOUR, shown=False),
        exposed("d4", "b", START + HOUR),
    ]
    events = [
        event(1, "play", START + HOUR + MINUTE, decision_id="d1"),
        event(2, "complete", START + 3 * HOUR, played_fraction=1.0),  # after its play, in its session
        event(3, "detail", START + 4 * HOUR, session_id="v2"),  # of another session: the newest that showed it
        event(4, "thumb_up", START + 4 * HOUR, "b", decision_id="of nobody"),
    ]
    found = {row["decision_id"]: row for row in joined(rows, events, as_of=START + 5 * HOUR)}
    assert found["d1"]["completed_at"] == START + 3 * HOUR
    assert found["d1"]["matched"] == found["d1"]["matched"] == "decision"
    assert (found["d2"]["clicked_at"], found["d2"]["matched"]) == (START + 4 * HOUR, "window")
    assert found["d3"]["clicked_at"] is None
    assert (found["d4"]["thumbed_up_at"], found["d4"]["matched"]) == (START + 4 * HOUR, "window")


def test_a_title_left_early_is_abandoned_unless_it_is_taken_up_again() -> None:
    left = event(1, "stop", START + HOUR, decision_id="d", played_fraction=0.1)
    again = event(2, "stop", START + 3 * HOUR, played_fraction=0.8)
    after = START + 2 * DAY
    assert joined([exposed("d", "a")], [left], as_of=after)[0]["abandoned_at"] == START + HOUR
    assert joined([exposed("d", "a")], [left], as_of=START + 2 * HOUR)[0]["abandoned_at"] is None
    assert joined([exposed("d", "a")], [left, again], as_of=after)[0]["abandoned_at"] is None


def test_a_discovery_is_a_played_title_of_a_genre_that_was_never_played_before() -> None:
    rows = [exposed("d", "a", START + DAY), exposed("d", "b", START + DAY, position=1)]
    events = [event(1, "play", START), event(2, "play", START + DAY + HOUR), event(3, "play", START + DAY + HOUR, "b")]
    known, new = joined(rows, events, as_of=START + 3 * DAY)
    assert known["discovered_at"] is None  # drama was played the day before
    assert new["discovered_at"] == START + DAY + HOUR  # crime was not


def test_a_return_is_the_next_session_after_the_decisions_own_has_ended() -> None:
    events = [event(1, "play", START + HOUR), event(2, "search", START + 3 * DAY, None, session_id="v2")]
    (row,) = joined([exposed("d", "a")], events, as_of=START + 4 * DAY)
    assert (row["session_ended_at"], row["returned_at"]) == (START + HOUR, START + 3 * DAY)
    assert not set(RETURN_DAYS) & set(row["open"])
    guest = exposed("d", "a", actor_id="guest:v1", member_id=None)
    (row,) = joined([guest], [], as_of=START + HOUR)
    assert row["session_ended_at"] is None
    assert not set(RETURN_DAYS) & set(row["open"])


def test_what_is_reported_of_a_decision_is_of_all_its_titles_and_the_newest_counts() -> None:
    def report(number: int, feedback: str, value: float, title_id: str | None = None, hours: int = 1) -> Row:
        row = {"reward_id": f"r{number}", "decision_id": "d", "session_id": "v1", "decided_at": START}
        at = START + hours * HOUR
        return row | {"title_id": title_id, "feedback": feedback, "value": value, "at": at, "received_at": at}

    reports = [report(1, "survey", 3.0), report(2, "survey", 5.0, hours=2), report(3, "liked", 1.0, "b")]
    rows = [exposed("d", "a"), exposed("d", "b", position=1)]
    told = joined(rows, [], as_of=START + 3 * HOUR, reported=reports)
    assert [[(one["feedback"], one["value"]) for one in row["reported"]] for row in told] == [
        [("survey", 5.0)],
        [("liked", 1.0), ("survey", 5.0)],
    ]


@pytest.mark.parametrize("seed", range(6))
def test_the_join_equals_its_slow_twin_whatever_the_log_and_its_order(seed: int) -> None:
    rng = np.random.default_rng(seed)
    rows, events = _random_log(rng)
    for as_of in (START + 2 * DAY, START + 20 * DAY):
        fast = joined(rows, events, as_of=as_of)
        shuffled = [events[i] for i in rng.permutation(len(events))]
        again = joined([rows[i] for i in rng.permutation(len(rows))], shuffled + shuffled[:5], as_of=as_of)
        assert fast == again
        slow = {(row["decision_id"], row["title_id"]): row for row in _slow(rows, events, as_of)}
        assert len(fast) == len(slow)
        for row in fast:
            wanted = slow[row["decision_id"], row["title_id"]]
            assert {name: row[name] for name in wanted} == wanted


def test_exposures_come_from_decisions_with_their_acks_and_from_impressions_that_name_a_decision() -> None:
    item = {"score": 1.0, "propensity": 0.5, "source": "model", "explored": False}
    decision = {
        "decision_id": "d", "member_id": None, "session_id": "v", "surface": "home", "at": START, "request": "{}",
        "candidates": [], "candidate_scores": [], "slate_propensity": 1.0, "policy": "p", "policy_version": "1",
        "policy_params": "{}", "explored": False, "seed": 1, "features": [], "sequence_mark": 0,
        "num_events_visible": 0, "timings": [],
        "items": [item | {"title_id": title, "position": place} for place, title in enumerate(("a", "b"))],
    }  # fmt: skip
    ack = {
        "decision_id": "d", "session_id": "v", "surface": "home", "decided_at": START, "title_id": "a",
        "position": 0, "propensity": 0.5, "shown_at": START + MINUTE, "received_at": START + MINUTE,
    }  # fmt: skip
    decisions, none = pa.Table.from_pylist([decision], schema=DECISIONS), ACKS.empty_table()
    assert exposed_of_decisions(decisions, none)["shown"].to_pylist() == [None, None]
    acked = exposed_of_decisions(decisions, pa.Table.from_pylist([ack, ack], schema=ACKS))
    assert acked["shown"].to_pylist() == [True, False]
    assert acked["actor_id"].to_pylist() == ["guest:v"] * 2
    seen = {"actor_id": "guest:v", "session_id": "v", "at": START + MINUTE, "title_id": "b", "decision_id": "d"}
    other = seen | {"actor_id": "m", "decision_id": "w", "title_id": "a", "position": 2, "propensity": 0.25}
    impressed = exposed_of_impressions(pa.Table.from_pylist([seen, other, seen], schema=IMPRESSIONS))
    assert impressed.num_rows == 2
    both = exposed_of_both(exposed_of_decisions(decisions, none), impressed).to_pylist()
    assert [(row["decision_id"], row["title_id"], row["shown"]) for row in both] == [
        ("d", "a", False),
        ("d", "b", True),
        ("w", "a", True),
    ]


def _random_log(rng: np.random.Generator) -> tuple[list[Row], list[Row]]:
    rows, events, titles = [], [], ["a", "b", "s"]
    for number in range(12):
        at = START + timedelta(minutes=int(rng.integers(0, 6 * 1_440)))
        guest = rng.random() < 0.2
        session = f"v{number // 2}" if not guest else f"g{number}"
        who: Row = {"actor_id": f"guest:{session}" if guest else f"m{number % 2}", "session_id": session}
        who |= {"member_id": None if guest else who["actor_id"]}
        shown = [None, True, False][int(rng.integers(0, 3))]
        for place, title in enumerate(rng.permutation(titles)[:2].tolist()):
            rows.append(exposed(f"d{number}", title, at, position=place, shown=shown, **who))
    actions = ["play", "stop", "complete", "detail", "thumb_up", "thumb_down", "add_to_list", "search", "impression"]
    for number in range(150):
        near = rows[int(rng.integers(0, len(rows)))]
        at = near["at"] + timedelta(minutes=int(rng.integers(-60, 3_000)))
        action = str(rng.choice(actions))
        session = [near["session_id"], f"v{int(rng.integers(0, 6))}", None][int(rng.integers(0, 3))]
        if near["member_id"] is None:
            session = near["session_id"]
        watched = {"dwell_seconds": float(rng.integers(1, 900)), "played_fraction": round(float(rng.random()), 2)}
        events.append(
            event(
                number,
                action,
                at,
                None if action == "search" else str(rng.choice([*titles, "s1"])),
                actor_id=near["actor_id"],
                member_id=near["member_id"],
                session_id=session,
                decision_id=near["decision_id"] if rng.random() < 0.3 else None,
                received_at=at + timedelta(minutes=int(rng.integers(0, 600))),
                **(watched if action in ("stop", "complete") else {}),
            )
        )
    return rows, events


def _slow(rows: list[Row], events: list[Row], as_of: datetime) -> list[Row]:
    """The definition, one row and one event at a time."""
    known = [e for e in events if e["at"] < as_of and e["received_at"] < as_of and e["action"] not in PASSIVE]
    known = sorted(known, key=lambda e: (e["at"], e["event_id"]))
    known = [e | {"title_id": "s" if e["title_id"] == "s1" else e["title_id"]} for e in known]
    rows = [row for row in rows if row["at"] < as_of]
    owner: dict[str, tuple[Row, str]] = {}
    acts = [e for e in known if e["action"] in ENGAGEMENT and e["title_id"] is not None]
    for e in acts:
        for row in rows:
            same = row["decision_id"] == e["decision_id"] and _same(row, e)
            if same and row["at"] - 10 * MINUTE <= e["at"] < row["at"] + DAY:
                owner[e["event_id"]] = (row, "decision")
    led = [(e, owner[e["event_id"]][0]) for e in acts if e["event_id"] in owner]
    for e in acts:
        if e["event_id"] in owner:
            continue
        before = [
            (l["at"], l["event_id"], row)
            for l, row in led
            if _same(l, e) and l["session_id"] == e["session_id"] is not None and l["at"] <= e["at"]
        ]
        newest = max(before, key=lambda one: one[:2])[2] if before else None
        if newest is not None and e["at"] < newest["at"] + DAY:
            owner[e["event_id"]] = (newest, "decision")
            continue
        offered = [
            (row["at"], row["decision_id"], row)
            for row in rows
            if _same(row, e) and row["shown"] is not False and row["at"] <= e["at"]
        ]
        if offered and e["at"] < (row := max(offered, key=lambda one: one[:2])[2])["at"] + DAY:
            owner[e["event_id"]] = (row, "window")
    return [
        _outcome(row, [(e, *owner[e["event_id"]]) for e in acts if e["event_id"] in owner], known, as_of)
        for row in rows
    ]


def _same(left: Mapping[str, Any], right: Mapping[str, Any]) -> bool:
    return bool(left["actor_id"] == right["actor_id"] and left["title_id"] == right["title_id"])


def _outcome(row: Row, owned: list[tuple[Row, Row, str]], known: list[Row], as_of: datetime) -> Row:
    own = [(e, how) for e, of, how in owned if of is row]
    mine = [e for e, _ in own]
    watched = [e for e in mine if e["action"] in WATCHES]
    fractions = [e["played_fraction"] for e in watched if e.get("played_fraction") is not None]
    done = [e for e in watched if e["action"] == "complete" or (e.get("played_fraction") or 0.0) >= 0.9]

    def first(some: list[Row]) -> datetime | None:
        return some[0]["at"] if some else None

    thumbs = sorted((e["at"], e["action"] == "thumb_down") for e in mine if e["action"] in ("thumb_up", "thumb_down"))
    closes = row["at"] + DAY
    stops = [e for e in mine if e["action"] == "stop"]
    left = bool(watched) and max(fractions, default=0.0) < 0.5 and not done and closes <= as_of
    before = {
        genre
        for e in known
        if e["actor_id"] == row["actor_id"] and e["action"] in WATCHES and e["at"] < row["at"]
        for genre in GENRES[e["title_id"]]
    }
    found: Row = {
        "matched": min((how for _, how in own), default=None),
        "clicked_at": first(mine),
        "played_at": first(watched),
        "completed_at": first(done),
        "listed_at": first([e for e in mine if e["action"] == "add_to_list"]),
        "thumbed_up_at": thumbs[-1][0] if thumbs and not thumbs[-1][1] else None,
        "thumbed_down_at": thumbs[-1][0] if thumbs and thumbs[-1][1] else None,
        "abandoned_at": stops[-1]["at"] if left and stops else None,
        "discovered_at": first(watched) if watched and GENRES[row["title_id"]] - before else None,
        "num_plays": sum(e["action"] == "play" for e in mine),
        "num_completions": len(done),
        "played_fraction": max(fractions, default=None),
        "dwell_seconds": sum(e.get("dwell_seconds") or 0.0 for e in watched) if watched else None,
        "decision_id": row["decision_id"],
        "title_id": row["title_id"],
    }
    ended = returned = None
    if row["member_id"] is not None:
        ended, returned = _return(row, [e for e in known if e["actor_id"] == row["actor_id"]])
    found |= {"session_ended_at": ended, "returned_at": returned}
    certain = {"click": "clicked_at", "play": "played_at", "complete": "completed_at", "add_to_list": "listed_at"}
    certain |= {"discovery": "played_at", "abandon": "completed_at"}
    opened = [
        name for name in WITHIN_WINDOW if closes > as_of and (name not in certain or found[certain[name]] is None)
    ]
    if ended is not None and returned is None:
        opened += [name for name, days in RETURN_DAYS.items() if ended + days * DAY > as_of]
    assert set(opened) <= set(CENSORED)
    return found | {"open": opened}


def _return(row: Row, mine: list[Row]) -> tuple[datetime, datetime | None]:
    visits: dict[str, list[datetime]] = {}
    last, number = None, 0
    for e in mine:
        if e["session_id"] is None and (last is None or e["at"] - last >= 30 * MINUTE):
            number += 1
        visits.setdefault(e["session_id"] or f"own {number}", []).append(e["at"])
        last = e["at"]
    ended = max([row["at"], *visits.get(row["session_id"], [])])
    starts = [
        (times[0] - (30 * MINUTE if name.startswith("own") else 0 * MINUTE), times[0]) for name, times in visits.items()
    ]
    later = sorted(one for one in starts if one[0] > ended)
    return ended, later[0][1] if later else None
