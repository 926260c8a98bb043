"""What a reward program may read of an outcome, and the values of it over OUTCOMES rows.

Shapes: X outcomes (a title of a decision each).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from functools import partial

import numpy as np
import polars as pl
import pyarrow as pa
from numpy.typing import NDArray

from foretaste.contracts.expression import Type
from foretaste.contracts.expression_values import Column, Numbers, Words

PREDICTED, REPORTED = "predicted_", "reported_"

_HAPPENED = {
    "click": "clicked_at",
    "add_to_list": "listed_at",
    "play": "played_at",
    "discovery": "discovered_at",
    "complete": "completed_at",
    "abandon": "abandoned_at",
    "thumb_up": "thumbed_up_at",
    "thumb_down": "thumbed_down_at",
}
_WATCHED = ("num_plays", "num_completions", "dwell_seconds", "played_fraction")
_RETURNS = {"return_1d": 1.0, "return_7d": 7.0, "return_30d": 30.0}

OBSERVED: Mapping[str, str] = {
    "click": "1 where anything was done with the title within the window, else 0",
    "add_to_list": "1 where it was put on the list",
    "play": "1 where it was played",
    "discovery": "1 where it was played and one of its genres was new to the member",
    "complete": "1 where it, or an episode of it, was completed",
    "abandon": "1 where it was left early and not taken up again",
    "thumb_up": "1 where it has a thumb up",
    "thumb_down": "1 where it has a thumb down",
    "num_plays": "times that it was played; episodes count one each",
    "num_completions": "times that it was completed",
    "dwell_seconds": "seconds watched, 0 where not played",
    "played_fraction": "largest share of it, or of an episode, that was played; 0 where not played",
    "return_1d": "1 where the member's next session began within a day of the end of this one; unknown of a guest",
    "return_7d": "the same within seven days",
    "return_30d": "the same within thirty days",
}
"""Feedback that is final once it is known: unknown while it may still change. Each may be predicted."""

ALSO: Mapping[str, str] = {
    "seconds_to_click": "seconds from the decision to the first thing done with the title; unknown where none was",
    "seconds_to_play": "seconds from the decision to the play; unknown where it was not played",
    "seconds_to_complete": "seconds from the play to the completion; unknown where it was not completed",
    "days_to_return": "days from the end of the session to the start of the member's next one; unknown until then",
    "position": "0-based place on the list",
    "propensity": "probability of the title at its place, given those above it",
    "hours_since": "hours from the decision to the instant as of which the outcome is",
    "surface": "a text",
}
"""What else may be read; none of it can be predicted, and nothing of it is ever still open."""

_PREDICTED = re.compile(f"{PREDICTED}([a-z0-9_]+)")
_REPORTED = re.compile(f"{REPORTED}[a-z][a-z0-9_]{{0,59}}")


class Fields(Mapping[str, Type]):
    """Types by name: what is observed, `predicted_` and one of these, `reported_` and any feedback's name."""

    def __init__(self, own: Mapping[str, Type] | None = None) -> None:
        """`own` are names beside them."""
        self._own = dict(own or {})

    def __getitem__(self, name: str) -> Type:
        if name in self._own:
            return self._own[name]
        if name == "surface":
            return Type.TEXT
        predicted = _PREDICTED.fullmatch(name)
        if name in OBSERVED or name in ALSO or (predicted and predicted[1] in OBSERVED) or _REPORTED.fullmatch(name):
            return Type.NUMBER
        raise KeyError(name)

    def __iter__(self) -> Iterator[str]:
        """Names that an error shows: those of feedback stand for themselves and their predictions."""
        yield from (*OBSERVED, *ALSO, *self._own, f"{PREDICTED}...", f"{REPORTED}...")

    def __len__(self) -> int:
        return len(list(iter(self)))

    def __contains__(self, name: object) -> bool:
        try:
            self[str(name)]
        except KeyError:
            return False
        return True


