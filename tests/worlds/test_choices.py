"""The planted probabilities against a slow twin that reads nothing but tables, and against what happened."""

from __future__ import annotations

import bisect
import functools
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

from foretaste.contracts.truth import PLANTED_INTENTS
from foretaste.worlds import choices as habit
from foretaste.worlds import weights
from foretaste.worlds.config import DAY_US, WorldConfig
from foretaste.worlds.generate import catalogue_of, partition
from foretaste.worlds.names import GENRES
from foretaste.worlds.titles import SECOND_GENRE, titles_table, truth_titles

SMALL = WorldConfig(
    num_members=90, num_movies=36, num_shows=24, days=35, sessions_per_week=3.0, popularity_exponent=0.4
)


@dataclass(eq=False)
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


Seen = dict[str, tuple[int, bool]]
"""Titles that a member has chosen: when last, and whether they are open."""


@dataclass(eq=False)
class Session:
    """All that the tables say of a session as it opens."""

    config: WorldConfig
    row: dict[str, Any]
    member: dict[str, Any]
    seen: Seen
    slate: list[str]

    @functools.cached_property
    def start(self) -> int:
        """Microseconds since 1970."""
        return _microseconds(self.row["started_at"])

    @functools.cached_property
    def taste(self) -> dict[str, float]:
        """By genre."""
        return dict(zip(GENRES, self.member["taste"], strict=True))

    def days(self, title: Title) -> int:
        """Days since release."""
        return (self.start - self.config.first_us) // DAY_US - (title.released - self.config.first_us) // DAY_US

    def relation(self, title: Title) -> str | None:
        """Whether a title would be continued or returned to, is seen all the same, or None: not seen."""
        if title.id not in self.seen:
            return None
        last, is_open = self.seen[title.id]
        recent = self.start - last <= 7 * DAY_US
        return ("continue" if is_open else "seen") if recent else "return"

    def liked(self, title: Title, *, taste: bool) -> float:
        """What anyone, and this member, would give for a title, whatever the session is for."""
        if self.days(title) < 0:
            return 0.0
        show_share = float(self.member["show_share"])
        weight = math.exp(title.appeal) * 2.0 * (show_share if title.show else 1.0 - show_share)
        if taste:
            liking = sum(self.taste[genre] * share for genre, share in title.genres.items())
            weight *= math.exp(self.config.taste_strength * min(liking, 1.0))
        weight *= habit.HYPE if self.days(title) <= habit.HYPE_DAYS else 1.0
        if title.id in self.slate:
            weight *= 1.0 + self.config.slate_boost / (1.0 + self.slate.index(title.id))
        return weight


@functools.cache
def _habitual(session: Session, title: Title) -> float:
    """The weight where there are no intents."""
    factor = {None: 1.0, "continue": habit.HABIT_CONTINUED}.get(session.relation(title), habit.SEEN_OTHERWISE)
    return factor * session.liked(title, taste=True)


@functools.cache
def _weights(session: Session, title: Title, without: str | None) -> float:
    """Mechanism «weights»: one factor after the other."""
    row, days, relation = session.row, session.days(title), session.relation(title)
    wished = {name: None if name == without else row[name] for name in ("genre", "kind", "action", "recency")}
    weight = session.liked(title, taste=not (row["departs"] and wished["genre"]))
    if wished["genre"]:
        weight *= math.exp(session.config.intent_strength * title.genres.get(wished["genre"], 0.0))
    weight *= weights.KIND_FACTOR if wished["kind"] == ("show" if title.show else "movie") else 1.0
    weight *= weights.NEW_FACTOR if wished["recency"] == "new" and days <= 30 else 1.0
    weight *= weights.OLDER_FACTOR if wished["recency"] == "older" and days > 365 else 1.0
    if relation is None:
        return weight
    if wished["action"] is None:
        return weight * (habit.HABIT_CONTINUED if relation == "continue" else habit.SEEN_OTHERWISE)
    if wished["action"] == "discover":
        return weight * weights.SEEN_WHEN_DISCOVERING
    raised = {"continue": weights.CONTINUED, "return": weights.RETURNED}[wished["action"]]
    return weight * (raised if relation == wished["action"] else habit.SEEN_OTHERWISE)


@functools.cache
def _has(session: Session, title: Title, aspect: str) -> bool:
    wish, days, relation = session.row[aspect], session.days(title), session.relation(title)
    if aspect == "genre":
        return wish in title.genres
    if aspect == "kind":
        return bool(wish == ("show" if title.show else "movie"))
    if aspect == "recency":
        return days <= 30 if wish == "new" else days > 365
    return relation is None if wish == "discover" else relation == wish


def _eliminate(
    session: Session, left: list[Title], attention: list[tuple[str, float]], odds: float, out: dict[str, float]
) -> None:
    """Mechanism «aspects»: attend to the first aspect or not, go on with what is left, and choose by habit at last."""
    if not attention:
        weights_of = {title.id: _habitual(session, title) for title in left}
        total = sum(weights_of.values())
        for name, weight in weights_of.items():
            out[name] = out.get(name, 0.0) + odds * weight / total
        return
    (aspect, chance), *rest = attention
    kept = [title for title in left if _has(session, title, aspect)] or left
    _eliminate(session, left, rest, odds * (1.0 - chance), out)
    _eliminate(session, kept, rest, odds * chance, out)


