"""The planted probabilities against a slow twin that reads nothing but tables, and against what happened."""

from __future__ import annotations

import bisect
import math
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from numpy.typing import NDArray

from foretaste.worlds import choices as habit
from foretaste.worlds import weights
from foretaste.worlds.choices import draw, make_habits, row_cdf
from foretaste.worlds.config import DAY_US, WorldConfig
from foretaste.worlds.generate import catalogue_of, partition
from foretaste.worlds.members import make_members
from foretaste.worlds.names import GENRES
from foretaste.worlds.slates import draw_slates
from foretaste.worlds.titles import SECOND_GENRE, titles_table, truth_titles

SMALL = WorldConfig(
    num_members=220, num_movies=36, num_shows=24, days=35, sessions_per_week=3.0, popularity_exponent=0.4
)


@dataclass
class Title:
    """What the tables say of one title."""

    id: str
    show: bool
    genres: dict[str, float]
    released: int
    appeal: float
    episodes: list[int]


def _microseconds(value: datetime) -> int:
    return round(value.timestamp() * 1e6)


def _titles(config: WorldConfig) -> list[Title]:
    rows = titles_table(catalogue_of(config), config).to_pylist()
    appeal = {row["title_id"]: row["appeal"] for row in truth_titles(catalogue_of(config)).to_pylist()}
    episodes = defaultdict(list)
    for row in rows:
        if row["series_id"] is not None:
            episodes[row["series_id"]].append(_microseconds(row["released_at"]))
    return [
        Title(
            id=row["title_id"],
            show=row["kind"] == "show",
            genres={genre: 1.0 if place == 0 else SECOND_GENRE for place, genre in enumerate(row["genres"])},
            released=_microseconds(row["released_at"]),
            appeal=appeal[row["title_id"]],
            episodes=sorted(episodes[row["title_id"]]),
        )
        for row in rows
        if row["series_id"] is None
    ]


def _weight(
    config: WorldConfig,
    title: Title,
    member: dict[str, Any],
    session: dict[str, Any],
    seen: dict[str, tuple[int, bool]],
    slate: list[str],
) -> float:
    """One factor after the other, as the README says; `seen` maps a title to its last choice and whether it is open."""
    start = _microseconds(session["started_at"])
    days = (start - config.first_us) // DAY_US - (title.released - config.first_us) // DAY_US
    if days < 0:
        return 0.0
    taste = dict(zip(GENRES, member["taste"], strict=True))
    show_share = float(member["show_share"])
    weight = math.exp(title.appeal) * 2.0 * (show_share if title.show else 1.0 - show_share)
    if not session["departs"]:
        liking = sum(taste[genre] * share for genre, share in title.genres.items())
        weight *= math.exp(config.taste_strength * min(liking, 1.0))
    weight *= habit.HYPE if days <= habit.HYPE_DAYS else 1.0
    last, is_open = seen.get(title.id, (None, False))
    recent = last is not None and start - last <= 7 * DAY_US
    if config.intents:
        weight *= math.exp(config.intent_strength * title.genres.get(session["genre"], 0.0))
        weight *= weights.KIND_FACTOR if session["kind"] == ("show" if title.show else "movie") else 1.0
        weight *= weights.NEW_FACTOR if session["recency"] == "new" and days <= 30 else 1.0
        weight *= weights.OLDER_FACTOR if session["recency"] == "older" and days > 365 else 1.0
        if last is not None:
            weight *= {
                "discover": weights.SEEN_WHEN_DISCOVERING,
                "continue": weights.CONTINUED if recent and is_open else habit.SEEN_OTHERWISE,
                "return": weights.RETURNED if not recent else habit.SEEN_OTHERWISE,
            }[session["action"]]
    elif last is not None:
        weight *= habit.HABIT_CONTINUED if recent and is_open else habit.SEEN_OTHERWISE
    if title.id in slate:
        weight *= 1.0 + config.slate_boost / (1.0 + slate.index(title.id))
    return weight


def _twin(config: WorldConfig, tables: dict[str, pa.Table]) -> Iterator[tuple[dict[str, Any], NDArray[np.float64]]]:
    """Yield each choice with the probability of every title, replaying the log session by session."""
    titles = _titles(config)
    members = {row["member_id"]: row for row in tables["members"].to_pylist()}
    slates = defaultdict(list)
    finished: dict[tuple[str, str], int] = defaultdict(int)
    for row in tables["events"].to_pylist():
        if row["action"] == "impression":
            slates[row["session_id"]].append(row["title_id"])
        if row["action"] == "complete":
            finished[row["session_id"], row["title_id"].rsplit("-s", 1)[0]] += 1
    choices = defaultdict(list)
    for row in tables["choices"].to_pylist():
        choices[row["session_id"]].append(row)
    last: dict[str, dict[str, int]] = defaultdict(dict)
    watched: dict[tuple[str, str], int] = defaultdict(int)
    for session in sorted(tables["sessions"].to_pylist(), key=lambda row: row["started_at"]):
        who, day_end = session["member_id"], _microseconds(session["started_at"]) // DAY_US * DAY_US
        out = {title.id: bisect.bisect_right(title.episodes, day_end) for title in titles}
        seen = {
            title.id: (last[who][title.id], watched[who, title.id] < (out[title.id] if title.show else 1))
            for title in titles
            if title.id in last[who]
        }
        slate = slates[session["session_id"]]
        weight_N = np.array([_weight(config, title, members[who], session, seen, slate) for title in titles])
        for choice in choices[session["session_id"]]:
            yield choice, weight_N / weight_N.sum()
            index = next(n for n, title in enumerate(titles) if title.id == choice["title_id"])
            weight_N[index] = 0.0
            title = titles[index]
            done = finished[session["session_id"], title.id]
            before = watched[who, title.id]
            watched[who, title.id] = (0 if before >= out[title.id] else before) + done if title.show else done
            last[who][title.id] = _microseconds(choice["at"])


