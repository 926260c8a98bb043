"""Events as they are emitted, in arrays, and the EVENTS table that they become.

Shapes: T events, S sessions of the partition, P places of a slate.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from foretaste.contracts.columns import AT, EVENTS, conform
from foretaste.contracts.events import ACTION_CODES, ACTIONS, Action
from foretaste.worlds.config import WorldConfig
from foretaste.worlds.names import GENRES
from foretaste.worlds.titles import Titles

SURFACES = ("home", "browse", "search", "player")
HOME, BROWSE, SEARCH, PLAYER = range(4)
DEVICES = ("tv", "mobile", "web")

_COLUMNS: dict[str, tuple[type, Any]] = {
    "session": (np.int64, None),  # number in the partition
    "at": (np.int64, None),  # microseconds
    "action": (np.int16, None),
    "title": (np.int64, -1),  # row of the titles table
    "surface": (np.int16, -1),
    "position": (np.int32, -1),
    "dwell": (np.float64, np.nan),
    "fraction": (np.float64, np.nan),
    "query": (np.int64, -1),  # see `vocabulary`
    "decided": (np.bool_, False),  # caused by the session's slate
    "propensity": (np.float64, np.nan),
    "genre": (np.int64, -1),  # of the row browsed
}


@dataclass
class Log:
    """Grows by whole arrays; a value that is one for all is spread."""

    _parts: dict[str, list[NDArray[Any]]] = field(default_factory=lambda: {name: [] for name in _COLUMNS})

    def add(self, action: Action, session: NDArray[np.int64], at: NDArray[np.int64], **values: Any) -> None:
        """Emit one event per element of `session`. Raises KeyError on a column that does not exist."""
        unknown = values.keys() - _COLUMNS.keys()
        if unknown:
            raise KeyError(f"an event of a world has no {sorted(unknown)}")
        if not session.size:
            return
        given = {"session": session, "at": at, "action": ACTION_CODES[action], **values}
        for name, (kind, missing) in _COLUMNS.items():
            value = given.get(name, missing)
            whole = value.ravel() if isinstance(value, np.ndarray) else np.full(session.size, value)
            self._parts[name].append(whole.astype(kind, copy=False))

    def columns(self, *, before: int) -> dict[str, NDArray[Any]]:
        """Every column, of events strictly before a moment, in order of time."""
        whole = {name: np.concatenate([np.zeros(0, _COLUMNS[name][0]), *parts]) for name, parts in self._parts.items()}
        order = np.argsort(whole["at"], kind="stable")
        order = order[: np.searchsorted(whole["at"][order], before)]
        return {name: column[order] for name, column in whole.items()}


@dataclass(frozen=True)
class SessionNames:
    """What events repeat of their session, by its number in the partition."""

    session_id: pa.Array
    decision_id: pa.Array
    member_id: pa.Array  # null for a guest
    country: pa.Array
    device: pa.Array


def vocabulary(titles: Titles) -> list[str]:
    """Queries by code: the genres, then the last word of each title's name."""
    return [*GENRES, *(name.rstrip("0123456789 ").split()[-1].lower() for name in titles.names)]


def events_table(log: Log, config: WorldConfig, titles: Titles, names: SessionNames, *, partition: int) -> pa.Table:
    """Give the EVENTS of a partition, in order of time."""
    columns = log.columns(before=config.end_us)
    num = len(columns["at"])
    session_T = pa.array(columns["session"])
    table = pa.table(
        {
            "event_id": opaque(config.seed, "event", numbered(partition, np.arange(num))),
            "member_id": names.member_id.take(session_T),
            "session_id": names.session_id.take(session_T),
            "at": pa.array(columns["at"], AT),
            "action": pa.array(ACTIONS).take(pa.array(columns["action"])),
            "title_id": _coded([*titles.ids, *titles.episodes.ids], columns["title"]),
            "surface": _coded(SURFACES, columns["surface"]),
            "position": _or_null(columns["position"], columns["position"] >= 0),
            "dwell_seconds": _or_null(np.round(columns["dwell"], 1), ~np.isnan(columns["dwell"])),
            "played_fraction": _or_null(np.round(columns["fraction"], 4), ~np.isnan(columns["fraction"])),
            "query": _coded(vocabulary(titles), columns["query"]),
            "device": names.device.take(session_T),
            "country": names.country.take(session_T),
            "decision_id": names.decision_id.take(_or_null(columns["session"], columns["decided"])),
            "properties": _properties(columns),
        }
    )
    return conform(table, EVENTS, what="events of the world")


def _or_null(values: NDArray[Any], valid: NDArray[np.bool_]) -> pa.Array:
    return pa.array(values, mask=~valid)


def _coded(words: Any, code_T: NDArray[Any]) -> pa.Array:
    return pa.array(words, pa.string()).take(_or_null(code_T, code_T >= 0))


def _properties(columns: dict[str, NDArray[Any]]) -> pa.Array:
    """Write the propensity of an impression, or the genre of the row that was browsed, as a JSON object."""
    shown = np.flatnonzero(~np.isnan(columns["propensity"]))
    digits = pa.array(np.round(columns["propensity"][shown], 8)).cast(pa.string())
    shown_text = pc.binary_join_element_wise('{"propensity": ', digits, "}", "")
    genre_text = pa.array([f'{{"genre": "{genre}"}}' for genre in GENRES])
    code_T = np.where(columns["genre"] >= 0, columns["genre"] + len(shown), -1)
    code_T[shown] = np.arange(len(shown))
    return pa.concat_arrays([shown_text, genre_text]).take(_or_null(code_T, code_T >= 0))


def numbered(partition: int, number_X: NDArray[np.int64]) -> NDArray[np.uint64]:
    """Numbers that are one's own over all partitions (2^40 in each)."""
    return np.uint64(partition << 40) + number_X.astype(np.uint64)


def opaque(seed: int, salt: str, key_X: NDArray[np.uint64]) -> pa.Array:
    """Sixteen hexadecimal digits per key that tell nothing of it; distinct for distinct keys.

    A bijection of 64-bit numbers: the finaliser of splitmix64, Steele et al., OOPSLA 2014.
    """
    offset = np.uint64((seed * 0x9E3779B97F4A7C15 + int.from_bytes(salt.encode()[:8], "big")) % 2**64)
    z_X = key_X + offset
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        z_X = (z_X ^ (z_X >> np.uint64(shift))) * np.uint64(factor)
    z_X = z_X ^ (z_X >> np.uint64(31))
    digits = np.frombuffer("".join(f"{byte:02x}" for byte in range(256)).encode(), dtype="S2")
    text = digits[z_X.astype(">u8").view(np.uint8)].tobytes()
    offsets = np.arange(0, 16 * len(z_X) + 1, 16, dtype=np.int32)
    return pa.StringArray.from_buffers(len(z_X), pa.py_buffer(offsets), pa.py_buffer(text))