def _probabilities(
    session: Session, titles: list[Title], gone: set[str], num_sated: int, without: str | None = None
) -> NDArray[np.float64]:
    """Probability of every title at a choice; `without` leaves one intent out, "all" leaves out all."""
    there = [title for title in titles if session.days(title) >= 0 and title.id not in gone]
    odds: dict[str, float] = {}
    if not session.config.intents or without == "all":
        odds = {title.id: _habitual(session, title) for title in there}
    elif session.config.mechanism == "weights":
        odds = {title.id: _weights(session, title, without) for title in there}
    else:
        wished = session.row["aspects"][num_sated:]
        chances = [1.0 - math.exp(-session.config.intent_strength / 2 ** (place + 1)) for place in range(len(wished))]
        places = [pair for pair in zip(wished, chances, strict=True) if pair[0] != without]
        _eliminate(session, there, places, 1.0, odds)
    weight_N = np.array([odds.get(title.id, 0.0) for title in titles])
    return np.asarray(weight_N / weight_N.sum())


@dataclass
class Replay:
    """One choice, with the session that it was made in and what was chosen there before."""

    session: Session
    choice: dict[str, Any]
    gone: set[str]


def _replay(config: WorldConfig, tables: dict[str, pa.Table], titles: list[Title]) -> Iterator[Replay]:
    """Live through the log, session by session, and stop at each choice."""
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
    by_id = {title.id: title for title in titles}
    last: dict[str, dict[str, int]] = defaultdict(dict)
    watched: dict[tuple[str, str], int] = defaultdict(int)
    for row in sorted(tables["sessions"].to_pylist(), key=lambda row: row["started_at"]):
        who, day_end = row["member_id"], _microseconds(row["started_at"]) // DAY_US * DAY_US
        out = {title.id: bisect.bisect_right(title.episodes, day_end) for title in titles}
        seen = {
            title.id: (last[who][title.id], watched[who, title.id] < (out[title.id] if title.show else 1))
            for title in titles
            if title.id in last[who]
        }
        session = Session(config, row, members[who], seen, slates[row["session_id"]])
        gone: set[str] = set()
        for choice in choices[row["session_id"]]:
            yield Replay(session, choice, gone.copy())
            title = by_id[choice["title_id"]]
            gone.add(title.id)
            done = finished[row["session_id"], title.id]
            before = watched[who, title.id]
            watched[who, title.id] = (0 if before >= out[title.id] else before) + done if title.show else done
            last[who][title.id] = _microseconds(choice["at"])


@pytest.mark.parametrize("mechanism", ["weights", "aspects"])
@pytest.mark.parametrize("intents", [True, False])
def test_the_planted_probability_is_that_of_the_readable_twin_and_titles_are_played_as_often(
    mechanism: str, intents: bool
) -> None:
    config = WorldConfig.model_validate(SMALL.model_dump() | {"mechanism": mechanism, "intents": intents})
    tables, titles = partition(config, 0), _titles(config)
    replays = list(_replay(config, tables, titles))
    assert len(replays) == tables["choices"].num_rows > 1_800
    probability_XN = np.array([_probabilities(r.session, titles, r.gone, r.choice["num_sated"]) for r in replays])
    ids = [title.id for title in titles]
    chosen_X = np.array([ids.index(r.choice["title_id"]) for r in replays])
    planted_X = np.array([r.choice["probability"] for r in replays])
    np.testing.assert_allclose(planted_X, probability_XN[np.arange(len(replays)), chosen_X], rtol=1e-9)
    assert [r.choice["true_rank"] for r in replays] == _ranks(probability_XN, chosen_X)
    habitual_XN = np.array([_probabilities(r.session, titles, r.gone, 0, "all") for r in replays])
    assert [r.choice["true_rank_without_intents"] for r in replays] == _ranks(habitual_XN, chosen_X)
    assert _misfit(probability_XN, chosen_X) < 1.5

    wrong_XN = np.sqrt(probability_XN)
    assert _misfit(wrong_XN / wrong_XN.sum(axis=1, keepdims=True), chosen_X) > 2.5
    if intents:
        assert _misfit(habitual_XN, chosen_X) > 2.5


def _ranks(probability_XN: NDArray[np.float64], chosen_X: NDArray[np.int64]) -> list[int]:
    own_X1 = probability_XN[np.arange(len(chosen_X)), chosen_X][:, None]
    return list((probability_XN > own_X1 * (1.0 + 1e-9)).sum(axis=1))


@pytest.mark.parametrize("mechanism", ["weights", "aspects"])
def test_the_primary_intent_is_the_one_whose_absence_changes_the_distribution_most(mechanism: str) -> None:
    config = WorldConfig.model_validate(SMALL.model_dump() | {"mechanism": mechanism, "num_members": 40})
    tables, titles = partition(config, 0), _titles(config)
    found = set()
    for replay in _replay(config, tables, titles):
        if replay.choice["step"] > 0:
            continue
        row = replay.session.row
        p_N = _probabilities(replay.session, titles, set(), 0)
        there = p_N > 0
        information = {}
        for intent in PLANTED_INTENTS:
            q_N = _probabilities(replay.session, titles, set(), 0, intent) if row[intent] is not None else p_N
            information[intent] = float((p_N[there] * np.log(p_N[there] / q_N[there])).sum())
            assert row[f"information_{intent}"] == pytest.approx(information[intent], rel=1e-6, abs=1e-9)
        strongest = max(information, key=lambda intent: information[intent])
        assert row["primary_intent"] == (strongest if information[strongest] > 1e-9 else None)
        found.add(strongest)
    assert len(found) >= (2 if mechanism == "weights" else 4)


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