def values(outcomes: pa.Table, predicted: pa.Table | None, names: frozenset[str]) -> dict[str, Column]:
    """Give the columns of some names over OUTCOMES rows; a number that is not known, or still open, is NaN.

    `predicted` has one row an outcome, in their order (see `aligned`); None, or without a column: nothing is predicted.
    """
    frame = pl.DataFrame(pl.from_arrow(outcomes))
    found: dict[str, Column] = {}
    for name in sorted(names):
        if name == "surface":
            words = {word: code for code, word in enumerate(frame["surface"].drop_nulls().unique().sort())}
            codes = frame["surface"].replace_strict(words, default=-1, return_dtype=pl.Int32).fill_null(-1)
            found[name] = Words(codes.to_numpy(), words)
        elif name.startswith(PREDICTED):
            found[name] = Numbers(_predicted(predicted, name, len(frame)))
        elif name.startswith(REPORTED):
            found[name] = Numbers(_reals(frame.select(_reported(name.removeprefix(REPORTED))).to_series()))
        else:
            found[name] = Numbers(_reals(frame.select(_EXPRESSIONS[name]()).to_series()))
    return found


def aligned(outcomes: pa.Table, predicted: pa.Table) -> pa.Table:
    """Predictions in the order of OUTCOMES rows, null where there is none for a row.

    Raises ValueError where they have two for one title of a decision.
    """
    key = ["decision_id", "title_id"]
    told = pl.DataFrame(pl.from_arrow(predicted))
    if told.select(key).is_duplicated().any():
        twice = told.filter(told.select(key).is_duplicated()).row(0, named=True)
        raise ValueError(f"predicted feedback: decision {twice['decision_id']}, title {twice['title_id']}: two rows")
    rows = pl.DataFrame(pl.from_arrow(outcomes.select(key)))
    return rows.join(told, on=key, how="left", maintain_order="left").to_arrow()


def _predicted(predicted: pa.Table | None, name: str, size: int) -> NDArray[np.float64]:
    if predicted is None or name not in predicted.column_names:
        return np.full(size, np.nan)
    return _reals(pl.DataFrame(pl.from_arrow(predicted.select([name]))).to_series())


def _reals(series: pl.Series) -> NDArray[np.float64]:
    return series.cast(pl.Float64).fill_null(float("nan")).to_numpy()


def _happened(name: str) -> pl.Expr:
    happened = pl.col(_HAPPENED[name]).is_not_null()
    if name in ("thumb_up", "thumb_down", "abandon"):  # can be taken back while the window is open
        return pl.when(~_open(name)).then(happened.cast(pl.Float64))
    return pl.when(happened).then(1.0).when(~_open(name)).then(0.0)


def _watched(name: str) -> pl.Expr:
    return pl.when(~_open("watching")).then(pl.col(name).cast(pl.Float64).fill_null(0.0))


def _return(name: str) -> pl.Expr:
    days = (pl.col("returned_at") - pl.col("session_ended_at")).dt.total_microseconds() / 86_400e6
    settled = pl.col("session_ended_at").is_not_null() & ~_open(name)
    return pl.when(days.is_not_null()).then((days <= _RETURNS[name]).cast(pl.Float64)).when(settled).then(0.0)


def _seconds(since: str, until: str) -> pl.Expr:
    return ((pl.col(until) - pl.col(since)).dt.total_microseconds() / 1e6).clip(0.0)


def _open(name: str) -> pl.Expr:
    return pl.col("open").list.contains(name)


def _reported(feedback: str) -> pl.Expr:
    of = pl.element().struct.field("feedback") == feedback
    return pl.col("reported").list.eval(pl.element().filter(of).struct.field("value")).list.first()


_EXPRESSIONS: dict[str, Callable[[], pl.Expr]] = {
    **{name: partial(_happened, name) for name in _HAPPENED},
    **{name: partial(_watched, name) for name in _WATCHED},
    **{name: partial(_return, name) for name in _RETURNS},
    "seconds_to_click": lambda: _seconds("at", "clicked_at"),
    "seconds_to_play": lambda: _seconds("at", "played_at"),
    "seconds_to_complete": lambda: _seconds("played_at", "completed_at"),
    "days_to_return": lambda: _seconds("session_ended_at", "returned_at") / 86_400.0,
    "position": lambda: pl.col("position"),
    "propensity": lambda: pl.col("propensity"),
    "hours_since": lambda: _seconds("at", "as_of") / 3_600.0,
}
