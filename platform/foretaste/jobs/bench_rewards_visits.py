"""Visits of `bench rewards --part report`, read from events as any log has them: slates, choices, and what followed.

Shapes: S visits, X some of them, C choices, M members, N titles, P places.
"""

from __future__ import annotations

import numpy as np
import polars as pl
from numpy.typing import NDArray

from foretaste.contracts.events import Action
from foretaste.evaluation.reward_visits import PAST, Visits
from foretaste.feedback.title_genres import TitleGenres
from foretaste.worlds.config import DAY_US, WorldConfig
from foretaste.worlds.log import PLAYER, SURFACES
from foretaste.worlds.titles import Titles, titles_table

FEEDBACK = ("fraction", "completes", "left", "thumbs_up", "thumbs_down", "read", "log_seconds_read")
"""Feedback of a choice: how far it was played, whether to the end, or less than half, thumbs, and whether its page was
read, and for how long (0: it was not)."""
LATELY_DAYS, NEW_DAYS = 7, 14
_NOTHING, _NEW, _BEFORE, _BEGUN = range(len(PAST))


def visits_of(
    config: WorldConfig, titles: Titles, events: pl.DataFrame, number_of: dict[str, int], band_MN: NDArray[np.int64]
) -> Visits:
    """Visits of the members (numbers by their ids) of a partition, those with whole slates."""
    code_of = {name: code for code, name in enumerate(titles.ids)}
    rolled = TitleGenres.of(titles_table(titles, config)).rolled("title_id")
    events = events.filter(pl.col("member_id").is_not_null()).with_columns(
        title=rolled.replace_strict(code_of, default=-1, return_dtype=pl.Int64),
        us=pl.col("at").dt.epoch("us"),
        member=pl.col("member_id").replace_strict(number_of, return_dtype=pl.Int64),
    )
    visits = _visits(events, config)
    choices = _choices(events).join(visits.select("session_id", "visit"), on="session_id").sort("us")
    title_SP = np.array(visits["slate"].to_list(), dtype=np.int64)
    start_S = visits["start"].to_numpy()
    day_S = (start_S - config.first_us) // DAY_US
    visit_C, chosen_C = choices["visit"].to_numpy().astype(np.int64), choices["title"].to_numpy()
    next_S, end_S = visits["next"].fill_null(config.end_us).to_numpy(), visits["end"].to_numpy()
    return Visits(
        member_S=visits["member"].to_numpy(),
        days_S=(next_S - end_S) / DAY_US,
        returned_S=visits["next"].is_not_null().to_numpy(),
        until_S=(config.end_us - end_S) / DAY_US,
        title_SP=title_SP,
        sale_S=titles.available_D[day_S],
        band_MN=band_MN,
        past_SN=_past(
            titles, visits["member"].to_numpy(), start_S, day_S, visit_C, chosen_C, choices["completes"].to_numpy()
        ),
        visit_C=visit_C,
        chosen_C=chosen_C,
        feedback_CF=choices.select(pl.col(*FEEDBACK).cast(pl.Float64)).to_numpy(),
    )


def _visits(events: pl.DataFrame, config: WorldConfig) -> pl.DataFrame:
    """One row a visit, by member in order of time; the window's last day is left out, for its visits may be cut."""
    shown = events.filter(pl.col("action") == Action.IMPRESSION).sort("session_id", "position")
    slates = shown.group_by("session_id", maintain_order=True).agg(slate=pl.col("title"))
    spans = events.group_by("session_id").agg(
        member=pl.col("member").first(), start=pl.col("us").min(), end=pl.col("us").max()
    )
    found = spans.sort("member", "start").with_columns(next=pl.col("start").shift(-1).over("member"))
    whole = found.join(slates, on="session_id", maintain_order="left").filter(
        (pl.col("slate").list.len() == config.impressions_per_session) & (pl.col("start") < config.end_us - DAY_US)
    )
    return whole.with_row_index("visit")


def _choices(events: pl.DataFrame) -> pl.DataFrame:
    """One row a choice: what was played, episodes that run on counting to it."""
    action, key = pl.col("action"), ("session_id", "title")
    begun = events.filter((action == Action.PLAY) & (pl.col("surface") != SURFACES[PLAYER])).select(*key, "us")
    ended = events.filter(action.is_in([Action.STOP, Action.COMPLETE])).group_by(key)
    watched = ended.agg(fraction=pl.col("played_fraction").max(), completes=(action == Action.COMPLETE).any())
    said = events.filter(action.is_in([Action.THUMB_UP, Action.THUMB_DOWN])).group_by(key)
    thumbs = said.agg(thumbs_up=(action == Action.THUMB_UP).any(), thumbs_down=(action == Action.THUMB_DOWN).any())
    read = events.filter(action == Action.DETAIL).group_by(key).agg(seconds=pl.col("dwell_seconds").last())
    joined = begun.unique(key, keep="first").join(watched, on=key)
    joined = joined.join(thumbs, on=key, how="left").join(read, on=key, how="left")
    return joined.with_columns(
        pl.col("thumbs_up", "thumbs_down").fill_null(False),
        left=pl.col("fraction") < 0.5,
        read=pl.col("seconds").is_not_null(),
        log_seconds_read=pl.col("seconds").log1p().fill_null(0.0),
    )


def _past(
    titles: Titles,
    member_S: NDArray[np.int64],
    start_S: NDArray[np.int64],
    day_S: NDArray[np.int64],
    visit_C: NDArray[np.int64],
    chosen_C: NDArray[np.int64],
    finished_C: NDArray[np.bool_],
) -> NDArray[np.uint8]:
    """What was between members and titles when visits opened, one of PAST: uint8[S, N]."""
    num_titles = len(titles)
    first_day_N = np.searchsorted(titles.available_D, np.arange(num_titles), side="right")
    age_SN = day_S[:, None] - first_day_N[None, :]
    past_SN = np.where((age_SN >= 0) & (age_SN <= NEW_DAYS) & (first_day_N > 0), _NEW, _NOTHING).astype(np.uint8)
    changes_S = np.diff(member_S, prepend=-1) != 0
    turn_S = np.arange(len(member_S)) - np.maximum.accumulate(np.where(changes_S, np.arange(len(member_S)), 0))
    turn_C = turn_S[visit_C]
    last_MN = np.full((int(member_S.max(initial=0)) + 1, num_titles), -1, dtype=np.int64)
    open_MN = np.zeros(last_MN.shape, dtype=np.bool_)
    for turn in range(int(turn_S.max(initial=-1)) + 1):
        rows = np.flatnonzero(turn_S == turn)
        last_XN = last_MN[member_S[rows]]
        lately_XN = (last_XN > (start_S[rows] - LATELY_DAYS * DAY_US)[:, None]) & open_MN[member_S[rows]]
        past_SN[rows] = np.where(lately_XN, _BEGUN, np.where(last_XN >= 0, _BEFORE, past_SN[rows]))
        now = np.flatnonzero(turn_C == turn)
        cell = member_S[visit_C[now]], chosen_C[now]
        last_MN[cell], open_MN[cell] = start_S[visit_C[now]], ~finished_C[now]
    return past_SN
