"""Logged slates of the validation window, each title joined with what followed: was it played from there, how far, was
it liked, was it put on the list.

Shapes: B slates, P places of the longest, T interactions of all actors.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from foretaste.contracts.catalogue import Catalogue
from foretaste.contracts.events import GUEST, Action
from foretaste.contracts.histories import Histories
from foretaste.ops.tables import cuts_of, read_prepared
from foretaste.signals.ranked_past import Reading
from foretaste.training.ranker_cases import RankerCases, folds_of, join

LONGEST = 50
"""Places of a slate that are looked at."""
_SESSION = ("actor_id", "session_id")


@dataclass(frozen=True, slots=True)
class Slates:
    """B slates; what followed is NaN for padding and where it is not known."""

    actors: list[str]
    at_B: NDArray[np.int64]  # microseconds: when the first title was shown
    code_BP: NDArray[np.int32]  # catalogue codes in order of place, 0 for padding
    played_BP: NDArray[np.float32]  # 1 where it was played from here
    fraction_BP: NDArray[np.float32]  # of what was played from here
    thumb_BP: NDArray[np.float32]
    listed_BP: NDArray[np.float32]
    weight_BP: NDArray[np.float32]  # inverse propensity, 1 where the log does not say it

    def __len__(self) -> int:
        return len(self.actors)

    def rows(self, index_B: NDArray[np.int64]) -> Slates:
        """Pick slates by their number."""
        arrays = {name: getattr(self, name)[index_B] for name in Slates.__slots__ if name != "actors"}
        return Slates([self.actors[b] for b in index_B], **arrays)


def slates(prepared: Path, known: Catalogue, manifest: Mapping[str, Any], *, limit: int, seed: int) -> Slates | None:
    """Read at most `limit` slates of the validation window of the time split, drawn by `seed`; None without any.

    A slate is what one decision showed (without decisions: what one session was shown at one instant). A title was
    played from it where a choice names that decision; in a log whose choices name none, where the session chose it
    afterwards.
    """
    cut = cuts_of(dict(manifest))
    if cut is None or not manifest["counts"].get("impressions", 1):
        return None
    window = pl.col("at").to_physical().is_between(cut.validation_from, cut.test_from, closed="left")
    shown = _coded(_frame(prepared, "impressions").filter(window), known)
    if not shown.height:
        return None
    shown = shown.with_columns(
        slate=pl.coalesce("decision_id", pl.format("{}@{}", "session_id", pl.col("at").to_physical()))
    ).sort("actor_id", "slate", "position", "at", maintain_order=True)
    names = shown.select("actor_id", "slate").unique(maintain_order=True)
    if names.height > limit:
        kept = np.sort(np.random.default_rng(seed).choice(names.height, size=limit, replace=False))
        shown = shown.join(names[kept], on=["actor_id", "slate"], how="semi", maintain_order="left")
    shown = shown.unique(["actor_id", "slate", "code"], keep="first", maintain_order=True)
    return _laid_out(_followed(shown, prepared, known, manifest, before=cut.test_from))


def _frame(prepared: Path, table: str) -> pl.DataFrame:
    frame = pl.from_arrow(read_prepared(prepared, table))
    assert isinstance(frame, pl.DataFrame)
    return frame


def _coded(frame: pl.DataFrame, known: Catalogue) -> pl.DataFrame:
    """With the catalogue's code of each title, without those that it does not have."""
    codes = known.codes(frame["title_id"].to_list())
    return frame.with_columns(code=pl.Series(codes, dtype=pl.Int32)).filter(pl.col("code") > 0)


