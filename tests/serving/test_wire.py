"""What a body may say, field by field."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from foretaste.contracts.wire import Event, RecommendRequest, parse_time

GOOD = {"event_id": "e1", "member_id": "m1", "at": "2026-01-02T03:04:05Z", "action": "play", "title_id": "t1"}


def fields(error: ValidationError) -> set[str]:
    return {str(e["loc"][0]) if e["loc"] else "" for e in error.errors()}


@pytest.mark.parametrize(
    ("value", "wanted"),
    [
        ("2026-01-02T03:04:05Z", datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)),
        ("2026-01-02t03:04:05z", datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)),
        ("2026-01-02 03:04:05.123456+01:00", datetime(2026, 1, 2, 2, 4, 5, 123456, tzinfo=UTC)),
        ("2026-01-02T03:04:05.123456789Z", datetime(2026, 1, 2, 3, 4, 5, 123456, tzinfo=UTC)),
        ("2026-01-02T03:04:05.5-00:30", datetime(2026, 1, 2, 3, 34, 5, 500000, tzinfo=UTC)),
        (1_767_323_045_000, datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)),
        (1_767_323_045_123, datetime(2026, 1, 2, 3, 4, 5, 123000, tzinfo=UTC)),
    ],
)
def test_a_time_is_rfc_3339_or_epoch_milliseconds(value: Any, wanted: datetime) -> None:
    assert parse_time(value) == wanted
    assert Event.model_validate(GOOD | {"at": value}).at == wanted


@pytest.mark.parametrize(
    "value",
    [
        "2026-01-02T03:04:05",
        "2026-01-02",
        "1767323045000",
        "now",
        "",
        "2026-02-30T00:00:00Z",
        "2026-01-02T25:00:00Z",
        "2026-01-02T03:04:60Z",
        "2026-01-02T03:04:05+25:00",
        "0001-01-01T00:00:00+23:00",
        "9999-12-31T23:59:59-23:00",
        "1969-12-31T23:59:59Z",
        "٢٠٢٦-01-02T03:04:05Z",
        1_767_323_045,
        0,
        -1,
        10**18,
        2**80,
        1_767_323_045_000.5,
        True,
        None,
        [],
        {},
    ],
)
def test_any_other_time_is_refused_by_field(value: Any) -> None:
    with pytest.raises(ValidationError) as caught:
        Event.model_validate(GOOD | {"at": value})
    assert fields(caught.value) == {"at"}


@given(
    st.datetimes(
        min_value=datetime(1970, 1, 2),
        max_value=datetime(9999, 12, 30),
        timezones=st.integers(-720, 840).map(lambda minutes: timezone(timedelta(minutes=minutes))),
    )
)
def test_every_time_survives_the_wire(at: datetime) -> None:
    assert parse_time(at.isoformat()) == at
    event = Event.model_validate(GOOD | {"at": at.isoformat()})
    assert Event.model_validate_json(event.model_dump_json()) == event


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"event_id": ""}, "event_id"),
        ({"event_id": 5}, "event_id"),
        ({"event_id": "a\nb"}, "event_id"),
        ({"event_id": "x" * 201}, "event_id"),
        ({"member_id": "guest:s1"}, "member_id"),
        ({"action": "steal"}, "action"),
        ({"action": None}, "action"),
        ({"position": -1}, "position"),
        ({"position": 1.0}, "position"),
        ({"position": True}, "position"),
        ({"position": 2**31}, "position"),
        ({"dwell_seconds": -1.0}, "dwell_seconds"),
        ({"dwell_seconds": float("nan")}, "dwell_seconds"),
        ({"dwell_seconds": "3"}, "dwell_seconds"),
        ({"played_fraction": 1.01}, "played_fraction"),
        ({"played_fraction": float("inf")}, "played_fraction"),
        ({"properties": []}, "properties"),
        ({"properties": {"a": "x" * 5_000}}, "properties"),
        ({"colour": "red"}, "colour"),
    ],
)
def test_an_event_with_a_bad_field_is_refused_by_that_field(change: dict[str, Any], field: str) -> None:
    with pytest.raises(ValidationError) as caught:
        Event.model_validate(GOOD | change)
    assert fields(caught.value) == {field}


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"member_id": None}, "missing_actor"),
        ({"title_id": None}, "missing_title"),
    ],
)
def test_an_event_that_does_not_hold_together_is_refused(change: dict[str, Any], code: str) -> None:
    with pytest.raises(ValidationError) as caught:
        Event.model_validate(GOOD | change)
    assert [e["type"] for e in caught.value.errors()] == [code]


def test_a_search_needs_no_title_and_a_guest_needs_a_session() -> None:
    search = {"event_id": "e1", "session_id": "s1", "at": GOOD["at"], "action": "search", "query": "noir"}
    assert Event.model_validate(search).title_id is None


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"session_id": None}, "session_id"),
        ({"k": 0}, "k"),
        ({"k": 101}, "k"),
        ({"k": "10"}, "k"),
        ({"k": 10.0}, "k"),
        ({"k": True}, "k"),
        ({"member_id": "guest:other"}, "member_id"),
        ({"policy": "thompson"}, "policy"),
        ({"explain": "all"}, "explain"),
        ({"dry_run": "yes"}, "dry_run"),
        ({"exclude_ids": "t1"}, "exclude_ids"),
        ({"exclude_ids": ["x"] * 1_001}, "exclude_ids"),
        ({"exclude_ids": [None]}, "exclude_ids"),
        ({"context": {"a": {"b": 1}}}, "context"),
        ({"context": {"a": float("nan")}}, "context"),
        ({"filter": {}}, "filter"),
        ({"boost": {}}, "boost"),
    ],
)
def test_a_request_with_a_bad_field_is_refused_by_that_field(change: dict[str, Any], field: str) -> None:
    with pytest.raises(ValidationError) as caught:
        RecommendRequest.model_validate({"session_id": "s1"} | change)
    assert fields(caught.value) == {field}


def test_context_keeps_its_values_as_they_are() -> None:
    context = {"device": "tv", "hour": 3, "kids": False, "score": 0.5, "city": None}
    assert RecommendRequest.model_validate({"session_id": "s1", "context": context}).context == context
