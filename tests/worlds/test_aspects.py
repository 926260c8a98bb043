"""Elimination by aspects, lived through with dice, and what is planted in a world of it."""

from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl
import pytest
from numpy.typing import NDArray

from foretaste.contracts.truth import PLANTED_INTENTS
from foretaste.worlds.aspects import SATIATION, Aspects, attention
from foretaste.worlds.choices import Offer, Past, make_habits
from foretaste.worlds.config import WorldConfig
from foretaste.worlds.generate import catalogue_of, partition
from foretaste.worlds.intents import CONTINUE, Intents
from foretaste.worlds.members import make_members

CONFIG = WorldConfig(mechanism="aspects", num_members=1_500, members_per_partition=1_500)
TINY = WorldConfig(
    mechanism="aspects", num_members=6, num_movies=20, num_shows=10, days=14, intent_strength=2.0, slate_boost=1.0
)
Tables = dict[str, pl.DataFrame]


def _tables(config: WorldConfig) -> Tables:
    return {name: pl.DataFrame(pl.from_arrow(table)) for name, table in partition(config, 0).items()}


@pytest.fixture(scope="module")
def world() -> Tables:
    return _tables(CONFIG)


def _offer(config: WorldConfig, seen_of: list[int]) -> Offer:
    """Offer to every member of a tiny world on its last day; they have seen some titles, and can continue the first."""
    titles, rng = catalogue_of(config), np.random.default_rng(5)
    members = make_members(config, 0, rng)
    shape = (len(members), len(titles))
    seen_SN = np.zeros(shape, dtype=np.bool_)
    seen_SN[:, seen_of] = True
    open_SN = np.zeros(shape, dtype=np.bool_)
    open_SN[:, seen_of[:1]] = True
    habits = make_habits(config, members, titles)
    day_S = np.full(len(members), config.days - 1)
    slate_SP = np.tile(np.arange(3), (len(members), 1))
    return Offer(config, titles, habits, np.arange(len(members)), day_S, Past(seen_SN, seen_SN, open_SN), slate_SP)


def _intents(order: list[list[int]], **values: Any) -> Intents:
    num = len(order)
    order_SA = np.array([row + [-1] * (4 - len(row)) for row in order])
    whole = {name: np.full(num, values.get(name, -1)) for name in ("genre_S", "kind_S", "action_S", "recency_S")}
    return Intents(departs_S=np.zeros(num, dtype=np.bool_), order_SA=order_SA, **whole)


def _live(offer: Offer, row: int, has: list[NDArray[np.bool_]], dice: np.random.Generator) -> int:
    """Choose as a member does: attend or not, drop what lacks the aspect unless all do, then choose by habit."""
    left_N = offer.habitual_SN[row] > 0
    for place, has_N in enumerate(has):
        if dice.random() < attention(offer.config)[place] and (left_N & has_N).any():
            left_N = left_N & has_N
    weight_N = offer.habitual_SN[row] * left_N
    return int(dice.choice(len(weight_N), p=weight_N / weight_N.sum()))


def test_a_title_is_chosen_as_often_as_its_probability_says_when_elimination_is_lived_through() -> None:
    offer = _offer(TINY, seen_of=[4, 9])
    show_N = offer.titles.show_N
    genre = int(offer.titles.first_genre_N[np.flatnonzero(show_N)[0]])
    intents = _intents([[1, 0, 2]] * 6, genre_S=genre, action_S=CONTINUE, kind_S=1)
    mechanism = Aspects(offer, intents)
    has = [offer.titles.genre_NG[:, genre] > 0, offer.past.to_continue()[0], show_N]
    assert not (has[0] & has[1]).any()  # so that after the genre nothing is left to continue, and that is passed over
    dice, num = np.random.default_rng(1), 20_000
    offer.take(np.array([0]), np.array([2]))
    share_N = np.bincount([_live(offer, 0, has, dice) for _ in range(num)], minlength=len(show_N)) / num
    (probability_N,) = mechanism.weigh(np.array([0]))
    assert probability_N.sum() == pytest.approx(1.0)
    assert probability_N[2] == 0.0
    error_N = 4.5 * np.sqrt(probability_N * (1.0 - probability_N) / num)
    assert (np.abs(share_N - probability_N) <= error_N).all()
    habitual_N = offer.habitual_SN[0] / offer.habitual_SN[0].sum()
    assert (np.abs(share_N - habitual_N) > error_N).any()


def test_what_is_sated_falls_away_and_what_is_left_moves_up() -> None:
    offer, dice = _offer(TINY, seen_of=[4, 9]), np.random.default_rng(3)
    mechanism = Aspects(offer, _intents([[1, 2], [1]] * 3, genre_S=0, kind_S=1))
    of_genre = int(np.flatnonzero(offer.titles.genre_NG[:, 0] > 0)[0])
    while (todo := np.flatnonzero(mechanism.num_sated_S == 0)).size:
        mechanism.move_on(todo, np.full(len(todo), of_genre), dice)
    rows = np.arange(6)
    fresh = Aspects(offer, _intents([[2], []] * 3, kind_S=1))
    np.testing.assert_allclose(mechanism.weigh(rows), fresh.weigh(rows), rtol=1e-12)
    np.testing.assert_allclose(fresh.weigh(rows)[1], offer.habitual_SN[1] / offer.habitual_SN[1].sum())


