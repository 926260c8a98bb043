"""A catalogue too large to score each title of is searched: nearly the same pool, the same scores, made again."""

from __future__ import annotations

import json
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from foretaste.contracts.wire import EventsRequest, RecommendRequest
from foretaste.contracts.wire_records import ReplayRequest
from foretaste.feedback.session_log import SessionLogConfig
from foretaste.models.title_query import TitleQuery, TitleTable
from foretaste.serving.config import ServiceConfig, ServingConfig
from foretaste.serving.nearest import NearestConfig
from foretaste.serving.service import Service, open_service
from foretaste.serving.shaping import SURFACES
from foretaste.serving.title_index import UNSCORED, TitleIndex
from foretaste.surfaces.prequery import PREQUERY
from foretaste.testing.bundles import file_intent, file_ranker
from foretaste.testing.fakes import FakeClock, two_genre_titles

N, K, QUERIES, POOL = 20_000, 48, 24, 100
NOW = 3_000_000
NONE = np.zeros(0, dtype=np.int32)


def titles() -> TitleTable:
    """Titles in two hundred clouds, each in one of sixteen genres, chosen by Zipf's law, released over six years."""
    dice = np.random.default_rng(0)
    centre = np.random.default_rng(9).normal(size=(200, 32))
    vector = (centre[dice.integers(200, size=N)] + dice.normal(size=(N, 32))) * 0.25
    columns = np.concatenate([vector, np.eye(16)[dice.integers(16, size=N)]], axis=1).astype(np.float32)
    bias = (-0.5 * np.log(1 + dice.permutation(N))).astype(np.float32)
    released = torch.from_numpy(dice.integers(0, NOW, size=N).astype(np.int32))
    return TitleTable(torch.from_numpy(columns), torch.from_numpy(bias), released, (43_200, 525_600))


def queries() -> list[TitleQuery]:
    """States near a cloud, wishes for genres and recencies, and what some titles of the history are."""
    dice = np.random.default_rng(1)
    centre = np.random.default_rng(9).normal(size=(200, 32))
    found = []
    for _ in range(QUERIES):
        state = (centre[dice.integers(200)] + 0.7 * dice.normal(size=32)) * 0.6
        both = np.concatenate([state, dice.normal(size=16)])[None].astype(np.float32)
        column_E, value_E = dice.integers(N, size=5), dice.normal(size=5).astype(np.float32) * 3
        classes = dice.normal(size=(1, 4)).astype(np.float32)
        found.append(TitleQuery(both, np.array([NOW]), classes, np.array([0, 5]), column_E, value_E))
    return found


@pytest.fixture(scope="module")
def index() -> TitleIndex:
    return TitleIndex(titles(), NearestConfig(exact_up_to_titles=1_000, searched_share=0.25))


def blocked(share: float = 0.0) -> NDArray[np.bool_]:
    blocked_N1 = np.random.default_rng(2).random(N + 1) < share
    blocked_N1[0] = True
    return blocked_N1


def search(index: TitleIndex, query: TitleQuery, blocked_N1: NDArray[np.bool_], **more: Any) -> NDArray[np.float32]:
    told: dict[str, Any] = {"brought": NONE, "size": POOL, "boosted": False} | more
    return index.scores(query, blocked_N1=blocked_N1, **told)


def best(scores_N: NDArray[np.floating[Any]], blocked_N1: NDArray[np.bool_]) -> list[int]:
    open_N = np.where(blocked_N1[1:], -np.inf, scores_N.astype(np.float64))
    return np.argsort(-open_N, kind="stable")[:POOL].tolist()  # type: ignore[no-any-return]


@pytest.mark.parametrize("share", [0.0, 0.6])
def test_the_pool_is_nearly_that_of_all_scores_and_its_scores_are_exact(index: TitleIndex, share: float) -> None:
    table, blocked_N1 = titles(), blocked(share)
    recalls, levels = [], []
    for query in queries():
        exact_N = table.logits(query, 0, np.arange(N), table.classes(NOW)).astype(np.float64)
        found_N = search(index, query, blocked_N1)
        mine, wanted = best(found_N, blocked_N1), best(exact_N, blocked_N1)
        assert (found_N[mine] > UNSCORED).all()
        recalls.append(len(set(mine) & set(wanted)) / POOL)
        level = exact_N[mine] - found_N[mine]
        assert np.ptp(level) < 1e-4, "the order within the pool is that of the model"
        levels.append(abs(float(level.mean()) - np.log(np.exp(exact_N).sum())))
        assert (found_N > UNSCORED).sum() < 0.05 * N
    assert np.mean(recalls) > 0.93, recalls
    assert min(recalls) > 0.75, recalls
    assert max(levels) < 0.3, "nats by which the level is missed"


def test_more_cells_give_the_very_same_pool() -> None:
    table, blocked_N1 = titles(), blocked(0.3)
    whole = TitleIndex(table, NearestConfig(exact_up_to_titles=1_000, searched_share=1.0))
    for query in queries()[:6]:
        exact_N = table.logits(query, 0, np.arange(N), table.classes(NOW))
        assert set(best(search(whole, query, blocked_N1), blocked_N1)) == set(best(exact_N, blocked_N1))


