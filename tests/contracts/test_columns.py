"""A table that does not fit its contract is refused with the column, what was wanted and what was there."""

from __future__ import annotations

from datetime import UTC, datetime

import pyarrow as pa
import pytest

from foretaste.contracts.columns import EVENTS, TITLES, conform

EVENT = {"event_id": "e1", "at": datetime(2026, 1, 1, tzinfo=UTC), "action": "play"}


def test_columns_that_may_be_null_may_be_missing_and_others_beyond_are_dropped() -> None:
    table = conform(pa.Table.from_pylist([EVENT | {"extra": 1}]), EVENTS, what="log")
    assert table.schema == EVENTS
    assert table.to_pylist()[0]["title_id"] is None


def test_a_missing_column_is_named_with_those_that_are_there() -> None:
    with pytest.raises(ValueError, match=r"log: missing columns \['event_id'\]; has \['at', 'action'\]"):
        conform(pa.Table.from_pylist([EVENT]).drop_columns("event_id"), EVENTS, what="log")


def test_a_wrong_type_is_named_with_both_types() -> None:
    with pytest.raises(ValueError, match="column at is string, wanted timestamp"):
        conform(pa.Table.from_pylist([EVENT | {"at": "yesterday"}]), EVENTS, what="log")


def test_a_null_where_none_may_be_is_counted() -> None:
    table = pa.Table.from_pylist([EVENT, EVENT | {"event_id": None}])
    with pytest.raises(ValueError, match="column event_id has 1 nulls"):
        conform(table, EVENTS, what="log")


def test_every_column_of_every_table_has_one_type_wherever_it_stands() -> None:
    from foretaste.contracts import columns

    tables = {n: s for n, s in vars(columns).items() if isinstance(s, pa.Schema)}
    kinds: dict[str, set[str]] = {}
    for schema in tables.values():
        for field in schema:
            kinds.setdefault(field.name, set()).add(str(field.type))
    assert {"EVENTS", "TITLES", "INTERACTIONS", "DECISIONS", "OUTCOMES"} <= set(tables)
    assert {n: k for n, k in kinds.items() if len(k) > 1} == {}
    assert TITLES.field("genres").nullable is False
