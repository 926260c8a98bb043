"""Decisions joined with what followed on them, as of an instant: a pure function of what had arrived before it.

An event on a title belongs to one decision at most, by the first of these rules that names one:

1. decision   it names a decision whose list has the title; it may not lie before it by more than `skew_minutes`
2. decision   it follows, in the same session, on an event with that title which did (a play names what led to it, the
              stop and the thumb after it do not)
3. window     the newest decision before it whose list has the title and did show it, as far as is known

and only within `window_hours` of the decision. So a row stands once its window has closed and the member's return has
been waited for; until then `open` names what may still change. What happened is certain at once, what did not only
when it cannot any more.

Where the tables are large they are handed over by bucket of the actor: nothing here looks across actors.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta

import polars as pl
import pyarrow as pa

from foretaste.contracts.columns import EVENTS, OUTCOMES, REPORTED, conform
from foretaste.contracts.events import ENGAGEMENT, PASSIVE, Action
from foretaste.feedback.outcome_config import OutcomeConfig
from foretaste.feedback.title_genres import TitleGenres

RETURN_DAYS: Mapping[str, int] = {"return_1d": 1, "return_7d": 7, "return_30d": 30}
WITHIN_WINDOW = (
    "click", "add_to_list", "play", "discovery", "complete", "abandon", "thumb_up", "thumb_down", "watching",
)  # fmt: skip
"""Feedback that closes with the window; `watching`: seconds and fraction played, plays and completions."""
CENSORED = (*WITHIN_WINDOW, *RETURN_DAYS)
"""What `open` may name."""

DECISION, WINDOW = "decision", "window"
_WATCHES = (Action.PLAY, Action.STOP, Action.COMPLETE)
_TIME = pl.Datetime("us", "UTC")


def outcomes(
    exposed: pa.Table,
    events: pa.Table,
    reported: pa.Table,
    titles: TitleGenres,
    *,
    as_of: datetime,
    config: OutcomeConfig,
) -> pa.Table:
    """Join EXPOSED rows with what their actors did (EVENTS with `actor_id`, `received_at` where known) and REPORTED.

    All events of the actors are wanted, also those of before the decisions: they say what a member knew. Rows and
    events in any order, with repetitions; gives OUTCOMES in order of (actor, at, decision, place).
    """
    rows, done = _rows(exposed, titles, as_of, config), _events(events, titles, as_of)
    attributed = _attributed(rows, done.filter(pl.col("action").is_in(sorted(ENGAGEMENT))), config)
    found = rows.join(_feedback(attributed, config), on="row", how="left", maintain_order="left")
    found = _discovered(found, done, titles)
    found = _returned(found, done, config)
    found = _reported(found, reported, as_of)
    num = pl.col("num_plays", "num_completions").fill_null(0)
    abandoned = pl.when(pl.col("closes_at") <= as_of, pl.col("completed_at").is_null()).then("abandoned_at")
    found = found.with_columns(num, abandoned_at=abandoned).with_columns(open=_open(as_of))
    return conform(found.sort("row").to_arrow(), OUTCOMES, what="outcomes")


def _rows(exposed: pa.Table, titles: TitleGenres, as_of: datetime, config: OutcomeConfig) -> pl.DataFrame:
    rows = _frame(exposed).filter(pl.col("at") < as_of).with_columns(title_id=titles.rolled("title_id"))
    rows = rows.sort("actor_id", "at", "decision_id", "position", "title_id", nulls_last=True)
    rows = rows.unique(["decision_id", "title_id"], keep="first", maintain_order=True)
    as_of_us = pl.lit(as_of).cast(_TIME)
    later = pl.col("shown_at") >= as_of_us
    rows = rows.with_columns(
        as_of=as_of_us,
        closes_at=pl.col("at") + config.window,
        shown_at=pl.when(~later).then("shown_at"),
    )
    return rows.with_row_index("row")


def _events(events: pa.Table, titles: TitleGenres, as_of: datetime) -> pl.DataFrame:
    """What was done, each event once, by the session of the log or one of our own, in order of time."""
    done = _frame(events).filter(pl.col("at") < as_of, ~pl.col("action").is_in(sorted(PASSIVE)))
    if "received_at" in done.columns:
        done = done.filter(pl.col("received_at").is_null() | (pl.col("received_at") < as_of))
    names = ["actor_id", *EVENTS.names]
    done = done.select(names).sort(names, nulls_last=True).unique(["actor_id", "event_id"], keep="first")
    return done.with_columns(title_id=titles.rolled("title_id")).sort("actor_id", "at", "event_id")


def _attributed(rows: pl.DataFrame, done: pl.DataFrame, config: OutcomeConfig) -> pl.DataFrame:
    """Events with the `row` that they belong to, and by which rule they were `matched`."""
    done = done.filter(pl.col("title_id").is_not_null())
    key = ["actor_id", "title_id"]
    about = rows.select("row", *key, "decision_id", decided_at="at", until="closes_at", shown="shown")
    named = done.join(about.drop("shown"), on=[*key, "decision_id"], how="inner")
    skew = timedelta(minutes=config.skew_minutes)
    named = named.filter(pl.col("at") >= pl.col("decided_at") - skew, pl.col("at") < pl.col("until"))
    rest = done.join(named.select("actor_id", "event_id"), on=["actor_id", "event_id"], how="anti")
    led = named.filter(pl.col("session_id").is_not_null()).select(*key, "session_id", "at", "event_id", "row", "until")
    led = led.sort("at", "event_id").drop("event_id")
    followed = _newest_before(rest, led, [*key, "session_id"])
    rest = rest.join(followed.select("actor_id", "event_id"), on=["actor_id", "event_id"], how="anti")
    offered = about.filter(pl.col("shown").fill_null(True)).sort("decided_at", "decision_id")
    offered = offered.select(*key, "row", "until", at="decided_at")
    shown = _newest_before(rest, offered, key)
    parts = [(named, DECISION), (followed, DECISION), (shown, WINDOW)]
    names = ["row", "at", "event_id", "action", "dwell_seconds", "played_fraction"]
    return pl.concat([part.select(names).with_columns(matched=pl.lit(how)) for part, how in parts])


def _newest_before(done: pl.DataFrame, led: pl.DataFrame, key: list[str]) -> pl.DataFrame:
    """Events with the newest of `led` that stands before or at them, where its time is not over."""
    found = done.filter(pl.col("session_id").is_not_null() if "session_id" in key else pl.lit(True))
    found = found.sort("at", "event_id").join_asof(
        led, on="at", by=key, strategy="backward", check_sortedness=False, coalesce=True
    )
    return found.filter(pl.col("row").is_not_null(), pl.col("at") < pl.col("until"))


def _feedback(attributed: pl.DataFrame, config: OutcomeConfig) -> pl.DataFrame:
    action, at = pl.col("action"), pl.col("at")
    watches = action.is_in(list(_WATCHES))
    completes = (action == Action.COMPLETE) | (watches & (pl.col("played_fraction") >= config.complete_from))
    up, down = (at.filter(action == thumb).max() for thumb in (Action.THUMB_UP, Action.THUMB_DOWN))
    found = (
        attributed.sort("row", "at", "event_id")
        .group_by("row", maintain_order=True)
        .agg(
            matched=pl.col("matched").min(),  # decision before window
            clicked_at=at.min(),
            listed_at=at.filter(action == Action.ADD_TO_LIST).min(),
            played_at=at.filter(watches).min(),
            completed_at=at.filter(completes).min(),
            up=up,
            down=down,
            left_at=at.filter(action == Action.STOP).max(),
            num_plays=(action == Action.PLAY).sum().cast(pl.Int32),
            num_completions=completes.sum().cast(pl.Int32),
            dwell_seconds=pl.col("dwell_seconds").filter(watches).sum(),
            played_fraction=pl.col("played_fraction").filter(watches).max(),
        )
    )
    little = pl.col("played_fraction").fill_null(0.0) < config.abandon_below
    return found.with_columns(
        thumbed_up_at=pl.when(pl.col("down").is_null() | (pl.col("up") > pl.col("down"))).then("up"),
        thumbed_down_at=pl.when(pl.col("up").is_null() | (pl.col("down") >= pl.col("up"))).then("down"),
        abandoned_at=pl.when(little, pl.col("played_at").is_not_null()).then("left_at"),
        dwell_seconds=pl.when(pl.col("played_at").is_not_null()).then("dwell_seconds"),
    ).drop("up", "down", "left_at")


def _discovered(found: pl.DataFrame, done: pl.DataFrame, titles: TitleGenres) -> pl.DataFrame:
    """A title is a discovery where one of its genres had not been played by this actor before the decision."""
    played = done.filter(pl.col("action").is_in(list(_WATCHES))).select("actor_id", "title_id", "at")
    first = played.join(titles.genres, on="title_id").group_by("actor_id", "genre").agg(since=pl.col("at").min())
    known = found.filter(pl.col("played_at").is_not_null()).select("row", "actor_id", "title_id", "at")
    known = known.join(titles.genres, on="title_id").join(first, on=["actor_id", "genre"], how="left")
    new = known.filter(pl.col("since").is_null() | (pl.col("since") >= pl.col("at"))).select("row").unique()
    new = new.with_columns(is_new=pl.lit(True))
    found = found.join(new, on="row", how="left", maintain_order="left")
    return found.with_columns(discovered_at=pl.when(pl.col("is_new")).then("played_at")).drop("is_new")


def _returned(found: pl.DataFrame, done: pl.DataFrame, config: OutcomeConfig) -> pl.DataFrame:
    """When the decision's session ended so far, and when the member's next one began; guests are never seen again."""
    gap = timedelta(minutes=config.gap_minutes)
    members = found.filter(pl.col("member_id").is_not_null()).select("row", "actor_id", "session_id", "at")
    new = (pl.col("at").diff().over("actor_id") >= gap).fill_null(True) & pl.col("session_id").is_null()
    own = pl.concat_str(pl.lit("\x00"), new.cum_sum().over("actor_id").cast(pl.String))
    done = done.sort("actor_id", "at", "event_id").with_columns(
        visit=pl.coalesce("session_id", own),
        quiet=pl.when(pl.col("session_id").is_null()).then(gap).otherwise(timedelta()),
    )
    visits = done.group_by("actor_id", "visit").agg(
        starts_at=pl.col("at").min(), ends_at=pl.col("at").max(), quiet=pl.col("quiet").first()
    )
    ends = visits.select("actor_id", "ends_at", session_id="visit")
    members = members.join(ends, on=["actor_id", "session_id"], how="left")
    members = members.with_columns(session_ended_at=pl.max_horizontal("at", "ends_at"))
    visits = visits.with_columns(after=pl.col("starts_at") - pl.col("quiet")).sort("after", "starts_at", "visit")
    later = visits.select("actor_id", "after", returned_at="starts_at")
    members = members.sort("session_ended_at").join_asof(
        later, left_on="session_ended_at", right_on="after", by="actor_id", strategy="forward",
        allow_exact_matches=False, check_sortedness=False,
    )  # fmt: skip
    return found.join(
        members.select("row", "session_ended_at", "returned_at"), on="row", how="left", maintain_order="left"
    )


def _reported(found: pl.DataFrame, reported: pa.Table, as_of: datetime) -> pl.DataFrame:
    """The newest report of each feedback by decision and title; one without a title is of every title."""
    told = _frame(conform(reported, REPORTED, what="reported feedback"))
    told = told.filter(pl.col("at") < as_of, pl.col("received_at") < as_of)
    told = told.select("decision_id", "title_id", "feedback", "value", "at", "received_at", "reward_id")
    rows = found.select("row", "decision_id", title="title_id").join(told, on="decision_id")
    rows = rows.filter(pl.col("title_id").is_null() | (pl.col("title_id") == pl.col("title")))
    rows = rows.sort("row", "feedback", "at", "received_at", "reward_id")
    rows = rows.unique(["row", "feedback"], keep="last", maintain_order=True)
    lists = rows.group_by("row", maintain_order=True).agg(reported=pl.struct("feedback", "value", "at"))
    found = found.join(lists, on="row", how="left", maintain_order="left")
    return found.with_columns(pl.col("reported").fill_null([]))


def _open(as_of: datetime) -> pl.Expr:
    """Names of the feedback that may still change, in order of `CENSORED`."""
    inside = pl.col("closes_at") > as_of
    certain = {
        "click": "clicked_at", "add_to_list": "listed_at", "play": "played_at", "complete": "completed_at",
    }  # fmt: skip
    still = {name: inside & pl.col(column).is_null() for name, column in certain.items()}
    still |= {"discovery": inside & pl.col("played_at").is_null()}
    still |= {"abandon": inside & pl.col("completed_at").is_null()}
    member, after = pl.col("member_id").is_not_null(), pl.col("session_ended_at")
    for name, days in RETURN_DAYS.items():
        still[name] = member & pl.col("returned_at").is_null() & (after + timedelta(days=days) > as_of)
    named = [pl.when(still.get(name, inside).fill_null(False)).then(pl.lit(name)) for name in CENSORED]
    return pl.concat_list(named).list.drop_nulls()


def _frame(table: pa.Table) -> pl.DataFrame:
    frame = pl.DataFrame(pl.from_arrow(table))
    times = [name for name, kind in frame.schema.items() if isinstance(kind, pl.Datetime)]
    return frame.with_columns(pl.col(times).cast(_TIME)) if times else frame


def no_reports() -> pa.Table:
    """Nothing was reported."""
    return REPORTED.empty_table()
