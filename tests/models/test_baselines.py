"""The counting recommenders: the shared contract, hand-worked scores, and slow twins."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray

from foretaste.contracts.catalogue import Catalogue
from foretaste.contracts.histories import Histories, concatenate
from foretaste.models.baselines import (
    BASELINES,
    VSTAN,
    Markov,
    MarkovConfig,
    Popularity,
    RecentPopularity,
    RecentPopularityConfig,
    SessionKNN,
    SessionKNNConfig,
    VSTANConfig,
    baseline,
    fit_baseline,
)
from foretaste.models.baselines.markov import last_known
from foretaste.models.baselines.popularity import DAY_US
from foretaste.models.contract import Recommender
from foretaste.testing.contract_recommender import (
    START_US,
    assert_recommender_contract,
    one_history,
    small_catalogue,
    small_log,
)


def made(name: str) -> Callable[[Histories, Catalogue], Recommender]:
    """A way to fit the classic model of that name."""
    return lambda log, titles: fit_baseline(baseline(name), log=log, timeline=log, catalogue=titles)


EVERY_BASELINE = [pytest.param(made(name), id=name) for name in BASELINES]
LATE = np.array([START_US + 400 * DAY_US], dtype=np.int64)


def ask(model: Recommender, titles: list[int], asof: int = int(LATE[0])) -> NDArray[np.float32]:
    """Scores of one history."""
    scores_BN = model.scores(one_history(titles), np.array([asof], dtype=np.int64))
    row_N: NDArray[np.float32] = scores_BN[0]
    return row_N


@pytest.mark.parametrize("make", EVERY_BASELINE)
def test_every_baseline_keeps_the_contract_of_recommenders(
    make: Callable[[Histories, Catalogue], Recommender],
) -> None:
    assert_recommender_contract(make)


@pytest.mark.parametrize("make", EVERY_BASELINE)
def test_a_baseline_fitted_on_nothing_scores_all_titles_alike(
    make: Callable[[Histories, Catalogue], Recommender],
) -> None:
    model = make(one_history([]), small_catalogue())
    scores_N = ask(model, [1, 2])
    assert np.isfinite(scores_N).all()
    assert len(set(scores_N.tolist())) == 1


@pytest.mark.parametrize("make", EVERY_BASELINE)
def test_unknown_titles_in_the_log_are_not_counted(make: Callable[[Histories, Catalogue], Recommender]) -> None:
    with_unknown = make(concatenate([one_history([1, 2, 1, 2, 3]), one_history([0, 0, 0])]), small_catalogue())
    without = make(one_history([1, 2, 1, 2, 3]), small_catalogue())
    np.testing.assert_array_equal(ask(with_unknown, [1]), ask(without, [1]))


def test_popularity_is_the_share_of_choices() -> None:
    model = Popularity.fit(concatenate([one_history([1, 1, 2]), one_history([3])]), small_catalogue(3))
    np.testing.assert_allclose(ask(model, []), [0.5, 0.25, 0.25])


def test_only_the_actions_asked_for_count_as_choices() -> None:
    log = one_history([1, 1, 2])
    assert Popularity.fit(log, small_catalogue(3), actions=["play"]).share_N[0] == pytest.approx(2 / 3)
    assert len(set(Popularity.fit(log, small_catalogue(3), actions=["rate"]).share_N.tolist())) == 1
    with pytest.raises(KeyError):
        Popularity.fit(log, small_catalogue(3), actions=["purchase"])


def test_recent_popularity_counts_the_seven_days_before_and_nothing_at_or_after() -> None:
    log = concatenate([one_history([n], start=START_US + day * DAY_US) for n, day in [(1, 0), (2, 3), (3, 7), (4, 9)]])
    model = RecentPopularity.fit(log, small_catalogue(4))
    counts_N = np.floor(ask(model, [], asof=START_US + 7 * DAY_US))
    np.testing.assert_array_equal(counts_N, [1, 1, 0, 0])  # day 0 is exactly 7 days before; day 7 is the instant itself
    np.testing.assert_array_equal(np.floor(ask(model, [], asof=START_US + 7 * DAY_US + 1)), [0, 1, 1, 0])


def test_recent_popularity_does_not_change_with_what_happens_at_or_after_the_instant() -> None:
    log, titles = small_log(), small_catalogue()
    rng = np.random.default_rng(1)
    for asof in rng.choice(log.at_T, size=20):
        future_T = log.at_T >= asof
        other = rng.integers(1, len(titles) + 1, size=len(log.title_T)).astype(np.int32)
        title_T = np.where(future_T, other, log.title_T)
        changed = Histories(log.offsets_B1, title_T, log.action_T, log.at_T, log.session_T, log.dwell_T, log.fraction_T)
        one, two = (RecentPopularity.fit(part, titles) for part in (log, changed))
        np.testing.assert_array_equal(ask(one, [], int(asof)), ask(two, [], int(asof)))


def test_recent_popularity_agrees_with_counting_one_by_one() -> None:
    log, titles = small_log(), small_catalogue()
    model = RecentPopularity.fit(log, titles, config=RecentPopularityConfig(days=1.5))
    asof_B = np.random.default_rng(2).choice(log.at_T, size=40)
    empty = concatenate([one_history([])] * len(asof_B))
    scores_BN = model.scores(empty, asof_B)
    for b, asof in enumerate(asof_B):
        recent, all_time = [0] * len(titles), [0] * len(titles)
        for title, at in zip(log.title_T.tolist(), log.at_T.tolist(), strict=True):
            all_time[title - 1] += at < asof
            recent[title - 1] += asof - 1.5 * DAY_US <= at < asof
        want = [r + a / (max(all_time) + 1) for r, a in zip(recent, all_time, strict=True)]
        np.testing.assert_allclose(scores_BN[b], want, rtol=1e-6)


def test_markov_is_the_smoothed_frequency_after_the_last_known_title() -> None:
    log = concatenate([one_history([1, 2]), one_history([1, 2]), one_history([1, 3])])
    model = Markov.fit(log, small_catalogue(3), config=MarkovConfig(smoothing=3.0))
    share = np.array([3, 2, 1]) / 6
    np.testing.assert_allclose(ask(model, [3, 1, 0]), (np.array([0, 2, 1]) + 3 * share) / 6, rtol=1e-6)
    np.testing.assert_allclose(ask(model, [2]), share, rtol=1e-6)  # nothing follows 2: popularity
    np.testing.assert_allclose(ask(model, []), share, rtol=1e-6)


def test_markov_does_not_count_a_step_from_one_actor_to_the_next() -> None:
    model = Markov.fit(concatenate([one_history([1, 2]), one_history([3, 1])]), small_catalogue(3))
    assert model.counts_N1N.toarray()[2, 2] == 0
    assert model.counts_N1N.sum() == 2


def test_the_last_known_title_is_looked_up_within_the_history_only() -> None:
    parts = [one_history([5, 6]), one_history([]), one_history([0]), one_history([7, 0]), one_history([])]
    assert last_known(concatenate(parts)).tolist() == [6, 0, 0, 7, 0]


def slow_session_knn(log: Histories, titles: list[int], num_titles: int, config: SessionKNNConfig) -> list[float]:
    """Session-kNN as one would write it on paper."""
    sessions: list[tuple[int, set[int]]] = []
    for b in range(len(log)):
        span = range(int(log.offsets_B1[b]), int(log.offsets_B1[b + 1]))
        for number in sorted({int(log.session_T[t]) for t in span}):
            rows = [t for t in span if log.session_T[t] == number]
            sessions.append((int(log.at_T[rows[-1]]), {int(log.title_T[t]) for t in rows}))
    sessions.sort(key=lambda session: -session[0])
    query = titles[-config.query_length :]
    weight = {title: (place + 1) / len(query) for place, title in enumerate(query)}
    similar: dict[int, float] = {}
    for title, w in weight.items():
        for number in [n for n, (_, members) in enumerate(sessions) if title in members][: config.sample]:
            similar[number] = similar.get(number, 0.0) + w / len(sessions[number][1]) ** config.length_power
    newest = sorted(similar)[: config.sample]
    nearest = sorted(newest, key=lambda n: (-round(similar[n], 5), n))[: config.neighbours]
    total = sum(similar[n] for n in nearest)
    votes = [0.0] * num_titles
    for n in nearest:
        for title in sessions[n][1]:
            rarity = np.log(len(sessions) / sum(title in members for _, members in sessions))
            seen = config.seen_weight if title in weight else 1.0
            votes[title - 1] += seen * similar[n] / total * rarity**config.rarity_power
    counts = np.bincount(log.title_T, minlength=num_titles + 1)[1:]
    return [v + config.popularity_weight * c / counts.max() for v, c in zip(votes, counts, strict=True)]


SESSION_KNN_CONFIGS = [
    SessionKNNConfig(seen_weight=1.0),
    SessionKNNConfig(query_length=2, sample=9, rarity_power=0.0, seen_weight=0.25),
]


@pytest.mark.parametrize("config", SESSION_KNN_CONFIGS)
def test_session_knn_agrees_with_its_slow_twin(config: SessionKNNConfig) -> None:
    log, titles = small_log(), small_catalogue()
    model = SessionKNN.fit(log, titles, config=config)
    for query in ([1], [2, 3, 4], [5, 1, 5, 9, 12]):
        want = slow_session_knn(log, query, len(titles), config)
        np.testing.assert_allclose(ask(model, query), want, rtol=1e-4, atol=1e-5)


def test_session_knn_gives_many_questions_the_answers_that_each_gets_alone() -> None:
    log, titles = small_log(num_actors=300), small_catalogue()
    model = SessionKNN.fit(log, titles)
    scores_BN = model.scores(log, log.at_T[log.offsets_B1[1:] - 1])
    for b in (0, 127, 128, 299):
        np.testing.assert_allclose(scores_BN[b], ask(model, log.rows(np.array([b])).title_T.tolist()), rtol=1e-5)


def test_session_knn_prefers_what_stood_beside_the_newest_title() -> None:
    log = concatenate([one_history([1, 2]), one_history([3, 4])])
    model = SessionKNN.fit(log, small_catalogue(5))
    scores_N = ask(model, [1, 3])
    assert scores_N[3] > scores_N[1] > scores_N[4]


def test_session_knn_falls_back_to_popularity_where_nothing_matches() -> None:
    log = concatenate([one_history([1, 1, 2]), one_history([1])])
    model = SessionKNN.fit(log, small_catalogue(4))
    assert np.argsort(-ask(model, [4]), kind="stable").tolist()[:2] == [0, 1]


def test_session_knn_samples_the_most_recent_sessions() -> None:
    old = [one_history([1, 2], start=START_US) for _ in range(3)]
    new = one_history([1, 3], start=START_US + DAY_US)
    model = SessionKNN.fit(concatenate([*old, new]), small_catalogue(3), config=SessionKNNConfig(sample=1))
    scores_N = ask(model, [1])
    assert scores_N[2] > 0.9
    assert scores_N[1] < 0.01


def slow_vstan(log: Histories, history: Histories, asof: int, num_titles: int, config: VSTANConfig) -> list[float]:
    """VSTAN as one would write it on paper."""
    sessions: list[tuple[int, list[int]]] = []
    for b in range(len(log)):
        span = range(int(log.offsets_B1[b]), int(log.offsets_B1[b + 1]))
        for number in sorted({int(log.session_T[t]) for t in span}):
            rows = [t for t in span if log.session_T[t] == number]
            sessions.append((int(log.at_T[rows[-1]]), [int(log.title_T[t]) for t in rows]))
    sessions.sort(key=lambda session: -session[0])
    question = history.title_T.tolist()[-config.query_length :]
    back = {title: len(question) - 1 - place for place, title in enumerate(question)}
    near: list[tuple[float, list[int]]] = []
    for at, titles in [one for one in sessions if set(one[1]) & set(back)][: config.sample]:
        similarity = sum(np.exp(-back[t] / config.question_decay) for t in set(titles) if t in back)
        similarity /= np.sqrt(len(set(titles)))
        if config.age_days is not None:
            similarity *= np.exp(-abs(asof - at) / DAY_US / config.age_days)
        near.append((similarity, titles))
    near = sorted(near, key=lambda one: -round(one[0], 9))[: config.neighbours]
    votes, total = [0.0] * num_titles, 0.0
    for similarity, titles in near:
        if config.match_decay is not None:
            similarity *= np.exp(-min(back[t] for t in titles if t in back) / config.match_decay)
        total += similarity
        last_place = {title: place for place, title in enumerate(titles)}
        shared = max(place for place, title in enumerate(titles) if title in back)
        for title, place in last_place.items():
            rarity = np.log(len(sessions) / sum(title in other for _, other in sessions))
            near_by = 1.0
            if config.neighbour_decay is not None:
                near_by = np.exp(-abs(place - shared) / config.neighbour_decay)
            seen = config.seen_weight if title in back else 1.0
            votes[title - 1] += seen * similarity * near_by * (1 + config.rarity_weight * rarity)
    counts = np.bincount(log.title_T, minlength=num_titles + 1)[1:]
    behind = [config.popularity_weight * count / counts.max() for count in counts]
    return [(vote / total if total else 0.0) + more for vote, more in zip(votes, behind, strict=True)]


VSTAN_CONFIGS = [
    VSTANConfig(),
    VSTANConfig(age_days=0.2, neighbours=7, query_length=2),
    VSTANConfig(age_days=None, sample=9, rarity_weight=0.0, neighbour_decay=0.7),
    VSTANConfig(neighbour_decay=None, match_decay=None, rarity_weight=3.0, seen_weight=0.0),
]


@pytest.mark.parametrize("config", VSTAN_CONFIGS)
def test_vstan_agrees_with_its_slow_twin(config: VSTANConfig) -> None:
    log, titles = small_log(), small_catalogue()
    model = VSTAN.fit(log, titles, config=config)
    asof = int(log.at_T.max()) + DAY_US // 3
    for query in ([1], [2, 3, 4], [5, 1, 5, 9, 12]):
        want = slow_vstan(log, one_history(query), asof, len(titles), config)
        np.testing.assert_allclose(ask(model, query, asof), want, rtol=1e-4, atol=1e-6)


def test_vstan_prefers_what_stands_next_to_the_shared_title_and_recent_sessions() -> None:
    near = VSTAN.fit(one_history([1, 2, 3, 4], per_session=4), small_catalogue(4), config=VSTANConfig(rarity_weight=0))
    scores_N = ask(near, [2])
    assert scores_N[2] == pytest.approx(scores_N[0], rel=1e-3)
    assert scores_N[2] > scores_N[3]
    log = concatenate([one_history([1, 2], start=START_US), one_history([1, 3], start=START_US + 30 * DAY_US)])
    aware = VSTAN.fit(log, small_catalogue(3), config=VSTANConfig(age_days=1.0))
    asof = START_US + 31 * DAY_US
    assert ask(aware, [1], asof)[2] > 100 * ask(aware, [1], asof)[1]


def test_vstan_without_age_does_not_read_the_time_of_the_question() -> None:
    log, titles = small_log(), small_catalogue()
    blind = fit_baseline(baseline("vstan", time_aware=False), log=log, timeline=log, catalogue=titles)
    aware = fit_baseline(baseline("vstan"), log=log, timeline=log, catalogue=titles)
    early, late = START_US, START_US + 900 * DAY_US
    np.testing.assert_array_equal(ask(blind, [1, 2], early), ask(blind, [1, 2], late))
    assert not np.array_equal(ask(aware, [1, 2], early), ask(aware, [1, 2], late))


def test_vstan_gives_many_questions_the_answers_that_each_gets_alone() -> None:
    log, titles = small_log(num_actors=100), small_catalogue()
    model = VSTAN.fit(log, titles)
    asof_B = log.at_T[log.offsets_B1[1:] - 1]
    scores_BN = model.scores(log, asof_B)
    for b in (0, 31, 32, 99):
        alone_1N = model.scores(log.rows(np.array([b])), asof_B[b : b + 1])
        np.testing.assert_allclose(scores_BN[b], alone_1N[0], rtol=1e-5)


def test_the_registry_builds_every_classic_model_from_its_frozen_configuration() -> None:
    log, titles = small_log(), small_catalogue()
    for name in BASELINES:
        config = baseline(name)
        assert fit_baseline(config, log=log, timeline=log, catalogue=titles).name == name
        assert type(config).model_validate_json(config.model_dump_json()) == config
        assert len(config.fingerprint()) == 12
    with pytest.raises(ValueError, match="no classic model 'bert'; there are popularity"):
        baseline("bert")
    with pytest.raises(ValueError, match="none without its time"):
        baseline("recent_popularity", time_aware=False)