@pytest.mark.parametrize("intents", [True, False])
def test_the_planted_probability_is_that_of_the_readable_twin_and_titles_are_played_as_often(intents: bool) -> None:
    config = SMALL.model_copy(update={"intents": intents})
    tables = partition(config, 0)
    ids = [title.id for title in _titles(config)]
    replay = list(_twin(config, tables))
    probability_XN = np.array([row for _, row in replay])
    chosen_X = np.array([ids.index(choice["title_id"]) for choice, _ in replay])
    planted_X = np.array([choice["probability"] for choice, _ in replay])
    assert len(replay) == tables["choices"].num_rows > 3_000
    np.testing.assert_allclose(planted_X, probability_XN[np.arange(len(replay)), chosen_X], rtol=1e-9)
    assert _misfit(probability_XN, chosen_X) < 1.5

    wrong_XN = np.sqrt(probability_XN)
    assert _misfit(wrong_XN / wrong_XN.sum(axis=1, keepdims=True), chosen_X) > 2.5


def _misfit(probability_XN: NDArray[np.float64], chosen_X: NDArray[np.int64]) -> float:
    """Mean squared deviation of counts from what is expected, in units of its variance; about 1 where true.

    Counts are of each title, and of choices whose probability was in one of ten bins.
    """
    hit_XN = np.zeros(probability_XN.shape)
    hit_XN[np.arange(len(chosen_X)), chosen_X] = 1.0
    surprise_XN = hit_XN - probability_XN
    variance_XN = probability_XN * (1.0 - probability_XN)
    by_title = surprise_XN.sum(axis=0) ** 2 / variance_XN.sum(axis=0)
    bin_XN = np.searchsorted(np.quantile(probability_XN, np.linspace(0.5, 0.98, 9)), probability_XN)
    by_bin = [surprise_XN[bin_XN == b].sum() ** 2 / variance_XN[bin_XN == b].sum() for b in range(10)]
    return float((by_title.mean() + np.mean(by_bin)) / 2.0)


@pytest.mark.parametrize("strength", [0.0, 1.0])
def test_inverse_probabilities_of_choices_average_to_the_number_of_titles_available(strength: float) -> None:
    config = WorldConfig(
        num_members=2_500, members_per_partition=2_500, intents=strength > 0.0, intent_strength=strength
    )
    choices = partition(config, 0)["choices"]
    probability_X, available_X = (np.asarray(choices[name]) for name in ("probability", "num_available"))
    assert probability_X.min() > 0.0
    assert probability_X.max() <= 1.0
    ratio_X = 1.0 / (probability_X * available_X)
    error = 4.0 * ratio_X.std() / math.sqrt(len(ratio_X))
    assert error < 0.25
    assert abs(ratio_X.mean() - 1.0) < error


def test_a_draw_has_the_odds_of_its_row_and_never_takes_a_weight_of_zero() -> None:
    weight_SN = np.array([[1.0, 0.0, 3.0, 0.0], [0.0, 2.0, 0.0, 2.0]])
    row_X = np.repeat([0, 1], 20_000)
    drawn_X = draw(row_cdf(weight_SN), 4, row_X, np.random.default_rng(1).random(40_000))
    share_SN = np.array([np.bincount(drawn_X[row_X == row], minlength=4) for row in (0, 1)]) / 20_000
    np.testing.assert_allclose(share_SN, weight_SN / weight_SN.sum(axis=1, keepdims=True), atol=0.015)
    assert draw(row_cdf(weight_SN), 4, np.array([0, 1]), np.array([1.0 - 2**-53, 0.0])).tolist() == [2, 1]


def test_the_propensity_of_a_slate_is_the_frequency_of_its_titles() -> None:
    config = SMALL.model_copy(update={"impressions_per_session": 3, "slate_exploration": 0.2})
    titles = catalogue_of(config)
    members = make_members(config, 0, np.random.default_rng(2))
    habits = make_habits(config, members, titles)
    num, available = 60_000, 30
    slate_SP, propensity_SP = draw_slates(
        config, habits, np.full(num, 5), np.full(num, available), np.random.default_rng(3)
    )
    assert slate_SP.max() < available
    assert all(len(set(row)) == 3 for row in slate_SP[:200].tolist())
    first_N = np.bincount(slate_SP[:, 0], minlength=available) / num
    for title in range(available):
        expected = propensity_SP[slate_SP[:, 0] == title, 0].mean()
        assert first_N[title] == pytest.approx(expected, abs=4.0 * math.sqrt(expected / num))
    for place in range(3):
        assert (1.0 / propensity_SP[:, place]).mean() == pytest.approx(available - place, rel=0.03)
