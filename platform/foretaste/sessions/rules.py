"""The rules that a row must keep, vectorised; each returns nothing and notes what it finds.

Shapes: N rows of a table.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from functools import cached_property

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from foretaste.contracts.events import ACTIONS, NEEDS_TITLE
from foretaste.sessions.cells import wanted as wanted_cell
from foretaste.sessions.findings import Findings, Kind
from foretaste.sessions.read import Read

AHEAD = timedelta(minutes=5)
"""How far a sender's clock may be ahead of ours."""


class Titles:
    """Known titles with their release, to look up many at once."""

    def __init__(self, titles: pa.Table) -> None:
        """`titles` is a TITLES table."""
        self._ids = titles["title_id"].combine_chunks()
        self._released = np.append(np.asarray(titles["released_at"].cast(pa.int64()).fill_null(_LONG_AGO)), _LONG_AGO)

    def place(self, title_ids: pa.ChunkedArray) -> NDArray[np.int64]:
        """Where each title stands, -1 for an unknown one."""
        found = pc.index_in(title_ids, value_set=self._ids).fill_null(-1)
        return np.asarray(found, dtype=np.int64)

    def released(self, place_N: NDArray[np.int64]) -> NDArray[np.int64]:
        """Release in microseconds, long ago where it or the title is unknown."""
        return np.asarray(self._released[place_N])


_LONG_AGO = np.iinfo(np.int64).min


class Rules:
    """One table under its rules."""

    def __init__(self, read: Read, *, id_column: str) -> None:
        """`id_column` is the table's own id: a null or empty one is a `null_id`."""
        self.read, self.table = read, read.table
        self.findings = Findings(read)
        self._contract(id_column)

    def valid(self, column: str) -> NDArray[np.bool_]:
        """Rows with a value in a column."""
        return np.asarray(self.table[column].is_valid(), dtype=np.bool_)

    @cached_property
    def at_N(self) -> NDArray[np.int64]:
        """Time in microseconds, 0 where there is none."""
        return np.asarray(self.table["at"].cast(pa.int64()).fill_null(0))

    def _contract(self, id_column: str) -> None:
        """Columns that must be there, types, and nulls where none may be."""
        for column in self.read.missing:
            found = f"columns {[*self.read.original(np.zeros(0, np.int64)).column_names]}"
            self.findings.add_file(
                Kind.MISSING_COLUMN, self.read.file, column=column, found=found, wanted=f"a column {column}"
            )
        for field in self.read.schema:
            if field.name in self.read.missing:
                continue
            wanted = wanted_cell(field.type)
            self.findings.add(Kind.WRONG_TYPE, field.name, self.read.bad_N[field.name], wanted=wanted)
            if not field.nullable:
                null_N = ~self.valid(field.name) & ~self.read.bad_N[field.name]
                kind = Kind.NULL_ID if field.name == id_column else Kind.WRONG_TYPE
                self.findings.add(kind, field.name, null_N, wanted=f"{wanted}, not null")
        for column in dict.fromkeys((id_column, "member_id", "session_id", "title_id", "series_id", "decision_id")):
            if column in self.table.column_names:
                empty_N = _true(pc.equal(self.table[column], ""))
                self.findings.add(Kind.NULL_ID, column, empty_N, wanted="an id that is not empty")

    def time(self, now: datetime) -> None:
        """Nothing happens later than five minutes from now."""
        latest = now + AHEAD
        late_N = self.at_N > round(latest.timestamp() * 1_000_000)
        self.findings.add(Kind.FUTURE_TIME, "at", late_N, wanted=f"not after {latest:%Y-%m-%dT%H:%M:%S%z}")

    def actor(self) -> None:
        """Someone did it: a member, or a guest in a session."""
        nobody_N = ~self.valid("member_id") & ~self.valid("session_id")
        nobody_N &= ~self.read.bad_N["member_id"] & ~self.read.bad_N["session_id"]
        self.findings.add(Kind.NULL_ID, "member_id", nobody_N, wanted="member_id or session_id, not both null")

    def action(self) -> None:
        """The action is one of the contract's, and has a title where it needs one."""
        action = self.table["action"]
        known_N = _true(pc.is_in(action, value_set=pa.array(ACTIONS)))
        wanted = f"one of {', '.join(ACTIONS)}"
        self.findings.add(Kind.UNKNOWN_ACTION, "action", self.valid("action") & ~known_N, wanted=wanted)
        needs_N = _true(pc.is_in(action, value_set=pa.array(sorted(NEEDS_TITLE))))
        none_N = needs_N & ~self.valid("title_id") & ~self.read.bad_N["title_id"]
        self.findings.add(Kind.NULL_ID, "title_id", none_N, wanted="a title_id, as the action is of a title")

    def title(self, titles: Titles, column: str = "title_id") -> None:
        """The title is known."""
        ids = self.table[column]
        unknown_N = (titles.place(ids) < 0) & self.valid(column) & ~_true(pc.equal(ids, ""))
        self.findings.add(Kind.UNKNOWN_TITLE, column, unknown_N, wanted="a title of the catalogue")

    def release(self, titles: Titles) -> None:
        """Nothing happens to a title before its release."""
        released_N = titles.released(titles.place(self.table["title_id"]))
        early_N = self.valid("at") & (self.at_N < released_N)
        self.findings.add(Kind.BEFORE_RELEASE, "at", early_N, wanted="not before the title's released_at")

    def number(self, column: str, *, least: float = -np.inf, most: float = np.inf, wanted: str) -> None:
        """Numbers are finite and within bounds."""
        values_N = self.table[column].cast(pa.float64()).fill_null(0.0).to_numpy()
        with np.errstate(invalid="ignore"):
            bad_N = self.valid(column) & ~(np.isfinite(values_N) & (values_N >= least) & (values_N <= most))
        self.findings.add(Kind.BAD_VALUE, column, bad_N, wanted=wanted)

    def json_object(self, column: str) -> None:
        """Text is a JSON object."""
        coded = self.table[column].combine_chunks().dictionary_encode()
        good = np.array([_is_object(text) for text in coded.dictionary.to_pylist()] + [True], dtype=np.bool_)
        bad_N = ~good[coded.indices.fill_null(-1).to_numpy()]
        self.findings.add(Kind.BAD_VALUE, column, bad_N, wanted='a JSON object, e.g. {"rating": 4.0}')

    def propensity(self) -> None:
        """Every item was chosen with a probability above 0."""
        items = self.table["items"].combine_chunks()
        chances = np.asarray(items.flatten().field("propensity"))
        rows = np.asarray(pc.list_parent_indices(items))[~((chances > 0.0) & (chances <= 1.0))]
        bad_N = np.zeros(self.table.num_rows, dtype=np.bool_)
        bad_N[rows] = True
        self.findings.add(Kind.BAD_VALUE, "items", bad_N, wanted="propensities above 0, at most 1")


def _true(values: pa.ChunkedArray) -> NDArray[np.bool_]:
    return np.asarray(values.fill_null(False), dtype=np.bool_)


def _is_object(text: str) -> bool:
    try:
        return isinstance(orjson.loads(text), dict)
    except orjson.JSONDecodeError:
        return False
