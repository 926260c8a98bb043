"""Reward programs: named, versioned, declared; what they make of outcomes, observed and predicted.

    programs:
      completion:
        version: 1
        about: what was watched to the end
        parts:                                  # named numbers, each may read those above it; may be left out
          finished: if(known(complete), complete, predicted_complete)
        reward: finished - 0.5 * abandon

A reward is known, or its state says why it is not: nothing that is missing counts as 0.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property
from typing import Annotated

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pydantic import Field, StringConstraints

from foretaste.contracts.columns import REWARDS, conform
from foretaste.contracts.config import Frozen
from foretaste.contracts.expression import Expression, Type, parse
from foretaste.contracts.expression_text import ExpressionError
from foretaste.contracts.expression_values import Column, Numbers, numbers
from foretaste.rewards.fields import ALSO, OBSERVED, PREDICTED, REPORTED, Fields, aligned, values

MAX_PARTS = 30
Name = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_]{0,59}$")]


class State(StrEnum):
    """What a reward is made of, or why there is none."""

    FINAL = "final"  # of feedback that is known for good
    PREDICTED = "predicted"  # predicted feedback stands for some that is open or will never be seen
    OPEN = "open"  # it needs feedback that may still change
    NO_PREDICTION = "no_prediction"  # it needs predicted feedback that there is not
    NOT_SHOWN = "not_shown"  # the title was on the list, but the client did not show it
    UNDEFINED = "undefined"  # it needs what this row will never have, or divides by 0


class Program(Frozen):
    """A reward program; its name and version say what it is, its fingerprint proves it."""

    name: Name = Field(description="what it is called")
    version: int = Field(ge=1, lt=2**31, strict=True, description="goes up whenever the reward changes")
    about: str = Field("", max_length=500, description="what it stands for, in a sentence")
    parts: dict[Name, str] = Field({}, max_length=MAX_PARTS, description="named numbers, in order")
    reward: str = Field(description="the number that it gives, of fields and parts")

    @cached_property
    def identity(self) -> str:
        """Fingerprint of what it computes, whatever is said about it."""
        return self.model_copy(update={"about": ""}).fingerprint()

    @cached_property
    def compiled(self) -> Compiled:
        """Read its expressions. Raises ProgramError naming the field of the program, the place, wanted and found."""
        parts: dict[str, Expression] = {}
        taken = Fields()
        for name, text in self.parts.items():
            if name in taken:
                raise ProgramError(self.name, f"parts.{name}", "a name that no field has", repr(name))
            parts[name] = self._parsed(f"parts.{name}", text, parts)
        return Compiled(parts, self._parsed("reward", self.reward, parts))

    def _parsed(self, where: str, text: str, parts: Mapping[str, Expression]) -> Expression:
        fields = Fields(dict.fromkeys(parts, Type.NUMBER))
        try:
            return parse(text, fields, wanted=Type.NUMBER)
        except ExpressionError as error:
            raise ProgramError(self.name, where, f"{error.wanted} at character {error.at}", error.found) from error


class ProgramError(ValueError):
    """What is wrong with a program, and in which of its fields."""

    def __init__(self, program: str, where: str, wanted: str, found: str) -> None:
        super().__init__(f"program {program}: {where}: wanted {wanted}, found {found}")
        self.program, self.where, self.wanted, self.found = program, where, wanted, found


@dataclass(frozen=True)
class Compiled:
    """The expressions of a program."""

    parts: Mapping[str, Expression]
    reward: Expression

    @cached_property
    def fields(self) -> frozenset[str]:
        """Fields of outcomes that the reward depends on."""
        needed = set(self.reward.fields)
        for name in reversed(list(self.parts)):
            if name in needed:
                needed |= self.parts[name].fields
        return frozenset(needed - self.parts.keys())

    def value(self, columns: Mapping[str, Column]) -> NDArray[np.float64]:
        """Compute the reward of each row, NaN where it is not known; float64[X]. `columns` must not be empty."""
        known: dict[str, Column] = dict(columns)
        for name, part in self.parts.items():
            if part.fields <= known.keys():  # others are not needed
                known[name] = Numbers(numbers(part, known))
        found = numbers(self.reward, known)
        found[~np.isfinite(found)] = np.nan
        return found


def rewards(program: Program, outcomes: pa.Table, predicted: pa.Table | None = None) -> pa.Table:
    """Compute REWARDS of OUTCOMES rows, in their order.

    `predicted` is a table of columns.predicted_outcomes of one model version, any rows in any order.
    Raises ProgramError for a program that cannot be read, ValueError for predictions of two model versions.
    """
    compiled = program.compiled
    version = _model_version(predicted)
    told = None if predicted is None else aligned(outcomes, predicted)
    # a number that is always there gives its size to a reward that reads nothing
    columns = values(outcomes, told, compiled.fields | {"hours_since"})
    value_X = compiled.value(columns)
    shown = outcomes["shown"].combine_chunks().fill_null(True).to_numpy(zero_copy_only=False)
    value_X[~shown] = np.nan
    table = outcomes.select(["decision_id", "actor_id", "at", "title_id", "position", "propensity", "as_of"])
    size = outcomes.num_rows
    stamped = {
        "reward": pa.array(value_X, mask=np.isnan(value_X)),
        "reward_state": pa.array(_states(value_X, shown, compiled.fields, columns, outcomes), pa.string()),
        "program": pa.array([program.name] * size, pa.string()),
        "program_version": pa.array([program.version] * size, pa.int32()),
        "program_fingerprint": pa.array([program.identity] * size, pa.string()),
        "model_version": pa.array([version] * size, pa.string()),
    }
    for name, column in stamped.items():
        table = table.append_column(name, column)
    return conform(table, REWARDS, what=f"rewards of program {program.name}")


def _states(
    value_X: NDArray[np.float64],
    shown_X: NDArray[np.bool_],
    fields: frozenset[str],
    columns: Mapping[str, Column],
    outcomes: pa.Table,
) -> NDArray[np.str_]:
    """Say of each row what its reward is made of, or why there is none."""

    def any_unknown(names: Sequence[str]) -> NDArray[np.bool_]:
        found = np.zeros(len(value_X), dtype=np.bool_)
        for name in names:
            column = columns[name]
            assert isinstance(column, Numbers)
            found |= np.isnan(column.values_X)
        return found

    foreseen = [name for name in fields if name.startswith(PREDICTED)]
    observed = [name for name in fields if name in OBSERVED]
    unseen_X = any_unknown(observed) if observed else np.ones(len(value_X), dtype=np.bool_)
    known_X, open_X = ~np.isnan(value_X), _may_change(outcomes, fields)
    state_X = np.full(len(value_X), State.UNDEFINED.value, dtype="U16")
    state_X[open_X] = State.OPEN.value
    state_X[unseen_X & any_unknown(foreseen)] = State.NO_PREDICTION.value
    state_X[known_X] = State.FINAL.value
    state_X[known_X & unseen_X & bool(foreseen)] = State.PREDICTED.value
    state_X[~shown_X] = State.NOT_SHOWN.value
    return state_X


def _may_change(outcomes: pa.Table, fields: frozenset[str]) -> NDArray[np.bool_]:
    watching = {"num_plays", "num_completions", "dwell_seconds", "played_fraction"}
    wanted = {"watching" if name in watching else name for name in fields if name in OBSERVED}
    return np.array([bool(wanted.intersection(names)) for names in outcomes["open"].to_pylist()], dtype=np.bool_)


def _model_version(predicted: pa.Table | None) -> str | None:
    if predicted is None or not predicted.num_rows:
        return None
    found = sorted(set(predicted["model_version"].to_pylist()))
    if len(found) != 1:
        raise ValueError(f"predicted feedback: wanted one model version, found {', '.join(map(str, found))}")
    return str(found[0])


FIELDS: Mapping[str, str] = {
    **OBSERVED,
    **ALSO,
    f"{PREDICTED}...": "the same of any feedback above as a model predicts it; unknown where it does not",
    f"{REPORTED}...": "the newest value that was reported of a decision or of the title under that name",
}
"""What every field means, for people."""
