from __future__ import annotations

import json
from collections import Counter

import numpy as np
import polars as pl
import pytest

from foretaste.contracts.catalogue import catalogue
from foretaste.contracts.events import ACTIONS, NEEDS_TITLE
from foretaste.worlds.config import WorldConfig
from foretaste.worlds.generate import catalogue_of, partition
from foretaste.worlds.titles import titles_table

CONFIG = WorldConfig(num_members=1_200, members_per_partition=600)
START = pl.lit(CONFIG.first_us).cast(pl.Datetime("us", "UTC"))
END = pl.lit(CONFIG.end_us).cast(pl.Datetime("us", "UTC"))


@pytest.fixture(scope="module")
def events() -> pl.DataFrame:
    return pl.concat([_frame(index, "events") for index in range(CONFIG.num_partitions)])


@pytest.fixture(scope="module")
def titles() -> pl.DataFrame:
    frame = pl.from_arrow(titles_table(catalogue_of(CONFIG), CONFIG))
    assert isinstance(frame, pl.DataFrame)
    return frame


def _frame(index: int, name: str) -> pl.DataFrame:
    frame = pl.from_arrow(partition(CONFIG, index)[name])
    assert isinstance(frame, pl.DataFrame)
    return frame


def test_event_ids_are_unique_over_all_partitions(events: pl.DataFrame) -> None:
    assert events["event_id"].n_unique() == len(events)


def test_every_event_is_strictly_inside_the_window_and_files_are_in_order_of_time(events: pl.DataFrame) -> None:
    assert events.select((pl.col("at") > START).all() & (pl.col("at") < END).all()).item()
    assert _frame(0, "events")["at"].is_sorted()


def test_two_events_of_a_session_never_share_an_instant(events: pl.DataFrame) -> None:
    assert events.select("session_id", "at").n_unique() == len(events)


def test_nothing_happens_to_a_title_before_its_release(events: pl.DataFrame, titles: pl.DataFrame) -> None:
    joined = events.drop_nulls("title_id").join(titles, on="title_id", how="left")
    assert joined["released_at"].null_count() == 0
    assert joined.select((pl.col("at") >= pl.col("released_at")).all()).item()
    fresh = titles.filter((pl.col("released_at") >= START) & pl.col("series_id").is_null())["title_id"]
    assert events.filter(pl.col("title_id").is_in(fresh.implode()) & (pl.col("action") == "play")).height > 100


def test_actions_are_known_and_have_a_title_where_they_need_one(events: pl.DataFrame) -> None:
    assert set(events["action"]) <= set(ACTIONS)
    assert events.filter(pl.col("action").is_in(list(NEEDS_TITLE)))["title_id"].null_count() == 0
    assert events.filter(pl.col("action") == "search")["query"].null_count() == 0
    shows = events.filter(pl.col("action").is_in(["play", "stop", "complete"]))["title_id"].str.contains("-s[0-9]+e")
    assert 0.2 < float(np.asarray(shows, dtype=float).mean()) < 0.8


def test_every_play_ends_with_stop_or_complete_unless_the_window_ends_first(events: pl.DataFrame) -> None:
    actions = Counter(events["action"].to_list())
    assert actions["play"] * 0.99 < actions["stop"] + actions["complete"] <= actions["play"]
    ended = events.filter(pl.col("action").is_in(["stop", "complete"]))
    assert ended.select(pl.col("played_fraction").is_between(0.0, 1.0).all()).item()
    assert ended["dwell_seconds"].null_count() == 0


def test_a_small_share_of_sessions_are_guests_who_have_a_session_only(events: pl.DataFrame) -> None:
    assert events["session_id"].null_count() == 0
    sessions = events.group_by("session_id").agg(
        pl.col("member_id").is_null().all().alias("guest"), pl.col("member_id").is_null().any().alias("some")
    )
    assert sessions.select((pl.col("guest") == pl.col("some")).all()).item()
    assert 0.015 < sessions.select(pl.col("guest").mean()).item() < 0.05


def test_each_session_opens_with_one_slate_whose_positions_and_propensities_are_logged(events: pl.DataFrame) -> None:
    shown = events.filter(pl.col("action") == "impression")
    slates = shown.group_by("session_id").agg(
        pl.col("position").sort(), pl.col("decision_id").n_unique().alias("ids"), pl.col("title_id").n_unique()
    )
    whole = slates.filter(pl.col("title_id") == CONFIG.impressions_per_session)
    assert len(whole) >= len(slates) - 2  # the window may end within a slate
    assert set(slates["ids"]) == {1}
    assert whole["position"].to_list()[:50] == [list(range(CONFIG.impressions_per_session))] * 50
    propensity = [json.loads(text)["propensity"] for text in shown["properties"].head(2_000)]
    assert all(0.0 < value <= 1.0 for value in propensity)


def test_what_stands_higher_on_the_slate_is_played_more_from_it(events: pl.DataFrame) -> None:
    plays = events.filter((pl.col("action") == "play") & pl.col("decision_id").is_not_null())
    by_place = dict(plays.group_by("position").len().iter_rows())
    assert by_place[0] > 1.5 * by_place[CONFIG.impressions_per_session - 1]
    slates = events.filter(pl.col("action") == "impression").select("decision_id", "position", "title_id")
    rolled = plays.with_columns(pl.col("title_id").str.replace("-s[0-9]+e[0-9]+$", ""))
    assert len(rolled.join(slates, on=["decision_id", "position", "title_id"])) == len(plays)


def test_events_carry_nothing_that_is_planted(events: pl.DataFrame) -> None:
    keys = {key for text in events["properties"].drop_nulls().unique() for key in json.loads(text)}
    assert keys == {"propensity", "genre"}
    told = events.filter(pl.col("action") == "browse").height / events["session_id"].n_unique()
    assert told < 0.8  # the genre of a browsed row is an act, not the intent of every session


def test_the_catalogue_is_readable_and_episodes_belong_to_their_shows(titles: pl.DataFrame) -> None:
    shows = catalogue(titles.to_arrow())
    assert len(shows) == CONFIG.num_movies + CONFIG.num_shows
    assert shows.kinds == ("movie", "show")
    assert len(shows.genres) == 14
    assert len(set(shows.names)) == len(shows)
    assert all(name[0].isupper() and len(name.split()) >= 2 for name in shows.names)
    episodes = titles.filter(pl.col("series_id").is_not_null()).sort("series_id", "season", "episode")
    assert set(episodes["kind"]) == {"episode"}
    order = episodes.group_by("series_id", maintain_order=True).agg(pl.col("released_at").is_sorted())
    assert order["released_at"].all()
    first = episodes.group_by("series_id").agg(pl.col("released_at").min().alias("first"))
    joined = titles.join(first, left_on="title_id", right_on="series_id")
    assert joined.select((pl.col("first") == pl.col("released_at")).all()).item()
    assert len(joined) == CONFIG.num_shows
    assert episodes.filter(pl.col("released_at") > START).height > 20
