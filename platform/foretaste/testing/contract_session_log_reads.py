"""What a session log keeps of appends and reads: order, repetition, marks, the window and its bounds."""

from __future__ import annotations

import random
from contextlib import closing
from datetime import timedelta
from typing import Any

from foretaste.feedback.session_log import (
    DAY_US,
    LoggedEvent,
    microseconds,
    visible,
)
from foretaste.testing.session_log_events import (
    CONFIG,
    LATER,
    NOW,
    NOW_US,
    K,
    Opener,
    drain,
    duplicates,
    event,
    expected,
    ids_of,
)


def append_is_idempotent(opener: Opener) -> None:
    """The same event again is a duplicate with the first one's sequence and changes nothing."""
    with closing(opener(CONFIG)) as log:
        first = log.append([event("a", 1), event("b", 2), event("a", 1)], received_at=NOW)
        assert duplicates(first) == [False, False, True], first
        assert first[0].sequence == first[2].sequence < first[1].sequence, first
        again = log.append([event("b", 2), event("c", 3)], received_at=NOW)
        assert duplicates(again) == [True, False], again
        assert again[0].sequence == first[1].sequence < again[1].sequence, again
        assert duplicates(log.append([event("a", 1, member_id="m2")], received_at=NOW)) == [False], "unique per actor"
        rows, mark = log.read("m1", limit=K)
        assert ids_of(rows) == ["a", "b", "c"]
        assert mark >= again[1].sequence
        assert log.append([], received_at=NOW) == []


def a_sequence_is_the_time_of_arrival_or_the_next(opener: Opener) -> None:
    """It is at least the microseconds of arrival and above all of the actor before, whatever the clock does."""
    with closing(opener(CONFIG)) as log:
        results = log.append([event("a", 1), event("b", 2)], received_at=NOW)
        results += log.append([event("c", 3)], received_at=NOW - timedelta(days=1))
        results += log.append([event("d", 4)], received_at=NOW + timedelta(seconds=1))
        assert [result.sequence for result in results] == [NOW_US, NOW_US + 1, NOW_US + 2, NOW_US + 1_000_000], results


def rows_come_back_as_they_were(opener: Opener) -> None:
    """Every column that was not null is there, with the sequence; text of any script survives."""
    full = event(
        "ä\u2028😀",
        7,
        title_id="t1",
        query="Käse 芝士 \u202eعربي",
        played_fraction=0.1,
        dwell_seconds=1e-300,
        position=3,
    ) | {"properties": '{"a": 1}', "session_id": "s{1}:\\\"' %s", "member_id": "члeн {b}"}
    with closing(opener(CONFIG)) as log:
        (result,) = log.append([full | {"device": None}], received_at=NOW)
        rows, _ = log.read("члeн {b}", limit=K)
        assert rows == [full | {"sequence": result.sequence}], rows
        (logged,) = log.pending(10)
        assert logged == LoggedEvent("члeн {b}", result.sequence, NOW_US, full), logged


def guests_have_the_history_of_their_session(opener: Opener) -> None:
    """Without a member the actor is the guest of the session."""
    with closing(opener(CONFIG)) as log:
        log.append([event("a", 1, member_id=None)], received_at=NOW)
        assert ids_of(log.read("guest:s1", limit=K)[0]) == ["a"]
        assert log.read("m1", limit=K)[0] == []


def a_bad_row_is_refused_by_its_column_with_the_whole_batch(opener: Opener) -> None:
    """Nothing of the batch is stored, so that what is stored can be read and shipped."""
    bad: list[tuple[str, dict[str, Any]]] = [
        ("member_id", {"session_id": None, "member_id": None}),
        ("event_id", {"event_id": None}),
        ("event_id", {"event_id": ""}),
        ("event_id", {"event_id": 7}),
        ("event_id", {"event_id": "x" * 841}),
        ("member_id", {"member_id": ""}),
        ("at", {"at": None}),
        ("at", {"at": "now"}),
        ("at", {"at": 1.5}),
        ("at", {"at": True}),
        ("at", {"at": -1}),
        ("at", {"at": 2**53}),
        ("action", {"action": None}),
        ("title_id", {"title_id": 5}),
        ("position", {"position": 2**31}),
        ("dwell_seconds", {"dwell_seconds": float("nan")}),
        ("dwell_seconds", {"dwell_seconds": float("inf")}),
        ("played_fraction", {"played_fraction": 1.01}),
        ("colour", {"colour": "red"}),
        ("query", {"query": "\ud800"}),
    ]
    with closing(opener(CONFIG)) as log:
        for name, change in bad:
            try:
                log.append([event("b", 2), event("c", 3) | change], received_at=NOW)
            except ValueError as error:
                message = str(error)
            else:
                raise AssertionError(f"an event with {change} was not refused")
            assert name in message, f"{change}: the message does not name {name}: {message}"
        assert log.read("m1", limit=K)[0] == [], "a refused batch left something behind"
        assert log.pending(10) == []


