"""Say what is wrong with files before anything is built on them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
from numpy.typing import NDArray
from rich.console import Group
from rich.table import Table

from foretaste.contracts.columns import DECISIONS, EVENTS, FEEDBACK, TITLES
from foretaste.ops.files import write_parquet
from foretaste.sessions.findings import Findings, Kind, findings_table
from foretaste.sessions.quarantine import quarantined
from foretaste.sessions.read import Read, UnreadableFileError, columns_of, read, read_table
from foretaste.sessions.rules import Rules, Titles
from foretaste.sessions.sources import file_at

CONTRACTS: dict[str, pa.Schema] = {"events": EVENTS, "titles": TITLES, "decisions": DECISIONS, "feedback": FEEDBACK}
ID_COLUMN = {"events": "event_id", "titles": "title_id", "decisions": "decision_id", "feedback": "decision_id"}
DUPLICATES = {
    "events": Kind.DUPLICATE_EVENT_ID,
    "titles": Kind.DUPLICATE_TITLE_ID,
    "decisions": Kind.DUPLICATE_DECISION_ID,
}


@dataclass(frozen=True, slots=True)
class FileReport:
    """What was found in one file."""

    path: Path
    contract: str | None  # null when the file could not be read
    findings: Findings
    ignored: tuple[str, ...] = ()  # columns that the contract does not have
    quarantined: Path | None = None  # where its bad rows were written


@dataclass(frozen=True, slots=True)
class Report:
    """What was found in all files."""

    files: tuple[FileReport, ...]

    @property
    def ok(self) -> bool:
        """Whether nothing was found."""
        return all(file.findings.ok for file in self.files)

    def table(self) -> Group:
        """Show files and findings in a terminal."""
        files = Table("file", "table", "rows", "bad rows", title="Files", title_justify="left")
        for f in self.files:
            rows, bad = f"{f.findings.num_rows:,}", f"{f.findings.num_bad:,}"
            files.add_row(str(f.path).replace("[", r"\["), f.contract or "?", rows, bad)
        return Group(files) if self.ok else Group(files, findings_table([f.findings for f in self.files]))

    def to_json(self) -> dict[str, Any]:
        """Everything as plain values."""
        counts = {str(k): sum(f.findings.counts.get(k, 0) for f in self.files) for k in Kind}
        return {
            "ok": self.ok,
            "rows": sum(f.findings.num_rows for f in self.files),
            "bad_rows": sum(f.findings.num_bad for f in self.files),
            "counts": {kind: count for kind, count in counts.items() if count},
            "files": [
                {"file": str(f.path), "table": f.contract, "columns_ignored": list(f.ignored)}
                | f.findings.to_json()
                | {"quarantine": str(f.quarantined) if f.quarantined else None}
                for f in self.files
            ],
        }


def validate_events(table: pa.Table, *, now: datetime, titles: pa.Table | None = None) -> Findings:
    """Check a table against EVENTS; `titles` is a TITLES table that the events must agree with."""
    source = read_table(table, EVENTS, file="events")
    findings = check_events(source, now=now, titles=None if titles is None else Titles(titles))
    return _with_duplicates("events", [(source, findings)])[0]


def validate_titles(titles: pa.Table | Read) -> Findings:
    """Check titles, ids that stand twice included."""
    source = titles if isinstance(titles, Read) else read_table(titles, TITLES, file="titles")
    return _with_duplicates("titles", [(source, check_titles(source))])[0]


def validate_files(
    paths: Sequence[Path], *, now: datetime, quarantine: Path | None = None, titles_path: Path | None = None
) -> Report:
    """Check files, each against the contract that its columns say; ids must differ across all files given.

    Events are held against the titles of `titles_path`, or of those files given that are titles. Bad rows are
    written to `quarantine`, one Parquet file a file. A file that cannot be read is a finding.
    """
    every = list(dict.fromkeys([*([titles_path] if titles_path else []), *paths]))
    opened = [_open(path) for path in every]
    catalogue = [o.table for o, name in opened if name == "titles" and isinstance(o, Read)]
    titles = Titles(pa.concat_tables(catalogue)) if catalogue else None
    found = [o if isinstance(o, Findings) else _check(o, name, now=now, titles=titles) for o, name in opened]
    for name in DUPLICATES:
        some = [(o, f) for (o, n), f in zip(opened, found, strict=True) if n == name and isinstance(o, Read)]
        _with_duplicates(name, some)
    reports = []
    for number, (path, (source, name), findings) in enumerate(zip(every, opened, found, strict=True)):
        if isinstance(source, Findings):
            reports.append(FileReport(path, None, findings))
            continue
        target = quarantine / f"{number:04d}-{path.stem}.parquet" if quarantine and findings.num_bad else None
        if target:
            write_parquet(quarantined(source, findings), target)
        reports.append(FileReport(path, name, findings, source.ignored, target))
    return Report(tuple(reports))


def contract_of(path: Path, columns: Sequence[str]) -> str:
    """Name the contract that a file's columns come nearest to. Raises UnreadableFileError where there is none."""
    needed = {name: [f.name for f in schema if not f.nullable] for name, schema in CONTRACTS.items()}
    share = {name: sum(c in columns for c in need) / len(need) for name, need in needed.items()}
    best = max(share, key=lambda name: share[name])
    if not share[best]:
        wanted = "; ".join(f"{name}: {need}" for name, need in needed.items())
        found = f"columns {list(columns)} are of no table"
        raise UnreadableFileError(file_at(path), found, f"the columns of one of {wanted}")
    return best


