"""Never empty: what is shown while a model is missing, failed or late, from the first request on."""

from __future__ import annotations

from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from foretaste.contracts.catalogue import catalogue
from foretaste.contracts.decisions import Fallback, Level
from foretaste.contracts.histories import Histories
from foretaste.contracts.wire import EventsRequest, RecommendAnswer, RecommendRequest
from foretaste.feedback.decision_log import DecisionLog, plain_rows
from foretaste.feedback.event_log import EventLog
from foretaste.feedback.past import Past
from foretaste.feedback.session_log import open_session_log
from foretaste.jobs.session_knn import file_index
from foretaste.models.baselines.saved_knn import build_knn, knn_arrays
from foretaste.models.baselines.session_knn import SessionKNN
from foretaste.ops.files import write_parquet
from foretaste.serving.config import ServiceConfig, ServingConfig
from foretaste.serving.fallback import preferred
from foretaste.serving.models import Models, load_models
from foretaste.serving.replay import Replay
from foretaste.serving.service import open_service
from foretaste.testing.bundles import file_intent
from foretaste.testing.fakes import FakeClock, FakeViews, two_genre_titles

TITLES = two_genre_titles()
KNOWN = catalogue(TITLES)
AT = datetime(2026, 1, 1, tzinfo=UTC)


def sessions(*of_codes: tuple[int, ...]) -> Histories:
    """Histories of one session each, an hour apart."""
    offsets = np.concatenate([[0], np.cumsum([len(one) for one in of_codes])]).astype(np.int64)
    size = int(offsets[-1])
    return Histories(
        offsets_B1=offsets,
        title_T=np.array([code for one in of_codes for code in one], dtype=np.int32),
        action_T=np.zeros(size, dtype=np.int32),
        at_T=(3_600_000_000 * np.arange(size)).astype(np.int64),
        session_T=np.zeros(size, dtype=np.int32),
        dwell_T=np.zeros(size, dtype=np.float32),
        fraction_T=np.zeros(size, dtype=np.float32),
    )


def neighbours() -> SessionKNN:
    """Whoever chose t00 went on with t11 and t13; t31 was chosen most."""
    return SessionKNN.fit(sessions((1, 12, 14), (1, 12), (32, 30), (32, 29), (32, 28)), KNOWN)


def ids(answer: RecommendAnswer) -> list[str]:
    return [item.title_id for item in answer.items]


def without(bench: Any, **models: Any) -> Any:
    return bench.recommender(intent=None, ranker=None, intent_fingerprint=None, ranker_fingerprint=None, **models)


def test_the_index_comes_back_from_its_arrays_bit_for_bit() -> None:
    model = neighbours()
    again = build_knn(model.config.model_dump(), knn_arrays(model), num_titles=len(KNOWN))
    asked, asof_B = sessions((1,), (32, 2), ()), np.zeros(3, dtype=np.int64)
    assert np.array_equal(model.scores(asked, asof_B), again.scores(asked, asof_B))
    with pytest.raises(ValueError, match="7 titles"):
        build_knn(model.config.model_dump(), knn_arrays(model), num_titles=7)
    with pytest.raises(ValueError, match="wanted arrays"):
        build_knn(model.config.model_dump(), {"prior_N": model.prior_N}, num_titles=len(KNOWN))


def test_without_an_intent_model_the_most_similar_sessions_answer(bench: Any) -> None:
    bench.act("play", "t00")
    answer = bench.ask(on=without(bench, neighbours=neighbours(), neighbours_fingerprint="knn-1"))
    assert {"t11", "t13"} <= set(ids(answer)[:3])
    assert (answer.fallback.reason, answer.fallback.level) == (Fallback.NO_MODEL, Level.SESSION_KNN)
    assert {item.source for item in answer.items} == {"session_knn"}
    row = bench.decisions.get(answer.decision_id)
    known = {one["name"]: one["value"] for one in row["features"]}
    assert (known["session_knn"], known["answered"]) == ("knn-1", "session_log,features,session_knn")
    assert row["fallback"] == "no_model"


def test_where_no_session_is_similar_what_is_popular_in_the_genres_of_the_session_is_shown(bench: Any) -> None:
    on = without(bench, neighbours=neighbours())
    bench.act("play", "t06")  # a comedy that no session of the index has
    answer = bench.ask(on=on, k=25)
    assert answer.fallback.level is Level.POPULAR_IN_GENRES
    assert ids(answer)[:20] == [f"t{number:02d}" for number in range(38, -1, -2)]
    assert ids(answer)[20:] == ["t39", "t37", "t35", "t33", "t31"], "no list ends with the genre"


def test_the_genres_of_a_member_stand_in_for_those_of_a_session(bench: Any) -> None:
    class Drama(FakeViews):
        def members(self, *given: Any) -> Any:
            view = super().members(*given)
            view.genre_affinity_BG[:] = [0.1, 0.9]
            return view

    answer = bench.ask(on=bench.recommender(views=bench.views(Drama(bench.catalogue)), intent=None, ranker=None))
    assert answer.fallback.level is Level.POPULAR_IN_GENRES
    assert all(int(title_id[1:]) % 2 for title_id in ids(answer))


def test_the_genres_of_an_intent_count_before_those_of_the_session(bench: Any) -> None:
    predict = bench.intent.predict

    def spoiled(*given: Any) -> Any:
        found = predict(*given)
        shares = {**found.intents, "genre": np.array([[0.1, 0.9]], dtype=np.float32)}
        return replace(found, scores_BN=np.full_like(found.scores_BN, np.nan), intents=shares)

    bench.intent.predict = spoiled
    bench.act("play", "t06")
    answer = bench.ask()
    assert (answer.fallback.reason, answer.fallback.level) == (Fallback.INTENT_FAILED, Level.POPULAR_IN_GENRES)
    assert all(int(title_id[1:]) % 2 for title_id in ids(answer))