def any_order_and_repetition_reads_the_same(opener: Opener) -> None:
    """Permuted, duplicated and split over batches and two writers, a set of events reads the same."""
    dice = random.Random(0)
    everything: list[dict[str, Any]] = []
    with closing(opener(CONFIG)) as one, closing(opener(CONFIG)) as other:
        for round_number in range(40):
            member = f"m{round_number}"
            events = [event(f"e{n}", dice.randrange(6), member_id=member) for n in range(dice.randrange(1, 12))]
            everything += events
            sent = [*events, *dice.choices(events, k=4)]
            dice.shuffle(sent)
            while sent:
                size = dice.randrange(1, 5)
                dice.choice([one, other]).append(sent[:size], received_at=NOW)
                sent = sent[size:]
            rows, mark = one.read(member, limit=K)
            assert ids_of(rows) == expected(events, member, limit=K), f"{member}: {events}"
            assert other.read(member, limit=K) == (rows, mark)
            stored = one.read(member, limit=100)[0]
            assert len({row["sequence"] for row in stored}) == len(stored) == len(events)
        shipped = {(logged.actor_id, logged.event["event_id"]) for logged in drain(one)}
        assert shipped == {(e["member_id"], e["event_id"]) for e in everything}


def a_read_is_cut_at_k(opener: Opener) -> None:
    """At K - 1, K and K + 1 events; the cut comes before the filter by time."""
    with closing(opener(CONFIG)) as log:
        for count in range(1, K + 3):
            log.append([event(f"e{count}", 100 - count)], received_at=NOW)
            wanted = expected([event(f"e{n}", 100 - n) for n in range(1, count + 1)], "m1", limit=K)
            assert ids_of(log.read("m1", limit=K)[0]) == wanted, count
        newest = ids_of(log.read("m1", limit=K)[0])
        assert newest == ["e5", "e4", "e3", "e2", "e1"]
        assert ids_of(log.read("m1", limit=K, before_us=97)[0]) == ["e5", "e4"], "before_us is exclusive"
        assert ids_of(log.read("m1", limit=2, before_us=99)[0]) == ["e2"], "cut to K before filtering by time"
        assert log.read("nobody", limit=K)[0] == []


def ties_in_time_go_by_the_bytes_of_the_id(opener: Opener) -> None:
    """Also beyond ASCII, with the cut within the tie, and at times that only differ in their last digit."""
    names = ["b", "a", "B", "é", "z", "ｚ", "😀", "10", "9"]
    with closing(opener(CONFIG)) as log:
        log.append([event(name, 5) for name in names], received_at=NOW)
        assert ids_of(log.read("m1", limit=K)[0]) == sorted(names, key=str.encode)[-K:]
        last = 2**53 - 1
        late = [event("z", last - 2), event("a", last), event("k", last - 1)]
        log.append([one | {"member_id": "m2"} for one in late], received_at=NOW)
        assert [(row["event_id"], row["at"]) for row in log.read("m2", limit=2)[0]] == [("k", last - 1), ("a", last)]


def impressions_are_stored_and_shipped_and_never_read(opener: Opener) -> None:
    """They take no place among the K, and the same impression again is a duplicate."""
    shown = [event(f"i{n}", 50 + n, action="impression", title_id="t1") for n in range(2 * K)]
    config = CONFIG.model_copy(update={"stored_impressions": K})
    with closing(opener(config)) as log:
        log.append([event("a", 1), *shown], received_at=NOW)
        assert ids_of(log.read("m1", limit=K)[0]) == ["a"]
        again = log.append([shown[-1]], received_at=NOW)
        assert duplicates(again) == [True]
        assert len(drain(log)) == 2 * K + 1
        assert duplicates(log.append(shown[-K:], received_at=NOW)) == [True] * K, "a kept impression was forgotten"
        assert drain(log) == []
        assert log.delete("m1", until_us=LATER) == K + 1


def a_mark_shows_what_was_visible_then(opener: Opener) -> None:
    """After any later appends, a read with an old mark gives exactly what that read gave."""
    dice = random.Random(1)
    seen = []
    with closing(opener(CONFIG)) as log:
        for number in range(30):
            log.append([event(f"e{number}", dice.randrange(10))], received_at=NOW)
            log.append([event(f"o{number}", 1, member_id="m2")], received_at=NOW)
            seen.append(log.read("m1", limit=K))
        stored = [logged.event | {"sequence": logged.sequence} for logged in drain(log) if logged.actor_id == "m1"]
        for rows, mark in seen:
            assert log.read("m1", limit=K, mark=mark)[0] == rows
            assert all(row["sequence"] <= mark for row in rows)
            twin = visible(stored, limit=K, mark=mark, before_us=LATER, window_us=None)
            assert rows == twin, f"the shipped events up to {mark} do not give what was read"
        assert log.read("m1", limit=K, mark=0)[0] == []
        assert log.read("m1", limit=K, mark=LATER)[0] == seen[-1][0], "a mark of the future is the present"
        marks = [mark for _, mark in seen]
        assert marks == sorted(marks)