def check_events(source: Read, *, now: datetime, titles: Titles | None) -> Findings:
    """Check events row by row; ids that stand twice are not looked for."""
    rules = Rules(source, id_column="event_id")
    rules.time(now)
    rules.actor()
    rules.action()
    rules.number("played_fraction", least=0.0, most=1.0, wanted="a fraction between 0 and 1")
    rules.number("dwell_seconds", least=0.0, wanted="seconds, finite and not negative")
    rules.number("position", least=0.0, wanted="a place on the surface, 0 or more")
    rules.json_object("properties")
    if titles is not None:
        rules.title(titles)
        rules.release(titles)
    return rules.findings


def check_titles(source: Read) -> Findings:
    """Check titles row by row; an episode's series must be among them."""
    rules = Rules(source, id_column="title_id")
    rules.title(Titles(source.table), "series_id")
    return rules.findings


def _check_decisions(source: Read, *, now: datetime) -> Findings:
    rules = Rules(source, id_column="decision_id")
    rules.time(now)
    rules.propensity()
    return rules.findings


def _check_feedback(source: Read, *, now: datetime) -> Findings:
    rules = Rules(source, id_column="decision_id")
    rules.time(now)
    rules.number("value", wanted="a finite number")
    return rules.findings


def _check(source: Read, contract: str, *, now: datetime, titles: Titles | None) -> Findings:
    if contract == "events":
        return check_events(source, now=now, titles=titles)
    if contract == "titles":
        return check_titles(source)
    return _check_decisions(source, now=now) if contract == "decisions" else _check_feedback(source, now=now)


def _open(path: Path) -> tuple[Read | Findings, str]:
    findings = Findings(None)
    try:
        contract = contract_of(path, columns_of(path))
        source = read(path, CONTRACTS[contract])
    except UnreadableFileError as error:
        findings.add_file(Kind.UNREADABLE_FILE, str(path), found=error.found, wanted=error.wanted)
        return findings, ""
    if source.num_rows == 0:
        findings.add_file(
            Kind.UNREADABLE_FILE, str(path), found="the file has columns but no rows", wanted=f"{contract}, one a row"
        )
        return findings, contract
    return source, contract


def _with_duplicates(contract: str, opened: list[tuple[Read, Findings]]) -> list[Findings]:
    """Note every id that has stood before, in this file or one before it."""
    if not opened:
        return []
    column = ID_COLUMN[contract]
    ids = pl.concat([_column(source, column) for source, _ in opened])
    again = ((ids != "").fill_null(False) & ~ids.is_first_distinct()).to_numpy()
    ends = np.cumsum([source.table.num_rows for source, _ in opened])
    for (_, findings), part in zip(opened, np.split(again, ends[:-1]), strict=True):
        _note_duplicates(findings, DUPLICATES[contract], column, part)
    return [findings for _, findings in opened]


def _note_duplicates(findings: Findings, kind: Kind, column: str, again_N: NDArray[np.bool_]) -> None:
    findings.add(kind, column, again_N, wanted="an id that stands once, in all files together")


def _column(source: Read, column: str) -> pl.Series:
    series = pl.from_arrow(source.table[column])
    assert isinstance(series, pl.Series)
    return series
