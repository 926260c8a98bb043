"""Ten thousand malformed events: each is refused by its field, or stored and read back as it was sent."""

from __future__ import annotations

import asyncio
import json
import math
import random
from datetime import UTC, datetime
from typing import Any

import httpx
import pytest

from foretaste.contracts.wire import Event
from foretaste.feedback.session_log import microseconds
from foretaste.serving.ingress import build_app
from foretaste.testing.session_log_events import drain

NUM_EVENTS = 10_000
NUM_BODIES = 400
A_BATCH = 100
AT_MS = 1_767_323_045_000

TEXTS = ["", "x", " ", "é", "芝士", "😀" * 200, "x" * 200, "x" * 201, "\x00", "a\nb", "\x7f", "\u2028", "guest:s1",
         "{b}", "'; DROP TABLE events", "%s %d", "null", "\u202eabc", "\ufeff", "a" * 5_000, "null\\u0000"]  # fmt: skip
ODD = ["\ud800", "\udfff x", float("nan"), float("inf"), -math.inf, datetime(2026, 1, 2, tzinfo=UTC), b"bytes", (1, 2)]
NUMBERS = [
    0,
    1,
    -1,
    0.0,
    -0.0,
    0.5,
    1.0,
    1.0000001,
    1e300,
    5e-324,
    2**31 - 1,
    2**31,
    2**53,
    2**63,
    2**64,
    10**30,
    True,
    False,
]
TIMES = [AT_MS, AT_MS + 1, 0, -1, 1_767_323_045, AT_MS * 1_000, 2**53, 253_402_300_799_999, 253_402_300_800_000,
         "2026-01-02T03:04:05Z", "2026-01-02T03:04:05.123456+05:30", "2026-01-02t03:04:05.1z", "2026-01-02T03:04:05",
         "2026-01-02T03:04:60Z", "2026-02-30T00:00:00Z", "1969-12-31T23:59:59Z", "0001-01-01T00:00:00+14:00",
         "9999-12-31T23:59:59-14:00", "2026-01-02T24:00:00Z", "2026-01-02", "now", "1970-01-01T00:00:00Z",
         "２０２６-01-02T03:04:05Z", "2026-01-02T03:09:05Z", "2026-01-02T03:09:05.000001Z"]  # fmt: skip
BOXES: list[Any] = [
         None, [], {}, [1], {"a": 1}, {"a": {"b": [None, 1.5, "ä"]}}, {"a": "x" * 4_090}, {"": ""}, [{}],
         {"a": float("nan")}, {"a": 2**64}, {1: 2}, {"\ud800": 1}]  # fmt: skip
ACTIONS = ["play", "impression", "search", "PLAY", "play ", "steal", "", "rate"]
FIELDS = tuple(Event.model_fields)


def malformed(dice: random.Random, number: int) -> Any:
    """An event with one to three fields changed for the worse, or none, or no event at all."""
    event: dict[Any, Any] = {
        "event_id": f"e{number}", "member_id": f"m{number % 50}", "session_id": "s1", "at": AT_MS - number,
        "action": "play", "title_id": "t00", "position": 3, "dwell_seconds": 1.5, "played_fraction": 0.25,
        "query": "q", "properties": {"n": number},
    }  # fmt: skip
    if dice.random() < 0.03:
        return dice.choice([*TEXTS, *ODD, *NUMBERS, *BOXES, [event]])
    for _ in range(dice.randrange(4)):
        field = dice.choice(FIELDS)
        change = dice.randrange(10)
        if change == 0:
            event.pop(field, None)
        elif change == 1:
            event[dice.choice([*TEXTS, *ODD[:2], "Event_id", "at ", "sequence", "actor_id", "received_at"])] = 1
        elif change < 7:
            event[field] = likely(field, dice)
        else:
            event[field] = dice.choice([*TEXTS, *ODD, *NUMBERS, *TIMES, *BOXES])
    return event


def likely(field: str, dice: random.Random) -> Any:
    """A bad value, or a strange good one, of the kind that the field wants."""
    if field == "at":
        return dice.choice(TIMES)
    if field == "action":
        return dice.choice(ACTIONS)
    if field == "properties":
        return dice.choice(BOXES)
    return dice.choice(NUMBERS if field in ("position", "dwell_seconds", "played_fraction") else TEXTS)