def test_a_choice_sates_the_first_aspect_as_often_as_planted_and_only_where_it_has_it(world: Tables) -> None:
    joined = world["choices"].join(world["sessions"], on="session_id").sort("session_id", "step")
    steps = joined.with_columns(
        next=pl.col("num_sated").shift(-1).over("session_id"),
        first=pl.col("aspects").list.get(pl.col("num_sated"), null_on_oob=True),
    ).filter(pl.col("next").is_not_null())
    titles = catalogue_of(CONFIG)
    show = dict(zip(titles.ids, titles.show_N.tolist(), strict=True))
    for_kind = steps.filter(pl.col("first") == "kind").with_columns(
        fits=pl.col("title_id").replace_strict(show) == (pl.col("kind") == "show")
    )
    rate = dict(for_kind.group_by("fits").agg((pl.col("next") - pl.col("num_sated")).mean()).iter_rows())
    num = float(for_kind["fits"].to_numpy().sum())
    assert num > 500
    assert rate[False] == 0.0
    assert rate[True] == pytest.approx(SATIATION, abs=4.0 * (SATIATION * (1.0 - SATIATION) / num) ** 0.5)
    assert set((steps["next"] - steps["num_sated"]).unique()) == {0, 1}
    assert joined.filter(pl.col("step") == 0)["num_sated"].max() == 0


def test_each_intent_is_primary_in_a_good_share_of_sessions(world: Tables) -> None:
    share = dict(world["sessions"]["primary_intent"].value_counts(normalize=True).iter_rows())
    assert all(share[intent] > 0.1 for intent in PLANTED_INTENTS)
    assert share.get(None, 0.0) < 0.05


def test_a_session_wishes_for_exactly_its_aspects_and_each_comes_first_equally_often(world: Tables) -> None:
    sessions = world["sessions"]
    for intent in PLANTED_INTENTS:
        listed = sessions["aspects"].list.contains(intent)
        assert (listed == sessions[intent].is_not_null()).all()
        assert (listed | (sessions[f"information_{intent}"] == 0.0)).all()
        assert (sessions["aspects"].list.first() == intent).mean() == pytest.approx(0.25, abs=0.03)
    assert not sessions.filter(pl.col("genre").is_null())["departs"].any()
    departs = sessions.filter(pl.col("genre").is_not_null())["departs"].mean()
    assert departs == pytest.approx(CONFIG.departure_share, abs=0.03)


@pytest.mark.parametrize("change", [{"intents": False}, {"intent_strength": 0.0}])
@pytest.mark.parametrize("mechanism", ["weights", "aspects"])
def test_where_intents_have_no_effect_none_is_primary_and_knowing_them_is_worth_nothing(
    mechanism: str, change: dict[str, Any]
) -> None:
    if mechanism == "weights" and "intent_strength" in change:
        change = change | {"intents": False}  # there kind, recency and action have factors of their own
    config = CONFIG.model_copy(update={"mechanism": mechanism, "num_members": 300} | change)
    tables = _tables(config)
    assert tables["sessions"]["primary_intent"].is_null().all()
    assert tables["sessions"].select(pl.col("^information_.*$").max()).row(0) == (0.0,) * 4
    assert (tables["choices"]["true_rank"] == tables["choices"]["true_rank_without_intents"]).all()


def test_knowing_the_intents_finds_what_is_chosen_sooner_than_taste_alone(world: Tables) -> None:
    by_step = (
        world["choices"]
        .group_by("step")
        .agg((pl.col("true_rank") < 10).mean().alias("known"), (pl.col("true_rank_without_intents") < 10).mean())
    )
    assert (by_step["known"] > 1.2 * by_step["true_rank_without_intents"]).all()


def test_new_releases_are_what_a_session_for_new_releases_chooses(world: Tables) -> None:
    titles = catalogue_of(CONFIG)
    released = dict(zip(titles.ids, titles.day_N.tolist(), strict=True))
    first = world["choices"].filter(pl.col("step") == 0).join(world["sessions"], on="session_id")
    day = (pl.col("started_at").dt.epoch("us") - CONFIG.first_us) // 86_400_000_000
    is_new = first.filter(pl.col("aspects").list.first() == "recency").with_columns(
        new=day - pl.col("title_id").replace_strict(released) <= 30
    )
    share = dict(is_new.group_by("recency").agg(pl.col("new").mean()).iter_rows())
    assert share["new"] > attention(CONFIG)[0]
    assert share["older"] < 0.2