def test_where_little_may_be_shown_or_much_is_boosted_everything_that_may_be_is_scored(index: TitleIndex) -> None:
    query, few, table = queries()[0], blocked(0.97), titles()
    assert 100 < (~few).sum() < 1_000
    found_N = search(index, query, few)
    scored = found_N > UNSCORED
    assert scored[~few[1:]].all()
    assert scored.sum() < 2_000
    exact_N = table.logits(query, 0, np.arange(N), table.classes(NOW)).astype(np.float64)
    np.testing.assert_allclose(found_N[scored], (exact_N - np.log(np.exp(exact_N).sum()))[scored], atol=0.3)
    assert (search(index, query, blocked(), boosted=True) > UNSCORED).all()


def test_what_a_source_brought_and_what_the_history_has_is_scored(index: TitleIndex) -> None:
    query, brought = queries()[0], np.array([7, 19_999, 20_000], dtype=np.int32)
    found_N = search(index, query, blocked(), brought=brought)
    assert (found_N[brought - 1] > UNSCORED).all()
    assert (found_N[query.column_E] > UNSCORED).all()


def test_an_index_made_again_finds_the_same_to_the_bit(index: TitleIndex) -> None:
    again = TitleIndex(titles(), NearestConfig.named(index.name))
    assert again.name == index.name
    assert json.loads(index.name)["searched_share"] == 0.25
    for query in queries()[:8]:
        np.testing.assert_array_equal(search(index, query, blocked(0.3)), search(again, query, blocked(0.3)))


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ServiceConfig:
    monkeypatch.setitem(SURFACES, "prequery", replace(PREQUERY, pool_size=16))
    at = datetime(2026, 1, 1, tzinfo=UTC)
    intent = file_intent(tmp_path / "registry", two_genre_titles(400), at=at)
    file_ranker(tmp_path / "registry", intent=intent.fingerprint, at=at, by_dice=True)
    values = {"audit_share": 1.0, "epsilon": 0.5, "budget_ms": 60_000.0}
    log = SessionLogConfig(durable=False, window_days=30.0)
    nearest = NearestConfig(exact_up_to_titles=100, searched_share=0.2)
    serving = ServingConfig(nearest=nearest, session_log=log, **values)
    return ServiceConfig(workspace=tmp_path, features_repo=Path("features"), serving=serving)


def act(service: Service, clock: FakeClock, count: int = 5) -> None:
    for number in range(count):
        event = {"event_id": f"e{number}", "member_id": "m", "session_id": "s", "at": clock.now.isoformat()}
        event |= {"action": "play", "title_id": f"t{11 * number:02d}"}
        assert service.accept(EventsRequest(events=[event])).accepted == 1
        clock.move(seconds=30)


REQUESTS: list[dict[str, Any]] = [
    {},
    {"exclude_ids": ["t01", "t02"]},
    {"filter": '"comedy" in genres'},
    {"filter": 'kind == "show" and "comedy" in genres'},
    {"boost": [{"where": '"drama" in genres', "factor": 3.0}]},
]


def test_a_service_says_what_found_its_pool_and_makes_it_again(config: ServiceConfig) -> None:
    clock = FakeClock()
    with closing(open_service(config, clock=clock)) as service:
        act(service, clock)
        lists = []
        for more in REQUESTS:
            asked = RecommendRequest.model_validate({"member_id": "m", "session_id": "s", **more})
            found = service.recommend(asked)
            assert {item.source for item in found.items} == {"ranker"}
            assert len(found.items) == 10
            row = service.decision(str(found.decision_id))
            assert row is not None
            (name,) = (one["value"] for one in row["features"] if one["name"] == "title_index")
            assert NearestConfig.named(name) == config.serving.nearest
            again = service.replay(str(found.decision_id), ReplayRequest())
            assert again is not None
            assert again.identical, again.differences
            lists.append(([item.title_id for item in found.items], str(found.decision_id)))
        assert not {"t01", "t02"} & set(lists[1][0])
    exact = config.model_copy(update={"serving": config.serving.model_copy(update={"nearest": NearestConfig()})})
    with closing(open_service(exact, clock=clock)) as service:
        for _, decision_id in lists:
            again = service.replay(decision_id, ReplayRequest())
            assert again is not None
            assert again.identical, "whatever is set now"


def test_a_search_that_fails_leaves_a_list(config: ServiceConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise RuntimeError("no index")

    clock = FakeClock()
    with closing(open_service(config, clock=clock)) as service:
        monkeypatch.setattr(TitleIndex, "scores", fail)
        found = service.recommend(RecommendRequest(member_id="m", session_id="s"))
        assert (found.fallback.reason, len(found.items)) == ("intent_failed", 10)
        assert {item.source for item in found.items} == {"popular"}