@pytest.mark.parametrize("who", [{"member_id": None, "session_id": "fresh"}, {"member_id": "new-1"}])
@pytest.mark.parametrize("broken", ["nothing", "ranker", "intent", "every model", "every store", "everything"])
def test_guests_and_members_without_history_get_a_whole_list_from_their_first_request(
    bench: Any, who: dict[str, Any], broken: str
) -> None:
    class Down:
        def read(self, *_: object, **__: object) -> None:
            raise ConnectionError("store down")

    if broken in ("every store", "everything"):
        bench.source.failure = ConnectionError("store down")
    if broken in ("intent", "everything"):
        bench.intent.failure = RuntimeError("broken")
    if broken in ("ranker", "everything"):
        bench.ranker.failure = RuntimeError("broken")
    stores = {"sessions": Down()} if broken in ("every store", "everything") else {}
    gone = {"intent": None, "ranker": None} if broken == "every model" else {}
    answer = bench.ask(on=bench.recommender(**stores, **gone), **who)
    assert len(answer.items) == 10
    assert len(set(ids(answer))) == 10
    levels = {"nothing": Level.RANKER, "ranker": Level.INTENT, "every store": Level.RANKER}
    assert answer.fallback.level is levels.get(broken, Level.POPULAR)
    assert answer.fallback.used is (broken != "nothing")
    assert bench.decisions.get(answer.decision_id)["fallback"] == answer.fallback.reason


def test_when_the_nearest_sessions_fail_too_there_still_is_a_list(bench: Any) -> None:
    class Broken:
        prior_N = np.zeros(40, dtype=np.float32)

        def scores(self, *_: object) -> Any:
            raise RuntimeError("broken")

    bench.act("play", "t00")
    assert bench.ask(on=without(bench, neighbours=Broken())).fallback.level is Level.POPULAR_IN_GENRES


def test_a_genre_is_preferred_where_it_has_more_than_an_even_share() -> None:
    assert preferred(np.array([0.2, 0.5, 0.3, 0.0])).tolist() == [1, 2]
    assert preferred(np.array([0.9, 0.1])).tolist() == [0]
    assert preferred(np.array([0.5, 0.5])).tolist() == []
    assert preferred(None).tolist() == []
    assert preferred(np.array([np.nan, 1.0])).tolist() == []


def workspace(folder: Path) -> Path:
    write_parquet(TITLES, folder / "prepared" / "titles.parquet")
    file_index(folder / "registry", neighbours(), KNOWN, now=AT, about={})
    return folder


def load(folder: Path) -> Models:
    return load_models(folder / "registry", folder / "prepared")


def test_a_filed_index_is_loaded_beside_an_intent_model_and_without_one(tmp_path: Path) -> None:
    folder = workspace(tmp_path)
    assert load(folder).neighbours_fingerprint is not None
    file_intent(folder / "registry", TITLES, at=AT)
    both = load(folder)
    assert both.intent is not None
    assert both.neighbours is not None


@pytest.mark.parametrize("what", ["another catalogue", "a damaged file"])
def test_an_index_that_does_not_fit_is_left_out_and_the_service_starts(tmp_path: Path, what: str) -> None:
    folder = workspace(tmp_path)
    if what == "another catalogue":
        write_parquet(two_genre_titles(7), folder / "prepared" / "titles.parquet")
    else:
        (file,) = (folder / "registry").rglob("index.safetensors")
        file.write_bytes(file.read_bytes()[:-1])
    assert load(folder).neighbours is None


def test_what_the_nearest_sessions_answered_is_made_again_bit_for_bit_after_they_were_filed_anew(
    tmp_path: Path,
) -> None:
    folder, clock = workspace(tmp_path), FakeClock()
    config = ServiceConfig(
        workspace=folder, features_repo=Path("features"), serving=ServingConfig(audit_share=1.0, epsilon=0.3)
    )
    with closing(open_service(config, clock=clock)) as service:
        for number, title_id in enumerate(["t00", "t31", "t00", "t29"]):
            who = {"member_id": f"m{number % 2}", "session_id": "s"}
            event = who | {
                "event_id": f"e{number}",
                "at": clock.now.isoformat(),
                "action": "play",
                "title_id": title_id,
            }
            service.accept(EventsRequest.model_validate({"events": [event]}))
            clock.move(seconds=1)
            answer = service.recommend(RecommendRequest.model_validate(who | {"k": 5}))
            assert answer.fallback.level is Level.SESSION_KNN
    file_index(folder / "registry", SessionKNN.fit(sessions((5, 6)), KNOWN), KNOWN, now=clock.now, about={})
    with closing(DecisionLog(folder / "serving" / "decisions", clock=clock)) as log:
        decisions = plain_rows(log.read())
    with closing(open_session_log(config.serving.session_log, folder / "serving")) as log:
        events = EventLog(folder / "serving" / "events")
        events.ship(log)
        past = Past(events.read())
    tally = Replay(folder / "registry", folder / "prepared", None).compare(decisions, past)
    assert (tally.decisions, tally.num_mismatches, tally.left_out) == (4, 0, {})
    assert tally.values["decision.scores"] > 0
    known = [{"name": "session_knn", "value": "000000000000"}]
    renamed = [
        row | {"features": [one for one in row["features"] if one["name"] != "session_knn"] + known}
        for row in decisions
    ]
    gone = Replay(folder / "registry", folder / "prepared", None).compare(renamed, past)
    assert gone.left_out == {"a model of the decision is gone from the registry": 4}
