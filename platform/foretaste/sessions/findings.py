"""What is wrong with a table: per kind a count and the first examples, and which rows are bad.

Shapes: N rows of a table.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.table import Table

from foretaste.sessions.read import Read

NUM_EXAMPLES = 5
LONGEST_VALUE = 80


class Kind(StrEnum):
    """What can be wrong; where a row has several, the first in this order is its reason."""

    UNREADABLE_FILE = "unreadable_file"
    MISSING_COLUMN = "missing_column"
    WRONG_TYPE = "wrong_type"
    NULL_ID = "null_id"
    UNKNOWN_ACTION = "unknown_action"
    BAD_VALUE = "bad_value"
    FUTURE_TIME = "future_time"
    UNKNOWN_TITLE = "unknown_title"
    BEFORE_RELEASE = "before_release"
    DUPLICATE_EVENT_ID = "duplicate_event_id"
    DUPLICATE_TITLE_ID = "duplicate_title_id"
    DUPLICATE_DECISION_ID = "duplicate_decision_id"


@dataclass(frozen=True, slots=True)
class Finding:
    """One example."""

    file: str
    row: int | None  # 0-based, as stored; null for a finding of the whole file
    line: int | None  # 1-based, of text files
    column: str | None
    value: str
    wanted: str


class Findings:
    """What was found in one table; `bad_N` says which of its rows must not be used."""

    def __init__(self, read: Read | None) -> None:
        """Start with the malformed rows and bad cells that reading has found."""
        self._read = read
        self.num_rows = read.num_rows if read else 0
        self.counts: dict[Kind, int] = {}
        self.examples: dict[Kind, list[Finding]] = {}
        self._kinds_N = np.zeros(read.table.num_rows if read else 0, dtype=np.int64)  # a bit a kind
        if read is None:
            return
        for row in read.malformed:
            self._note(Kind.WRONG_TYPE, Finding(read.file, row.row, row.line, None, _short(row.text), row.wanted))

    @property
    def ok(self) -> bool:
        """Whether nothing was found."""
        return not self.counts

    @property
    def bad_N(self) -> NDArray[np.bool_]:
        """Rows with a finding; malformed rows are not among the N."""
        return np.asarray(self._kinds_N != 0)

    @property
    def num_bad(self) -> int:
        """Rows that must not be used, malformed ones too."""
        return int(self.bad_N.sum()) + (len(self._read.malformed) if self._read else 0)

    def add(self, kind: Kind, column: str, mask_N: NDArray[np.bool_], *, wanted: str) -> None:
        """Note that the cells of `column` in the rows of the mask are bad."""
        read = self._read
        assert read is not None
        index = np.flatnonzero(mask_N)
        if len(index) == 0:
            return
        self.counts[kind] = self.counts.get(kind, 0) + len(index)
        self._kinds_N[index] |= 1 << tuple(Kind).index(kind)
        examples = self.examples.setdefault(kind, [])
        for i in index[: NUM_EXAMPLES - len(examples)]:
            line = None if read.line_N is None else int(read.line_N[i])
            found = _short(read.found(int(i), column))
            examples.append(Finding(read.file, int(read.row_N[i]), line, column, found, wanted))

    def add_file(self, kind: Kind, file: str, *, found: str, wanted: str, column: str | None = None) -> None:
        """Note something of the whole file, which makes all of its rows bad."""
        self._note(kind, Finding(file, None, None, column, found, wanted))
        self._kinds_N |= 1 << tuple(Kind).index(kind)

    def reasons(self, index: NDArray[np.int64]) -> list[str]:
        """All kinds of the rows given, in order, divided by commas."""
        names = list(Kind)
        sets = self._kinds_N[index]
        text = {int(s): ",".join(k for i, k in enumerate(names) if int(s) >> i & 1) for s in np.unique(sets)}
        return [text[int(s)] for s in sets]

    def rows_by_reason(self) -> dict[str, int]:
        """Bad rows by their first kind; the sum is `num_bad`."""
        first, num = np.unique(self._kinds_N & -self._kinds_N, return_counts=True)
        kinds = {int(f): k for k, f in zip(Kind, 1 << np.arange(len(Kind)), strict=True)}
        found = {str(kinds[int(f)]): int(n) for f, n in zip(first, num, strict=True) if f}
        malformed = len(self._read.malformed) if self._read else 0
        if malformed:
            found[Kind.WRONG_TYPE] = found.get(Kind.WRONG_TYPE, 0) + malformed
        return found

    def table(self) -> Table:
        """Show kinds, counts and examples in a terminal."""
        return findings_table([self])

    def to_json(self) -> dict[str, Any]:
        """Counts and examples as plain values."""
        return {
            "ok": self.ok,
            "rows": self.num_rows,
            "bad_rows": self.num_bad,
            "findings": [
                {"kind": str(k), "count": self.counts[k], "examples": [asdict(e) for e in self.examples[k]]}
                for k in Kind
                if k in self.counts
            ],
        }

    def _note(self, kind: Kind, finding: Finding) -> None:
        self.counts[kind] = self.counts.get(kind, 0) + 1
        examples = self.examples.setdefault(kind, [])
        if len(examples) < NUM_EXAMPLES:
            examples.append(finding)


def findings_table(all_findings: Iterable[Findings]) -> Table:
    """Show the findings of several tables as one, with an example a line."""
    shown = Table("kind", "count", "where", "column", "found", "wanted", title="Findings", title_justify="left")
    listed = list(all_findings)
    for kind in Kind:
        count = sum(f.counts.get(kind, 0) for f in listed)
        examples = [e for f in listed for e in f.examples.get(kind, [])][:NUM_EXAMPLES]
        for i, e in enumerate(examples):
            where = e.file if e.row is None else f"{e.file} {f'line {e.line}' if e.line else f'row {e.row}'}"
            head = (str(kind), f"{count:,}") if i == 0 else ("", "")
            shown.add_row(*head, *map(_plain, (where, e.column or "", e.value, e.wanted)))
    return shown


def _short(value: str) -> str:
    return value if len(value) <= LONGEST_VALUE else value[: LONGEST_VALUE - 1] + "…"


def _plain(text: str) -> str:
    return text.replace("[", r"\[")