def a_reopened_log_goes_on(opener: Opener) -> None:
    """Rows, sequences and idempotence survive a close."""
    with closing(opener(CONFIG)) as log:
        log.append([event("a", 1), event("b", 2)], received_at=NOW)
    with closing(opener(CONFIG)) as log:
        results = log.append([event("a", 1), event("c", 3)], received_at=NOW)
        assert duplicates(results) == [True, False]
        assert results[1].sequence > results[0].sequence
        assert ids_of(log.read("m1", limit=K)[0]) == ["a", "b", "c"]


def the_window_is_by_event_time_and_exact(opener: Opener) -> None:
    """At its edge an event is visible, a microsecond before it is not; of guests the window is their own."""
    config = CONFIG.model_copy(update={"window_days": 2.0, "guest_days": 1.0})
    with closing(opener(config)) as log:
        for member_id, actor, days in (("m1", "m1", 2), (None, "guest:s1", 1)):
            edge = NOW_US - days * DAY_US
            sent = [event("out", edge - 1), event("edge", edge), event("in", edge + 1), event("now", NOW_US)]
            log.append([one | {"member_id": member_id} for one in sent], received_at=NOW)
            assert ids_of(log.read(actor, limit=K, before_us=NOW_US)[0]) == ["edge", "in"], actor
            assert ids_of(log.read(actor, limit=K, before_us=NOW_US + 1)[0]) == ["in", "now"], actor
            assert ids_of(log.read(actor, limit=2, before_us=NOW_US + 1)[0]) == ["in", "now"], actor
            assert ids_of(log.read(actor, limit=1, before_us=NOW_US)[0]) == [], "cut before the window"
            assert ids_of(log.read(actor, limit=K)[0]) == ["out", "edge", "in", "now"], actor


def what_is_too_old_is_shipped_and_never_read(opener: Opener) -> None:
    """It is accepted, has a sequence, and comes out of the other end."""
    config = CONFIG.model_copy(update={"window_days": 1.0})
    with closing(opener(config)) as log:
        results = log.append([event("old", NOW_US - 3 * DAY_US), event("new", NOW_US)], received_at=NOW)
        assert duplicates(results) == [False, False]
        assert ids_of(log.read("m1", limit=K, before_us=NOW_US + 1)[0]) == ["new"]
        assert {(one.event["event_id"], one.sequence) for one in drain(log)} == {
            ("old", results[0].sequence),
            ("new", results[1].sequence),
        }


def old_events_expire_and_sequences_go_on(opener: Opener) -> None:
    """What no answer can see goes, once it is shipped; an actor's next event has a higher sequence all the same."""
    config = CONFIG.model_copy(update={"window_days": 1.0})
    later = NOW + timedelta(days=10)
    with closing(opener(config)) as log:
        results = log.append([event("old", NOW_US), event("older", NOW_US - 5, member_id="m2")], received_at=NOW)
        mark = log.read("m1", limit=K)[1]
        log.expire(now=later)
        assert {one.event["event_id"] for one in drain(log)} == {"old", "older"}, "expired before it was shipped"
        log.expire(now=later)
        assert log.read("m1", limit=K, before_us=microseconds(later))[0] == []
        more = log.append([event("next", microseconds(later))], received_at=NOW)
        assert more[0].sequence > max(result.sequence for result in results)
        assert log.read("m1", limit=K)[1] > mark


def what_is_stored_is_bounded(opener: Opener) -> None:
    """Past stored_events the oldest go, and the newest K read the same, whenever events are shipped."""
    config = CONFIG.model_copy(update={"stored_events": K + 2})
    dice = random.Random(2)
    events = [event(f"e{n:02d}", dice.randrange(15)) for n in range(40)]
    with closing(opener(config)) as log:
        shipped = []
        for start in range(0, 40, 7):
            log.append(events[start : start + 7], received_at=NOW)
            assert ids_of(log.read("m1", limit=K)[0]) == expected(events[: start + 7], "m1", limit=K)
            shipped += drain(log) if start % 2 else []
        shipped += drain(log)
        assert ids_of(log.read("m1", limit=1_000)[0]) == expected(events, "m1", limit=K + 2)
        assert {one.event["event_id"] for one in shipped} == {one["event_id"] for one in events}
        before = log.read("m1", limit=1_000)[0]
        log.append(events[:20], received_at=NOW)
        assert log.read("m1", limit=1_000)[0] == before, "a repetition of what was trimmed changed what is read"
        assert log.delete("m1", until_us=LATER) >= K + 2


CLAUSES = (
    append_is_idempotent,
    a_sequence_is_the_time_of_arrival_or_the_next,
    rows_come_back_as_they_were,
    guests_have_the_history_of_their_session,
    a_bad_row_is_refused_by_its_column_with_the_whole_batch,
    any_order_and_repetition_reads_the_same,
    a_read_is_cut_at_k,
    ties_in_time_go_by_the_bytes_of_the_id,
    impressions_are_stored_and_shipped_and_never_read,
    a_mark_shows_what_was_visible_then,
    a_reopened_log_goes_on,
    the_window_is_by_event_time_and_exact,
    what_is_too_old_is_shipped_and_never_read,
    old_events_expire_and_sequences_go_on,
    what_is_stored_is_bounded,
)
