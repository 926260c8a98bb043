"""Bad rows, set aside as they were found, each with its reason."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from foretaste.sessions.findings import Findings, Kind
from foretaste.sessions.read import Read

REASON, FILE, ROW, RAW = "reason", "file", "row", "raw"
"""Columns added: kinds of findings, where the row stood, and the text of a row without cells."""


def quarantined(source: Read, findings: Findings) -> pa.Table:
    """Columns reason, file, row (0-based) before the columns as found; `raw` after them where rows had no cells."""
    index = np.flatnonzero(findings.bad_N)
    rows = source.original(index)
    rows = rows.rename_columns([f"original_{c}" if c in (REASON, FILE, ROW, RAW) else c for c in rows.column_names])
    about = pa.table(
        {
            REASON: pa.array(findings.reasons(index), pa.string()),
            FILE: pa.array([source.file] * len(index), pa.string()),
            ROW: pa.array(source.row_N[index], pa.int64()),
        }
    )
    whole = pa.Table.from_arrays([*about.columns, *rows.columns], names=[*about.column_names, *rows.column_names])
    if not source.malformed:
        return whole
    malformed = pa.table(
        {
            REASON: pa.array([str(Kind.WRONG_TYPE)] * len(source.malformed), pa.string()),
            FILE: pa.array([source.file] * len(source.malformed), pa.string()),
            ROW: pa.array([m.row for m in source.malformed], pa.int64()),
            RAW: pa.array([m.text for m in source.malformed], pa.string()),
        }
    )
    return pa.concat_tables([whole, malformed], promote_options="default")