def _followed(
    shown: pl.DataFrame, prepared: Path, known: Catalogue, manifest: Mapping[str, Any], *, before: int
) -> pl.DataFrame:
    """Add what the session did with each title after it was shown, and whether it was played from the slate."""
    earlier = pl.col("at").to_physical() < before
    did = _coded(_frame(prepared, "interactions").filter(earlier), known)
    after = (
        shown.select(*_SESSION, "slate", "code", shown_at="at")
        .join(did.select(*_SESSION, "code", "at", "action", "played_fraction"), on=[*_SESSION, "code"])
        .filter(pl.col("at") >= pl.col("shown_at"))
        .group_by("actor_id", "slate", "code")
        .agg(
            chose=pl.col("action").is_in(manifest["target_actions"]).any(),
            fraction=pl.col("played_fraction").max(),
            liked=(pl.col("action") == Action.THUMB_UP.value).any(),
            listed=(pl.col("action") == Action.ADD_TO_LIST.value).any(),
        )
    )
    acts = _coded(_frame(prepared, "acts").filter(earlier & pl.col("decision_id").is_not_null()), known)
    chosen = acts.filter(pl.col("action").is_in(manifest["target_actions"])).select(
        actor_id=pl.coalesce("member_id", pl.format(GUEST + "{}", "session_id")), slate="decision_id", code="code"
    )
    shown = shown.join(after, on=["actor_id", "slate", "code"], how="left", maintain_order="left")
    if not chosen.height:
        return shown.with_columns(played=pl.col("chose").fill_null(False))
    chosen = chosen.unique().with_columns(played=True)
    joined = shown.join(chosen, on=["actor_id", "slate", "code"], how="left", maintain_order="left")
    return joined.with_columns(pl.col("played").fill_null(False))


def _laid_out(shown: pl.DataFrame) -> Slates:
    slate_I = shown.select(pl.struct("actor_id", "slate").rle_id()).to_series().to_numpy().astype(np.int64)
    first_B = np.flatnonzero(np.diff(slate_I, prepend=-1))
    place_I = np.arange(len(slate_I)) - first_B[slate_I]
    near = place_I < LONGEST
    shape = (len(first_B), int(place_I[near].max()) + 1)

    def spread(values: pl.Series, filler: float) -> NDArray[np.float32]:
        array = np.full(shape, filler, dtype=np.float32)
        array[slate_I[near], place_I[near]] = values.cast(pl.Float64).fill_null(filler).to_numpy()[near]
        return array

    played_BP, code_BP = spread(shown["played"], 0.0), spread(shown["code"], 0.0).astype(np.int32)
    fraction_BP, liked_BP = spread(shown["fraction"], np.nan), spread(shown["liked"].fill_null(False), 0.0)
    at_B = shown["at"].to_physical().to_numpy()[first_B]
    return Slates(
        shown["actor_id"].gather(first_B).to_list(),
        at_B,
        code_BP,
        played_BP,
        np.where(played_BP > 0, fraction_BP, np.nan).astype(np.float32),
        np.where(played_BP > 0, liked_BP, np.nan).astype(np.float32),
        np.where(code_BP > 0, spread(shown["listed"].fill_null(False), 0.0), np.nan).astype(np.float32),
        spread(1.0 / shown["propensity"], 1.0),
    )


def impressions(
    found: Slates, timeline: Histories, timeline_actors: list[str], reading: Reading, *, folds: int
) -> RankerCases:
    """Describe the titles of slates as they were when they were shown."""
    number = {actor: place for place, actor in enumerate(timeline_actors)}
    actor_B = np.array([number.get(actor, -1) for actor in found.actors], dtype=np.int64)
    start_B = np.where(actor_B >= 0, timeline.offsets_B1[:-1][actor_B], 0)
    end_B = np.where(actor_B >= 0, timeline.offsets_B1[1:][actor_B], 0)
    before = [np.searchsorted(timeline.at_T[a:b], at) for a, b, at in zip(start_B, end_B, found.at_B, strict=True)]
    stop_B = start_B + np.array(before, dtype=np.int64)
    past = reading.ask(timeline, start_B, stop_B, found.at_B, found.actors)
    parts, order = [], []
    for rows, _, inputs in past.answers(np.arange(len(found)), shown_BP=found.code_BP):
        some = found.rows(rows)
        place_BP = np.tile(np.arange(some.code_BP.shape[1], dtype=np.int16), (len(rows), 1))
        numbers = np.array([zlib.crc32(actor.encode()) for actor in some.actors], dtype=np.int64)
        parts.append(
            RankerCases(
                inputs,
                some.played_BP,
                some.fraction_BP,
                some.thumb_BP,
                some.listed_BP,
                place_BP,
                some.weight_BP,
                numbers,
                folds_of(some.actors, folds),
            )
        )
        order.append(rows)
    return join(parts).rows(np.argsort(np.concatenate(order)))
