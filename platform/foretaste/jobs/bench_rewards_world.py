"""The world of `bench rewards`: lived through under a policy, read back as any log is.

Shapes: X outcomes, M members of the partition, N titles, P places.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime

import numpy as np
import polars as pl
import pyarrow as pa
from numpy.typing import NDArray

from foretaste.contracts.columns import IMPRESSIONS, conform
from foretaste.contracts.events import GUEST
from foretaste.feedback.exposures import exposed_of_impressions
from foretaste.feedback.outcome_config import OutcomeConfig
from foretaste.feedback.outcomes import no_reports, outcomes
from foretaste.feedback.title_genres import TitleGenres
from foretaste.rewards.programs import Program, rewards
from foretaste.worlds.choices import Habits
from foretaste.worlds.config import WorldConfig
from foretaste.worlds.generate import catalogue_of, partition
from foretaste.worlds.long_term import long_term
from foretaste.worlds.members import Members
from foretaste.worlds.slates import Logging, Scored, SlatePolicy
from foretaste.worlds.titles import Titles, titles_table

Score = Callable[[NDArray[np.float64]], NDArray[np.float64]]
"""Values of titles to members by the affinity [M, N] of both; [M + 1, N], see `evaluation.reward_values`."""


@dataclass(frozen=True)
class Lived:
    """A partition of a world, lived through."""

    outcomes: pa.Table  # OUTCOMES as of the end of the window, those of guests left out
    truth: pa.Table  # TRUTH_LONG_TERM
    member_X: NDArray[np.int64]
    title_X: NDArray[np.int64]
    affinity_X: NDArray[np.float64]
    affinity_MN: NDArray[np.float64]
    num_available_X: NDArray[np.int64]  # titles that were on sale
    events: pl.DataFrame | None  # EVENTS, where they are kept
    number_of: dict[str, int]  # of members, by their ids

    def rewards(self, program: Program) -> NDArray[np.float64]:
        """Reward of each outcome, NaN where it is not known."""
        found = rewards(program, self.outcomes)["reward"].to_numpy(zero_copy_only=False)
        return np.asarray(found, dtype=np.float64)


def live(
    config: WorldConfig,
    index: int,
    score: Score | None = None,
    *,
    epsilon: float = 0.0,
    joined: OutcomeConfig | None = None,
    keep_events: bool = False,
) -> Lived:
    """Live through a partition under the logging policy, or one that is greedy for a score.

    `epsilon` is the share of places that are filled evenly.
    """
    kept: dict[str, Habits] = {}

    def policy_of(titles: Titles, members: Members, habits: Habits) -> SlatePolicy:
        kept["habits"] = habits
        assert score is not None
        return Scored(score(habits.affinity_MN), config.impressions_per_session, epsilon)

    def logging(titles: Titles, members: Members, habits: Habits) -> SlatePolicy:
        kept["habits"] = habits
        return Logging(config, habits)

    tables = partition(config, index, logging if score is None else policy_of)
    events, titles = pl.DataFrame(pl.from_arrow(tables["events"])), catalogue_of(config)
    found = outcomes(
        exposed_of_impressions(_impressions(events)),
        _acted(events),
        no_reports(),
        TitleGenres.of(titles_table(titles, config)),
        as_of=datetime.fromtimestamp(config.end_us / 1e6, UTC),
        config=joined or OutcomeConfig(),
    )
    found = found.filter(found["member_id"].is_valid())
    number_of = {name: number for number, name in enumerate(tables["members"]["member_id"].to_pylist())}
    code_of = {name: code for code, name in enumerate(titles.ids)}
    frame = pl.DataFrame(pl.from_arrow(found.select(["member_id", "title_id", "at"])))
    member_X = frame["member_id"].replace_strict(number_of, return_dtype=pl.Int64).to_numpy()
    title_X = frame["title_id"].replace_strict(code_of, return_dtype=pl.Int64).to_numpy()
    day_X = (frame["at"].dt.epoch("us").to_numpy() - config.first_us) // 86_400_000_000
    affinity_MN = kept["habits"].affinity_MN
    return Lived(
        outcomes=found,
        truth=long_term(config, tables),
        member_X=member_X,
        title_X=title_X,
        affinity_X=affinity_MN[member_X, title_X],
        affinity_MN=affinity_MN,
        num_available_X=titles.available_D[day_X],
        events=events if keep_events else None,
        number_of=number_of,
    )


def lived_truth(config: WorldConfig, index: int, score: Score) -> pa.Table:
    """TRUTH_LONG_TERM of a partition that lived under the policy that is greedy for a score."""

    def policy_of(titles: Titles, members: Members, habits: Habits) -> SlatePolicy:
        return Scored(score(habits.affinity_MN), config.impressions_per_session, 0.0)

    return long_term(config, partition(config, index, policy_of))


def _impressions(events: pl.DataFrame) -> pa.Table:
    shown = events.filter(pl.col("action") == "impression")
    propensity = pl.col("properties").str.json_path_match("$.propensity").cast(pl.Float64)
    return conform(_with_actor(shown).with_columns(propensity=propensity).to_arrow(), IMPRESSIONS, what="impressions")


def _acted(events: pl.DataFrame) -> pa.Table:
    return _with_actor(events.filter(pl.col("action") != "impression")).to_arrow()


def _with_actor(events: pl.DataFrame) -> pl.DataFrame:
    return events.with_columns(actor_id=pl.coalesce("member_id", pl.concat_str(pl.lit(GUEST), "session_id")))
