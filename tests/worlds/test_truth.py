from __future__ import annotations

import numpy as np
import polars as pl
import pytest
from numpy.typing import NDArray

from foretaste.worlds.config import DAY_US, WorldConfig
from foretaste.worlds.generate import catalogue_of, partition
from foretaste.worlds.names import GENRES

CONFIG = WorldConfig(num_members=1_500, members_per_partition=1_500)
Tables = dict[str, pl.DataFrame]


def _tables(config: WorldConfig) -> Tables:
    return {name: pl.DataFrame(pl.from_arrow(table)) for name, table in partition(config, 0).items()}


@pytest.fixture(scope="module")
def world() -> Tables:
    return _tables(CONFIG)


@pytest.fixture(scope="module")
def control() -> Tables:
    return _tables(CONFIG.model_copy(update={"intents": False}))


def _lift(tables: Tables, config: WorldConfig) -> float:
    """How much oftener a choice is of the intended genre than of the genre intended in the member's other sessions."""
    titles = catalogue_of(config)
    has_NG = titles.genre_NG > 0
    joined = tables["choices"].join(tables["sessions"], on="session_id").sort("member_id", "session_id", "step")
    row_of = {title: row for row, title in enumerate(titles.ids)}
    row_X = np.array([row_of[title] for title in joined["title_id"]])
    member_X = joined["member_id"].rank("dense").to_numpy()
    session_X = joined["session_id"].rank("dense").to_numpy()
    genre_X = np.array([GENRES.index(genre) for genre in joined["genre"]])
    own = has_NG[row_X, genre_X].mean()
    other_X = _of_another_session(member_X, session_X, genre_X)
    keep = other_X >= 0
    return float(own / has_NG[row_X[keep], other_X[keep]].mean())


def _of_another_session(
    member_X: NDArray[np.float64], session_X: NDArray[np.float64], genre_X: NDArray[np.int64]
) -> NDArray[np.int64]:
    """Give the intended genre of a random other session of the same member, -1 where there is none."""
    rng = np.random.default_rng(0)
    other_X = np.full(len(genre_X), -1)
    starts = np.flatnonzero(np.diff(member_X, prepend=-1))
    for start, stop in zip(starts, [*starts[1:], len(genre_X)], strict=True):
        _, first = np.unique(session_X[start:stop], return_index=True)
        genres = genre_X[start:stop][first]
        if len(first) > 1:
            own = np.searchsorted(np.sort(first), np.arange(stop - start), side="right") - 1
            genres = genre_X[start:stop][np.sort(first)]
            shift = rng.integers(1, len(first), stop - start)
            other_X[start:stop] = genres[(own + shift) % len(first)]
    return other_X


def test_the_intent_of_a_session_lifts_titles_of_its_genre(world: Tables) -> None:
    assert _lift(world, CONFIG) > 2.0


def test_without_intents_the_genre_drawn_says_nothing_beyond_the_taste(control: Tables) -> None:
    assert not control["sessions"]["departs"].any()
    assert _lift(control, CONFIG) == pytest.approx(1.0, abs=0.05)


def test_intents_depart_from_the_taste_as_often_as_configured_and_then_into_genres_liked_less(world: Tables) -> None:
    sessions = world["sessions"].join(world["members"], on="member_id")
    taste_S = np.array([taste[GENRES.index(g)] for taste, g in zip(sessions["taste"], sessions["genre"], strict=True)])
    departs_S = sessions["departs"].to_numpy()
    assert departs_S.mean() == pytest.approx(CONFIG.departure_share, abs=0.03)
    assert taste_S[departs_S].max() < 1.0 / len(GENRES)
    assert taste_S[~departs_S].mean() > 0.2


def test_no_departures_are_drawn_where_none_are_configured() -> None:
    config = WorldConfig(num_members=200, members_per_partition=200, departure_share=0.0)
    assert not _tables(config)["sessions"]["departs"].any()


def test_what_was_looked_at_before_a_choice_tells_its_genre(world: Tables, control: Tables) -> None:
    assert _told_by_a_look(world) > 2.0 * _chance_of_a_shared_genre(world)
    assert _told_by_a_look(world) > 1.5 * _told_by_a_look(control)


def _first_genre(column: str) -> pl.Expr:
    titles = catalogue_of(CONFIG)
    genre_of = {title: GENRES[g] for title, g in zip(titles.ids, titles.first_genre_N, strict=True)}
    return pl.col(column).replace_strict(genre_of).alias(f"{column}_genre")