def as_sent(raw: dict[str, Any]) -> dict[str, Any]:
    """What has to be stored of a raw event: the same, without nulls, its time as microseconds."""
    found = {name: value for name, value in raw.items() if value is not None}
    at = found["at"]
    if isinstance(at, str):
        at = microseconds(datetime.fromisoformat(at.upper()))
    elif isinstance(at, datetime):
        at = microseconds(at)
    else:
        at *= 1_000
    return found | {"at": at}


def names_a_field(message: str, raw: Any) -> bool:
    if not isinstance(raw, dict):
        return "valid dictionary" in message
    own = [str(name)[:100].encode(errors="backslashreplace").decode() for name in raw]
    return any(name in message for name in (*FIELDS, *own))


def test_each_of_ten_thousand_is_refused_by_its_field_or_stored_as_it_was(bench: Any) -> None:
    dice = random.Random(11)
    sent = [malformed(dice, number) for number in range(NUM_EVENTS)]
    expected: dict[tuple[str, str], dict[str, Any]] = {}
    num_rejected = 0
    for first in range(0, NUM_EVENTS, A_BATCH):
        batch = sent[first : first + A_BATCH]
        answer = bench.intake.accept(batch)
        answer.model_dump_json()
        assert answer.accepted + answer.duplicate + len(answer.rejected) == len(batch)
        for rejected in answer.rejected:
            raw = batch[rejected.index]
            assert names_a_field(rejected.message, raw), (raw, rejected)
        num_rejected += len(answer.rejected)
        refused = {rejected.index for rejected in answer.rejected}
        for index, raw in enumerate(batch):
            if index not in refused:
                actor = raw.get("member_id") or f"guest:{raw['session_id']}"
                expected.setdefault((actor, raw["event_id"]), as_sent(raw))
    assert 3_000 < num_rejected < 8_000
    found = {(one.actor_id, one.event["event_id"]): one.event for one in drain(bench.sessions)}
    assert found.keys() == expected.keys()
    for key, event in found.items():
        stored = event | ({"properties": json.loads(event["properties"])} if "properties" in event else {})
        assert stored == expected[key]
        assert all(type(stored[name]) is str for name in ("event_id", "action"))
    for actor in {actor for actor, _ in found}:
        rows, _ = bench.sessions.read(actor, limit=100_000)
        assert {row["event_id"] for row in rows} <= {event_id for one, event_id in found if one == actor}


@pytest.mark.parametrize("seed", [1])
def test_bodies_that_are_torn_or_twisted_are_answered_and_break_nothing(bench: Any, seed: int) -> None:
    dice = random.Random(seed)

    def body(number: int) -> bytes:
        text = json.dumps({"events": [malformed(dice, number * 3 + n) for n in range(3)]}, default=str)
        raw = bytearray(text.encode(errors="surrogatepass"))
        for _ in range(dice.randrange(4)):
            place = dice.randrange(len(raw))
            raw[place : place + dice.randrange(3)] = bytes(dice.randrange(256) for _ in range(dice.randrange(3)))
        return bytes(raw[: dice.randrange(len(raw))] if dice.random() < 0.1 else raw)

    async def talk() -> list[httpx.Response]:
        app = build_app(bench.service(), max_body_bytes=100_000)
        transport = httpx.ASGITransport(app=app)
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            headers = {"content-type": "application/json"}
            return [await client.post("/v1/events", content=body(n), headers=headers) for n in range(NUM_BODIES)]

    answers = asyncio.run(talk())
    assert {200, 400} <= {answer.status_code for answer in answers} <= {200, 400, 422}
    accepted = 0
    for answer in answers:
        told = answer.json()
        if answer.status_code == 200:
            accepted += told["accepted"]
            assert all(rejected["message"] for rejected in told["rejected"])
        else:
            assert answer.headers["content-type"] == "application/problem+json"
            assert told["detail"]
    assert len(drain(bench.sessions)) == accepted > NUM_BODIES / 4