def _told_by_a_look(tables: Tables) -> float:
    looks = (
        tables["events"].filter(pl.col("action") == "detail").group_by("session_id").agg(pl.all().sort_by("at").first())
    )
    first = tables["choices"].filter(pl.col("step") == 0)
    joined = looks.join(first, on="session_id").filter(pl.col("title_id") != pl.col("title_id_right"))
    joined = joined.filter(pl.col("at") < pl.col("at_right"))
    same = joined.select(_first_genre("title_id"), _first_genre("title_id_right"))
    return float((same["title_id_genre"] == same["title_id_right_genre"]).to_numpy().mean())


def _chance_of_a_shared_genre(tables: Tables) -> float:
    share = tables["choices"].select(_first_genre("title_id"))["title_id_genre"].value_counts(normalize=True)
    return float((share["proportion"] ** 2).sum())


def test_the_intended_action_shows_in_the_first_choice(world: Tables) -> None:
    choices = world["choices"].join(world["sessions"], on="session_id").sort("at")
    seen = choices.with_columns(
        before=pl.col("at").shift(1).over("member_id", "title_id"),
    ).filter(pl.col("step") == 0)
    rates = dict(seen.group_by("action").agg(pl.col("before").is_not_null().mean()).iter_rows())
    assert rates["discover"] < 0.1
    assert rates["continue"] > 0.5
    assert rates["return"] > 0.5


def test_the_next_session_of_a_member_opens_exactly_when_planted(world: Tables) -> None:
    sessions = world["sessions"].join(world["satisfaction"], on="session_id").sort("member_id", "started_at")
    following = sessions.with_columns(pl.col("started_at").shift(-1).over("member_id").alias("next"))
    inside = following["returned_at"].dt.epoch("us") < CONFIG.end_us
    assert following.filter(inside).select((pl.col("next") == pl.col("returned_at")).all()).item()
    assert following.filter(~inside)["next"].is_null().all()
    assert following.select((pl.col("returned_at") > pl.col("ended_at")).all()).item()


def test_the_return_within_seven_days_is_what_the_times_say(world: Tables) -> None:
    sessions = world["sessions"].join(world["satisfaction"], on="session_id")
    wait_S = (sessions["returned_at"] - sessions["ended_at"]).dt.total_microseconds().to_numpy()
    assert (sessions["returned_within_7d"].to_numpy() == (wait_S <= 7 * DAY_US)).all()
    horizon_S = sessions["ended_at"].dt.epoch("us").to_numpy() + 7 * DAY_US
    assert (sessions["observable"].to_numpy() == (horizon_S < CONFIG.end_us)).all()


def _returns(tables: Tables) -> tuple[float, float]:
    """Give the rates of return of the fifth of sessions that satisfied least, and most."""
    known = tables["satisfaction"].filter(pl.col("observable")).sort("satisfaction")
    returned = known["returned_within_7d"].to_numpy().astype(float)
    fifth = len(returned) // 5
    return float(returned[:fifth].mean()), float(returned[-fifth:].mean())


def test_satisfaction_brings_members_back_and_not_where_its_effect_is_switched_off(world: Tables) -> None:
    least, most = _returns(world)
    assert most - least > 0.12
    least, most = _returns(_tables(CONFIG.model_copy(update={"return_effect": 0.0})))
    assert abs(most - least) < 0.05


def test_satisfaction_comes_of_match_and_of_watching_to_the_end(world: Tables) -> None:
    frame = world["satisfaction"]
    cause_SC = np.column_stack([np.ones(len(frame)), frame["mean_match"].to_numpy(), frame["mean_fraction"].to_numpy()])
    satisfaction_S = frame["satisfaction"].to_numpy()
    coefficient_C, *_ = np.linalg.lstsq(cause_SC, np.log(satisfaction_S / (1.0 - satisfaction_S)), rcond=None)
    np.testing.assert_allclose(coefficient_C[1:], [2.2, 2.4], atol=0.15)
    choices = world["choices"]
    assert np.corrcoef(choices["match"].to_numpy(), choices["played_fraction"].to_numpy())[0, 1] > 0.2


def test_members_come_about_as_often_as_configured(world: Tables) -> None:
    end = pl.lit(CONFIG.end_us).cast(pl.Datetime("us", "UTC"))
    weeks = world["members"].select((end - pl.col("joined_at")).dt.total_seconds().sum()).item() / (7 * 86_400)
    assert len(world["sessions"]) / weeks == pytest.approx(CONFIG.sessions_per_week, rel=0.15)


def test_every_played_choice_is_in_the_log_and_only_those(world: Tables) -> None:
    plays = (
        world["events"]
        .filter(pl.col("action") == "play")
        .with_columns(pl.col("title_id").str.replace("-s[0-9]+e[0-9]+$", ""))
    )
    played = plays.select("session_id", "title_id").unique()
    chosen = world["choices"].select("session_id", "title_id")
    assert chosen.n_unique() == len(chosen) == len(played)
    assert len(played.join(chosen, on=["session_id", "title_id"])) == len(chosen)
